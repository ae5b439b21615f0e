"""The columns of a dataset with one row per step, whatever they were read from, checked for what they are."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_srpo.data import recording, validation
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.processors import memory

REQUIRED = ("observations", "actions", "rewards", "terminals")
FIELDS = (*REQUIRED, "timeouts", "episode_terminals", "next_observations")
"""The columns that are read; everything else in a file may be of any type."""

VECTORS = ("observations", "actions", "next_observations")
"""Columns with a vector per step; the others have a number."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Columns of N rows, as they were given.

    Attributes:
      observations: [N, observation_size].
      actions: [N, action_size].
      rewards: [N].
      terminals: [N] bool.
      timeouts: [N] bool, None where there are none.
      next_observations: [N, observation_size], None where there are none.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray | None
    next_observations: np.ndarray | None

    def without(self, rows: np.ndarray) -> "Columns":
        """The columns but for some rows."""

        def rest(values: np.ndarray | None) -> Any:
            return None if values is None else np.delete(values, rows, axis=0)

        return Columns(
            rest(self.observations),
            rest(self.actions),
            rest(self.rewards),
            rest(self.terminals),
            rest(self.timeouts),
            rest(self.next_observations),
        )

    def recording(self, ends: np.ndarray) -> recording.Recording:
        """What tells how the file was recorded, for the ends of its episodes [N] bool."""
        return recording.Recording(self.observations, self.rewards, ends, self.next_observations)


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What is given beside the columns, None where it is not.

    Attributes:
      environment: Gymnasium id.
      action_low: lower bounds of the actions, as they were given.
      action_high: upper bounds likewise.
    """

    environment: str | None
    action_low: Any
    action_high: Any


def columns_of(source: str, fields: Mapping[str, np.ndarray | None]) -> Columns:
    """Columns of fields by name, of `FIELDS`; d3rlpy marks every end of an episode, by `episode_terminals`.

    Args:
      source: what they are of, for messages.
      fields: arrays of any kind; None, or no entry, where there is none.

    Raises:
      DatasetError: a field is missing, or not what it must be.
    """
    fields = {
        name: values if name in VECTORS or values is None else validation.per_step(values)
        for name in FIELDS
        for values in [fields.get(name)]
    }
    validation.require_numbers(source, fields)
    validation.require_fields(source, fields, REQUIRED)
    observations, actions, rewards, flags = (fields[name] for name in REQUIRED)
    assert observations is not None
    assert actions is not None
    assert rewards is not None
    assert flags is not None
    terminals, timeouts, ends = flags != 0, fields["timeouts"], fields["episode_terminals"]
    if timeouts is None and ends is not None:
        timeouts = (ends != 0) & ~terminals
    return Columns(
        observations,
        actions,
        rewards,
        terminals,
        None if timeouts is None else timeouts != 0,
        fields["next_observations"],
    )


def refuse_sizes(source: str, shapes: Mapping[str, tuple[int, ...]], size: int) -> None:
    """Refuses fields of different lengths, and more than memory holds, before any of them is read.

    Args:
      source: what they are of, for messages.
      shapes: of the fields by name.
      size: bytes of all fields together.

    Raises:
      DatasetError: with the figures.
    """
    lengths = {name: shape[0] for name, shape in shapes.items() if shape}
    for name, length in lengths.items():
        if "observations" in lengths and length != lengths["observations"]:
            raise DatasetError(f"{source}: {name} has {length} rows, observations has {lengths['observations']}")
    # They are read, converted, and packed into one table.
    if (needed := 3 * size) > memory():
        raise DatasetError(
            f"{source}: {max(lengths.values(), default=0):,} rows need about {needed / 2**30:,.0f} GiB of memory; this "
            f"machine has {memory() / 2**30:,.0f} GiB"
        )
