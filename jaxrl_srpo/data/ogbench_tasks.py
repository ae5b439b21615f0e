"""OGBench's single tasks (arXiv 2410.20092, package ogbench 1.2.2): names, goals, and the rewards of a state.

A task has parts, each of them solved or not in a state: a place to reach, cubes in their places, buttons in their
states. The reward of a row is minus the number of parts that are not solved in its state, before the action; the state
in which all are solved is the last one that a return counts.
"""

import dataclasses
import functools
import re
from typing import NamedTuple

import numpy as np

from jaxrl_srpo.errors import DatasetError

TASKS = 5
"""Every environment has tasks 1 to 5."""

_NEAR = 0.04
"""Meters within which an object is in its place."""

_ARM = 14
"""Numbers of the arm at the start of `qpos`; those of the objects follow."""

_CUBE = 7
_BALL = 15

# Where the mazes' goals are, x and y in meters.
_MAZES = {
    "medium": ((20, 20), (20, 0), (4, 12), (0, 20), (0, 0)),
    "large": ((36, 24), (0, 24), (36, 0), (12, 16), (12, 16)),
    "giant": ((52, 36), (0, 36), (0, 0), (44, 16), (28, 8)),
    "teleport": ((0, 24), (36, 24), (36, 24), (36, 24), (0, 24)),
}
_SOCCER = {
    "arena": ((4, 16), (4, 4), (20, 20), (0, 20), (20, 0)),
    "medium": ((20, 20), (0, 0), (16, 20), (8, 16), (20, 0)),
}
# Places of the cubes, x, y and z in meters.
_CUBES = {
    "single": ("0.425 -0.1 0.02", "0.5 0 0.02", "0.35 0 0.02", "0.5 0.2 0.02", "0.5 -0.2 0.02"),
    "double": (
        "0.425 0 0.02, 0.425 0.1 0.02",
        "0.35 0.1 0.02, 0.5 0.1 0.02",
        "0.425 -0.2 0.02, 0.425 0.2 0.02",
        "0.425 0.1 0.02, 0.425 -0.1 0.02",
        "0.425 0 0.02, 0.425 0 0.06",
    ),
    "triple": (
        "0.35 -0.1 0.02, 0.35 0.1 0.02, 0.5 0.1 0.02",
        "0.5 0 0.02, 0.5 0.2 0.02, 0.5 -0.2 0.02",
        "0.35 -0.1 0.02, 0.5 -0.2 0.02, 0.5 0 0.02",
        "0.5 -0.1 0.02, 0.5 0.1 0.02, 0.35 0 0.02",
        "0.425 0.2 0.02, 0.425 0.2 0.06, 0.425 0.2 0.1",
    ),
    "quadruple": (
        "0.35 -0.25 0.02, 0.35 0.1 0.02, 0.5 -0.1 0.02, 0.5 0.25 0.02",
        "0.375 0.1 0.02, 0.475 0.1 0.02, 0.375 -0.1 0.02, 0.475 -0.1 0.02",
        "0.525 -0.2 0.02, 0.325 0.2 0.02, 0.325 -0.2 0.02, 0.525 0.2 0.02",
        "0.525 0.1 0.02, 0.325 0.1 0.02, 0.325 -0.1 0.02, 0.525 -0.1 0.02",
        "0.425 0.2 0.02, 0.425 0.2 0.06, 0.425 0.2 0.1, 0.425 0.2 0.14",
    ),
    "octuple": (
        "0.525 0.05 0.02, 0.425 -0.15 0.02, 0.425 -0.05 0.02, 0.325 0.15 0.02, "
        "0.525 -0.15 0.02, 0.425 0.05 0.02, 0.425 0.15 0.02, 0.325 -0.05 0.02",
        "0.525 0.2 0.02, 0.525 0 0.02, 0.525 -0.2 0.02, 0.425 -0.2 0.02, "
        "0.325 -0.2 0.02, 0.325 0 0.02, 0.325 0.2 0.02, 0.425 0.2 0.02",
        "0.32 0.15 0.02, 0.46 0.15 0.02, 0.39 0.05 0.02, 0.53 0.05 0.02, "
        "0.32 -0.05 0.02, 0.46 -0.05 0.02, 0.39 -0.15 0.02, 0.53 -0.15 0.02",
        "0.525 0.05 0.02, 0.525 -0.05 0.02, 0.425 -0.15 0.06, 0.425 -0.15 0.02, "
        "0.425 0.15 0.06, 0.425 0.15 0.02, 0.325 -0.05 0.02, 0.325 0.05 0.02",
        "0.325 0 0.02, 0.325 0 0.06, 0.425 0.2 0.02, 0.425 0.2 0.06, "
        "0.525 0 0.02, 0.525 0 0.06, 0.425 -0.2 0.02, 0.425 -0.2 0.06",
    ),
}
# The cube's place, the states of the buttons, and how far drawer and window are open, in meters.
_SCENE = (
    ("0.35 0.05 0.02", "11", -0.16, 0.2),
    ("0.35 -0.05 0.02", "00", 0.0, 0.0),
    ("0.4 0.15 0.02", "11", -0.16, 0.0),
    ("0.33 -0.356 0.065986", "10", 0.0, 0.0),
    ("0.33 -0.356 0.065986", "00", 0.0, 0.2),
)
# States of the buttons, row by row.
_PUZZLES = {
    "3x3": ("110 101 011", "011 111 111", "101 010 101", "111 111 111", "101 101 101"),
    "4x4": (
        "1111 1111 1111 1111",
        "1111 1001 1001 1111",
        "0101 1010 0101 1010",
        "0000 0000 0000 0000",
        "0000 0000 0000 0000",
    ),
    "4x5": (
        "00000 00000 00000 00000",
        "11111 11111 11111 11111",
        "11111 10001 10001 11111",
        "00000 00100 00100 00000",
        "10001 01110 01110 10001",
    ),
    "4x6": (
        "000000 000000 000000 000000",
        "000000 000000 000000 000000",
        "111110 110101 101011 011111",
        "100001 000000 000000 100001",
        "100001 011110 011110 100001",
    ),
}
# The tasks that `-singletask-v0` without a number means.
_DEFAULTS = {"antsoccer": 4, "cube": 2, "scene": 2, "puzzle-3x3": 4, "puzzle-4x4": 4, "puzzle-4x5": 2, "puzzle-4x6": 2}


# Steps after which an episode ends.
_LIMITS = {
    "humanoidmaze-giant": 4000,
    "humanoidmaze": 2000,
    "cube-single": 200,
    "cube-double": 500,
    "cube-octuple": 1500,
    "scene": 750,
    "puzzle-3x3": 500,
    "puzzle-4x4": 500,
}


class Widths(NamedTuple):
    """Numbers of an environment's observations, actions, positions and, 0 without any, buttons."""

    observation: int
    action: int
    qpos: int
    buttons: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """The goal of a task; what it leaves out does not count.

    Attributes:
      place: x and y in meters of the body that is to be there.
      body: where in `qpos` that body's x stands.
      radius: distance in meters within which it is there.
      cubes: place in meters of every cube, in the order of `qpos`.
      buttons: state of every button.
      slides: how far drawer and window are open, in meters; they follow cubes and buttons in `qpos`.
    """

    place: tuple[int, int] | None = None
    body: int = 0
    radius: float = 0.5
    cubes: tuple[tuple[float, float, float], ...] = ()
    buttons: tuple[int, ...] = ()
    slides: tuple[float, ...] = ()

    def solved(self, qpos: np.ndarray, button_states: np.ndarray | None) -> np.ndarray:
        """Which parts are solved in N states.

        Args:
          qpos: [N, width] positions of the simulation.
          button_states: [N, buttons]; None where there are none.

        Returns:
          [N, parts] bool.
        """
        parts: list[np.ndarray] = []
        if self.place is not None:
            away = qpos[:, self.body : self.body + 2] - np.array(self.place, np.float64)
            parts.append(np.linalg.norm(away, axis=-1) <= self.radius)
        for i, place in enumerate(self.cubes):
            first = _ARM + _CUBE * i
            parts.append(np.linalg.norm(np.array(place) - qpos[:, first : first + 3], axis=-1) <= _NEAR)
        if button_states is not None:
            parts += [button_states[:, i] == state for i, state in enumerate(self.buttons)]
        first = _ARM + _CUBE * len(self.cubes) + len(self.buttons)
        # In the type of `qpos`, as OGBench compares them.
        parts += [np.abs(qpos[:, first + i] - goal) <= _NEAR for i, goal in enumerate(self.slides)]
        return np.stack(parts, axis=1)

    def rewards(self, qpos: np.ndarray, button_states: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Rewards [N] float32 and successes [N] bool of N states; arguments as in `solved`."""
        solved = self.solved(qpos, button_states)
        finished: np.ndarray = np.logical_and.reduce(solved, axis=1)
        return (solved.sum(axis=1) - solved.shape[1]).astype(np.float32), finished


@dataclasses.dataclass(frozen=True)
class Name:
    """The name of a dataset of OGBench, taken apart.

    Attributes:
      environment: for instance `cube-single`.
      kind: how it was recorded, for instance `play`.
      large: whether it is the set of 100 million steps, a folder of files.
      task: 1 to `TASKS`; 0 for the environment's default; None for the data without rewards.
      validation: whether it is the part for validation.
    """

    environment: str
    kind: str
    large: bool = False
    task: int | None = None
    validation: bool = False

    @property
    def file(self) -> str:
        """Name of the file of its rows without suffix, or of the folder of several."""
        size = "-100m" if self.large else ""
        return f"{self.environment}-{self.kind}{size}-v0{'-val' if self.validation else ''}"

    @property
    def number(self) -> int:
        """Number of the task; the default's where none is named."""
        return self.task or default_task(self.environment)

    @property
    def environment_id(self) -> str:
        """Id of the environment of its task, always with a number, so that equal tasks are of one environment."""
        return f"{self.environment}-singletask-task{self.number}-v0"


_NAME = re.compile(
    r"(?P<environment>[a-z]+(-[a-z0-9]+)?)-(?P<kind>navigate|stitch|explore|play|noisy)(?P<large>-100m)?"
    r"(?P<single>-singletask(-task(?P<task>[0-9]))?)?-v0(?P<validation>-val)?"
)


def parse(text: str) -> Name | None:
    """The parts of a name; None where it is no dataset of vectors of OGBench's."""
    match = _NAME.fullmatch(text)
    if match is None or match["environment"] not in environments():
        return None
    task = None if match["single"] is None else int(match["task"] or 0)
    if match["task"] is not None and not 1 <= int(match["task"]) <= TASKS:
        return None
    if match["kind"] not in _kinds(match["environment"]):
        return None
    large, validation = match["large"] is not None, match["validation"] is not None
    return Name(match["environment"], match["kind"], large, task, validation)


def parse_environment(environment_id: str) -> Name | None:
    """The environment and the task of an id, as the name of some data of it; None where it is no single task's."""
    if environment_id not in environment_ids():
        return None
    environment, single, task = environment_id.partition("-singletask")
    return parse(f"{environment}-{_kinds(environment)[0]}{single}{task}")


def environments() -> tuple[str, ...]:
    """The environments, without those of images."""
    mazes = [f"{body}-{maze}" for body in ("pointmaze", "antmaze", "humanoidmaze") for maze in _MAZES]
    soccer = [f"antsoccer-{maze}" for maze in _SOCCER]
    return (*mazes, *soccer, *(f"cube-{n}" for n in _CUBES), "scene", *(f"puzzle-{size}" for size in _PUZZLES))


def known_names() -> list[str]:
    """The names of all datasets with the default task, for suggestions."""
    return [f"{name}-{kind}-singletask-v0" for name in environments() for kind in _kinds(name)]


@functools.cache
def environment_ids() -> frozenset[str]:
    """The ids of the environments of all single tasks."""
    numbers = ["", *(f"-task{i + 1}" for i in range(TASKS))]
    return frozenset(f"{name}-singletask{number}-v0" for name in environments() for number in numbers)


def default_task(environment: str) -> int:
    """Number of the task that an environment has unless one is named."""
    return next((task for start, task in _DEFAULTS.items() if environment.startswith(start)), 1)


def time_limit(environment: str) -> int:
    """Steps after which an evaluation ends an episode."""
    return next((limit for start, limit in _LIMITS.items() if environment.startswith(start)), 1000)


def find_task(name: Name) -> Task:
    """The goal of the task that a name means.

    Raises:
      DatasetError: it means none.
    """
    if name.task is None:
        raise no_rewards(name)
    word, _, which = name.environment.partition("-")
    at = name.number - 1
    if word == "cube":
        return Task(cubes=_places(_CUBES[which][at]))
    if word == "scene":
        cube, buttons, drawer, window = _SCENE[at]
        return Task(cubes=_places(cube), buttons=_states(buttons), slides=(drawer, window))
    if word == "puzzle":
        return Task(buttons=_states(_PUZZLES[which][at]))
    if word == "antsoccer":
        return Task(place=_SOCCER[which][at], body=_BALL)
    return Task(place=_MAZES[which][at], radius=1.0 if word == "pointmaze" else 0.5)


def widths(environment: str) -> Widths:
    """The sizes of an environment's data."""
    word, _, which = environment.partition("-")
    if word == "cube":
        count = len(_places(_CUBES[which][0]))
        return Widths(19 + 9 * count, 5, _ARM + _CUBE * count)
    if word == "puzzle":
        count = len(_states(_PUZZLES[which][0]))
        return Widths(19 + 4 * count, 5, _ARM + count, count)
    return {
        "scene": Widths(40, 5, 25, 2),
        "pointmaze": Widths(2, 2, 2),
        "antmaze": Widths(29, 8, 15),
        "humanoidmaze": Widths(69, 21, 28),
        "antsoccer": Widths(42, 8, 22),
    }[word]


def no_rewards(name: Name) -> DatasetError:
    """The error for data of which no task is named."""
    single = dataclasses.replace(name, validation=False).file.replace("-v0", "-singletask{}-v0")
    return DatasetError(
        f"{name.file}: has no rewards; name a task of it: {single.format('')} (task {default_task(name.environment)}) "
        f"or {single.format('-task1')} to {single.format(f'-task{TASKS}')}"
    )


def _kinds(environment: str) -> tuple[str, ...]:
    word = environment.partition("-")[0]
    if word in ("cube", "scene", "puzzle"):
        return ("play", "noisy")
    return ("navigate", "stitch", "explore") if word == "antmaze" else ("navigate", "stitch")


def _places(text: str) -> tuple[tuple[float, float, float], ...]:
    places = ([float(number) for number in place.split()] for place in text.split(","))
    return tuple((x, y, z) for x, y, z in places)


def _states(text: str) -> tuple[int, ...]:
    return tuple(int(state) for state in text.replace(" ", ""))
