"""One function for every kind of dataset name."""

import difflib
import os
import pathlib

from jaxrl_srpo.data import d4rl, d4rl_files
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.download import cache_dir, download, mirrored
from jaxrl_srpo.errors import DatasetError

EMBEDDED = ("pointmaze/umaze", "pointmaze/medium", "pointmaze/large")
"""Names of datasets that the project makes itself."""

REGENERATED = "regenerated/"
"""What the names of the Minari datasets that `regenerated.make_datasets` makes begin with."""

FORMS = "an .hdf5 file, a D4RL name (hopper-medium-v2), a Minari id (D4RL/door/human-v2) or pointmaze/umaze"
"""What a dataset may be called, for messages."""


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    mirror: str | None = None,
    allow_invalid: bool = False,
    env: str | None = None,
    download: bool = True,
    progress: bool = True,
) -> Dataset:
    """Reads and validates a dataset by path, D4RL name, Minari id or embedded name.

    A D4RL file that is not in the cache is downloaded; `pointmaze/...` is made on first use; a Minari dataset must be
    on this machine (`download_minari` fetches one, `regenerated.make_datasets` makes those of `REGENERATED`).

    Args:
      name_or_path: an existing HDF5 file, a name of `known_names()`, a Minari id, or a name of `EMBEDDED`.
      mirror: root address that replaces D4RL's server; see `download.MIRROR_VARIABLE`.
      allow_invalid: log what validation finds instead of raising.
      env: Gymnasium id for evaluation that overrides the dataset's own.
      download: whether a D4RL file may be fetched.
      progress: draw a progress bar while downloading.

    Returns:
      The dataset.

    Raises:
      DatasetError: it cannot be found, fetched, read or trusted.
    """
    name = os.fspath(name_or_path)
    if pathlib.Path(name).is_file():
        return d4rl_files.read_hdf5(name, env=env, allow_invalid=allow_invalid)
    if name in d4rl.known_names():
        path = d4rl_file(name, mirror=mirror, fetch=download, progress=progress)
        return d4rl_files.read_hdf5(path, name, env=env, allow_invalid=allow_invalid)
    if name.endswith((".hdf5", ".h5")) or name.startswith((".", "/", "~")) or pathlib.Path(name).is_dir():
        raise DatasetError(f"no dataset file at {name}; expected {FORMS}")
    if name not in EMBEDDED and "/" not in name:
        raise unknown_name(name)
    # Minari is imported from here on only, so that training from files works without it.
    from jaxrl_srpo.data import minari_source

    if name in EMBEDDED:
        from jaxrl_srpo.envs import pointmaze

        return minari_source.read_minari(pointmaze.ensure_dataset(name), name, env=env, allow_invalid=allow_invalid)
    return minari_source.read_minari(name, env=env, allow_invalid=allow_invalid)


def d4rl_file(name: str, *, mirror: str | None = None, fetch: bool = True, progress: bool = True) -> pathlib.Path:
    """The local file of a D4RL name, downloaded into the cache if need be.

    Args:
      name: a name of `known_names()`.
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
    if path.is_file():
        return path
    if not fetch:
        raise DatasetError(f"{name} is not at {path}; fetch it with `jaxrl-srpo data download {name}` ({url})")
    return download(url, path, progress)


def make_dataset(name: str) -> str:
    """Makes an embedded dataset on this machine, unless it is there already; returns its Minari id.

    Raises:
      DatasetError: the project makes no dataset of this name, or it cannot be written.
    """
    if name not in EMBEDDED:
        raise DatasetError(
            f"{name}: cannot be made here; choose one of {', '.join(EMBEDDED)}, or {REGENERATED}TASK/KIND-v0, for "
            f"instance {REGENERATED}hopper/medium-v0"
        )
    from jaxrl_srpo.envs import pointmaze

    return pointmaze.ensure_dataset(name)


def download_dataset(name: str, *, mirror: str | None = None) -> str:
    """Fetches a D4RL file into the cache or a Minari dataset into Minari's store; returns where it is.

    Raises:
      DatasetError: unknown name, or it cannot be fetched.
    """
    if name in EMBEDDED or name.startswith(REGENERATED):
        raise DatasetError(f"{name}: is made here, not downloaded: `jaxrl-srpo data make {name}`")
    if name in d4rl.known_names():
        return str(d4rl_file(name, mirror=mirror))
    if "/" not in name or pathlib.Path(name).exists():
        raise unknown_name(name)
    from jaxrl_srpo.data import minari_source

    minari_source.download_minari(name)
    return name


def unknown_name(name: str) -> DatasetError:
    """The error for a name that fits no form, with the closest names there are."""
    close = difflib.get_close_matches(name, [*d4rl.known_names(), *EMBEDDED], n=3, cutoff=0.5)
    hint = f"; closest: {', '.join(close)}" if close else ""
    return DatasetError(f"unknown dataset {name!r}{hint}; expected {FORMS}")
