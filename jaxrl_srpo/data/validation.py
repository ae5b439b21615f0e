"""Checks on load: a message names file, field and row, and nothing is trained on data that failed them."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxrl_srpo.data import recording
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.errors import DatasetError

BOUND_TOLERANCE = 1e-5
"""How far an action may lie outside its bounds; float32 rounding of a clipped action stays below it."""

JUMP_FACTOR = 20.0
"""A step inside an episode is a jump when it is this many times the 99th percentile of steps in one dimension ...

Steps of Hopper, HalfCheetah and AdroitHandDoor stay below 5 times it; an unmarked reset across a maze is 30 times and
more.
"""

JUMP_DEVIATIONS = 0.5
"""... and at least this share of the standard deviation of that dimension, so that rare impulses do not count."""

_OVERRIDE = "--allow_invalid_data (allow_invalid=True in Python) takes it all the same"


def per_step(values: np.ndarray) -> np.ndarray:
    """One number per step as [N]; some recordings hold them as [N, 1], for instance those of rewards of shape (1,)."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def require_fields(source: str, fields: Mapping[str, np.ndarray | None], required: Sequence[str]) -> int:
    """Checks that fields exist, have the right rank and one row per step.

    Args:
      source: file or dataset id, for messages.
      fields: arrays by name, None (or absent) where the file has none.
      required: names that must be there.

    Returns:
      The number of rows N > 0.

    Raises:
      DatasetError: a field is missing, empty, of the wrong rank, or of another length than the first one. None of
        these can be overridden.
    """
    missing = [name for name in required if fields.get(name) is None]
    if missing:
        found = ", ".join(name for name, value in fields.items() if value is not None) or "none of the known fields"
        raise DatasetError(f"{source}: missing field {', '.join(missing)}; found {found}")
    present = {name: value for name, value in fields.items() if value is not None}
    first = required[0]
    rows = len(present[first]) if present[first].ndim else 0
    if rows == 0:
        raise DatasetError(f"{source}: {first} is empty; a dataset needs at least two steps")
    for name, value in present.items():
        rank = 2 if name in ("observations", "next_observations", "actions") else 1
        if value.ndim != rank:
            raise DatasetError(f"{source}: {name} has shape {value.shape}; expected {rank} axes, the first one steps")
        if rank == 2 and value.shape[1] == 0:
            raise DatasetError(f"{source}: {name} has shape {value.shape}; a step needs at least one number")
        if len(value) != rows:
            raise DatasetError(f"{source}: {name} has {len(value)} rows, {first} has {rows}; every step needs both")
    following = present.get("next_observations")
    if following is not None and following.shape != present["observations"].shape:
        raise DatasetError(
            f"{source}: next_observations has width {following.shape[1]}, "
            f"observations has width {present['observations'].shape[1]}; they must be equal"
        )
    return rows


def require_numbers(source: str, fields: Mapping[str, np.ndarray | None]) -> None:
    """Checks that fields hold real numbers, actions no whole ones, and flags nothing but 0 and 1.

    Args:
      source: file or dataset id, for messages.
      fields: arrays by name, of any type; None where there is none.

    Raises:
      DatasetError: a field holds something else. None of these can be overridden.
    """
    for name, values in fields.items():
        if values is None:
            continue
        if values.dtype.kind not in "biuf":
            raise DatasetError(f"{source}: {name} holds {values.dtype}; expected real numbers")
        if name == "actions" and values.dtype.kind != "f":
            raise DatasetError(
                f"{source}: actions are of type {values.dtype}, as discrete ones are; only continuous actions, stored "
                "as floats, can be trained on"
            )
        flags = name in ("terminals", "timeouts", "episode_terminals")
        if flags and not (sound := (values == 0) | (values == 1)).all():
            row = int(np.argwhere(~sound)[0, 0])
            raise DatasetError(f"{source}: {name}, row {row}: {values[row]}; expected 0 or 1")


def require_bounds(source: str, low: np.ndarray, high: np.ndarray) -> None:
    """Checks bounds [action_size] of actions: finite, and none lower than the other; equal ones are a constant.

    Raises:
      DatasetError: naming the dimension.
    """
    bad = ~(np.isfinite(low) & np.isfinite(high) & (low <= high))
    if bad.any():
        i = int(np.argmax(bad))
        raise DatasetError(f"{source}: actions, dimension {i}: bounds {low[i]:g} and {high[i]:g}; expected low <= high")
    # Actions are scaled by twice the range, in float32.
    wide = high.astype(np.float64) - low > np.finfo(np.float32).max / 4
    if wide.any():
        i = int(np.argmax(wide))
        raise DatasetError(
            f"{source}: actions, dimension {i}: bounds {low[i]:g} and {high[i]:g}; float32 does not hold their range"
        )


def validate(
    source: str,
    *,
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    terminals: np.ndarray,
    ends: np.ndarray,
    next_observations: np.ndarray | None = None,
    action_low: np.ndarray | None = None,
    action_high: np.ndarray | None = None,
    allow_invalid: bool = False,
) -> list[str]:
    """Checks the values of a dataset's rows, as they are in the file.

    Args:
      source: file or dataset id, for messages.
      observations: [N, observation_size].
      actions: [N, action_size].
      rewards: [N].
      terminals: [N], 0 or 1.
      ends: [N] bool, the last row of each episode, by termination or time limit.
      next_observations: [N, observation_size] where the source has them; without, consecutive rows are compared.
      action_low: [action_size] lower bounds; None skips the check.
      action_high: [action_size] upper bounds; None skips the check.
      allow_invalid: return the findings instead of raising.

    Returns:
      One message per field that failed (the first bad row of each); empty when all is well.

    Raises:
      DatasetError: shapes are wrong, always; or a value is, unless `allow_invalid`.
    """
    fields: dict[str, np.ndarray | None] = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
        "next_observations": next_observations,
    }
    require_fields(source, fields, ("observations", "actions", "rewards", "terminals"))
    findings = [
        message for name, value in fields.items() if value is not None and (message := _not_finite(name, value))
    ]
    if action_low is not None and action_high is not None:
        findings += _out_of_bounds(actions, action_low, action_high)
    # Flags, and bytes of a memory, whose counters wrap, jump inside episodes too.
    if not findings and observations.dtype.kind not in "bu":
        following = None if next_observations is None else _as_floats(next_observations)
        findings += _jumps(_as_floats(observations), following, np.asarray(ends, bool))
    return report(source, findings, allow_invalid)


def report(source: str, findings: Sequence[str], allow_invalid: bool) -> list[str]:
    """Raises the first finding as one line, or returns all of them with the source in front if `allow_invalid`."""
    messages = [f"{source}: {finding}" for finding in findings]
    if messages and not allow_invalid:
        more = f" (and {len(messages) - 1} more fields with problems)" if len(messages) > 1 else ""
        raise DatasetError(f"{messages[0]}{more}; {_OVERRIDE}")
    return messages


def require_sound(dataset: Dataset) -> None:
    """Checks the columns of a dataset that a program holds for their types and shapes; values were checked before.

    Raises:
      DatasetError: a program replaced some of them by others of another type or shape.
    """
    floats = ("observations", "actions", "rewards", "next_observations")
    columns = {name: getattr(dataset, name) for name in (*floats, "terminals", "episode_ends")}
    for name, values in columns.items():
        kind = np.dtype(np.float32 if name in floats else bool)
        if not isinstance(values, np.ndarray) or values.dtype != kind:
            found = getattr(values, "dtype", type(values).__name__)
            raise DatasetError(f"{dataset.source}: {name} holds {found}, not {kind}; Dataset.from_arrays converts")
    require_fields(dataset.source, columns, tuple(columns))
    bounds = {np.shape(dataset.action_low), np.shape(dataset.action_high)}
    if bounds != {(dataset.action_size,)}:
        raise DatasetError(f"{dataset.source}: action_low and action_high need one number for each action")


def check_fits(dataset: Dataset, observation_size: int, action_size: int) -> None:
    """Checks that a dataset has the widths of the environment in which its policies are to act.

    Args:
      dataset: a loaded dataset.
      observation_size: width of the environment's (flattened) observation.
      action_size: width of the environment's action.

    Raises:
      DatasetError: a width differs.
    """
    if (dataset.observation_size, dataset.action_size) == (observation_size, action_size):
        return
    where = dataset.environment.id if dataset.environment else "the environment"
    raise DatasetError(
        f"{dataset.name} ({dataset.source}): observations have width {dataset.observation_size} and actions "
        f"{dataset.action_size}, but {where} has {observation_size} and {action_size}; "
        "name the environment of the data with --env"
    )


def _not_finite(name: str, values: np.ndarray) -> str | None:
    """A message on the first NaN or infinity of `values` [N, ...], None if there is none."""
    if not np.issubdtype(values.dtype, np.floating):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32, copy=False)
        # The sum is finite only if all values are (up to overflow), which spares the mask in the common case.
        if np.isfinite(narrow.sum(dtype=np.float64)):
            return None
    bad = ~np.isfinite(narrow)
    if not bad.any():
        return None
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f", dimension {index[1]}" if len(index) > 1 else ""
    return (
        f"{name}, row {index[0]}{where}: {values[index]} ({_rows(bad)} in all); every value must be finite in float32"
    )


def _out_of_bounds(actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[str]:
    """A message on the first action [N, action_size] that leaves its bounds."""
    bad = (actions < low - BOUND_TOLERANCE) | (actions > high + BOUND_TOLERANCE)
    if not bad.any():
        return []
    row, dimension = (int(i) for i in np.argwhere(bad)[0])
    return [
        f"actions, row {row}, dimension {dimension}: {float(actions[row, dimension]):.6g} is outside "
        f"[{float(low[dimension]):.6g}, {float(high[dimension]):.6g}] ({_rows(bad)} in all)"
    ]


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Values whose differences neither wrap, as those of small integers do, nor overflow, as those of halves do."""
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def _jumps(observations: np.ndarray, following: np.ndarray | None, ends: np.ndarray) -> list[str]:
    """A message on the first row inside an episode whose successor is not where the next row starts."""
    inside = ~ends[:-1]
    if not inside.any():
        return []
    if following is None:
        jump = _implausible_steps(observations, inside)
        reason = "the next row is implausibly far away, as after a reset that terminals and timeouts do not mark"
    else:
        jump = _discontinuities(observations, following, inside)
        reason = "next_observations differs from the next row's observations, though no episode ends here"
    if not jump.any():
        return []
    if count := recording.interleaved(observations, following, ends):
        reason = recording.INTERLEAVED.format(count=count)
    row, dimension = (int(i) for i in np.argwhere(jump)[0])
    name = "observations" if following is None else "next_observations"
    source = observations[row] if following is None else following[row]
    return [
        f"{name}, row {row}, dimension {dimension}: {float(source[dimension]):.6g} and then "
        f"{float(observations[row + 1, dimension]):.6g} ({_rows(jump)} in all); {reason}"
    ]


def _discontinuities(observations: np.ndarray, following: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """[N - 1, observation_size] bool: where s' of a row is not s of the next one, up to rounding."""
    # The largest numbers of float32 differ by more than it holds.
    with np.errstate(over="ignore"):
        gap = np.abs(following[:-1] - observations[1:])
    tolerance = 1e-5 + 1e-4 * observations.std(axis=0, dtype=np.float64)
    return (gap > tolerance.astype(gap.dtype)) & inside[:, None]


def _implausible_steps(observations: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """[N - 1, observation_size] bool: steps far beyond what the dimension does inside episodes.

    The 99th percentile is a scale that unmarked resets, fewer than one step in a hundred, do not move. Dimensions that
    move in fewer than one step in a hundred give no scale and are skipped.
    """
    # Some 100,000 rows fix a percentile well enough and keep a million rows fast.
    stride = max(1, int(inside.sum()) // 100_000)
    with np.errstate(over="ignore"):
        steps = np.minimum(np.abs(np.diff(observations, axis=0)), np.finfo(observations.dtype).max)
        typical = np.quantile(steps[inside][::stride], 0.99, axis=0).astype(np.float64)
        limit = np.maximum(JUMP_FACTOR * typical, JUMP_DEVIATIONS * observations.std(axis=0, dtype=np.float64))
        limit = np.where(typical > 0.0, limit, np.inf)
        return (steps > limit.astype(steps.dtype)) & inside[:, None]


def _rows(bad: np.ndarray) -> str:
    """How many rows have something bad [N] or [N, width], in words."""
    count = int(bad.reshape(len(bad), -1).any(axis=1).sum())
    return f"{count} row" + ("s" if count != 1 else "")
