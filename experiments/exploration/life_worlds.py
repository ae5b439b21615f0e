"""Where a life can be lived: a maze of Gymnasium-Robotics, or the star of halls.

A world is explored without reward. The reward of a task is put on what was seen afterwards: 1 at a goal, where the
episode ends, and the rest begins another one.
"""

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import STAR
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.envs.pointmaze import MAZES, Maze, MazeTask
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.envs.star_task import in_goal
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.types import Batch, Spec

SUCCESS_DISTANCE = 0.45
GOAL_NOISE = 0.25
BIN = 0.5

Goal = tuple[int, int]


class World(ABC):
    """A place with goals, named by two whole numbers.

    Attributes:
      name: name of the world, as in names of datasets.
      goals: the goals of a life unless others are given.
      goal_form: what a goal's two numbers are.
      spec: sizes of what an explorer observes and does.
      environment: the environment to explore, without reward or end.
      grid: bins of positions.
      unit: unit of length.
      temperature: temperature of the explorer's SAC.
      remembered: arrivals that a histogram remembers, about.
      update_to_data: updates of the explorer's SAC per environment step.
      settings: settings of learning in place of the preset's.
      requirements: packages that its tasks need.
    """

    name: str
    goals: tuple[Goal, ...]
    goal_form: str
    spec: Spec
    environment: EnvironmentSpec
    grid: Grid
    unit: str
    temperature: float
    remembered: float
    update_to_data: float
    settings: dict[str, Any]
    requirements: tuple[str, ...]

    @abstractmethod
    def reachable(self) -> np.ndarray:
        """Bins that can be visited, bool [bins]."""

    @abstractmethod
    def way(self, goal: Goal) -> str:
        """How far a goal is from the start."""

    @abstractmethod
    def task(self, goal: Goal) -> EnvironmentSpec:
        """The task of a goal.

        Raises:
          UserError: no goal can be there.
        """

    @abstractmethod
    def episodes(self, rows: np.ndarray, goal: Goal, seed: int) -> Iterator[dict[str, Any]]:
        """What was seen, packed rows [T, E, width], as episodes of a task: fields of Minari's `EpisodeBuffer`."""

    def unpack(self, rows: np.ndarray) -> Batch:
        """Rows [N, width] as transitions."""
        return table.unpack(jnp.asarray(rows), self.spec)

    def _stretches(self, rows: np.ndarray) -> Iterator[Batch]:
        """What each environment saw between two resets."""
        limit = self.environment.max_episode_steps
        assert limit is not None
        for environment in range(rows.shape[1]):
            for start in range(0, len(rows), limit):
                yield self.unpack(rows[start : start + limit, environment])


def _ends(reached: np.ndarray, begin: int) -> tuple[int, bool]:
    """Where an episode that begins at a step ends, and whether at the goal, given who is in it [T]."""
    found = np.flatnonzero(reached[begin:])
    return (begin + int(found[0]) + 1, True) if len(found) else (len(reached), False)


def _labels(steps: int, reached: bool) -> dict[str, np.ndarray]:
    """Rewards and flags of an episode."""
    last = np.arange(steps) == steps - 1
    return {
        "rewards": (last & reached).astype(np.float64),
        "terminations": last & reached,
        "truncations": last & (not reached),
    }


def _states(own: Batch, begin: int, end: int) -> np.ndarray:
    """Observations [T + 1, size] of an episode of T steps."""
    before, after = np.asarray(own.observations)[begin:end], np.asarray(own.next_observations)[begin:end]
    return np.concatenate([before[:1], after])


class MazeWorld(World):
    """A maze of `pointmaze.MAZES`; a goal is a cell (row, column).

    Observations are position, velocity and the goal of the time; as in the task itself, the goal of each episode lies
    up to `GOAL_NOISE` from the middle of its cell.
    """

    goals = ((2, 4), (4, 2), (5, 4), (6, 6))
    goal_form = "free cells as ROW:COLUMN"
    spec = Spec(6, 2)
    unit = "m"
    temperature = 0.1
    # The last four episodes of each environment, so that the target moves with the policy.
    remembered = 4_000.0
    update_to_data = 0.1
    requirements = ("mujoco", "gymnasium-robotics>=1.4")

    def __init__(self, maze: str) -> None:
        self.name, self.settings = maze, {}
        self.maze_task = MAZES[maze]
        spec = self.maze_task.environment
        kwargs = spec.kwargs | {"continuing_task": True, "reset_target": False}
        self.environment = EnvironmentSpec(spec.id, kwargs, self.maze_task.max_episode_steps)
        rows, columns = len(self.maze_task.rows), len(self.maze_task.rows[0])
        low = (1.0 - columns / 2.0, 1.0 - rows / 2.0)
        self.grid = Grid(low, BIN, (int((columns - 2) / BIN), int((rows - 2) / BIN)), (0, 1))

    def reachable(self) -> np.ndarray:
        """Bins whose middle lies in a free cell."""
        maze = Maze(self.maze_task.maze_map)
        centers = {maze.center(cell) for cell in maze.free}
        return np.array([any(max(abs(x - a), abs(y - b)) <= 0.5 for a, b in centers) for x, y in self.grid.centers()])

    def way(self, goal: Goal) -> str:
        """Cells on a shortest way from the first start."""
        rows = self.maze_task.rows
        start = next((i, row.index("r")) for i, row in enumerate(rows) if "r" in row)
        return f"{len(Maze(self.maze_task.maze_map).path(start, goal, np.random.default_rng(0)))} cells away"

    def task(self, goal: Goal) -> EnvironmentSpec:
        """See `World`."""
        return self.with_goal(goal).environment

    def with_goal(self, goal: Goal) -> MazeTask:
        """The same maze with its goal elsewhere."""
        rows = [row.replace("g", ".") for row in self.maze_task.rows]
        row, column = goal
        inside = 0 <= row < len(rows) and 0 <= column < len(rows[0])
        if not inside or rows[row][column] != ".":
            raise UserError(f"--goals: cell {row},{column} of the maze is a wall or a start; choose a free cell")
        rows[row] = rows[row][:column] + "g" + rows[row][column + 1 :]
        return dataclasses.replace(self.maze_task, rows=tuple(rows))

    def episodes(self, rows: np.ndarray, goal: Goal, seed: int) -> Iterator[dict[str, Any]]:
        """See `World`."""
        random = np.random.default_rng([seed, *goal])
        middle = np.array(Maze(self.maze_task.maze_map).center(goal))
        for own in self._stretches(rows):
            begin, positions = 0, np.asarray(own.next_observations)[:, :2]
            while begin < len(positions):
                place = middle + random.uniform(-GOAL_NOISE, GOAL_NOISE, 2)
                end, reached = _ends(np.linalg.norm(positions - place, axis=1) <= SUCCESS_DISTANCE, begin)
                states = _states(own, begin, end)[:, :4].astype(np.float64)
                yield {
                    "observations": {
                        "achieved_goal": states[:, :2].copy(),
                        "desired_goal": np.tile(place, (len(states), 1)),
                        "observation": states,
                    },
                    "actions": np.asarray(own.actions)[begin:end],
                } | _labels(end - begin, reached)
                begin = end


class StarWorld(World):
    """The star of halls; a goal is a hall and a distance from the middle. Observations are the position."""

    goals = ((0, 5), (1, 7), (2, 9), (0, 12))
    goal_form = "halls and distances from the middle as HALL:DISTANCE"
    spec = Spec(2, 2)
    unit = "unit"
    # As in `star.py`, whose counts remember about as much.
    temperature = 1.0
    remembered = 1_000.0
    update_to_data = 0.2
    requirements = ("jaxrl-srpo",)

    def __init__(self) -> None:
        self.name, self._star = "star", Star()
        self.environment = EnvironmentSpec(STAR, {}, self._star.max_episode_steps)
        self.grid = self._star.grid()
        self.settings = {"normalize_observations": True}

    def reachable(self) -> np.ndarray:
        """Bins that the star touches."""
        return self._star.reachable()

    def way(self, goal: Goal) -> str:
        """See `World`."""
        return f"{goal[1]} units away"

    def task(self, goal: Goal) -> EnvironmentSpec:
        """See `World`."""
        hall, distance = goal
        if not (0 <= hall < self._star.halls and self._star.radius < distance <= self._star.reach):
            bounds = f"halls 0 to {self._star.halls - 1}, distances above {self._star.radius:g} to {self._star.reach:g}"
            raise UserError(f"--goals: {hall}:{distance} is in no hall; there are {bounds}")
        return EnvironmentSpec(STAR, {"goal": list(goal)}, self._star.max_episode_steps, goal_task=True)

    def episodes(self, rows: np.ndarray, goal: Goal, seed: int) -> Iterator[dict[str, Any]]:
        """See `World`; nothing is random, so every seed gives the same."""
        place = self._star.place(*goal)
        for own in self._stretches(rows):
            begin, reached_at = 0, in_goal(np.asarray(own.next_observations), place)
            while begin < len(reached_at):
                end, reached = _ends(reached_at, begin)
                yield {
                    "observations": _states(own, begin, end),
                    "actions": np.asarray(own.actions)[begin:end],
                } | _labels(end - begin, reached)
                begin = end


WORLDS: dict[str, Callable[[], World]] = {name: functools.partial(MazeWorld, name) for name in MAZES}
WORLDS["star"] = StarWorld
