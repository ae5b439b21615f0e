"""D4RL: its names, addresses and reference returns, and its HDF5 layout read with h5py alone.

The table `d4rl.json` is from Farama-Foundation/D4RL, d4rl/infos.py (Apache-2.0).
"""

import dataclasses
import functools
import importlib.resources
import json
import logging
import os
import pathlib
import re
from typing import Any

import h5py
import numpy as np

from jaxrl_srpo.data import d4rl_layouts, validation
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.data.fingerprint import fingerprint
from jaxrl_srpo.errors import DatasetError

_LOG = logging.getLogger(__name__)

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
      url: D4RL's own address of the file.
      reference: reference returns; None for the few names without.
    """

    name: str
    path: str
    url: str
    reference: ReferenceReturns | None


@functools.cache
def _table() -> dict[str, Entry]:
    """D4RL's table by name."""
    text = importlib.resources.files("jaxrl_srpo.data").joinpath("d4rl.json").read_text(encoding="utf-8")
    content = json.loads(text)
    table = {}
    for name, (path, random, expert) in content["datasets"].items():
        scores = None if random is None else ReferenceReturns(random, expert)
        table[name] = Entry(name, path, content["base"] + path, scores)
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
    prefix = _prefix(name)
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
    return _GYMNASIUM.get(_prefix(name)) if task is None else environment_spec(d4rl_layouts.NAMESPACE + task)


def environment_family(environment_id: str) -> str:
    """The family of an environment id such as `Hopper-v4`, `PointMaze_UMaze-v3` or `jaxrl_srpo/maze2d-umaze-v1`."""
    base = _base_id(environment_id)
    if environment_id.startswith(d4rl_layouts.NAMESPACE):
        # A star is a maze of halls.
        return "pointmaze" if base.startswith("Star") else family(base)
    if base in _PREFIX_OF_ENVIRONMENT:
        return family(_PREFIX_OF_ENVIRONMENT[base])
    starts = {"AntMaze": "antmaze", "PointMaze": "pointmaze", "AdroitHand": "adroit", "FrankaKitchen": "kitchen"}
    return next((value for start, value in starts.items() if base.startswith(start)), "other")


def environment_reference(environment_id: str) -> ReferenceReturns | None:
    """D4RL's reference returns of a Gymnasium environment id; None if D4RL does not have that environment."""
    base = _base_id(environment_id)
    names = [name for name in known_names() if (spec := environment(name)) is not None and _base_id(spec.id) == base]
    return next((scores for name in names if (scores := reference(name)) is not None), None)


def environment_spec(
    environment_id: str, kwargs: dict[str, Any] | None = None, max_episode_steps: int | None = None
) -> EnvironmentSpec:
    """A spec by Gymnasium id; mazes are goal tasks, in which successes are counted, unless D4RL's reward is dense."""
    goal_task = environment_family(environment_id) in ("antmaze", "pointmaze") and "-dense" not in environment_id
    return EnvironmentSpec(environment_id, kwargs or {}, max_episode_steps, goal_task)


def time_limit(name: str) -> int | None:
    """D4RL's time limit in steps for a D4RL-like name; None if unknown."""
    words = name.replace("_", "-") + "-"
    return next((steps for pattern, steps in _TIME_LIMITS if re.match(pattern, words)), None)


@dataclasses.dataclass(frozen=True)
class EpisodeRows:
    """Which rows of a D4RL file are used, and where its episodes end.

    Attributes:
      kept: [K] int64, rows that become transitions, ascending.
      final: [N] bool, rows that end an episode by time limit.
      ends: [N] bool, rows that end an episode in any way.
    """

    kept: np.ndarray
    final: np.ndarray
    ends: np.ndarray


def qlearning_rows(terminals: np.ndarray, timeouts: np.ndarray | None, max_episode_steps: int | None) -> EpisodeRows:
    """The rows that D4RL's `qlearning_dataset` keeps (with `terminate_on_end=False`).

    A row at a time limit is dropped, even if it is terminal, because the next row belongs to another episode; so is the
    last row of the file. Without `timeouts`, a row is at the time limit when D4RL's step counter says so; that counter
    starts at 1 and not at 0 after a termination, which is reproduced.

    Args:
      terminals: [N] bool.
      timeouts: [N] bool, or None if the file has no such field.
      max_episode_steps: time limit where `timeouts` is None; None for no limit.

    Returns:
      The rows, as `EpisodeRows`.
    """
    final = np.asarray(timeouts, bool) if timeouts is not None else _count_time_limits(terminals, max_episode_steps)
    kept = np.flatnonzero(~final[:-1])
    return EpisodeRows(kept, final, terminals | final)


def _count_time_limits(terminals: np.ndarray, max_episode_steps: int | None) -> np.ndarray:
    """[N] bool: rows at which D4RL's step counter meets the time limit."""
    final = np.zeros(len(terminals), bool)
    if max_episode_steps is None:
        return final
    start, counter = 0, 0
    for stop in [*(np.flatnonzero(terminals) + 1).tolist(), len(terminals)]:
        first = start + max_episode_steps - 1 - counter
        if first >= start:
            final[first:stop:max_episode_steps] = True
        # A dropped row skips the counter's increment; a kept terminal does not.
        counter = 0 if stop > start and final[stop - 1] else 1
        start = stop
    return final


def read_hdf5(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    env: str | None = None,
    allow_invalid: bool = False,
    max_episode_steps: int | None = None,
) -> Dataset:
    """Reads a file in D4RL's layout as D4RL's `qlearning_dataset` does.

    Fields: `observations` [N, n], `actions` [N, m], `rewards` [N], `terminals` [N], optionally `timeouts` [N] and
    `next_observations` [N, n]. s' is `next_observations` where the file has them, else the next row's observation as
    always in D4RL; in a sound file the two differ only at terminals, where s' is not bootstrapped from. File
    attributes, all optional: `env_id` (Gymnasium id), `action_low`, `action_high`.

    Args:
      path: the HDF5 file.
      name: what tables call it; default: the D4RL name of a file that is called like D4RL's, else the file's stem.
      env: Gymnasium id that overrides the file's and the name's.
      allow_invalid: log what validation finds instead of raising.
      max_episode_steps: time limit for files without `timeouts`; default: D4RL's for the name.

    Returns:
      The dataset; bounds are [-1, 1] unless the file gives others or an unknown environment's actions exceed them.

    Raises:
      DatasetError: the file cannot be read, or fails validation.
    """
    source = os.fspath(path)
    fields, attributes = _read_fields(source)
    validation.require_fields(source, fields, ("observations", "actions", "rewards", "terminals"))
    observations, actions, rewards, terminals = (
        _required(fields, key) for key in ("observations", "actions", "rewards", "terminals")
    )
    name = name or name_of_file(path) or pathlib.PurePath(path).stem
    spec = _environment_of_file(name, observations.shape[1], env or attributes.get("env_id"))
    kind = environment_family(spec.id) if spec else family(name)
    limit = max_episode_steps or time_limit(name)
    low, high = _action_bounds(actions, attributes, known=kind != "other")
    following, timeouts = fields["next_observations"], fields["timeouts"]
    rows = qlearning_rows(terminals != 0, None if timeouts is None else timeouts != 0, limit)
    findings = validation.validate(
        source,
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        ends=rows.ends,
        next_observations=following,
        action_low=low,
        action_high=high,
        allow_invalid=allow_invalid,
    )
    if env is None:
        findings += validation.report(source, _wrong_width(name, observations, actions), allow_invalid)
    for finding in findings:
        _LOG.warning("%s", finding)
    if not len(rows.kept):
        raise DatasetError(
            f"{source}: no transition is left of {len(rewards)} rows once time-outs and the last row are dropped"
        )
    kept = rows.kept
    transitions = (
        observations[kept].astype(np.float32, copy=False),
        actions[kept].astype(np.float32, copy=False),
        rewards[kept].astype(np.float32, copy=False),
        (observations[kept + 1] if following is None else following[kept]).astype(np.float32, copy=False),
        terminals[kept] != 0,
    )
    returns, lengths, by_time = _episode_statistics(rewards, rows.ends, rows.final & (terminals == 0))
    scores = _table()[name].reference if name in _table() else None
    return Dataset(
        name,
        source,
        *transitions,
        episode_ends=_last_kept(rows),
        episode_returns=returns,
        episode_lengths=lengths,
        timeouts=by_time,
        action_low=low,
        action_high=high,
        fingerprint=fingerprint(*transitions, low, high),
        family=kind,
        environment=spec,
        reference=scores or (environment_reference(spec.id) if spec else None),
    )


def _read_fields(source: str) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
    """The known fields (None where absent) and the attributes of an HDF5 file."""
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    fields: dict[str, np.ndarray | None] = dict.fromkeys(names)
    try:
        with h5py.File(source, "r") as file:
            for name in names:
                if isinstance(file.get(name), h5py.Dataset):
                    fields[name] = _squeeze(name, np.asarray(file[name][()]))
            attributes = dict(file.attrs)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{source}: not a readable HDF5 file, perhaps cut short; get it again ({reason})") from error
    return fields, attributes


def _squeeze(name: str, values: np.ndarray) -> np.ndarray:
    """Scalars per step as [N]; some D4RL files hold them as [N, 1]."""
    column = values.ndim == 2 and values.shape[1] == 1
    return values[:, 0] if column and name in ("rewards", "terminals", "timeouts") else values


def _required(fields: dict[str, np.ndarray | None], name: str) -> np.ndarray:
    """A field that `require_fields` has seen."""
    value = fields[name]
    assert value is not None
    return value


def _environment_of_file(name: str, observation_size: int, environment_id: Any) -> EnvironmentSpec | None:
    """The environment named by a flag or by the file, else by the dataset's name."""
    if environment_id:
        return environment_spec(environment_id.decode() if isinstance(environment_id, bytes) else str(environment_id))
    spec = environment(name)
    if spec is not None and _prefix(name) == "ant" and observation_size == 27:
        return EnvironmentSpec("Ant-v4")
    return spec


def _wrong_width(name: str, observations: np.ndarray, actions: np.ndarray) -> list[str]:
    """A message if a D4RL-like name and the widths contradict each other."""
    width = (observations.shape[1], actions.shape[1])
    expected = _WIDTHS.get(_prefix(name), width)
    if width == expected:
        return []
    return [
        f"observations and actions have widths {width[0]} and {width[1]}, but {_prefix(name)} has "
        f"{expected[0]} and {expected[1]}; if the data is of another environment, name it with --env"
    ]


def _action_bounds(actions: np.ndarray, attributes: dict[str, Any], known: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [action_size] each: the file's, else [-1, 1], widened to the data if the environment is unknown."""
    size = actions.shape[1]
    low, high = -np.ones(size, np.float32), np.ones(size, np.float32)
    if "action_low" in attributes and "action_high" in attributes:
        given = (attributes["action_low"], attributes["action_high"])
        return tuple(np.broadcast_to(np.asarray(value, np.float32), size).copy() for value in given)  # type: ignore[return-value]
    if known:
        return low, high
    # fmin and fmax pass over NaN, which validation reports.
    return (
        np.fmin(low, np.fmin.reduce(actions, axis=0)).astype(np.float32),
        np.fmax(high, np.fmax.reduce(actions, axis=0)).astype(np.float32),
    )


def _last_kept(rows: EpisodeRows) -> np.ndarray:
    """[K] bool: the last kept row of each episode."""
    episode = np.cumsum(rows.ends) - rows.ends
    return np.append(np.diff(episode[rows.kept]) != 0, True)


def _episode_statistics(
    rewards: np.ndarray, ends: np.ndarray, by_time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns [E], lengths [E] and the number of time-outs of all complete episodes of a file.

    Rows after the last end are an episode cut short and do not count, unless they are all there is.
    """
    stops = np.flatnonzero(ends) + 1 if ends.any() else np.array([len(rewards)])
    starts = np.concatenate([[0], stops[:-1]])
    returns = np.add.reduceat(np.asarray(rewards[: stops[-1]], np.float64), starts)
    return returns, (stops - starts).astype(np.int64), int(by_time.sum())


def _prefix(name: str) -> str:
    """The first word of a name: `hopper` of `hopper_medium-regen`."""
    return re.split(r"[-_/]", name, maxsplit=1)[0]


def _base_id(environment_id: str) -> str:
    """An environment id without namespace and version: `Hopper` of `Hopper-v4`."""
    return re.sub(r"-v\d+$", "", environment_id.rsplit("/", 1)[-1])
