"""The 2D bandit figure of SRPO (arXiv 2310.07297, figure 3), for five behaviour distributions at once.

A bandit has no state, so each actor is one point a of the plane, and what SRPO does can be looked at: climb
Q(a) = -|a - a*|^2, but stay where the behaviour distribution mu has data. For every distribution the figure shows
(a) samples of mu, (b) the density of the trained diffusion model, (c) a 7 x 7 grid of Qs, (d) the policy of every Q
without and with regularisation, (e) the policies in between, as 1/beta goes from 0 to 1.

All of it is two populations: one behaviour model per distribution, then 49 targets x 7 temperatures for each of them.
The target a* of a member is its observation: the critic reads it there, and the behaviour model does not see it.

    python experiments/bandit2d.py --out=docs/results/bandit2d
"""

import csv
import io
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import struct
from tqdm import tqdm

from bandit2d_figure import INVERSE_BETAS, Result, draw, targets
from jaxrl_srpo.cli.command_line import exit_with, parse_experiment, parse_words, prepare_jax
from jaxrl_srpo.data import table
from jaxrl_srpo.envs.bandits import DISTRIBUTIONS
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import behavior, srpo
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.population.offline import Carry, Members, Population
from jaxrl_srpo.report.drawing import save
from jaxrl_srpo.types import Array, ScoreModel, Spec

USAGE = """\
usage: python experiments/bandit2d.py --out=DIRECTORY [--FLAG=VALUE ...]

Trains SRPO on two-dimensional bandits and draws one picture per behaviour distribution, DIRECTORY/NAME.png.
All policies go to DIRECTORY/bandit2d.csv."""

SAMPLES = 20_000
HELD_OUT = 1_000
ODE_STEPS = 40
COLUMNS = ("distribution", "target_x", "target_y", "inverse_beta", "action_x", "action_y", "log_density")

# Two dimensions need a smaller network than the published one, and no dropout: there is no shortage of samples.
BEHAVIOR = behavior.Config(
    batch_size=128, width=64, hidden=128, blocks=2, dropout_rate=0.0, cosine=True, weight_average=0.999
)
# The behaviour models see 4 a instead of a, which makes them learn several times faster. At the scale of the action box
# all detail is decided within the shortest few percent of the diffusion times, which training rarely draws.
SCALE = 4.0
# Of the paper's three weightings this is the score's own scale. With short diffusion times it makes the regulariser the
# gradient of log mu, hardly blurred, so that 1/beta has the units of the objective Q + 1/beta log mu.
POLICY = srpo.Config(batch_size=32, width=32, layers=1, weighting="alpha_over_sigma", minus_noise=True)
TIME_MIN, TIME_MAX = 0.005, 0.05
GREEDY_SHARE = 0.3


class Options(NamedTuple):
    """What to run.

    Attributes:
      distributions: names out of `bandits.DISTRIBUTIONS`.
      seed: of samples, networks and noise.
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
    population = Population(behavior.init, behavior.update, Spec(0, 2), BEHAVIOR, (groups, 1))
    hyper = _fill(behavior.Hyper(5e-3, 0.0, options.behavior_steps), (groups, 1))
    offsets = SAMPLES * jnp.arange(groups, dtype=jnp.int32)[:, None]
    where = table.Slice(offsets, jnp.full_like(offsets, SAMPLES))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(options.seed), i))(jnp.arange(groups))
    members = population.place(Members(keys[:, None], where, hyper))
    rows = population.place_table(_rows(np.zeros((groups * SAMPLES, 0)), SCALE * np.concatenate(samples)))
    carry = population.init(members, None)
    carry = _train("behaviour", population, carry, members, None, rows, 0, options.behavior_steps)
    return Behavior(jax.tree.map(lambda x: x[:, 0], population.unpad(carry.state).model))


def train_policies(model: Behavior, options: Options) -> np.ndarray:
    """The actions [distributions, 49, K, 2] of all actors, trained as one population.

    Every actor first climbs its Q alone, then its own temperature sets in. So the policies of one target start from the
    same point, and each ends in the mode of mu that is closest to its target rather than to its initialisation.
    """
    groups, points = len(options.distributions), targets()
    target = np.repeat(np.arange(len(points)), len(INVERSE_BETAS))
    shape = (groups, len(target))
    # Members run batched even on CPUs: they are tiny, and their passes through the shared model merge into one product.
    population = Population(srpo.init, srpo.update, Spec(2, 2), POLICY, shape, strategy="vmap")
    rows = population.place_table(_rows(points, np.zeros_like(points)))
    where = table.Slice(*(jnp.broadcast_to(jnp.asarray(x, jnp.int32), shape) for x in (target, np.ones_like(target))))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(options.seed), i))(jnp.asarray(target))
    frozen = population.place_frozen(srpo.Frozen(model, QuadraticCritic()))

    def members(inverse_betas: Array) -> Members:
        hyper = srpo.Hyper(1.0, inverse_betas, 1.5e-3, TIME_MIN, TIME_MAX, options.policy_steps)
        return population.place(Members(jnp.broadcast_to(keys, shape), where, _fill(hyper, shape)))

    inverse_betas = jnp.tile(jnp.asarray(INVERSE_BETAS, jnp.float32), len(points))
    greedy, regularized = members(jnp.zeros_like(inverse_betas)), members(inverse_betas)
    switch = round(GREEDY_SHARE * options.policy_steps)
    carry = population.init(greedy, frozen)
    carry = _train("greedy policies", population, carry, greedy, frozen, rows, 0, switch)
    carry = _train("policies", population, carry, regularized, frozen, rows, switch, options.policy_steps)
    act = jax.jit(jax.vmap(jax.vmap(lambda policy, observation: srpo.act(policy, observation[None])[0])))
    observations = jnp.broadcast_to(jnp.asarray(points[target]), (*shape, 2))
    actions = np.asarray(act(population.unpad(carry.state).policy, observations))
    return actions.reshape(groups, len(points), len(INVERSE_BETAS), 2)


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
        results.append(Result(name, samples, density, actions[i], on_actions.reshape(actions[i].shape[:2]), threshold))
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        for target, actions, densities in zip(targets(), result.actions, result.log_density, strict=True):
            for inverse_beta, action, density in zip(INVERSE_BETAS, actions, densities, strict=True):
                numbers = (*target, inverse_beta, *action, density)
                writer.writerow([result.name, *(f"{number:.5g}" for number in numbers)])
    write_atomically(path, text.getvalue().encode())


def _samples(name: str, seed: int, purpose: int, n: int) -> Array:
    """[n, 2] of one distribution; its numbers do not depend on which others are asked for."""
    key = jax.random.fold_in(jax.random.key(seed), list(DISTRIBUTIONS).index(name))
    return DISTRIBUTIONS[name](jax.random.fold_in(key, purpose), n)


def _rows(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Transitions of a bandit for the table: no reward is read, and every episode ends at once."""
    ends = np.zeros((len(actions), 1))
    return np.concatenate([observations, actions, ends, observations, ends], axis=1, dtype=np.float32)


def _fill(hyper: Any, shape: tuple[int, int]) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape), hyper)


def _train(
    what: str, population: Population, carry: Carry, members: Members, frozen: Any, rows: Array, start: int, stop: int
) -> Carry:
    """Updates `start` to `stop` in ten chunks under a progress bar.

    Raises:
      UserError: a member diverged; with the settings above that takes a numerically broken installation.
    """
    with tqdm(total=stop - start, desc=what, unit=" updates", dynamic_ncols=True) as bar:
        edges = np.unique(np.linspace(start, stop, 11).astype(int))
        for begin, end in itertools.pairwise(edges):
            carry, _ = population.chunk(carry, members, frozen, rows, int(begin), int(end - begin))
            jax.block_until_ready(carry)
            bar.update(int(end - begin))
    if np.any(population.unpad(carry.diverged_at) >= 0):
        raise UserError(f"{what}: a member diverged; try another --seed")
    return carry


def main(arguments: Sequence[str]) -> list[Result]:
    """Runs the command; nothing is returned after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "bandit2d", USAGE, arguments)
    if out is None:
        return []
    names = parse_words("distributions", values.distributions, tuple(DISTRIBUTIONS))
    return _run(Options(names, values.seed, values.behavior_steps, values.policy_steps, values.resolution), out)


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


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    default = Options()
    names = ",".join(default.distributions)
    flags.DEFINE_string("out", None, "Directory of the results.", flag_values=values)
    flags.DEFINE_string("distributions", names, "Behaviour distributions.", flag_values=values)
    flags.DEFINE_integer("seed", default.seed, "Of samples, networks and noise.", 0, 2**31 - 1, flag_values=values)
    flags.DEFINE_integer(
        "behavior_steps", default.behavior_steps, "Updates of each behaviour model.", 1, flag_values=values
    )
    flags.DEFINE_integer("policy_steps", default.policy_steps, "Updates of each actor.", 1, flag_values=values)
    flags.DEFINE_integer("resolution", default.resolution, "Density points per side.", 2, flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    prepare_jax()
    exit_with("bandit2d", main, sys.argv[1:])


if __name__ == "__main__":
    run()
