"""D4RL: its names, addresses, reference returns and environments. `d4rl_files.py` reads its files.

The table `d4rl.json` is from Farama-Foundation/D4RL, d4rl/infos.py (Apache-2.0).
"""

import dataclasses
import functools
import importlib.resources
import json
import os
import pathlib
import re
from typing import Any

from jaxrl_srpo.data import d4rl_layouts, mirrors, ogbench_tasks
from jaxrl_srpo.data.dataset import EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.errors import DatasetError

PAPER = (
    *(
        f"antmaze-{maze}-v2"
        for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
    ),
    *(
        f"{task}-{kind}-v2"
        for task in ("hopper", "walker2d", "halfcheetah")
        for kind in ("medium-expert", "medium", "medium-replay")
    ),
)
"""The datasets of SRPO's published table, in its order."""

GROUPS = {"d4rl-paper": PAPER}
"""Names of several datasets, for `data download --all`."""

_LOCOMOTION = ("hopper", "halfcheetah", "walker2d", "ant")
_ADROIT = ("pen", "door", "hammer", "relocate")

# Observation and action width by the first word of a D4RL name. D4RL's Ant carries 84 contact forces, all zero.
_WIDTHS = {
    "hopper": (11, 3),
    "halfcheetah": (17, 6),
    "walker2d": (17, 6),
    "pen": (45, 24),
    "door": (39, 28),
    "hammer": (46, 26),
    "relocate": (39, 30),
    "antmaze": (29, 8),
    "maze2d": (4, 2),
}

_GYMNASIUM = {
    "hopper": EnvironmentSpec("Hopper-v4"),
    "halfcheetah": EnvironmentSpec("HalfCheetah-v4"),
    "walker2d": EnvironmentSpec("Walker2d-v4"),
    # The MuJoCo of D4RL's time reported contact forces of zero; clipping them to zero gives the same 111 numbers.
    "ant": EnvironmentSpec("Ant-v4", {"use_contact_forces": True, "contact_force_range": [0.0, 0.0]}),
    "pen": EnvironmentSpec("AdroitHandPen-v1", max_episode_steps=100),
    "door": EnvironmentSpec("AdroitHandDoor-v1", max_episode_steps=200),
    "hammer": EnvironmentSpec("AdroitHandHammer-v1", max_episode_steps=200),
    "relocate": EnvironmentSpec("AdroitHandRelocate-v1", max_episode_steps=200),
}

# Gymnasium's environment names, without version, and the D4RL names whose reference returns they share.
_PREFIX_OF_ENVIRONMENT = {spec.id.rsplit("-v", 1)[0]: prefix for prefix, spec in _GYMNASIUM.items()}

# D4RL's time limits, for files without a `timeouts` field; the first pattern that matches a name counts.
_TIME_LIMITS = (
    (r"(bullet-)?(hopper|halfcheetah|walker2d|ant)-", 1000),
    (r"antmaze-umaze", 700),
    (r"antmaze-", 1000),
    (r"(bullet-)?maze2d-(eval-)?open", 150),
    (r"(bullet-)?maze2d-(eval-)?umaze", 300),
    (r"(bullet-)?maze2d-(eval-)?medium", 600),
    (r"(bullet-)?maze2d-(eval-)?large", 800),
    (r"pen-", 100),
    (r"(door|hammer|relocate)-", 200),
    (r"kitchen-", 280),
    (r"minigrid-", 50),
    (r"carla-lane", 250),
    (r"carla-town", 1000),
    (r"flow-ring", 1500),
    (r"flow-merge", 750),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of D4RL's table.

    Attributes:
      name: for instance `hopper-medium-v2`.
      path: the file's path below the server's root, for instance `gym_mujoco_v2/hopper_medium-v2.hdf5`.
      urls: the public addresses of the file, D4RL's own last.
      reference: reference returns; None for the few names without.
    """

    name: str
    path: str
    urls: tuple[str, ...]
    reference: ReferenceReturns | None


@functools.cache
def _table() -> dict[str, Entry]:
    """D4RL's table by name."""
    text = importlib.resources.files("jaxrl_srpo.data").joinpath("d4rl.json").read_text(encoding="utf-8")
    content = json.loads(text)
    table = {}
    for name, (path, random, expert) in content["datasets"].items():
        scores = None if random is None else ReferenceReturns(random, expert)
        urls = mirrors.public_addresses(path, content["copies"], content["base"])
        table[name] = Entry(name, path, urls, scores)
    return table


def known_names() -> tuple[str, ...]:
    """All D4RL names, sorted."""
    return tuple(sorted(_table()))


def entry(name: str) -> Entry:
    """The line of D4RL's table for a name.

    Raises:
      DatasetError: D4RL has no such name.
    """
    try:
        return _table()[name]
    except KeyError:
        raise DatasetError(f"D4RL has no dataset {name!r}; names look like hopper-medium-v2") from None


def reference(name: str) -> ReferenceReturns | None:
    """Reference returns of a D4RL name; None where D4RL gives none.

    Raises:
      DatasetError: D4RL has no such name.
    """
    return entry(name).reference


def name_of_file(path: str | os.PathLike[str]) -> str | None:
    """The D4RL name whose file is called like this one (`hopper_medium-v2.hdf5`), None if there is none."""
    file = pathlib.PurePath(path).name
    return next((item.name for item in _table().values() if item.path.rsplit("/", 1)[-1] == file), None)


def family(name: str) -> str:
    """The family of a D4RL-like name or file stem; `other` if it looks like none.

    `hopper-medium-v2` and `hopper_medium-regen` are `locomotion`, `maze2d-...` and `pointmaze...` are `pointmaze`.
    """
    prefix = first_word(name)
    if prefix in _LOCOMOTION:
        return "locomotion"
    if prefix in _ADROIT:
        return "adroit"
    return {"antmaze": "antmaze", "maze2d": "pointmaze", "pointmaze": "pointmaze", "kitchen": "kitchen"}.get(
        prefix, "other"
    )


def environment(name: str) -> EnvironmentSpec | None:
    """The Gymnasium environment in which policies learned from a D4RL-like name are evaluated.

    Mazes are evaluated in environments of ours (`envs/d4rl_mazes.py`), because those of Gymnasium-Robotics have other
    observations, coordinates and ants than D4RL's. None for kitchen, where Gymnasium-Robotics has 59 numbers of other
    meaning instead of D4RL's 60 (9 positions of the robot and 21 of objects, with noise, and 30 of the goal), and for
    everything that Gymnasium does not have.
    """
    task = d4rl_layouts.task_of(name)
    return _GYMNASIUM.get(first_word(name)) if task is None else environment_spec(d4rl_layouts.NAMESPACE + task)


def environment_family(environment_id: str) -> str:
    """The family of an environment id such as `Hopper-v4`, `PointMaze_UMaze-v3` or `jaxrl_srpo/maze2d-umaze-v1`."""
    base = base_id(environment_id)
    if environment_id.startswith(d4rl_layouts.NAMESPACE):
        # A star is a maze of halls.
        return "pointmaze" if base.startswith("Star") else family(base)
    if base in _PREFIX_OF_ENVIRONMENT:
        return family(_PREFIX_OF_ENVIRONMENT[base])
    starts = {"AntMaze": "antmaze", "PointMaze": "pointmaze", "AdroitHand": "adroit", "FrankaKitchen": "kitchen"}
    return next((value for start, value in starts.items() if base.startswith(start)), "other")


def reference_for(name: str, environment_id: str | None) -> ReferenceReturns | None:
    """D4RL's reference returns of a name, else of the environment; None if D4RL has neither.

    They are marked where policies are evaluated in another version of the environment: a Hopper-v5 is not paid as
    D4RL's Hopper is, which Gymnasium calls v4.

    Args:
      name: of a dataset, D4RL's or any other.
      environment_id: Gymnasium id of the environment that policies are evaluated in; None if there is none.
    """
    base = None if environment_id is None else base_id(environment_id)
    specs = [(one, spec) for one in known_names() if (spec := environment(one)) is not None]
    names = [one for one, spec in specs if base_id(spec.id) == base]
    own = reference(name) if name in known_names() else None
    scores = own or next((scores for one in names if (scores := reference(one)) is not None), None)
    if scores is None or environment_id is None:
        return scores
    # A name without an environment of its own is judged by the environment alone.
    d4rls = environment(name) if own else None
    ids = [d4rls.id] if d4rls else [spec.id for one, spec in specs if one in names]
    return dataclasses.replace(scores, other_version=bool(ids) and environment_id not in ids)


def environment_spec(
    environment_id: str, kwargs: dict[str, Any] | None = None, max_episode_steps: int | None = None
) -> EnvironmentSpec:
    """A spec by Gymnasium id.

    Mazes are goal tasks, in which successes are counted, unless D4RL's reward is dense; so are OGBench's single tasks,
    with OGBench's time limit.
    """
    if task := ogbench_tasks.parse_environment(environment_id):
        limit = max_episode_steps or ogbench_tasks.time_limit(task.environment)
        return EnvironmentSpec(environment_id, kwargs or {}, limit, goal_task=True)
    goal_task = environment_family(environment_id) in ("antmaze", "pointmaze") and "-dense" not in environment_id
    return EnvironmentSpec(environment_id, kwargs or {}, max_episode_steps, goal_task)


def time_limit(name: str) -> int | None:
    """D4RL's time limit in steps for a D4RL-like name; None if unknown."""
    words = name.replace("_", "-") + "-"
    return next((steps for pattern, steps in _TIME_LIMITS if re.match(pattern, words)), None)


def widths(name: str) -> tuple[int, int] | None:
    """Observation and action width of a D4RL-like name; None if unknown."""
    return _WIDTHS.get(first_word(name))


def first_word(name: str) -> str:
    """`hopper` of `hopper_medium-regen`."""
    return re.split(r"[-_/]", name, maxsplit=1)[0]


def base_id(environment_id: str) -> str:
    """An environment id without namespace and version: `Hopper` of `Hopper-v4`."""
    return re.sub(r"-v\d+$", "", environment_id.rsplit("/", 1)[-1])
