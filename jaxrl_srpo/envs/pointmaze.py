"""The embedded default datasets: a force-driven ball wandering through mazes, made locally in seconds.

The task is Gymnasium-Robotics' PointMaze (100 steps per second, forces in [-1, 1], speed capped at 5 m/s per axis)
with fixed start cells and one goal cell, ending at the goal with reward 1. The behavior is play: a waypoint controller
wanders between random cells at random speeds, in random lanes, with detours, pauses and noise, and reaches the goal
only when it happens upon it. Every stretch of the way to the goal is in the data, but in pieces of different episodes
and next to its opposite, so that cloning wanders too while offline reinforcement learning finds the way.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_srpo.data import minari_writer
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import make_unflattened
from jaxrl_srpo.errors import DatasetError

if TYPE_CHECKING:
    import gymnasium

Cell = tuple[int, int]

DEFAULT_DATASET = "pointmaze/umaze"
_NAMESPACE = "pointmaze"
_NAME = re.compile(rf"{_NAMESPACE}/(?P<maze>[a-z]+)(-[\w-]+)?(-v\d+)?")
_VERSION = re.compile(r"-v\d+$")
_START_STEPS = 30.0


@dataclasses.dataclass(frozen=True)
class MazeTask:
    """A maze with its time limit and the size of its default dataset.

    Attributes:
      environment_id: Gymnasium id; only its registration matters, the map below replaces its own.
      rows: one string per row; `#` wall, `.` free, `r` free and a start cell, `g` the goal cell.
      max_episode_steps: time limit in steps of 0.01 s.
      transitions: smallest number of steps in the default dataset; the last episode is finished.
      goal_share: share of legs that head for the goal cell on purpose; the others' targets are random.
    """

    environment_id: str
    rows: tuple[str, ...]
    max_episode_steps: int
    transitions: int
    goal_share: float = 0.0

    @property
    def maze_map(self) -> list[list[int | str]]:
        """The map in Gymnasium-Robotics' format: 1 wall, 0 free, "r" start, "g" goal."""
        symbols: dict[str, int | str] = {"#": 1, ".": 0, "r": "r", "g": "g"}
        return [[symbols[symbol] for symbol in row] for row in self.rows]

    @property
    def goal(self) -> Cell:
        """The goal cell."""
        return next((i, row.index("g")) for i, row in enumerate(self.rows) if "g" in row)

    @property
    def environment(self) -> EnvironmentSpec:
        """The task as an environment that `gymnasium.make` can build."""
        kwargs = {"maze_map": self.maze_map, "reward_type": "sparse", "continuing_task": False}
        return EnvironmentSpec(self.environment_id, kwargs, self.max_episode_steps, goal_task=True)


MAZES = {
    "umaze": MazeTask("PointMaze_UMaze-v3", ("#####", "#g..#", "###.#", "#rr.#", "#####"), 400, 80_000),
    "medium": MazeTask(
        "PointMaze_Medium-v3",
        ("########", "#rr##..#", "#r.#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.g#", "########"),
        max_episode_steps=600,
        transitions=160_000,
        goal_share=0.15,
    ),
    "large": MazeTask(
        "PointMaze_Large-v3",
        (
            "############",
            "#rr..#.....#",
            "#r##.#.#.#.#",
            "#......#...#",
            "#.####.###.#",
            "#..#.#.....#",
            "##.#.#.#.###",
            "#..#...#..g#",
            "############",
        ),
        max_episode_steps=800,
        transitions=240_000,
        goal_share=0.3,
    ),
}


class Maze:
    """Cells of a maze map in meters, and random shortest ways between them.

    Cell (row, column) is a unit square; the map's middle is the origin, x grows with the column and y against the row.
    """

    def __init__(self, maze_map: Sequence[Sequence[int | str]]) -> None:
        self._height, self._width = len(maze_map), len(maze_map[0])
        self.free = [(i, j) for i, row in enumerate(maze_map) for j, symbol in enumerate(row) if symbol != 1]
        free = set(self.free)
        self._neighbors = {
            (i, j): [cell for cell in ((i - 1, j), (i, j + 1), (i + 1, j), (i, j - 1)) if cell in free]
            for i, j in self.free
        }
        self._distances = {cell: self._distances_to(cell) for cell in self.free}

    def center(self, cell: Cell) -> tuple[float, float]:
        """Center (x, y) of a cell."""
        return cell[1] + 0.5 - self._width / 2, self._height / 2 - cell[0] - 0.5

    def cell(self, x: float, y: float) -> Cell:
        """The free cell around, or else nearest to, a point."""
        cell = (math.floor(self._height / 2 - y), math.floor(x + self._width / 2))
        if cell in self._neighbors:
            return cell
        return min(self.free, key=lambda free: math.dist(self.center(free), (x, y)))

    def wander(self, start: Cell, random: np.random.Generator) -> Cell:
        """A random cell other than `start`, likelier the farther it is."""
        weights = np.array([self._distances[start][cell] for cell in self.free], float)
        return self.free[int(random.choice(len(self.free), p=weights / weights.sum()))]

    def path(self, start: Cell, target: Cell, random: np.random.Generator) -> list[Cell]:
        """The cells after `start` on a shortest way to `target`, one of them at random where there are several."""
        distances, cells = self._distances[target], [start]
        while cells[-1] != target:
            nearer = [cell for cell in self._neighbors[cells[-1]] if distances[cell] < distances[cells[-1]]]
            cells.append(nearer[int(random.integers(len(nearer)))] if len(nearer) > 1 else nearer[0])
        return cells[1:]

    def _distances_to(self, target: Cell) -> dict[Cell, int]:
        distances, front = {target: 0}, [target]
        while front:
            front = [near for cell in front for near in self._neighbors[cell] if near not in distances]
            depth = max(distances.values()) + 1
            distances.update({cell: depth for cell in front})
        return distances


@dataclasses.dataclass(frozen=True)
class Style:
    """How one leg is driven.

    Attributes:
      speed: wanted speed in m/s.
      gain: force per m/s of velocity error.
      lane: (x, y) offset in meters of the leg's waypoints from the middle of their cells.
      noise: standard deviation of the force noise, whose correlation time is ten steps.
      patience: the leg is given up after so many times the steps that its length should take.
      pause: steps spent at the end of the leg.
    """

    speed: float
    gain: float
    lane: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    patience: float = math.inf
    pause: int = 0

    @classmethod
    def sample(cls, random: np.random.Generator) -> "Style":
        """A random style, from strolling to racing; about every third leg is given up on the way."""
        return cls(
            speed=float(random.uniform(2.0, 5.0)),
            gain=float(random.uniform(0.15, 0.6)),
            lane=(float(random.uniform(-0.3, 0.3)), float(random.uniform(-0.3, 0.3))),
            noise=float(random.uniform(0.1, 0.6)),
            patience=float(random.uniform(0.5, 2.0)),
            pause=int(random.integers(0, 20)),
        )


class WaypointController:
    """Drives the ball along waypoints: a velocity towards the next one, and a force towards that velocity."""

    _NOISE_MEMORY = 0.9
    _ARRIVAL = 0.3
    _BRAKING = 6.0

    def __init__(self, maze: Maze, random: np.random.Generator) -> None:
        self._maze, self._random = maze, random
        self._waypoints: list[tuple[float, float]] = []
        self._style = Style(speed=1.0, gain=1.0)
        self._steps_left = 0.0
        self._noise = (0.0, 0.0)

    @property
    def idle(self) -> bool:
        """Whether the leg has arrived or was given up."""
        return self._steps_left <= 0

    def drive(self, position: tuple[float, float], target: Cell, style: Style) -> None:
        """Starts a leg from `position` to the cell `target`."""
        start = self._maze.cell(*position)
        centers = [self._maze.center(cell) for cell in self._maze.path(start, target, self._random) or [target]]
        self._waypoints = [(x + style.lane[0], y + style.lane[1]) for x, y in centers]
        self._style, self._steps_left = style, style.patience * (_START_STEPS + 100.0 * len(centers) / style.speed)

    def act(self, x: float, y: float, vx: float, vy: float) -> tuple[float, float]:
        """Force in [-1, 1] per axis at a position (meters) and velocity (m/s)."""
        style = self._style
        self._steps_left -= 1
        (wx, wy), last = self._waypoints[0], len(self._waypoints) == 1
        dx, dy = wx - x, wy - y
        distance = math.hypot(dx, dy)
        if distance < self._ARRIVAL and not last:
            self._waypoints.pop(0)
        elif distance < self._ARRIVAL:
            self._steps_left = min(self._steps_left, self._style.pause)
        # Only the last waypoint is a stop; the others are passed at full speed.
        speed = min(style.speed, self._BRAKING * distance) if last else style.speed
        scale = speed / max(distance, 1e-6)
        nx, ny = self._next_noise()
        return _clip(style.gain * (scale * dx - vx) + nx), _clip(style.gain * (scale * dy - vy) + ny)

    def _next_noise(self) -> tuple[float, float]:
        spread = self._style.noise * math.sqrt(1.0 - self._NOISE_MEMORY**2)
        white = self._random.standard_normal(2)
        x, y = self._noise
        self._noise = (
            self._NOISE_MEMORY * x + spread * float(white[0]),
            self._NOISE_MEMORY * y + spread * float(white[1]),
        )
        return self._noise


def _clip(force: float) -> float:
    return min(1.0, max(-1.0, force))


def environment_spec(name: str = DEFAULT_DATASET) -> EnvironmentSpec:
    """The task of a dataset `pointmaze/...`, without creating either.

    Raises:
      DatasetError: there is no such maze.
    """
    return _task(name).environment


def ensure_dataset(name: str = DEFAULT_DATASET) -> str:
    """Makes the default dataset of a maze unless it is there, and returns its Minari id.

    It appears in Minari's own storage (`MINARI_DATASETS_PATH`, by default ~/.minari/datasets) whole or not at all; of
    two processes one makes it and the other waits.

    Args:
      name: `pointmaze/umaze`, `pointmaze/medium` or `pointmaze/large`, with or without the version.

    Raises:
      DatasetError: there is no such maze, MuJoCo is missing, or the storage cannot be written.
    """
    task, dataset_id = _task(name), minari_id(name)
    if not minari_writer.exists(dataset_id):
        _create(dataset_id, task, seed=0, transitions=task.transitions, exist_ok=True)
    return dataset_id


def make_dataset(dataset_id: str, seed: int = 0, transitions: int | None = None) -> str:
    """Makes a dataset of another seed or size under an id of the caller's choice, and returns the full id.

    Args:
      dataset_id: `pointmaze/MAZE-ANYTHING`, for instance `pointmaze/umaze-seed1`; `-v0` is added where no version is.
      seed: equal seeds give bitwise equal data on the same machine and library versions.
      transitions: at least so many steps; the last episode is finished. None stands for the maze's default.

    Raises:
      DatasetError: the id is taken or names no maze, MuJoCo is missing, or the storage cannot be written.
    """
    task = _task(dataset_id)
    if transitions is not None and transitions < 1:
        raise DatasetError(f"{dataset_id}: transitions is {transitions}, but must be at least 1")
    _create(minari_id(dataset_id), task, seed, transitions or task.transitions, exist_ok=False)
    return minari_id(dataset_id)


def minari_id(name: str) -> str:
    """The Minari id of a dataset name: the name with the version `-v0` where it has none."""
    return name if _VERSION.search(name) else f"{name}-v0"


def _task(name: str) -> MazeTask:
    match = _NAME.fullmatch(name)
    if match is None or match["maze"] not in MAZES:
        known = ", ".join(f"{_NAMESPACE}/{maze}" for maze in MAZES)
        raise DatasetError(f"no maze dataset is called {name!r}; there are {known} (and NAME-ANYTHING-v0 of your own)")
    return MAZES[match["maze"]]


def collect(environment: "gymnasium.Env", task: MazeTask, seed: int, transitions: int) -> Iterator[dict[str, Any]]:
    """Plays episodes in the maze until they have `transitions` steps together.

    Args:
      environment: the task's environment, with its dictionary observations.
      task: its maze.
      seed: seed of all randomness; episode i has its own stream.
      transitions: least number of steps.

    Yields:
      Per episode of T steps the fields of Minari's EpisodeBuffer: `seed` of the reset, `observations` (dictionary of
      [T + 1, size] float64), `actions` [T, 2] float32, `rewards` [T] float64, and [T] bool `terminations` and
      `truncations`.
    """
    maze, steps, episode = Maze(task.maze_map), 0, 0
    while steps < transitions:
        played = _play_episode(environment, maze, task, np.random.default_rng([seed, episode]))
        steps, episode = steps + len(played["actions"]), episode + 1
        yield played


def _play_episode(
    environment: "gymnasium.Env", maze: Maze, task: MazeTask, random: np.random.Generator
) -> dict[str, Any]:
    reset_seed = int(random.integers(2**31))
    observation, _ = environment.reset(seed=reset_seed)
    controller = WaypointController(maze, random)
    observations, steps, done = [observation], [], False
    while not done:
        x, y, vx, vy = observation["observation"].tolist()
        if controller.idle:
            on_purpose = random.random() < task.goal_share
            target = task.goal if on_purpose else maze.wander(maze.cell(x, y), random)
            controller.drive((x, y), target, Style.sample(random))
        action = np.array(controller.act(x, y, vx, vy), np.float32)
        observation, reward, terminated, truncated, _ = environment.step(action)
        observations.append(observation)
        steps.append((action, float(reward), terminated, truncated))
        done = terminated or truncated
    actions, rewards, terminations, truncations = zip(*steps, strict=True)
    return {
        "seed": reset_seed,
        "observations": {key: np.stack([each[key] for each in observations]) for key in sorted(observation)},
        "actions": np.stack(actions),
        "rewards": np.array(rewards),
        "terminations": np.array(terminations),
        "truncations": np.array(truncations),
    }


def _create(dataset_id: str, task: MazeTask, seed: int, transitions: int, exist_ok: bool) -> None:
    def play(environment: "gymnasium.Env") -> Iterator[dict[str, Any]]:
        return collect(environment, task, seed, transitions)

    make_environment = functools.partial(make_unflattened, task.environment)
    minari_writer.write_dataset(dataset_id, make_environment, play, _description(task, seed), exist_ok)


def _description(task: MazeTask, seed: int) -> dict[str, Any]:
    return {
        "algorithm_name": "waypoint controller with random targets",
        "description": (
            f"Play in a maze with one goal, {task.max_episode_steps} steps at most: a noisy waypoint controller "
            "wanders between random cells and reaches the goal only when it happens upon it."
        ),
        "requirements": ["mujoco", "gymnasium-robotics>=1.4"],
        "seed": seed,
    }
