"""The fields of an `.npz` file with one row per step, checked for what they are before any of it is read."""

import io
import os
import zipfile

import numpy as np

from jaxrl_srpo.data import npz
from jaxrl_srpo.data.columns import FIELDS, REQUIRED, Attributes, Columns, columns_of, refuse_sizes
from jaxrl_srpo.data.formats import other_format
from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError, printed

_ENVIRONMENT = ("env", "env_id")
_BOUNDS = ("action_low", "action_high")
_LONGEST_TEXT = 10_000


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like a zip archive, which an `.npz` file is.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def read_columns(path: str | os.PathLike[str]) -> tuple[Columns, Attributes]:
    """The known fields of an archive; `env` or `env_id`, `action_low` and `action_high` are its attributes.

    Args:
      path: the `.npz` file; arrays by other names are not read.

    Raises:
      DatasetError: it is no such archive, is damaged, lacks a field, or one is not what it must be.
    """
    source = require_text("the path of a dataset", os.fspath(path))
    with npz.open_archive(source) as archive:
        names = archive.names
        if not names:
            raise DatasetError(f"{source}: {other_format(source) or 'is an empty archive'}")
        headers = {name: archive.header(name) for name in (*FIELDS, *_BOUNDS) if name in names}
        shapes = {name: header.shape for name, header in headers.items() if name in FIELDS}
        if not shapes:
            raise DatasetError(f"{source}: has none of the fields {', '.join(REQUIRED)}; it has {_listed(names)}")
        refuse_sizes(source, shapes, sum(header.size for header in headers.values()))
        columns = columns_of(source, {name: archive.read(name) for name in shapes})
        low, high = (archive.read(name) if name in headers else None for name in _BOUNDS)
    ids = [_text(source, name) for name in _ENVIRONMENT if name in names]
    return columns, Attributes(ids[0] if ids else None, low, high)


def _text(source: str, name: str) -> str:
    """A short text of an archive, which NumPy keeps as an array of one."""
    where = f"{source}: {name}"
    with readable(where), zipfile.ZipFile(source) as archive, archive.open(f"{name}.npy") as member:
        # Of so few bytes nothing large can be claimed.
        content = io.BytesIO(member.read(_LONGEST_TEXT))
        major, _ = np.lib.format.read_magic(content)
        readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[major](content)
        if dtype.kind not in "US" or shape not in ((), (1,)):
            raise DatasetError(f"{where} is {shape} of {dtype}; expected the Gymnasium id as text")
        value = np.frombuffer(content.read(), dtype, 1).item()
    return require_text(where, value)


def _listed(names: list[str]) -> str:
    shown = [printed(name) for name in names]
    return ", ".join([*shown[:6], "..."] if len(shown) > 6 else shown)
