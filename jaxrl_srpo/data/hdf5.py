"""HDF5 files of others: opened only if every byte that they give lies in the file itself, and fits into memory."""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from jaxrl_srpo.data.reading import readable
from jaxrl_srpo.errors import DatasetError, first_line, printed
from jaxrl_srpo.io.processors import memory

NUMBERS = "biuf"
"""Kinds of NumPy types that are real numbers or flags."""
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def open_contained(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """An HDF5 file for reading that refers to nothing outside itself.

    HDF5 can make bytes of any readable file into values: by links to other files, by datasets whose storage is another
    file, and by virtual datasets, which are zeros where their source is missing. A file with any of them is refused
    whole, whether or not it is read there; so are soft links, which no dataset of a known layout has.

    Args:
      path: the file.

    Raises:
      DatasetError: the file refers to others, is damaged inside, or a dataset is larger than this machine's memory.
      OSError: it is no HDF5 file, or is cut short.
    """
    source = os.fspath(path)
    with _opened(source) as file:
        with readable(source):
            _refuse_references(file, source)
        yield file


def check(path: str | os.PathLike[str]) -> None:
    """Raises unless a file is HDF5 that `open_contained` opens.

    A file that was cut is none: HDF5 keeps in its first block where it must end.

    Raises:
      DatasetError: it is not; with the first bytes of what it is instead.
    """
    try:
        with open_contained(path):
            return
    except OSError as error:
        with open(path, "rb") as file:
            begin = file.read(40)
        if begin.startswith(_SIGNATURE):
            raise DatasetError(f"what came is a cut or damaged HDF5 file: {first_line(error)}") from error
        raise DatasetError(f"what came is no HDF5 file, it begins with {begin!r}") from error


def find_dataset(group: h5py.Group, name: str, source: str) -> h5py.Dataset | None:
    """An array of real numbers or flags in a group, not read yet; None where there is nothing of this name.

    Args:
      group: where to look.
      name: of the array.
      source: file or dataset id, for messages.

    Raises:
      DatasetError: there is something else by this name.
    """
    with readable(f"{source}: {name}"):
        if name not in group:
            return None
        found = group[name]
        if not isinstance(found, h5py.Dataset):
            raise DatasetError(f"{source}: {name} is a {type(found).__name__.lower()}; expected an array of numbers")
        if found.shape is None:
            raise DatasetError(f"{source}: {name} is empty; expected an array of numbers")
        # Before it is read: strings and references may be slow to read, or many.
        if found.dtype.kind not in NUMBERS:
            raise DatasetError(f"{source}: {name} holds {found.dtype}; expected real numbers")
        return found


def read_values(dataset: h5py.Dataset, where: str) -> np.ndarray:
    """The values of an array.

    Raises:
      DatasetError: some were never written, they are damaged, or packed in a way that this installation cannot unpack.
    """
    with readable(where):
        refuse_gaps(dataset, where)
        return np.asarray(dataset[()])


def refuse_gaps(dataset: h5py.Dataset, where: str) -> None:
    """Refuses an array that lacks some of its chunks; HDF5 would read zeros there.

    Raises:
      DatasetError: it does.
    """
    if dataset.chunks is None or not dataset.shape:
        return
    expected = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    found = dataset.id.get_num_chunks()
    if found < expected:
        raise DatasetError(f"{where} was written in part only: {found} of {expected} blocks are there")


def read_attribute(file: h5py.File, name: str, source: str) -> Any:
    """An attribute of a file; None where there is none.

    Raises:
      DatasetError: it is damaged, or of a type that NumPy does not have.
    """
    with readable(f"{source}: attribute {name}"):
        return file.attrs.get(name)


def _opened(source: str) -> h5py.File:
    try:
        return h5py.File(source, "r")
    except OSError:
        raise
    # A file whose first blocks are damaged raises others, too.
    except Exception as error:
        raise OSError(first_line(error)) from error


def _refuse_references(file: h5py.File, source: str) -> None:
    todo, seen = [file["/"]], set()
    while todo:
        group = todo.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            where = printed(f"{group.name.rstrip('/')}/{name}")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                target = f"{link.filename}:{link.path}" if isinstance(link, h5py.ExternalLink) else link.path
                raise DatasetError(
                    f"{source}: {where} is a link to {printed(target)}; only data in the file itself are read"
                )
            with readable(f"{source}: {where}"):
                member = group[name]
            if isinstance(member, h5py.Group):
                todo.append(member)
            elif isinstance(member, h5py.Dataset):
                with readable(f"{source}: {where}"):
                    _refuse_storage(member, source, where)


def _refuse_storage(dataset: h5py.Dataset, source: str, where: str) -> None:
    if dataset.is_virtual:
        raise DatasetError(f"{source}: {where} is put together from other files; only data in the file itself are read")
    if dataset.external:
        others = ", ".join(pathlib.PurePath(os.fsdecode(name)).name for name, _, _ in dataset.external)
        raise DatasetError(f"{source}: {where} is stored in {printed(others)}; only data in the file itself are read")
    values = 0 if dataset.shape is None else math.prod(dataset.shape)
    if values and not dataset.id.get_storage_size():
        raise DatasetError(f"{source}: {where} has a shape, {dataset.shape}, but was never written")
    # The size in the file, because not every type has a counterpart in NumPy.
    size = values * dataset.id.get_type().get_size()
    if size > memory():
        raise DatasetError(
            f"{source}: {where} says it is {dataset.shape}, {size / 2**30:,.0f} GiB; this machine has "
            f"{memory() / 2**30:,.0f} GiB of memory"
        )
