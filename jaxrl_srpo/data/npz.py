"""NumPy's archives (`.npz`) of others: an array is read only if its type, shape and size are what the file can hold."""

import contextlib
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from jaxrl_srpo.data.reading import readable
from jaxrl_srpo.errors import DatasetError, first_line, printed
from jaxrl_srpo.io.processors import memory

NUMBERS = "biuf"
"""Kinds of NumPy types that are real numbers or flags."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate packs no tighter than 1:1032; the rest is for short arrays.
_TIGHTEST, _SLACK = 1032, 1 << 16


class Header(NamedTuple):
    """What stands before the numbers of an array.

    Attributes:
      shape: of the array.
      columns_first: whether its first axis varies fastest.
      dtype: of its entries.
    """

    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


class Archive:
    """The arrays of an open archive; none is read before it is asked for, and pickles never.

    Args:
      archive: the zip file.
      source: its path, for messages.
    """

    def __init__(self, archive: zipfile.ZipFile, source: str) -> None:
        self._archive, self._source = archive, source

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in the order of the file."""
        return [name.removesuffix(".npy") for name in self._archive.namelist() if name.endswith(".npy")]

    def header(self, name: str) -> Header:
        """Type and shape of an array of real numbers or flags, after a look whether the file can hold it.

        Raises:
          DatasetError: there is none of this name, it holds something else, or the sizes that the file tells disagree.
        """
        with self._opened(name) as file, readable(f"{self._source}: {name}"):
            return self._header(name, file)

    def read(self, name: str) -> np.ndarray:
        """The values of an array.

        Raises:
          DatasetError: see `header`; or it is damaged.
        """
        with self._opened(name) as file, readable(f"{self._source}: {name}"):
            header = self._header(name, file)
            values = np.empty(math.prod(header.shape), header.dtype)
            rest = values.view(np.uint8).data
            while rest:
                count = file.readinto(rest)  # type: ignore[attr-defined]
                if not count:
                    raise DatasetError(f"{self._source}: {name} ends {len(rest)} bytes early")
                rest = rest[count:]
            # At the end of the file its checksum is compared.
            if file.read(1):
                raise DatasetError(f"{self._source}: {name} is longer than its shape {header.shape} says")
            return values.reshape(header.shape, order="F" if header.columns_first else "C")

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        where = f"{self._source}: {name}"
        if f"{name}.npy" not in self._archive.namelist():
            found = ", ".join(map(printed, self.names[:20])) or "no array"
            raise DatasetError(f"{self._source}: missing field {name}; found {found}")
        info = self._archive.getinfo(f"{name}.npy")
        if info.compress_type not in _METHODS:
            raise DatasetError(f"{where} is packed by method {info.compress_type}; expected numpy.savez's")
        if info.file_size > _TIGHTEST * info.compress_size + _SLACK:
            raise DatasetError(f"{where} says it is {info.file_size:,} bytes, packed in {info.compress_size:,}")
        with readable(where):
            file = self._archive.open(info)
        with file:
            yield file

    def _header(self, name: str, file: IO[bytes]) -> Header:
        where = f"{self._source}: {name}"
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DatasetError(f"{where} is of version {version} of NumPy's format; expected 1.0 or 2.0")
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        header = Header(*read(file))
        if header.dtype.kind not in NUMBERS:
            raise DatasetError(f"{where} holds {header.dtype}; expected real numbers")
        if min(header.shape, default=0) < 0:
            raise DatasetError(f"{where} has shape {header.shape}; no axis can be shorter than 0")
        told = self._archive.getinfo(f"{name}.npy").file_size - file.tell()
        if header.size != told:
            raise DatasetError(f"{where} has shape {header.shape}, which is {header.size:,} bytes; {told:,} are there")
        if header.size > memory():
            raise DatasetError(
                f"{where} says it is {header.shape}, {header.size / 2**30:,.0f} GiB; this machine has "
                f"{memory() / 2**30:,.0f} GiB of memory"
            )
        return header


@contextlib.contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """An archive for reading.

    Args:
      path: the file.

    Raises:
      DatasetError: it is no archive of NumPy's, is cut, or cannot be opened.
    """
    source = os.fspath(path)
    try:
        archive = zipfile.ZipFile(source)
    except OSError as error:
        raise DatasetError(f"{source} cannot be read: {error.strerror or error}") from error
    # A damaged directory raises others, too.
    except Exception as error:
        raise DatasetError(f"{source} is no NumPy archive (.npz), or is cut: {first_line(error)}") from error
    with archive:
        yield Archive(archive, source)


def check(path: pathlib.Path) -> None:
    """Raises unless a file is a whole archive with an array in it.

    Raises:
      DatasetError: it is not.
    """
    with open_archive(path) as archive:
        if not archive.names:
            raise DatasetError(f"{path} holds no array")
