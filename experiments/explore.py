"""Explores a Gymnasium environment without its reward: state marginal matching, its baselines, and random actions.

What is explored is a slice of the observation. `--task=fetch` is the manipulation task of state marginal matching: the
block's position on the table; the published length is `--preset=published`. Any other environment with vector
observations takes `--task=ENVIRONMENT_ID --axes --low --high --bin`. All seeds of an explorer are one population.

    python experiments/explore.py --task=fetch --out=docs/results/explore_fetch
    python experiments/explore.py --task=MountainCarContinuous-v0 --axes=0,1 --low=-1.2,-0.07 --high=0.6,0.07 --bin=0.01
"""

import itertools
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from explore_methods import EXPLORERS, PRESETS, Explorer, Options, Task, fetch, make_grid, time_limit
from explore_report import Result, write
from jaxrl_srpo.cli.command_line import (
    exit_with,
    parse_experiment,
    parse_numbers,
    parse_seeds,
    parse_words,
    prepare_jax,
)
from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import marginals
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import bonuses, intrinsic, policy_mixture
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.offline import Members, stack
from jaxrl_srpo.population.online import GymnasiumRun
from jaxrl_srpo.report.exploration import Curve
from jaxrl_srpo.types import Spec

USAGE = """\
usage: python experiments/explore.py --task=TASK --out=DIRECTORY [--FLAG=VALUE ...]

Explores by several methods. Writes explore.csv, explore.md, visits.png and curves.png to DIRECTORY, and the
historical averages to DIRECTORY/policies/."""


def train(name: str, options: Options, out: pathlib.Path) -> Result:
    """Explores with all seeds, measures them, and saves their historical averages.

    Raises:
      UserError: the environment is not suitable, or a member diverged.
    """
    explorer, budget, task = EXPLORERS[name], options.budget, options.task
    run = make_run(explorer, options)
    snapshots: list[sac.Policy] = []
    curve: list[np.ndarray] = []
    bounds = np.linspace(0, budget.steps // budget.environments, budget.snapshots + 1).astype(int).tolist()
    began = time.monotonic()
    try:
        for start, stop in tqdm([*itertools.pairwise(bounds)], desc=name, disable=None):
            if np.any(run.run(stop - start).diverged_at >= 0):
                raise UserError(f"{name}: a member diverged; try other --seeds")
            snapshots.append(run.policies)
            new = _buffer(run, explorer)[:, start * budget.environments :]
            curve.append(np.asarray(marginals.entropy(jnp.asarray(_counts(task.explored, new)))))
        seconds = time.monotonic() - began
        states = {"buffer": _buffer(run, explorer)}
    finally:
        run.close()
    if explorer.reward is not None:
        averages = mixtures(snapshots[budget.snapshots // 2 :], explorer.skills, len(options.seeds))
        for seed, mixture in zip(options.seeds, averages, strict=True):
            policy_mixture.save(out / "policies" / name / str(seed), mixture)
        states["average"] = visit(averages, options)
        states["last"] = visit(mixtures(snapshots[-1:], explorer.skills, len(options.seeds)), options)
    counts = {
        (view, source): _counts(grid, found) for view, grid in task.slices.items() for source, found in states.items()
    }
    steps = budget.environments * np.asarray(bounds[1:])
    return Result(name, counts, Curve(steps, np.stack(curve, axis=-1)), seconds)


def make_run(explorer: Explorer, options: Options) -> GymnasiumRun:
    """One population of all seeds."""
    budget, task, shape = options.budget, options.task, (len(options.seeds), 1)
    learns = explorer.reward is not None
    warmup = min(1_000, budget.steps // (2 * budget.snapshots)) if learns else budget.steps
    # Random actions are those before learning starts, which then never does.
    loop = Loop(budget.environments, budget.update_to_data, budget.steps, warmup, warmup)
    reward = explorer.reward(task, budget) if explorer.reward else bonuses.Nothing()
    hyper = intrinsic.Hyper(budget.numbers, explorer.hyper)
    nothing = jnp.zeros(shape, jnp.int32)
    members = Members(
        jax.vmap(jax.random.key)(jnp.asarray(options.seeds))[:, None],
        table.Slice(nothing, nothing),
        jax.tree.map(lambda x: jnp.full(shape, x, jnp.float32), hyper),
    )
    agent, specs = intrinsic.agent("", reward, explorer.skills), [task.environment] * len(options.seeds)
    devices = jax.devices()[: len(options.seeds)]
    return GymnasiumRun(specs, agent, budget.learner, loop, members=members, frozen=None, devices=devices)


def mixtures(snapshots: Sequence[sac.Policy], skills: int, members: int) -> list[policy_mixture.HistoricalAverage]:
    """The uniform mixture of the snapshots, leaves [members, ...], of each member."""
    own = [[jax.tree.map(lambda x, i=i: x[i], policy) for policy in snapshots] for i in range(members)]
    return [policy_mixture.average(each, skills) for each in own]


def visit(averages: Sequence[policy_mixture.HistoricalAverage], options: Options) -> np.ndarray:
    """What episodes of each mixture arrive at, [members, states, observation_size]."""
    environments = min(20, options.episodes)
    steps = -(-options.episodes // environments) * time_limit(options.task.environment)
    found = policy_mixture.play(options.task.environment, stack(averages), environments, steps)
    return found.reshape(len(averages), -1, found.shape[-1])


def _buffer(run: GymnasiumRun, explorer: Explorer) -> np.ndarray:
    """Everything that was arrived at so far, in order, [members, steps, observation_size]."""
    rows = run.replay.rows[:, 0, : run.steps]
    width, skill = rows.shape[-1], intrinsic.skill_size(explorer.skills)
    action_size = run.action_size
    spec = Spec((width - action_size - 2) // 2, action_size)
    arrived = jax.vmap(lambda own: table.unpack(own, spec).next_observations)(jnp.asarray(rows))
    return np.asarray(arrived[..., : spec.observation_size - skill])


def _counts(grid: Grid, states: np.ndarray) -> np.ndarray:
    """[members, states, observation_size] -> [members, bins]."""
    return np.asarray(jax.vmap(grid.counts)(jnp.asarray(states)))


def main(arguments: Sequence[str]) -> str:
    """Runs the command; returns the table, nothing after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "explore", USAGE, arguments)
    if out is None:
        return ""
    options = _options(values)
    results, markdown = list[Result](), ""
    for name in options.explorers:
        results.append(train(name, options, out))
        markdown = write(results, options, out)
    print(markdown)
    print(f"wrote {out / 'explore.md'}, explore.csv and pictures")
    return markdown


def _options(values: flags.FlagValues) -> Options:
    budget = PRESETS[values.preset]
    if values.steps:
        budget = budget._replace(steps=values.steps)
    if budget.steps % budget.environments or budget.steps < budget.snapshots * budget.environments:
        raise UserError(
            f"--steps={budget.steps}: give a multiple of {budget.environments}, the environments stepped together, "
            f"from {budget.snapshots * budget.environments} on"
        )
    budget = budget._replace(numbers=budget.numbers.replace(temperature=values.temperature))  # type: ignore[attr-defined]
    names = parse_words("explorers", values.explorers, tuple(EXPLORERS))
    return Options(_task(values), budget, names, parse_seeds(values.seeds), values.episodes)


def _task(values: flags.FlagValues) -> Task:
    if values.task in ("fetch", "fetch-half"):
        return fetch(values.task == "fetch-half")
    given = [values[name].value or [] for name in ("axes", "low", "high")]
    if not given[0] or len({len(words) for words in given}) > 1 or not values.bin:
        raise UserError(
            f"--task={values.task}: give --axes, --low and --high of as many numbers as there are axes, and --bin"
        )
    axes = [int(axis) for axis in parse_numbers("axes", values.axes)]
    low, high = parse_numbers("low", values.low), parse_numbers("high", values.high)
    environment = EnvironmentSpec(values.task)
    made = make_environment(environment)
    made.close()
    size = (made.observation_space.shape or (0,))[0]
    if min(axes) < 0 or max(axes) >= size:
        raise UserError(f"--axes={','.join(values.axes)}: {values.task} has observations of {size} numbers, from 0 on")
    if any(a >= b for a, b in zip(low, high, strict=True)):
        raise UserError(f"--low={','.join(values.low)}: must be below --high={','.join(values.high)} on every axis")
    return Task(environment, {"state": make_grid(axes, low, high, values.bin)})


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    text, numbers = flags.DEFINE_string, flags.DEFINE_list
    text("out", None, "Directory of the results.", flag_values=values)
    text("task", "fetch", "fetch, fetch-half, or the id of a Gymnasium environment.", flag_values=values)
    numbers("axes", None, "Coordinates of the observation to explore.", flag_values=values)
    numbers("low", None, "Their least values.", flag_values=values)
    numbers("high", None, "Their largest values.", flag_values=values)
    flags.DEFINE_float("bin", None, "Side of the bins.", flag_values=values)
    text("explorers", "random,smm", f"Out of {', '.join(EXPLORERS)}.", flag_values=values)
    text("seeds", "0:3", "Seeds, a range or a list.", flag_values=values)
    flags.DEFINE_enum("preset", "short", list(PRESETS), "published: as in the paper.", flag_values=values)
    flags.DEFINE_integer("steps", None, "Environment steps per seed, in place of the preset's.", 1, flag_values=values)
    flags.DEFINE_float("temperature", 1.0, "SAC's alpha, fixed.", 0.0, flag_values=values)
    flags.DEFINE_integer("episodes", 100, "By which policies are measured.", 1, flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    prepare_jax()
    exit_with("explore", main, sys.argv[1:])


if __name__ == "__main__":
    run()
