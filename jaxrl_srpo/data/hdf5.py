"""HDF5 files of others: opened only if every byte that they give lies in the file itself, and fits into memory."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import h5py

from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.processors import memory

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
      DatasetError: the file refers to others, or a dataset is larger than this machine's memory.
      OSError: it is no HDF5 file, or is damaged.
    """
    source = os.fspath(path)
    with h5py.File(source, "r") as file:
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
            raise DatasetError(f"what came is a cut or damaged HDF5 file: {str(error).splitlines()[0]}") from error
        raise DatasetError(f"what came is no HDF5 file, it begins with {begin!r}") from error


def _refuse_references(file: h5py.File, source: str) -> None:
    todo, seen = [file["/"]], set()
    while todo:
        group = todo.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                target = f"{link.filename}:{link.path}" if isinstance(link, h5py.ExternalLink) else link.path
                raise DatasetError(f"{source}: {where} is a link to {target}; only data in the file itself are read")
            member = group[name]
            if isinstance(member, h5py.Group):
                todo.append(member)
            elif isinstance(member, h5py.Dataset):
                _refuse_storage(member, source, where)


def _refuse_storage(dataset: h5py.Dataset, source: str, where: str) -> None:
    if dataset.is_virtual:
        raise DatasetError(f"{source}: {where} is put together from other files; only data in the file itself are read")
    if dataset.external:
        others = ", ".join(pathlib.PurePath(os.fsdecode(name)).name for name, _, _ in dataset.external)
        raise DatasetError(f"{source}: {where} is stored in {others}; only data in the file itself are read")
    if dataset.size and not dataset.id.get_storage_size():
        raise DatasetError(f"{source}: {where} has a shape, {dataset.shape}, but was never written")
    if dataset.nbytes > memory():
        raise DatasetError(
            f"{source}: {where} says it is {dataset.shape}, {dataset.nbytes / 2**30:,.0f} GiB; this machine has "
            f"{memory() / 2**30:,.0f} GiB of memory"
        )
