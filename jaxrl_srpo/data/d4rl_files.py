"""D4RL's HDF5 layout, read with h5py alone as D4RL's `qlearning_dataset` does."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from jaxrl_srpo.data import d4rl, hdf5, validation
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.data.fingerprint import fingerprint
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.processors import memory

_LOG = logging.getLogger(__name__)
_FIELDS = "as observations [N, n], actions [N, m], rewards [N] and terminals [N], with h5py"
# Of other formats, the first bytes.
_FORMATS = {
    b"PK\x03\x04": "a NumPy archive (.npz)",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x80": "a pickle, which is not read because it can run code",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
}


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

    Fields: `observations` [N, n], `actions` [N, m], `rewards` [N], `terminals` [N], optionally `timeouts` [N] (or
    d3rlpy's `episode_terminals` [N]) and `next_observations` [N, n]. s' is `next_observations` where the file has them,
    else the next row's observation as always in D4RL; in a sound file the two differ only at terminals, where s' is not
    bootstrapped from. File attributes, all optional: `env_id` (Gymnasium id), `action_low`, `action_high`.

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
    validation.require_numbers(source, fields)
    validation.require_fields(source, fields, ("observations", "actions", "rewards", "terminals"))
    observations, actions, rewards, terminals = (
        _required(fields, key) for key in ("observations", "actions", "rewards", "terminals")
    )
    name = name or d4rl.name_of_file(path) or pathlib.PurePath(path).stem
    spec = _environment_of_file(name, observations.shape[1], env or attributes.get("env_id"))
    kind = d4rl.environment_family(spec.id) if spec else d4rl.family(name)
    limit = max_episode_steps or d4rl.time_limit(name)
    low, high = _action_bounds(source, actions, attributes, known=kind != "other")
    following, timeouts = fields["next_observations"], _timeouts(fields)
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
    if not rows.ends.any():
        _LOG.warning(
            "%s: no terminals and no time-outs end an episode in it; it is one of %d steps", source, len(rewards)
        )
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
        reference=d4rl.reference_for(name, spec.id if spec else None),
    )


def _read_fields(source: str) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
    """The known fields (None where absent) and the attributes of an HDF5 file."""
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations", "episode_terminals")
    fields: dict[str, np.ndarray | None] = dict.fromkeys(names)
    try:
        with hdf5.open_contained(source) as file:
            present = {name: file[name] for name in names if isinstance(file.get(name), h5py.Dataset)}
            _refuse_lengths(source, present)
            for name, dataset in present.items():
                fields[name] = _squeeze(name, np.asarray(dataset[()]))
            attributes = dict(file.attrs)
            if "discrete_action" in file and np.any(file["discrete_action"][()]):
                raise DatasetError(
                    f"{source}: its actions are discrete (discrete_action); only continuous ones can be trained on"
                )
    except OSError as error:
        if other := _other_format(source):
            raise DatasetError(f"{source}: is {other}, not HDF5; write its arrays to an HDF5 file {_FIELDS}") from error
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{source}: not a readable HDF5 file, perhaps cut short; get it again ({reason})") from error
    return fields, attributes


def _other_format(source: str) -> str:
    """What a file is that is no HDF5, by its first bytes; empty if that is unknown."""
    try:
        begin = pathlib.Path(source).read_bytes()[:8]
    except OSError:
        return ""
    return next((name for magic, name in _FORMATS.items() if begin.startswith(magic)), "")


def _timeouts(fields: Mapping[str, np.ndarray | None]) -> np.ndarray | None:
    """[N], nonzero where a time limit ended an episode; d3rlpy marks every end, by `episode_terminals`."""
    ends, terminals = fields["episode_terminals"], _required(fields, "terminals")
    if fields["timeouts"] is not None or ends is None:
        return fields["timeouts"]
    return (ends != 0) & (terminals == 0)


def _refuse_lengths(source: str, datasets: Mapping[str, h5py.Dataset]) -> None:
    """Refuses fields of different lengths, and more than memory holds, before any of them is read."""
    lengths = {name: dataset.shape[0] for name, dataset in datasets.items() if dataset.shape}
    for name, length in lengths.items():
        if "observations" in lengths and length != lengths["observations"]:
            raise DatasetError(f"{source}: {name} has {length} rows, observations has {lengths['observations']}")
    # They are read, converted, and packed into one table.
    needed = 3 * sum(dataset.nbytes for dataset in datasets.values())
    if needed > memory():
        raise DatasetError(
            f"{source}: {max(lengths.values()):,} rows need about {needed / 2**30:,.0f} GiB of memory; this machine "
            f"has {memory() / 2**30:,.0f} GiB"
        )


def _squeeze(name: str, values: np.ndarray) -> np.ndarray:
    """Scalars per step as [N]; some D4RL files hold them as [N, 1]."""
    column = values.ndim == 2 and values.shape[1] == 1
    return values[:, 0] if column and name in ("rewards", "terminals", "timeouts", "episode_terminals") else values


def _required(fields: Mapping[str, np.ndarray | None], name: str) -> np.ndarray:
    """A field that `require_fields` has seen."""
    value = fields[name]
    assert value is not None
    return value


def _environment_of_file(name: str, observation_size: int, environment_id: Any) -> EnvironmentSpec | None:
    """The environment named by a flag or by the file, else by the dataset's name."""
    if environment_id:
        return d4rl.environment_spec(
            environment_id.decode() if isinstance(environment_id, bytes) else str(environment_id)
        )
    spec = d4rl.environment(name)
    if spec is not None and d4rl.first_word(name) == "ant" and observation_size == 27:
        return EnvironmentSpec("Ant-v4")
    return spec


def _wrong_width(name: str, observations: np.ndarray, actions: np.ndarray) -> list[str]:
    """A message if a D4RL-like name and the widths contradict each other."""
    width = (observations.shape[1], actions.shape[1])
    expected = d4rl.widths(name)
    if expected is None or width == expected:
        return []
    return [
        f"observations and actions have widths {width[0]} and {width[1]}, but {d4rl.first_word(name)} has "
        f"{expected[0]} and {expected[1]}; if the data is of another environment, name it with --env"
    ]


def _action_bounds(
    source: str, actions: np.ndarray, attributes: dict[str, Any], known: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [action_size] each: the file's, else [-1, 1], widened to the data if the environment is unknown."""
    size = actions.shape[1]
    low, high = -np.ones(size, np.float32), np.ones(size, np.float32)
    if "action_low" in attributes and "action_high" in attributes:
        return _given_bounds(source, attributes, size)
    if known:
        return low, high
    # fmin and fmax pass over NaN, which validation reports.
    return (
        np.fmin(low, np.fmin.reduce(actions, axis=0)).astype(np.float32),
        np.fmax(high, np.fmax.reduce(actions, axis=0)).astype(np.float32),
    )


def _given_bounds(source: str, attributes: dict[str, Any], size: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        low, high = (
            np.broadcast_to(np.asarray(attributes[name], np.float32), size).copy()
            for name in ("action_low", "action_high")
        )
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{source}: action_low and action_high must be a number, or one for each of {size}"
        ) from error
    validation.require_bounds(source, low, high)
    return low, high


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
