"""Explores a Gymnasium environment without its reward: state marginal matching, its baselines, and random actions.

What is explored is a slice of the observation. `--task=fetch` is the manipulation task of state marginal matching: the
block's position on the table; the published length is `--preset=published`. Any other environment with vector
observations takes `--task=ENVIRONMENT_ID --axes --low --high --bin`. All seeds of an explorer are one population.

    python -m experiments.exploration.manipulation --task=fetch --out=docs/results/explore_fetch
    python -m experiments.exploration.manipulation --task=Hopper-v5 --axes=0,1 --low=0.5,-0.5 --high=2,0.5 --bin=0.05
"""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from jaxrl_srpo.cli.command_line import parse_numbers, parse_words
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import marginals
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import bonuses, intrinsic, policy_mixture
from jaxrl_srpo.exploration.policy_mixture import PolicyMixture
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import stack
from jaxrl_srpo.population.online import GymnasiumRun
from jaxrl_srpo.report.exploration import Curve

from .. import common
from .manipulation_methods import (
    EXPLORERS,
    PRESETS,
    Explorer,
    Options,
    Task,
    fetch,
    make_grid,
    time_limit,
)
from .manipulation_report import Result, write
from .visits import arrivals, count_visits, mixtures, one_member_per_seed

MODULE = "exploration.manipulation"
DESCRIPTION = """\
Explores by several methods. Writes explore.csv, explore.md, visits.png and curves.png to DIRECTORY, and the
mixtures of their policies to DIRECTORY/policies/."""


def train(name: str, options: Options, out: pathlib.Path) -> Result:
    """Explores with all seeds, measures them, and saves the mixtures of their policies.

    Raises:
      UserError: the environment is not suitable, or a member diverged.
    """
    explorer, budget, task = EXPLORERS[name], options.budget, options.task
    run = make_run(explorer, options)
    snapshots: list[TanhGaussianPolicy] = []
    curve: list[np.ndarray] = []
    bounds = np.linspace(0, budget.steps // budget.environments, budget.snapshots + 1).astype(int).tolist()
    began = time.monotonic()
    try:
        for start, stop in tqdm([*itertools.pairwise(bounds)], desc=name, disable=None):
            if np.any(run.run(stop - start).diverged_at >= 0):
                raise UserError(f"{name}: a member diverged; try other --seeds")
            snapshots.append(run.policies)
            new = arrivals(run, explorer.skills)[:, start * budget.environments :]
            curve.append(np.asarray(marginals.entropy(jnp.asarray(count_visits(task.explored, new)))))
        seconds = time.monotonic() - began
        states = {"buffer": arrivals(run, explorer.skills)}
    finally:
        run.close()
    if explorer.reward is not None:
        averages = mixtures(snapshots[budget.snapshots // 2 :], explorer.skills, len(options.seeds))
        for seed, mixture in zip(options.seeds, averages, strict=True):
            policy_mixture.save(out / "policies" / name / str(seed), mixture)
        states["average"] = visit(averages, options)
        states["last"] = visit(mixtures(snapshots[-1:], explorer.skills, len(options.seeds)), options)
    counts = {
        (view, source): count_visits(grid, found)
        for view, grid in task.slices.items()
        for source, found in states.items()
    }
    steps = budget.environments * np.asarray(bounds[1:])
    return Result(name=name, counts=counts, curve=Curve(steps, np.stack(curve, axis=-1)), seconds=seconds)


def make_run(explorer: Explorer, options: Options) -> GymnasiumRun:
    """One population of all seeds."""
    budget, task, seeds = options.budget, options.task, options.seeds
    learns = explorer.reward is not None
    warmup = min(1_000, budget.steps // (2 * budget.snapshots)) if learns else budget.steps
    # Random actions are those before learning starts, which then never does.
    loop = Loop(
        environments=budget.environments,
        update_to_data=budget.update_to_data,
        capacity=budget.steps,
        warmup_steps=warmup,
        random_steps=warmup,
    )
    reward = explorer.reward(task, budget) if explorer.reward else bonuses.NoBonus()
    return GymnasiumRun(
        [task.environment] * len(seeds),
        intrinsic.agent("", reward, explorer.skills),
        loop,
        members=one_member_per_seed(seeds, intrinsic.Settings(budget.learner, explorer.settings)),
        frozen=None,
        devices=jax.devices()[: len(seeds)],
    )


def visit(averages: Sequence[PolicyMixture], options: Options) -> np.ndarray:
    """What episodes of each mixture arrive at, [members, states, observation_size]."""
    environments = min(20, options.episodes)
    steps = -(-options.episodes // environments) * time_limit(options.task.environment)
    found = policy_mixture.play(options.task.environment, stack(averages), environments, steps)
    return found.reshape(len(averages), -1, found.shape[-1])


def main(arguments: Sequence[str]) -> str:
    """Runs the command; returns the table, nothing after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return ""
    options = _options(line)
    results, markdown = list[Result](), ""
    for name in options.explorers:
        results.append(train(name, options, out))
        markdown = write(results, options, out)
    print(markdown)
    print(f"wrote {out / 'explore.md'}, explore.csv and pictures")
    return markdown


def _options(line: common.CommandLine) -> Options:
    values = line.values
    budget = PRESETS[values.preset]
    if values.steps:
        budget = budget._replace(steps=values.steps)
    if budget.steps % budget.environments or budget.steps < budget.snapshots * budget.environments:
        raise UserError(
            f"--steps={budget.steps}: give a multiple of {budget.environments}, the environments stepped together, "
            f"from {budget.snapshots * budget.environments} on"
        )
    learner = dataclasses.replace(budget.learner, temperature=values.temperature)
    return Options(
        task=_task(values),
        budget=budget._replace(learner=learner),
        explorers=parse_words("explorers", values.explorers, tuple(EXPLORERS)),
        seeds=line.seeds,
        episodes=values.episodes,
    )


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


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, required="--task=TASK")
    line.text("task", "fetch", "fetch, fetch-half, or the id of a Gymnasium environment.")
    line.words("axes", None, "Coordinates of the observation to explore.")
    line.words("low", None, "Their least values.")
    line.words("high", None, "Their largest values.")
    line.number("bin", None, "Side of the bins.")
    line.text("explorers", "random,smm", f"Explorers, out of {', '.join(EXPLORERS)}.")
    line.define_seeds("0:3")
    line.define_preset("short", list(PRESETS), "published: as in the paper.")
    line.whole("steps", None, "Environment steps per seed, in place of the preset's.", 1)
    line.number("temperature", 1.0, "SAC's alpha, fixed.", 0.0)
    line.whole("episodes", 100, "Episodes that measure a policy.", 1)
    return line


if __name__ == "__main__":
    common.run(MODULE, main)
