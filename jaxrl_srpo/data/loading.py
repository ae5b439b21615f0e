"""Reads datasets that are on this machine, and D4RL's from its server; `envs.datasets` also makes what is missing."""

import difflib
import os
import pathlib

from jaxrl_srpo.data import d4rl, d4rl_files, hdf5, minari_source
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.download import cache_dir, download, mirrored
from jaxrl_srpo.data.names import EMBEDDED, FORMS, OGBENCH
from jaxrl_srpo.data.reading import require_text
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
    """Reads and validates a dataset by path, D4RL name or Minari id, and makes none.

    A D4RL file that is not in the cache is downloaded; a Minari dataset must be on this machine.

    Args:
      name_or_path: an existing HDF5 file, a name of `d4rl.known_names()`, or a Minari id.
      mirror: root address that replaces D4RL's server; see `download.MIRROR_VARIABLE`.
      allow_invalid: log what validation finds instead of raising.
      env: Gymnasium id for evaluation that overrides the dataset's own.
      env_time_limit: time limit of `env` in steps, for files that mark none; D4RL's own files have D4RL's.
      drop_reset_rows: leave out rows of HDF5 files that are resets of a vector environment and no transitions.
      fetch: whether a D4RL file may be downloaded.
      progress: draw a progress bar while downloading.

    Returns:
      The dataset.

    Raises:
      DatasetError: it cannot be found, fetched, read or trusted.
    """
    name = require_text("the name of a dataset", os.path.expanduser(os.fspath(name_or_path)))
    if os.path.isfile(name):
        return d4rl_files.read_hdf5(
            name, env=env, allow_invalid=allow_invalid, env_time_limit=env_time_limit, drop_reset_rows=drop_reset_rows
        )
    if name in d4rl.known_names():
        path = d4rl_file(name, mirror=mirror, fetch=fetch, progress=progress)
        return d4rl_files.read_hdf5(path, name, env=env, allow_invalid=allow_invalid, drop_reset_rows=drop_reset_rows)
    if name.endswith((".hdf5", ".h5")) or name.startswith((".", "/", "~")) or os.path.isdir(name):
        raise DatasetError(f"no dataset file at {name}; expected {FORMS}")
    if "/" not in name and not minari_source.is_here(name):
        raise unknown_name(name)
    return minari_source.read_minari(name, env=env, allow_invalid=allow_invalid, env_time_limit=env_time_limit)


def d4rl_file(name: str, *, mirror: str | None = None, fetch: bool = True, progress: bool = True) -> pathlib.Path:
    """The local file of a D4RL name, downloaded into the cache if need be.

    Args:
      name: a name of `d4rl.known_names()`.
      mirror: root address that replaces D4RL's server.
      fetch: whether it may be downloaded.
      progress: draw a progress bar on stderr.

    Returns:
      The file's path.

    Raises:
      DatasetError: unknown name, or the file is neither here nor to be had.
    """
    item = d4rl.entry(name)
    path = cache_dir() / item.path
    url = mirrored(item.url, item.path, mirror)
    if os.path.isfile(path):
        return path
    if not fetch:
        raise DatasetError(f"{name} is not at {path}; fetch it with `jaxrl-srpo data download {name}` ({url})")
    return download(url, path, progress, check=hdf5.check)


def unknown_name(name: str) -> DatasetError:
    """The error for a name that fits no form, with the closest names there are."""
    if OGBENCH.fullmatch(name):
        return DatasetError(
            f"{name}: is a dataset of OGBench, which is not read by name yet; write its observations, actions, "
            "rewards, terminals and timeouts to an .hdf5 file and give its path"
        )
    close = difflib.get_close_matches(name, [*d4rl.known_names(), *EMBEDDED], n=3, cutoff=0.5)
    hint = f"; closest: {', '.join(close)}" if close else ""
    return DatasetError(f"unknown dataset {name!r}{hint}; expected {FORMS}")
