"""How a file was recorded: slips that leave every single value plausible, and are told of in one line each."""

import dataclasses
from collections.abc import Callable

import numpy as np

NO_ENDS = (
    "no terminals and no time-outs end an episode in it; it is one of {rows} steps; if it is several, mark their ends "
    "in `timeouts`, or name an environment that has a time limit with --env"
)
"""Of a file in which no episode ends."""

RESET_ROWS = (
    "{rows} rows, each after an episode's end, are no transitions: they begin where the episode ended, as Gymnasium's "
    "vector environments record a reset; --drop_reset_rows leaves them out"
)
"""Of a file recorded through a vector environment that resets at the next step."""

INTERLEAVED = (
    "the rows of {count} interleaved environments take turns: what follows a row is {count} rows further on; write the "
    "rows of each environment one after another: x.reshape(-1, {count}, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape), "
    "and mark the last row of each in `timeouts`"
)
"""Of a file in which the rows of several environments take turns."""

# Environments that only a time limit ends, by the id without namespace and version.
_ENDLESS = ("HalfCheetah", "HumanoidStandup", "Pendulum", "Pusher", "Reacher", "Swimmer")
_MOST_ENVIRONMENTS = 512
_ENOUGH = 10_000
_SHARE = 0.9
_JUMP = 3.0
_RARE = 0.1


@dataclasses.dataclass(frozen=True)
class Recording:
    """The columns of N rows in the order of the file, of any real type.

    Attributes:
      observations: [N, observation_size].
      rewards: [N].
      ends: [N] bool, the last row of each episode.
      next_observations: [N, observation_size], None where the file has none.
    """

    observations: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray
    next_observations: np.ndarray | None = None


def time_limits(terminals: np.ndarray, max_episode_steps: int) -> np.ndarray:
    """[N] bool: the rows at which a time limit ends an episode, counted from the row after each termination.

    Args:
      terminals: [N] bool.
      max_episode_steps: the time limit.
    """
    rows = np.arange(len(terminals))
    starts = np.concatenate([[0], np.where(terminals[:-1], rows[1:], 0)])
    position = rows - np.maximum.accumulate(starts)
    return position % max_episode_steps == max_episode_steps - 1


def merged_ends(lengths: np.ndarray, by_time: int, limit: int | None, environment: str | None) -> str:
    """A line where time limits seem to be among the terminations, as in `done = terminated or truncated`.

    Args:
      lengths: [E] steps of the episodes that end by termination.
      by_time: number of episodes that end by a time limit alone.
      limit: the environment's time limit, None if unknown.
      environment: its id without namespace and version, None if unknown.

    Returns:
      The line; empty where there is no sign of it.
    """
    if not len(lengths):
        return ""
    advice = "write time limits to `timeouts` instead: nothing is learned of what follows a terminal row"
    if environment in _ENDLESS:
        return f"{environment} never terminates, but {len(lengths)} episodes end with terminals = 1; {advice}"
    longest = int(lengths.max())
    at_longest = int((lengths == longest).sum())
    one_length, at_limit = at_longest == len(lengths) and longest > 1, longest == limit
    # Where others timed out, some episodes may have terminated at the limit by chance.
    told = one_length or at_limit if by_time == 0 else one_length and at_limit
    if at_longest < 2 or not told:
        return ""
    steps = f"{longest} steps, the time limit" if at_limit else f"{longest} steps"
    return (
        f"{at_longest} of the {len(lengths)} episodes that end with terminals = 1 have {steps}, as where "
        f"`done = terminated or truncated` is recorded; {advice}"
    )


def rows_after_ends(recording: Recording) -> np.ndarray:
    """Rows after the ends of episodes that may be resets and are no transitions; empty where they cannot be.

    The vector environments of Gymnasium 1.0 and later reset at the step after an episode's end. That step ignores its
    action, pays nothing and leads from the last state of one episode to the first of the next. So nearly all of these
    rows have one reward, end no episode, and begin where `next_observations` of the row before says that it ended.
    """
    after = np.flatnonzero(recording.ends[:-1]) + 1
    if not len(after):
        return after
    values, counts = np.unique(recording.rewards[after], return_counts=True)
    like = (recording.rewards[after] == values[counts.argmax()]) & ~recording.ends[after]
    if recording.next_observations is not None:
        like &= _same(recording.next_observations[after - 1], recording.observations[after])
    return after[like] if like.mean() >= _SHARE else after[:0]


def reset_rows(recording: Recording) -> np.ndarray:
    """The rows of `rows_after_ends` where the file itself shows that they are resets; else empty.

    Either hardly any other row has their reward, or the jump to the next episode's start comes after them and not
    before. Without `next_observations` both must be so.
    """
    rows = rows_after_ends(recording)
    inside = rows[rows < len(recording.rewards) - 1]
    if len(inside) < (2 if recording.next_observations is None else 1):
        return rows[:0]
    others = np.delete(recording.rewards, rows)
    paid = bool((others == recording.rewards[rows[0]]).mean() <= _RARE)
    distance = _distances(recording.observations)
    jumps = bool(np.median(distance(inside, inside + 1)) > _JUMP * np.median(distance(inside - 1, inside)))
    shown = paid and jumps if recording.next_observations is None else paid or jumps
    return rows if shown else rows[:0]


def interleaved(observations: np.ndarray, next_observations: np.ndarray | None, ends: np.ndarray) -> int | None:
    """N > 1 where the rows of N environments take turns; None where there is no sign of it.

    With `next_observations`, that of a row is the observation N rows further on. Without, the only sure sign is that
    episodes end N at once, row after row, as time limits make them.

    Args:
      observations: [M, observation_size].
      next_observations: [M, observation_size], None where the file has none.
      ends: [M] bool, the last row of each episode.
    """
    inside = np.flatnonzero(~ends)
    if next_observations is None or not len(inside):
        return _ends_at_once(ends)
    first = inside[0]
    ahead = observations[first + 1 : first + 1 + _MOST_ENVIRONMENTS]
    for count in (np.flatnonzero(_same(ahead, next_observations[first])) + 1)[:8].tolist():
        rows = inside[inside < len(observations) - count]
        rows = rows[:: max(1, len(rows) // _ENOUGH)]
        if len(rows) and _same(next_observations[rows], observations[rows + count]).mean() >= _SHARE:
            return int(count) if count > 1 else None
    return None


def _ends_at_once(ends: np.ndarray) -> int | None:
    """N > 1 where all ends come in at least two runs of N rows, with steps between them; else None."""
    edges = np.flatnonzero(np.diff(ends, prepend=False, append=False))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if len(starts) < 2 or lengths[0] < 2 or (lengths != lengths[0]).any() or (starts % lengths[0]).any():
        return None
    return int(lengths[0])


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[K] bool: whether rows are equal in float32, which one of the two may have been rounded to."""
    with np.errstate(over="ignore"):
        return (one.astype(np.float32) == other.astype(np.float32)).all(axis=-1)


def _distances(observations: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The mean distance [K] between rows [K] and other rows [K], in standard deviations."""
    scale = observations.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0.0, scale, 1.0)

    def distance(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return (np.abs(observations[rows].astype(np.float64) - observations[others]) / scale).mean(axis=1)

    return distance
