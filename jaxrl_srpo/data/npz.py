"""Archives of `numpy.savez` with one row per step: nothing in them is unpickled, and no size is believed."""

import math
import os
import zipfile
from typing import IO, Any, NamedTuple

import numpy as np

from jaxrl_srpo.data.columns import FIELDS, REQUIRED, Attributes, Columns, columns_of, refuse_sizes
from jaxrl_srpo.data.formats import other_format
from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError, first_line, printed

_ENVIRONMENT = ("env", "env_id")
_BOUNDS = ("action_low", "action_high")
_SUFFIX = ".npy"
_LONGEST_TEXT = 10_000


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like a zip archive, which an `.npz` file is.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def read_npz(path: str | os.PathLike[str]) -> tuple[Columns, Attributes]:
    """The known fields of an archive; `env` or `env_id`, `action_low` and `action_high` are its attributes.

    Args:
      path: the `.npz` file; arrays by other names are not read.

    Raises:
      DatasetError: it is no such archive, is damaged, lacks a field, or one is not what it must be.
    """
    source = require_text("the path of a dataset", os.fspath(path))
    with _opened(source) as archive:
        members = {info.filename.removesuffix(_SUFFIX): info for info in archive.infolist()}
        entries = {
            name: _entry(archive, members[name], f"{source}: {name}")
            for name in (*FIELDS, *_BOUNDS, *_ENVIRONMENT)
            if name in members
        }
        fields = {name: entries[name] for name in FIELDS if name in entries}
        if not fields:
            raise DatasetError(f"{source}: has none of the fields {', '.join(REQUIRED)}; it has {_listed(members)}")
        refuse_sizes(
            source, {name: one.shape for name, one in fields.items()}, sum(one.size for one in fields.values())
        )
        columns = columns_of(source, {name: _values(archive, one) for name, one in fields.items()})
        low, high = (_bound(archive, entries.get(name)) for name in _BOUNDS)
        named = [_text(archive, entries[name]) for name in _ENVIRONMENT if name in entries]
    return columns, Attributes(named[0] if named else None, low, high)


class _Entry(NamedTuple):
    """An array of an archive by its header.

    Attributes:
      where: file and name, for messages.
      info: the member of the archive.
      shape: as the header says, and as many bytes as the archive has.
      dtype: its type, without objects.
    """

    where: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def _opened(source: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(source)
    # A damaged directory raises whatever its bytes happen to mean.
    except Exception as error:
        raise DatasetError(
            f"{source}: not a readable .npz file, perhaps cut short; get it again ({first_line(error)})"
        ) from error
    if not any(name.endswith(_SUFFIX) for name in archive.namelist()):
        archive.close()
        raise DatasetError(f"{source}: {other_format(source) or 'is an empty archive'}")
    return archive


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> _Entry:
    """An array's header, compared with what the archive holds of it."""
    with readable(where):
        with archive.open(info) as member:
            shape, dtype = _header(member, where)
            start = member.tell()
        if dtype.hasobject:
            raise DatasetError(f"{where} holds Python objects, which are not read because they can run code")
        entry = _Entry(where, info, shape, dtype)
        if entry.size != info.file_size - start:
            raise DatasetError(
                f"{where} says it is {shape} of {dtype}, {entry.size:,} bytes; the archive has "
                f"{info.file_size - start:,} bytes of it"
            )
    return entry


def _header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DatasetError(f"{where} is in version {version} of NumPy's format; expected 1.0 or 2.0, of plain numbers")
    shape, _, dtype = readers[version](member)
    return shape, dtype


def _values(archive: zipfile.ZipFile, entry: _Entry) -> np.ndarray:
    with readable(entry.where), archive.open(entry.info) as member:
        values: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        # The archive's checksum is compared where a member ends.
        member.read(1)
        return values


def _bound(archive: zipfile.ZipFile, entry: _Entry | None) -> np.ndarray | None:
    """A bound as it is in the file; no larger than that of one action can be."""
    if entry is None:
        return None
    refuse_sizes(entry.where, {}, entry.size)
    return _values(archive, entry)


def _text(archive: zipfile.ZipFile, entry: _Entry) -> str:
    if entry.dtype.kind not in "US" or entry.shape not in ((), (1,)) or entry.size > _LONGEST_TEXT:
        raise DatasetError(f"{entry.where} is {entry.shape} of {entry.dtype}; expected the Gymnasium id as text")
    return require_text(entry.where, _values(archive, entry).item())


def _listed(members: dict[str, zipfile.ZipInfo]) -> str:
    names = [printed(name) for name in members]
    return ", ".join([*names[:6], "..."] if len(names) > 6 else names)
