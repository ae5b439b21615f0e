"""The fields and attributes of an HDF5 file in D4RL's layout, checked for what they are before any of it is read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from jaxrl_srpo.data import hdf5, recording, validation
from jaxrl_srpo.data.formats import other_format
from jaxrl_srpo.data.reading import require_text
from jaxrl_srpo.errors import DatasetError, first_line, printed
from jaxrl_srpo.io.processors import memory

_REQUIRED = ("observations", "actions", "rewards", "terminals")
_FIELDS = (*_REQUIRED, "timeouts", "episode_terminals", "next_observations")
_VECTORS = ("observations", "actions", "next_observations")
_DISCRETE = "discrete_action"
_ATTRIBUTES = ("env_id", "action_low", "action_high")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The fields of a file with N rows, as they are in it.

    Attributes:
      observations: [N, observation_size].
      actions: [N, action_size].
      rewards: [N].
      terminals: [N] bool.
      timeouts: [N] bool, None where the file has none.
      next_observations: [N, observation_size], None where the file has none.
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
    """The attributes of a file; bounds are as they are in it. None where there are none."""

    environment: str | None
    action_low: Any
    action_high: Any


def read_columns(source: str) -> tuple[Columns, Attributes]:
    """The known fields and attributes of an HDF5 file; fields with one row per step, of real numbers and flags.

    Args:
      source: the file.

    Raises:
      DatasetError: it is no HDF5 file, lacks a field, or one is not what it must be.
    """
    fields: dict[str, np.ndarray | None] = dict.fromkeys(_FIELDS)
    try:
        with hdf5.open_contained(source) as file:
            found = {name: hdf5.find_dataset(file, name, source) for name in (*_FIELDS, _DISCRETE)}
            present = {name: dataset for name, dataset in found.items() if dataset is not None}
            discrete = present.pop(_DISCRETE, None)
            _refuse_lengths(source, present)
            for name, dataset in present.items():
                values = hdf5.read_values(dataset, f"{source}: {name}")
                fields[name] = values if name in _VECTORS else validation.per_step(values)
            if discrete is not None and hdf5.read_values(discrete, f"{source}: {_DISCRETE}").any():
                raise DatasetError(
                    f"{source}: its actions are discrete (discrete_action); only continuous ones can be trained on"
                )
            environment, low, high = (hdf5.read_attribute(file, name, source) for name in _ATTRIBUTES)
            if not present:
                raise DatasetError(f"{source}: has none of the fields {', '.join(_REQUIRED)}; {_holds(file)}")
    except OSError as error:
        if other := other_format(source):
            raise DatasetError(f"{source}: {other}") from error
        raise DatasetError(
            f"{source}: not a readable HDF5 file, perhaps cut short; get it again ({first_line(error)})"
        ) from error
    validation.require_numbers(source, fields)
    validation.require_fields(source, fields, _REQUIRED)
    if environment is not None:
        environment = require_text(f"{source}: attribute env_id", environment)
    return _columns(fields), Attributes(environment, low, high)


def _holds(file: h5py.File) -> str:
    """What an HDF5 file of another layout has instead."""
    names = [printed(name) for name in file]
    if "episode_0" in names:
        return "it looks like main_data.hdf5 of a Minari dataset; name that by its id, with MINARI_DATASETS_PATH set"
    if "data" in names or any(name.startswith("observations_") for name in names):
        names = [*names[:6], "..."] if len(names) > 6 else names
        return f"it has {', '.join(names)}, one part for each episode; write the episodes one after another"
    return f"it has {', '.join(names[:6]) or 'nothing'}"


def _columns(fields: Mapping[str, np.ndarray | None]) -> Columns:
    """Fields that `require_fields` has seen; d3rlpy marks every end of an episode, by `episode_terminals`."""
    observations, actions, rewards, flags = (fields[name] for name in _REQUIRED)
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
