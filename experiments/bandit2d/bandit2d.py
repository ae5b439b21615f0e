"""The 2D bandit figure of SRPO (arXiv 2310.07297, figure 3), for five behavior distributions at once.

A bandit has no state, so each actor is one point a of the plane, and what SRPO does can be looked at: climb
Q(a) = -|a - a*|^2, but stay where the behavior distribution mu has data. For every distribution the figure shows
(a) samples of mu, (b) the density of the trained diffusion model, (c) a 7 x 7 grid of Qs, (d) the policy of every Q
without and with regularization, (e) the policies in between, as 1/beta goes from 0 to 1.

All of it is two populations: one behavior model per distribution, then 49 targets x 7 temperatures for each of them.
The target a* of a member is its observation: the critic reads it there, and the behavior model does not see it.

    python -m experiments.bandit2d.bandit2d --out=docs/results/bandit2d
"""

import dataclasses
import itertools
import math
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from tqdm import tqdm

from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.data.table import Slice
from jaxrl_srpo.envs.bandits import DISTRIBUTIONS
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import behavior, srpo
from jaxrl_srpo.nn import diffusion, policies
from jaxrl_srpo.population.member import make_members
from jaxrl_srpo.population.offline import OfflinePopulation
from jaxrl_srpo.report.drawing import save
from jaxrl_srpo.types import Array, ScoreModel, Spec

from .. import common
from .figure import INVERSE_BETAS, Result, draw, targets

MODULE = "bandit2d.bandit2d"
DESCRIPTION = """\
Trains SRPO on two-dimensional bandits and draws one picture per behavior distribution, DIRECTORY/NAME.png.
All policies go to DIRECTORY/bandit2d.csv."""

SAMPLES = 20_000
HELD_OUT = 1_000
ODE_STEPS = 40
COLUMNS = ("distribution", "target_x", "target_y", "inverse_beta", "action_x", "action_y", "log_density")

# Two dimensions need a smaller network than the published one, and no dropout: there is no shortage of samples.
BEHAVIOR = behavior.Settings(
    batch_size=128,
    learning_rate=5e-3,
    weight_decay=0.0,
    cosine=True,
    weight_average=0.999,
    width=64,
    hidden=128,
    blocks=2,
    dropout_rate=0.0,
)
# The behavior models see 4 a instead of a, which makes them learn several times faster. At the scale of the action box
# all detail is decided within the shortest few percent of the diffusion times, which training rarely draws.
SCALE = 4.0
# Of the paper's three weightings this is the score's own scale. With short diffusion times it makes the regularizer the
# gradient of log mu, hardly blurred, so that 1/beta has the units of the objective Q + 1/beta log mu.
POLICY = srpo.Settings(
    batch_size=32,
    learning_rate=1.5e-3,
    beta=1.0,
    time_min=0.005,
    time_max=0.05,
    weighting="alpha_over_sigma",
    minus_noise=True,
    width=32,
    own_layers=1,
)
GREEDY_SHARE = 0.3


class Options(NamedTuple):
    """What to run.

    Attributes:
      distributions: names out of `bandits.DISTRIBUTIONS`.
      seed: seed of samples, networks and noise.
      behavior_steps: updates of each diffusion model.
      policy_steps: updates of each actor.
      resolution: points per side of the density's grid.
    """

    distributions: tuple[str, ...] = tuple(DISTRIBUTIONS)
    seed: int = 0
    behavior_steps: int = 40_000
    policy_steps: int = 500
    resolution: int = 64


@struct.dataclass
class Behavior:
    """The distribution of actions a by the model of SCALE * a, without observations; satisfies `types.ScoreModel`."""

    model: ScoreModel

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """eps(a_t | t) [B, 2]; of the observations only the batch size counts.

        alpha a + sigma eps is, up to a factor, what SCALE a becomes at a later time, the one whose alpha / sigma is
        smaller by SCALE.
        """
        alpha, sigma = diffusion.marginal(times)
        later = diffusion.time_of_log_snr(jnp.log(alpha / (SCALE * sigma)))
        factor = diffusion.marginal(later).sigma / sigma
        return self.model.noise_prediction(factor[:, None] * noisy_actions, later, observations[:, :0])

    def log_density(self, actions: Array) -> Array:
        """Natural logarithm of mu(a) [B] at `actions` [B, 2]."""
        nothing = jnp.zeros((actions.shape[0], 0))
        return diffusion.log_density(self.model, SCALE * actions, nothing, ODE_STEPS) + 2.0 * math.log(SCALE)


@struct.dataclass
class QuadraticCritic:
    """Q(a) = -|a - s|^2, whose best action is the observation; satisfies `types.Critic`."""

    def q_values(self, observations: Array, actions: Array) -> Array:
        """[B, 1] action values of `actions` [B, 2] for targets `observations` [B, 2]."""
        return -jnp.sum((actions - observations) ** 2, axis=-1, keepdims=True)


def train_behaviors(options: Options) -> Behavior:
    """One diffusion model per distribution, leaves [distributions, ...]."""
    groups = len(options.distributions)
    samples = [np.asarray(_samples(name, options.seed, 0, SAMPLES)) for name in options.distributions]
    members = make_members(
        keys=[jax.random.fold_in(jax.random.key(options.seed), i) for i in range(groups)],
        settings=[dataclasses.replace(BEHAVIOR, steps=options.behavior_steps)] * groups,
        slices=[Slice(SAMPLES * i, SAMPLES) for i in range(groups)],
        groups=groups,
    )
    rows = _rows(np.zeros((groups * SAMPLES, 0)), SCALE * np.concatenate(samples))
    population = OfflinePopulation(
        behavior.init, behavior.update, Spec(0, 2), members, frozen=np.zeros(groups), rows=rows
    )
    _train("behavior", population, 0, options.behavior_steps)
    return Behavior(jax.tree.map(lambda x: x[:, 0], behavior.model_of(population.states)))


def train_policies(model: Behavior, options: Options) -> np.ndarray:
    """The actions [distributions, 49, K, 2] of all actors, trained as one population.

    Every actor first climbs its Q alone, then its own temperature sets in. So the policies of one target start from the
    same point, and each ends in the mode of mu that is closest to its target rather than to its initialization.
    """
    switch = round(GREEDY_SHARE * options.policy_steps)
    greedy = _policy_population(model, options, [0.0] * len(INVERSE_BETAS))
    _train("greedy policies", greedy, 0, switch)
    regularized = _policy_population(model, options, INVERSE_BETAS)
    regularized.restore(greedy.checkpoint())
    _train("policies", regularized, switch, options.policy_steps)

    def act(policy: policies.DeterministicPolicy, observation: Array) -> Array:
        return policy.act(observation[None])[0]

    groups, points = len(options.distributions), targets()
    observations = np.broadcast_to(points[_targets_of_members()], (groups, len(points) * len(INVERSE_BETAS), 2))
    actions = jax.jit(jax.vmap(jax.vmap(act)))(srpo.policy_of(regularized.states), observations)
    return np.asarray(actions).reshape(groups, len(points), len(INVERSE_BETAS), 2)


def _targets_of_members() -> np.ndarray:
    """The target of each member of a group, as an index [49 K]; temperatures are innermost."""
    return np.repeat(np.arange(len(targets())), len(INVERSE_BETAS))


def _policy_population(model: Behavior, options: Options, inverse_betas: Sequence[float]) -> OfflinePopulation:
    """All actors, a group per distribution, with K temperatures for every target."""
    groups, points = len(options.distributions), targets()
    key = jax.random.key(options.seed)
    one_each = make_members(
        keys=[jax.random.fold_in(key, i) for i in range(len(points))],
        settings=[dataclasses.replace(POLICY, steps=options.policy_steps)] * len(points),
        slices=[Slice(i, 1) for i in range(len(points))],
    )
    places = np.broadcast_to(_targets_of_members(), (groups, len(points) * len(INVERSE_BETAS)))
    members = jax.tree.map(lambda x: x[0, places], one_each)
    weights = jnp.broadcast_to(jnp.tile(jnp.asarray(inverse_betas, jnp.float32), len(points)), places.shape)
    members = dataclasses.replace(members, settings=dataclasses.replace(members.settings, regularization=weights))
    # Members run batched even on CPUs: they are tiny, and their passes through the shared model merge into one product.
    return OfflinePopulation(
        srpo.init,
        srpo.update,
        Spec(2, 2),
        members,
        frozen=srpo.Frozen(model, QuadraticCritic()),
        rows=_rows(points, np.zeros_like(points)),
        strategy="vmap",
    )


def measure(model: Behavior, actions: np.ndarray, options: Options) -> list[Result]:
    """Densities of the diffusion models [distributions] on a grid, at held-out samples and at the policies."""
    side = np.linspace(-1.0, 1.0, options.resolution, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    log_density = jax.jit(Behavior.log_density)
    results = []
    for i, name in enumerate(tqdm(options.distributions, desc="density", unit=" distributions", dynamic_ncols=True)):
        samples = np.asarray(_samples(name, options.seed, 1, HELD_OUT))
        points = np.concatenate([grid, samples, actions[i].reshape(-1, 2)])
        values = np.asarray(log_density(jax.tree.map(lambda x, i=i: x[i], model), jnp.asarray(points)))
        on_grid, on_samples, on_actions = np.split(values, [len(grid), len(grid) + HELD_OUT])
        density = np.exp(on_grid).reshape(options.resolution, options.resolution)
        threshold = float(np.quantile(on_samples, 0.05))
        results.append(
            Result(
                name=name,
                samples=samples,
                density=density,
                actions=actions[i],
                log_density=on_actions.reshape(actions[i].shape[:2]),
                threshold=threshold,
            )
        )
    return results


def summarize(results: Sequence[Result]) -> str:
    """A table for the terminal, one line per distribution.

    Medians, because far from all data the flow of a trained model may expand without bound: single log-densities of
    -1e6 are what the model says, and would decide a mean.
    """
    lines = [
        f"{'':<18}{'median log density':^24}{'share on the data':^24}",
        f"{'distribution':<18}" + 2 * f"{'1/beta = 0':>12}{'1/beta = 1':>12}",
    ]
    for result in results:
        first, last = result.log_density[:, 0], result.log_density[:, -1]
        shares = [float(np.mean(x >= result.threshold)) for x in (first, last)]
        lines.append(
            f"{result.name:<18}{np.median(first):>12.2f}{np.median(last):>12.2f}{shares[0]:>12.0%}{shares[1]:>12.0%}"
        )
    return "\n".join(lines)


def write_csv(results: Sequence[Result], path: pathlib.Path) -> None:
    """One row per distribution, target and temperature, with the columns `COLUMNS`."""
    rows = []
    for result in results:
        for target, actions, densities in zip(targets(), result.actions, result.log_density, strict=True):
            for inverse_beta, action, density in zip(INVERSE_BETAS, actions, densities, strict=True):
                numbers = map(float, (*target, inverse_beta, *action, density))
                rows.append(dict(zip(COLUMNS, (result.name, *numbers), strict=True)))
    write_atomically(path, common.format_csv(COLUMNS, rows))


def _samples(name: str, seed: int, purpose: int, n: int) -> Array:
    """[n, 2] of one distribution; its numbers do not depend on which others are asked for."""
    key = jax.random.fold_in(jax.random.key(seed), list(DISTRIBUTIONS).index(name))
    return DISTRIBUTIONS[name](jax.random.fold_in(key, purpose), n)


def _rows(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Transitions of a bandit for the table: no reward is read, and every episode ends at once."""
    ends = np.zeros((len(actions), 1))
    return np.concatenate([observations, actions, ends, observations, ends], axis=1, dtype=np.float32)


def _train(what: str, population: OfflinePopulation, start: int, stop: int) -> None:
    """Updates `start` to `stop` in ten chunks under a progress bar.

    Raises:
      UserError: a member diverged; with the settings above that takes a numerically broken installation.
    """
    with tqdm(total=stop - start, desc=what, unit=" updates", dynamic_ncols=True) as bar:
        for begin, end in itertools.pairwise(np.unique(np.linspace(start, stop, 11).astype(int)).tolist()):
            population.run(begin, end)
            bar.update(end - begin)
    if np.any(population.diverged_at >= 0):
        raise UserError(f"{what}: a member diverged; try another --seed")


def main(arguments: Sequence[str]) -> list[Result]:
    """Runs the command; nothing is returned after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out, values = line.parse(arguments), line.values
    if out is None:
        return []
    options = Options(
        distributions=parse_words("distributions", values.distributions, tuple(DISTRIBUTIONS)),
        seed=values.seed,
        behavior_steps=values.behavior_steps,
        policy_steps=values.policy_steps,
        resolution=values.resolution,
    )
    return _run(options, out)


def _run(options: Options, out: pathlib.Path) -> list[Result]:
    began = time.monotonic()
    model = train_behaviors(options)
    results = measure(model, train_policies(model, options), options)
    write_csv(results, out / "bandit2d.csv")
    for result in results:
        save(draw(result), out / f"{result.name}.png", dpi=100)
    print(summarize(results))
    print(f"wrote {out / 'bandit2d.csv'} and {len(results)} pictures in {time.monotonic() - began:.0f} s")
    return results


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Options()
    line.text("distributions", ",".join(default.distributions), "Behavior distributions.")
    line.whole("seed", default.seed, "Seed of samples, networks and noise.", 0, 2**31 - 1)
    line.whole("behavior_steps", default.behavior_steps, "Updates of each behavior model.", 1)
    line.whole("policy_steps", default.policy_steps, "Updates of each actor.", 1)
    line.whole("resolution", default.resolution, "Density points per side.", 2)
    return line


if __name__ == "__main__":
    common.run(MODULE, main)
