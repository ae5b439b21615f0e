"""D4RL's HDF5 layout, read with h5py alone as D4RL's `qlearning_dataset` does."""

import dataclasses
import logging
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.data import d4rl, recording, validation
from jaxrl_srpo.data.columns import Attributes, Columns
from jaxrl_srpo.data.d4rl_columns import read_columns
from jaxrl_srpo.data.d4rl_defects import defects
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.data.fingerprint import fingerprint
from jaxrl_srpo.data.reading import require_text
from jaxrl_srpo.errors import DatasetError

_LOG = logging.getLogger(__name__)


class _Transitions(NamedTuple):
    """The kept rows, in the order and of the types of a `Dataset`."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Episodes:
    """The E complete episodes of a file, dropped rows included."""

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    timed_out: np.ndarray


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
    env_time_limit: int | None = None,
    drop_reset_rows: bool = False,
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
      max_episode_steps: time limit for files without `timeouts`, counted as D4RL counts; default: D4RL's for the name.
      env_time_limit: time limit of `env` in steps, for files without `timeouts`; it goes before D4RL's.
      drop_reset_rows: leave out rows that are resets of a vector environment and no transitions; see
        `recording.rows_after_ends`.

    Returns:
      The dataset; bounds are [-1, 1] unless the file gives others or an unknown environment's actions exceed them.

    Raises:
      DatasetError: the file cannot be read, or fails validation.
    """
    source = require_text("the path of a dataset", os.fspath(path))
    return to_dataset(
        source,
        name or name_of(source),
        *read_columns(source),
        env=env,
        allow_invalid=allow_invalid,
        max_episode_steps=max_episode_steps,
        env_time_limit=env_time_limit,
        drop_reset_rows=drop_reset_rows,
    )


def name_of(path: str) -> str:
    """What tables call a file: D4RL's name if it is called like one of D4RL's, else its stem."""
    return d4rl.name_of_file(path) or pathlib.PurePath(path).stem


def to_dataset(
    source: str,
    name: str,
    columns: Columns,
    attributes: Attributes,
    *,
    env: str | None = None,
    allow_invalid: bool = False,
    max_episode_steps: int | None = None,
    env_time_limit: int | None = None,
    drop_reset_rows: bool = False,
) -> Dataset:
    """The dataset of columns with one row per step, wherever they are from; see `read_hdf5`.

    Args:
      source: where they are from, for messages.
      name: what tables call it.
      columns: N rows in the order of time, one episode after another.
      attributes: what was given beside them.
      env: see `read_hdf5`; likewise the others.

    Raises:
      DatasetError: they fail validation.
    """
    notes: list[str] = []
    if drop_reset_rows:
        columns, dropped = _without_reset_rows(columns)
        notes += [f"{dropped} reset rows are left out" if dropped else "no row can be a reset; none is left out"]
    spec = _environment_of_file(name, columns.observations.shape[1], env or attributes.environment)
    kind = d4rl.environment_family(spec.id) if spec else d4rl.family(name)
    limit = env_time_limit or max_episode_steps or d4rl.time_limit(name)
    if columns.timeouts is None and env_time_limit:
        counted = recording.time_limits(columns.terminals, env_time_limit)
        columns = dataclasses.replace(columns, timeouts=counted)
        notes += [f"no `timeouts`; the time limit of {env}, {limit} steps, is taken"] if counted.any() else []
    low, high = _action_bounds(source, columns.actions, attributes, known=kind != "other")
    rows = qlearning_rows(columns.terminals, columns.timeouts, limit)
    findings = _check(source, columns, rows, low, high, allow_invalid)
    if env is None:
        findings += validation.report(source, _wrong_width(name, columns), allow_invalid)
    transitions = _transitions(source, columns, rows)
    episodes = _complete_episodes(columns, rows)
    notes += [*_slips(columns, rows, episodes, limit, spec), *defects(name, columns)]
    warnings = (*findings, *(f"{source}: {note}" for note in notes))
    for warning in warnings:
        _LOG.warning("%s", warning)
    return Dataset(
        name,
        source,
        *transitions,
        episode_ends=_last_kept(rows),
        episode_returns=episodes.returns,
        episode_lengths=episodes.lengths,
        timeouts=int(episodes.timed_out.sum()),
        action_low=low,
        action_high=high,
        fingerprint=fingerprint(*transitions, low, high),
        family=kind,
        environment=spec,
        reference=d4rl.reference_for(name, spec.id if spec else None),
        warnings=warnings,
    )


def _without_reset_rows(columns: Columns) -> tuple[Columns, int]:
    """The columns without rows that may be resets, and how many these are."""
    ends = columns.terminals if columns.timeouts is None else columns.terminals | columns.timeouts
    resets = recording.rows_after_ends(columns.recording(ends))
    return columns.without(resets), len(resets)


def _check(
    source: str, columns: Columns, rows: EpisodeRows, low: np.ndarray, high: np.ndarray, allow_invalid: bool
) -> list[str]:
    return validation.validate(
        source,
        observations=columns.observations,
        actions=columns.actions,
        rewards=columns.rewards,
        terminals=columns.terminals,
        ends=rows.ends,
        next_observations=columns.next_observations,
        action_low=low,
        action_high=high,
        allow_invalid=allow_invalid,
    )


def _transitions(source: str, columns: Columns, rows: EpisodeRows) -> _Transitions:
    """The transitions of the kept rows.

    Raises:
      DatasetError: none is kept.
    """
    kept = rows.kept
    if not len(kept):
        raise DatasetError(
            f"{source}: no transition is left of {len(rows.ends)} rows once time-outs and the last row are dropped"
        )
    given = columns.next_observations
    following = columns.observations[kept + 1] if given is None else given[kept]
    # What float32 does not hold was found by validation.
    with np.errstate(over="ignore"):
        return _Transitions(
            columns.observations[kept].astype(np.float32, copy=False),
            columns.actions[kept].astype(np.float32, copy=False),
            columns.rewards[kept].astype(np.float32, copy=False),
            following.astype(np.float32, copy=False),
            columns.terminals[kept],
        )


def _slips(
    columns: Columns, rows: EpisodeRows, episodes: _Episodes, limit: int | None, spec: EnvironmentSpec | None
) -> list[str]:
    """A line for each way in which a file was not recorded as D4RL's are."""
    notes, recorded = [], columns.recording(rows.ends)
    if not rows.ends.any():
        notes.append(recording.NO_ENDS.format(rows=len(columns.rewards)))
    if count := recording.interleaved(columns.observations, columns.next_observations, rows.ends):
        notes.append(recording.INTERLEAVED.format(count=count))
    elif resets := len(recording.reset_rows(recorded)):
        notes.append(recording.RESET_ROWS.format(rows=resets))
    by_termination = episodes.lengths[episodes.terminated]
    merged = recording.merged_ends(
        by_termination, int(episodes.timed_out.sum()), limit, d4rl.base_id(spec.id) if spec else None
    )
    return [*notes, *([merged] if merged else [])]


def _environment_of_file(name: str, observation_size: int, environment_id: str | None) -> EnvironmentSpec | None:
    """The environment named by a flag or by the file, else by the dataset's name."""
    if environment_id:
        return d4rl.environment_spec(environment_id)
    spec = d4rl.environment(name)
    if spec is not None and d4rl.first_word(name) == "ant" and observation_size == 27:
        return EnvironmentSpec("Ant-v4")
    return spec


def _wrong_width(name: str, columns: Columns) -> list[str]:
    """A message if a D4RL-like name and the widths contradict each other."""
    width = (columns.observations.shape[1], columns.actions.shape[1])
    expected = d4rl.widths(name)
    if expected is None or width == expected:
        return []
    return [
        f"observations and actions have widths {width[0]} and {width[1]}, but {d4rl.first_word(name)} has "
        f"{expected[0]} and {expected[1]}; if the data is of another environment, name it with --env"
    ]


def _action_bounds(
    source: str, actions: np.ndarray, attributes: Attributes, known: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [action_size] each: the file's, else [-1, 1], widened to the data if the environment is unknown."""
    size = actions.shape[1]
    low, high = -np.ones(size, np.float32), np.ones(size, np.float32)
    if attributes.action_low is not None or attributes.action_high is not None:
        low, high = _bound(source, attributes.action_low, size), _bound(source, attributes.action_high, size)
    elif not known:
        with np.errstate(over="ignore"):
            values = actions.astype(np.float32)
        # Validation reports the others.
        finite = np.where(np.isfinite(values), values, 0.0)
        low, high = np.minimum(low, finite.min(axis=0)), np.maximum(high, finite.max(axis=0))
    validation.require_bounds(source, low, high)
    return low, high


def _bound(source: str, given: Any, size: int) -> np.ndarray:
    """A bound [size] as the file gives it."""
    values = np.asarray(given) if given is not None else np.zeros(0)
    if values.dtype.kind not in "iuf" or values.shape not in ((), (1,), (size,)):
        raise DatasetError(f"{source}: action_low and action_high must be a number, or one for each of {size}")
    with np.errstate(over="ignore"):
        return np.broadcast_to(values.astype(np.float32), size).copy()


def _last_kept(rows: EpisodeRows) -> np.ndarray:
    """[K] bool: the last kept row of each episode."""
    episode = np.cumsum(rows.ends) - rows.ends
    return np.append(np.diff(episode[rows.kept]) != 0, True)


def _complete_episodes(columns: Columns, rows: EpisodeRows) -> _Episodes:
    """The complete episodes of a file.

    Rows after the last end are an episode cut short and do not count, unless they are all there is.
    """
    ends = rows.ends
    stops = np.flatnonzero(ends) + 1 if ends.any() else np.array([len(ends)])
    starts = np.concatenate([[0], stops[:-1]])
    returns = np.add.reduceat(np.asarray(columns.rewards[: stops[-1]], np.float64), starts)
    terminated = columns.terminals[stops - 1]
    return _Episodes(returns, (stops - starts).astype(np.int64), terminated, rows.final[stops - 1] & ~terminated)
