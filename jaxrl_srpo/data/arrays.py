"""Datasets of arrays that a Python program holds: checked and read as files are, known by their contents."""

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_srpo.data import d4rl_files
from jaxrl_srpo.data.columns import REQUIRED, Attributes, columns_of
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError, printed

NAME = "arrays"
"""What a dataset of arrays is called that nobody named."""

_SOURCE = "arrays of a Python program"


def is_of_arrays(source: str) -> bool:
    """Whether the `source` of a dataset says that it was arrays, which no other process can read again."""
    return source.endswith(f"({_SOURCE})")


def dataset_from_arrays(
    *,
    observations: Any,
    actions: Any,
    rewards: Any,
    terminals: Any,
    timeouts: Any = None,
    next_observations: Any = None,
    action_low: Any = None,
    action_high: Any = None,
    name: str = NAME,
    env: str | None = None,
    allow_invalid: bool = False,
    drop_reset_rows: bool = False,
    env_time_limit: int | None = None,
) -> Dataset:
    """See `Dataset.from_arrays`.

    Args:
      observations: see there; likewise those that are not named here.
      env_time_limit: time limit of `env` in steps, for arrays without `timeouts`.

    Raises:
      DatasetError: see there.
    """
    source = f"{_named(name)} ({_SOURCE})"
    given = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
        "timeouts": timeouts,
        "next_observations": next_observations,
        "action_low": action_low,
        "action_high": action_high,
    }
    arrays = {key: _array(f"{source}: {key}", value) for key, value in given.items() if value is not None}
    bounds = (arrays.pop(key, None) for key in ("action_low", "action_high"))
    if env is not None:
        env = require_text(f"{source}: env", env)
    return d4rl_files.to_dataset(
        source,
        name,
        columns_of(source, arrays),
        Attributes(None, *bounds),
        env=env,
        allow_invalid=allow_invalid,
        env_time_limit=env_time_limit,
        drop_reset_rows=drop_reset_rows,
    )


def dataset_from_mapping(fields: Mapping[str, Any], **reading: Any) -> Dataset:
    """A dataset of a dictionary with the arguments of `Dataset.from_arrays`.

    Args:
      fields: arrays by name, and what else it takes.
      **reading: arguments of `dataset_from_arrays` that go before those of the dictionary where they are not None.

    Raises:
      DatasetError: a name is not known, or as `Dataset.from_arrays`.
    """
    known = list(inspect.signature(dataset_from_arrays).parameters)
    source = f"{name_in(fields)} ({_SOURCE})"
    for key in fields:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}" if close else f"; expected {', '.join(known[:6])}"
            raise DatasetError(f"{source}: unknown field {printed(repr(key))}{hint}")
    given: dict[str, Any] = dict.fromkeys(REQUIRED) | dict(fields)
    return dataset_from_arrays(**given | {key: value for key, value in reading.items() if value is not None})


def name_in(fields: Mapping[str, Any]) -> str:
    """What a dataset of a dictionary will be called.

    Raises:
      DatasetError: that is no name.
    """
    return _named(fields.get("name", NAME))


def _named(name: object) -> str:
    text = require_text("the name of a dataset", name)
    if not text.strip():
        raise DatasetError("the name of a dataset is empty; leave it out or give one")
    # Pictures and curves of a run are files and folders of this name.
    if any(part in ("", ".", "..") for part in re.split(r"[/\\]", text)):
        raise DatasetError(f"the name of a dataset is {text!a}; files are named by it: no . or .. and no / at an end")
    return text


def _array(where: str, value: Any) -> np.ndarray:
    """What NumPy makes of a value; strings and objects are left to validation."""
    if isinstance(value, Mapping):
        raise DatasetError(f"{where} is a {type(value).__name__}; expected an array of numbers")
    with readable(where):
        return np.asarray(value)
