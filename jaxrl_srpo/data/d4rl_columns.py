"""The fields and attributes of an HDF5 file in D4RL's layout, checked for what they are before any of it is read."""

import h5py
import numpy as np

from jaxrl_srpo.data import hdf5
from jaxrl_srpo.data.columns import FIELDS, REQUIRED, Attributes, Columns, columns_of, refuse_sizes
from jaxrl_srpo.data.formats import other_format
from jaxrl_srpo.data.reading import require_text
from jaxrl_srpo.errors import DatasetError, first_line, printed

_DISCRETE = "discrete_action"
_ATTRIBUTES = ("env_id", "action_low", "action_high")


def read_columns(source: str) -> tuple[Columns, Attributes]:
    """The known fields and attributes of an HDF5 file; fields with one row per step, of real numbers and flags.

    Args:
      source: the file.

    Raises:
      DatasetError: it is no HDF5 file, lacks a field, or one is not what it must be.
    """
    fields: dict[str, np.ndarray | None] = dict.fromkeys(FIELDS)
    try:
        with hdf5.open_contained(source) as file:
            found = {name: hdf5.find_dataset(file, name, source) for name in (*FIELDS, _DISCRETE)}
            present = {name: dataset for name, dataset in found.items() if dataset is not None}
            discrete = present.pop(_DISCRETE, None)
            shapes = {name: dataset.shape for name, dataset in present.items()}
            refuse_sizes(source, shapes, sum(dataset.nbytes for dataset in present.values()))
            for name, dataset in present.items():
                fields[name] = hdf5.read_values(dataset, f"{source}: {name}")
            if discrete is not None and hdf5.read_values(discrete, f"{source}: {_DISCRETE}").any():
                raise DatasetError(
                    f"{source}: its actions are discrete (discrete_action); only continuous ones can be trained on"
                )
            environment, low, high = (hdf5.read_attribute(file, name, source) for name in _ATTRIBUTES)
            if not present:
                raise DatasetError(f"{source}: has none of the fields {', '.join(REQUIRED)}; {_holds(file)}")
    except OSError as error:
        if other := other_format(source):
            raise DatasetError(f"{source}: {other}") from error
        raise DatasetError(
            f"{source}: not a readable HDF5 file, perhaps cut short; get it again ({first_line(error)})"
        ) from error
    columns = columns_of(source, fields)
    if environment is not None:
        environment = require_text(f"{source}: attribute env_id", environment)
    return columns, Attributes(environment, low, high)


def _holds(file: h5py.File) -> str:
    """What an HDF5 file of another layout has instead."""
    names = [printed(name) for name in file]
    if "episode_0" in names:
        return "it looks like main_data.hdf5 of a Minari dataset; name that by its id, with MINARI_DATASETS_PATH set"
    if "data" in names or any(name.startswith("observations_") for name in names):
        names = [*names[:6], "..."] if len(names) > 6 else names
        return f"it has {', '.join(names)}, one part for each episode; write the episodes one after another"
    return f"it has {', '.join(names[:6]) or 'nothing'}"
