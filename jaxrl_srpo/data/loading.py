"""Reads datasets that are on this machine, and D4RL's from its server; `envs.datasets` also makes what is missing."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrl_srpo.data import (
    checksums,
    d4rl,
    d4rl_files,
    hdf5,
    minari_source,
    minari_store,
    mirrors,
    npz_columns,
    ogbench,
    ogbench_tasks,
)
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.download import cache_dir, download
from jaxrl_srpo.data.names import EMBEDDED, FORMS, OGBENCH
from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError


def read_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    mirror: str | None = None,
    allow_invalid: bool = False,
    env: str | None = None,
    env_time_limit: int | None = None,
    drop_reset_rows: bool = False,
    fetch: bool = True,
    progress: bool = True,
) -> Dataset:
    """Reads and validates a dataset by path, D4RL name, OGBench name or Minari id, and makes none.

    A D4RL file that is not in the cache is downloaded; files of OGBench and Minari must be on this machine.

    Args:
      name_or_path: an existing HDF5 or .npz file, a name of `d4rl.known_names()`, a task of OGBench or a path that ends
        with one, or a Minari id.
      mirror: root addresses of the only servers to ask for D4RL's files; see `mirrors.MIRROR_VARIABLE`.
      allow_invalid: log what validation finds instead of raising.
      env: Gymnasium id for evaluation that overrides the dataset's own.
      env_time_limit: time limit of `env` in steps, for files that mark none; D4RL's own files have D4RL's.
      drop_reset_rows: leave out rows of files that are resets of a vector environment and no transitions.
      fetch: whether a D4RL file may be downloaded.
      progress: draw a progress bar while downloading.

    Returns:
      The dataset.

    Raises:
      DatasetError: it cannot be found, fetched, read or trusted.
    """
    name = require_text("the name of a dataset", os.path.expanduser(os.fspath(name_or_path)))
    if is_ogbench(name):
        return ogbench.read_ogbench(name, env=env, allow_invalid=allow_invalid)
    if os.path.isfile(name):
        return read_file(
            name, env=env, allow_invalid=allow_invalid, env_time_limit=env_time_limit, drop_reset_rows=drop_reset_rows
        )
    if name in d4rl.known_names():
        path = d4rl_file(name, mirror=mirror, fetch=fetch, progress=progress)
        return d4rl_files.read_hdf5(path, name, env=env, allow_invalid=allow_invalid, drop_reset_rows=drop_reset_rows)
    if name.endswith((".hdf5", ".h5", ".npz")) or name.startswith((".", "/", "~")) or os.path.isdir(name):
        raise DatasetError(f"no dataset file at {name}; expected {FORMS}")
    if "/" not in name and not minari_store.is_here(name):
        raise unknown_name(name)
    return minari_source.read_minari(name, env=env, allow_invalid=allow_invalid, env_time_limit=env_time_limit)


def is_ogbench(name: str) -> bool:
    """Whether a name or path means a dataset of OGBench; a file of another kind that is called so does not."""
    return ogbench.find_name(name) is not None and (name.endswith(".npz") or not os.path.isfile(name))


def read_file(
    path: str,
    *,
    env: str | None = None,
    allow_invalid: bool = False,
    env_time_limit: int | None = None,
    drop_reset_rows: bool = False,
) -> Dataset:
    """Reads a file by what is in it, whatever it is called: an archive of NumPy's, else HDF5.

    Args:
      path: the file.
      env: see `read_dataset`; likewise the others.

    Raises:
      DatasetError: it is neither, or fails validation.
    """
    reading: dict[str, Any] = {
        "env": env,
        "allow_invalid": allow_invalid,
        "env_time_limit": env_time_limit,
        "drop_reset_rows": drop_reset_rows,
    }
    with readable(path):
        archive = npz_columns.is_archive(path)
    if archive:
        return d4rl_files.to_dataset(path, d4rl_files.name_of(path), *npz_columns.read_columns(path), **reading)
    return d4rl_files.read_hdf5(path, **reading)


def d4rl_file(name: str, *, mirror: str | None = None, fetch: bool = True, progress: bool = True) -> pathlib.Path:
    """The local file of a D4RL name, downloaded into the cache if need be.

    Args:
      name: a name of `d4rl.known_names()`.
      mirror: root addresses of the only servers to ask.
      fetch: whether it may be downloaded.
      progress: draw a progress bar on stderr.

    Returns:
      The file's path.

    Raises:
      DatasetError: unknown name, the file is neither here nor to be had, or it is not the one that was downloaded.
    """
    item = d4rl.entry(name)
    path = cache_dir() / item.path
    if os.path.isfile(path):
        _verify(path, checksums.recorded(cache_dir(), item.path))
        return path
    if not fetch:
        address = mirrors.mirrored(item.urls, item.path, mirror)[0]
        raise DatasetError(f"{name} is not at {path}; fetch it with `jaxrl-srpo data download {name}` ({address})")
    return fetch_d4rl_file(name, mirror=mirror, progress=progress)


def fetch_d4rl_file(
    name: str,
    *,
    mirror: str | None = None,
    sums: str | os.PathLike[str] | None = None,
    progress: bool = True,
    silent: set[str] | None = None,
) -> pathlib.Path:
    """Downloads the file of a D4RL name unless it is here, verifies its SHA-256, and notes it for every later use.

    Args:
      name: a name of `d4rl.known_names()`.
      mirror: root addresses of the only servers to ask.
      sums: a file in the format of `sha256sum` that has the file's SHA-256; None takes what was noted when it was first
        downloaded, and without a note takes the file as it comes.
      progress: draw a progress bar on stderr.
      silent: hosts that are not asked; see `download`.

    Returns:
      The file's path.

    Raises:
      DatasetError: unknown name, the file is not to be had, or it has another SHA-256.
    """
    item, cache = d4rl.entry(name), cache_dir()
    path = cache / item.path
    known = checksums.given(pathlib.Path(sums), item.path) if sums else checksums.recorded(cache, item.path)
    if path.is_file():
        _verify(path, known)
    else:
        urls = mirrors.mirrored(item.urls, item.path, mirror)
        download(urls, path, progress, checksum=known, check=hdf5.check, silent=silent)
    checksums.record(cache, item.path, known.sha256 if known else checksums.sha256_of(path))
    return path


def _verify(path: pathlib.Path, checksum: checksums.Checksum | None) -> None:
    """Raises unless a file of the cache is what it must be, as far as that is known."""
    try:
        if checksum is not None:
            checksums.verify(path, checksum, os.fspath(path))
    except DatasetError as error:
        raise DatasetError(
            f"{error}; delete the file to download it again, or that line if the file is right"
        ) from error


def unknown_name(name: str) -> DatasetError:
    """The error for a name that fits no form, with the closest names there are."""
    if OGBENCH.fullmatch(name):
        return DatasetError(
            f"{name}: is no dataset of OGBench that is read here; those of images and with goals are not"
            f"{_hint(name, ogbench_tasks.known_names())}"
        )
    hint = _hint(name, [*d4rl.known_names(), *ogbench_tasks.known_names(), *EMBEDDED])
    return DatasetError(f"unknown dataset {name!r}{hint}; expected {FORMS}")


def _hint(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"; closest: {', '.join(close)}" if close else ""
