"""What `manipulation.py` may explore, by which methods, and for how long."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import bonuses, intrinsic, smm
from jaxrl_srpo.exploration.densities import VAE, Histogram, NearestNeighbors, Sliced
from jaxrl_srpo.methods import sac
from jaxrl_srpo.types import Array

# Episodes of each environment that a forgetting histogram remembers.
REMEMBERED = 10


class Task(NamedTuple):
    """What is explored.

    Attributes:
      environment: where.
      slices: bins over coordinates of the observation, by name; the first is what is explored, all are measured.
      half: log-density of p* over the first slice is 1 where its second coordinate is above this number; None: uniform.
    """

    environment: EnvironmentSpec
    slices: dict[str, Grid]
    half: float | None = None

    @property
    def explored(self) -> Grid:
        """Bins of what is explored."""
        return next(iter(self.slices.values()))

    def log_target(self) -> np.ndarray:
        """Log p* of the bins of what is explored, up to a constant."""
        if self.half is None:
            return np.zeros(self.explored.size, np.float32)
        return (self.explored.centers()[:, 1] > self.half).astype(np.float32)


class Budget(NamedTuple):
    """How long and with which learner.

    Attributes:
      steps: environment steps per seed.
      environments: stepped together by each member.
      update_to_data: updates per environment step.
      snapshots: policies stored on the way.
      learner: settings of SAC.
    """

    steps: int
    environments: int
    update_to_data: float
    snapshots: int
    learner: sac.Settings


# `configs/default.py` of the released code; there SAC has a value network and a single Q.
PUBLISHED = Budget(
    steps=1_000_000,
    environments=1,
    update_to_data=1.0,
    snapshots=20,
    learner=sac.Settings(target_rate=1e-3, batch_size=128, width=300, learn_temperature=False),
)
SHORT = Budget(
    steps=60_000,
    environments=10,
    update_to_data=0.2,
    snapshots=20,
    learner=sac.Settings(batch_size=256, width=128, learn_temperature=False),
)
PRESETS = {"short": SHORT, "published": PUBLISHED}


class Explorer(NamedTuple):
    """A way to explore.

    Attributes:
      reward: the intrinsic reward, given the task and the budget; None acts at random and learns nothing.
      settings: numbers of the reward.
      skills: their number.
    """

    reward: Callable[[Task, Budget], intrinsic.Intrinsic] | None
    settings: Any = bonuses.Settings()
    skills: int = 1


def _matching(skills: int = 1, forgets: bool = True) -> Callable[[Task, Budget], intrinsic.Intrinsic]:
    """State marginal matching on a histogram of the explored slice."""

    def reward(task: Task, budget: Budget) -> intrinsic.Intrinsic:
        memory = float(REMEMBERED * budget.environments * time_limit(task.environment)) if forgets else None
        return smm.SMM(Histogram(task.explored, skills, memory), skills, target=_target(task))

    return reward


def _with_vae(skills: int = 1) -> Callable[[Task, Budget], intrinsic.Intrinsic]:
    """State marginal matching on the released code's autoencoder."""

    def reward(task: Task, budget: Budget) -> intrinsic.Intrinsic:
        axes = task.explored.axes
        return smm.SMM(Sliced(VAE(len(axes), skills), axes), skills, target=_target(task))

    return reward


def _with_neighbors(task: Task, budget: Budget) -> intrinsic.Intrinsic:
    axes = task.explored.axes
    return smm.SMM(Sliced(NearestNeighbors(len(axes), budget.learner.batch_size), axes), target=_target(task))


def _target(task: Task) -> smm.Target:
    """Log p* of observations."""
    if task.half is None:
        return smm.uniform
    axis, middle = task.explored.axes[1], task.half

    def log_density(states: Array) -> Array:
        return (states[:, axis] > middle).astype(jnp.float32)

    return log_density


EXPLORERS = {
    "random": Explorer(None),
    "maxent": Explorer(lambda task, budget: bonuses.NoBonus()),
    "smm": Explorer(_matching(), smm.Settings()),
    "smm-all-time": Explorer(_matching(forgets=False), smm.Settings()),
    "smm-vae": Explorer(_with_vae(), smm.Settings()),
    "sm4-vae": Explorer(_with_vae(4), smm.Settings(), skills=4),
    "smm-neighbors": Explorer(_with_neighbors, smm.Settings()),
    "sm4": Explorer(_matching(4), smm.Settings(), skills=4),
    "count": Explorer(lambda task, budget: bonuses.Count(Histogram(task.explored)), bonuses.Settings(bonus=10.0)),
    "icm": Explorer(lambda task, budget: bonuses.ICM()),
    "rnd": Explorer(lambda task, budget: bonuses.RND()),
}


class Options(NamedTuple):
    """What to run.

    Attributes:
      task: where.
      budget: how long.
      explorers: names out of `EXPLORERS`.
      seeds: one member each.
      episodes: episodes per seed and source that measure policies.
    """

    task: Task
    budget: Budget
    explorers: tuple[str, ...] = ("random", "smm")
    seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 100


def fetch(half: bool) -> Task:
    """The manipulation task: where the block is; beside it, where the gripper is."""
    from jaxrl_srpo.envs import manipulation

    low, high = (*manipulation.TABLE_LOW, manipulation.HEIGHT), (*manipulation.TABLE_HIGH, manipulation.HEIGHT + 0.4)
    middle = 0.5 * (manipulation.TABLE_LOW[1] + manipulation.TABLE_HIGH[1])
    environment = EnvironmentSpec("jaxrl_srpo/Manipulation-v0", {"goal_prior": "half" if half else "uniform"})
    slices = {"block": make_grid((3, 4, 5), low, high, 0.05), "gripper": make_grid((0, 1, 2), low, high, 0.05)}
    return Task(environment, slices, middle if half else None)


def make_grid(axes: Sequence[int], low: Sequence[float], high: Sequence[float], width: float) -> Grid:
    """Bins of a width over a box."""
    # Otherwise a bin more would be made of what rounding leaves over.
    shape = [math.ceil((b - a) / width - 1e-6) for a, b in zip(low, high, strict=True)]
    return Grid(tuple(low), width, tuple(shape), tuple(axes))


def time_limit(environment: EnvironmentSpec) -> int:
    """Steps of an episode.

    Raises:
      UserError: the environment cannot be made or has no time limit.
    """
    made = make_environment(environment)
    made.close()
    limit = made.spec.max_episode_steps if made.spec else None
    if limit is None:
        raise UserError(f"environment {environment.id} has no time limit")
    return limit
