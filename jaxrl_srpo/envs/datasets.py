"""Datasets by any name: read, downloaded, or made on this machine."""

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from jaxrl_srpo.data import arrays, d4rl, loading, minari_source, minari_store, mirrors, ogbench, validation
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.fingerprint import fingerprint_of, inputs_fingerprint_of
from jaxrl_srpo.data.names import EMBEDDED, REGENERATED, is_made_here
from jaxrl_srpo.envs import make, pointmaze
from jaxrl_srpo.envs.ogbench_recipes import PREFIX
from jaxrl_srpo.errors import DatasetError, UserError

if TYPE_CHECKING:
    import minari

_LOG = logging.getLogger(__name__)

Given = Union[str, os.PathLike[str], Dataset, Mapping[str, Any], "minari.MinariDataset"]
"""What a dataset may be given as: name, path, dataset, a dictionary for `Dataset.from_arrays`, or Minari's object."""


def name_of(given: Given) -> str:
    """What a sweep calls a dataset before it is read: a name or path as it is given, else its name.

    Raises:
      UserError: it is nothing that a dataset can be given as.
    """
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    if isinstance(given, Dataset):
        return given.name
    if isinstance(given, Mapping):
        return arrays.name_in(given)
    if minari_source.is_object(given):
        return str(given.id)
    raise UserError(
        f"datasets: {type(given).__name__} is no dataset; give a name, a path, a jaxrl_srpo.Dataset, a dictionary of "
        "arrays or a minari.MinariDataset"
    )


def as_dataset(
    given: Given,
    *,
    mirror: str | None = None,
    allow_invalid: bool = False,
    env: str | None = None,
    drop_reset_rows: bool = False,
) -> Dataset:
    """The dataset that a program gave by name or path, or holds in its memory.

    Args:
      given: see `Given`.
      mirror: see `load_dataset`.
      allow_invalid: see `load_dataset`; a `Dataset` has been checked where it was made.
      env: Gymnasium id for evaluation that overrides the dataset's own.
      drop_reset_rows: see `load_dataset`; a `Dataset` is taken as it is.

    Raises:
      UserError: it is nothing that a dataset can be given as, or cannot be read or trusted.
    """
    if isinstance(given, str | os.PathLike):
        return load_dataset(given, mirror=mirror, allow_invalid=allow_invalid, env=env, drop_reset_rows=drop_reset_rows)
    name_of(given)
    if isinstance(given, Dataset):
        validation.require_sound(given)
        # A program may have replaced some of the transitions.
        shared = inputs_fingerprint_of(given) if given.inputs_fingerprint else ""
        given = dataclasses.replace(given, fingerprint=fingerprint_of(given), inputs_fingerprint=shared)
        return _limited(_in_environment(given, env))
    limit = _time_limit(env) if env else None
    if isinstance(given, Mapping):
        read = {"env": env, "env_time_limit": limit, "allow_invalid": allow_invalid or None}
        return _limited(arrays.dataset_from_mapping(given, **read, drop_reset_rows=drop_reset_rows or None))
    dataset = minari_source.from_object(given, env=env, allow_invalid=allow_invalid, env_time_limit=limit)
    return _limited(dataset if env else _trusted(dataset, minari_source.entry_point_of(given)))


def _in_environment(dataset: Dataset, env: str | None) -> Dataset:
    """A dataset with the environment that a person named, if any."""
    if env is None:
        return dataset
    spec = dataclasses.replace(d4rl.environment_spec(env), observation_keys=dataset.observation_keys)
    reference = d4rl.reference_for(dataset.name, env)
    return dataclasses.replace(dataset, environment=spec, family=d4rl.environment_family(env), reference=reference)


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    mirror: str | None = None,
    allow_invalid: bool = False,
    env: str | None = None,
    drop_reset_rows: bool = False,
    download: bool = True,
    progress: bool = True,
) -> Dataset:
    """Reads and validates a dataset by path, D4RL name, OGBench name, Minari id or embedded name.

    A D4RL file that is not in the cache is downloaded; `pointmaze/...` is made on first use; datasets of OGBench and
    Minari must be on this machine (`download_dataset` fetches one, `regenerated.make_datasets` makes those of
    `names.REGENERATED`).

    Args:
      name_or_path: an existing HDF5 or .npz file, a name of `d4rl.known_names()`, a task of OGBench, a Minari id, or
        one of `names.EMBEDDED`.
      mirror: root addresses of the only servers to ask for D4RL's files; see `mirrors.MIRROR_VARIABLE`.
      allow_invalid: log what validation finds instead of raising.
      env: Gymnasium id for evaluation that overrides the dataset's own; its time limit ends episodes of files that
        mark no time-outs.
      drop_reset_rows: leave out rows of files that are resets of a vector environment and no transitions.
      download: whether a D4RL file may be fetched.
      progress: draw a progress bar while downloading.

    Returns:
      The dataset.

    Raises:
      DatasetError: it cannot be found, fetched, made, read or trusted.
    """
    name = os.path.expanduser(os.fspath(name_or_path))
    limit = _time_limit(env) if env else None
    if name in EMBEDDED and not os.path.isfile(name):
        dataset_id = pointmaze.ensure_dataset(name)
        return minari_source.read_minari(dataset_id, name, env=env, allow_invalid=allow_invalid, env_time_limit=limit)
    dataset = loading.read_dataset(
        name,
        mirror=mirror,
        allow_invalid=allow_invalid,
        env=env,
        env_time_limit=limit,
        drop_reset_rows=drop_reset_rows,
        fetch=download,
        progress=progress,
    )
    by_person = env or os.path.isfile(name) or name in d4rl.known_names() or loading.is_ogbench(name)
    return _limited(dataset if by_person else _trusted(dataset, minari_source.entry_point(dataset.source)))


def _limited(dataset: Dataset) -> Dataset:
    """The dataset, its environment with a time limit: that of the longest episode where it has none."""
    spec = dataset.environment
    if spec is None:
        return dataset
    limited = make.with_time_limit(spec, int(dataset.episode_lengths.max(initial=0)))
    if limited == spec:
        return dataset
    line = (
        f"{dataset.source}: environment {spec.id} has no time limit; its episodes are cut at "
        f"{limited.max_episode_steps} steps, the longest of the data"
    )
    _LOG.warning("%s", line)
    return dataclasses.replace(dataset, environment=limited, warnings=(*dataset.warnings, line))


def _time_limit(env: str) -> int | None:
    """The registered time limit of an environment that a person named; None where it has none or is not installed."""
    try:
        limit: int | None = make.find_registered(env).max_episode_steps
    # Training needs no environment; what needs it says what is missing.
    except UserError:
        return None
    return limit


def _trusted(dataset: Dataset, claimed: str | None) -> Dataset:
    """A Minari dataset, without its environment where its metadata mean another one than is installed by that id.

    Args:
      dataset: the dataset.
      claimed: the entry point in its metadata.
    """
    spec = dataset.environment
    if spec is None or claimed is None or make.is_registered_as(spec.id, claimed):
        return dataset
    _LOG.warning(
        "%s: its environment %s is made by %s, which is not what is installed here by that id; it is trained, not "
        "evaluated, unless --env names an environment",
        dataset.source,
        spec.id,
        claimed,
    )
    return dataclasses.replace(dataset, environment=None)


def make_dataset(name: str) -> str:
    """Makes an embedded dataset on this machine, unless it is there already.

    Returns:
      Its Minari id.

    Raises:
      DatasetError: it is no embedded dataset, or it cannot be written.
    """
    if name not in EMBEDDED:
        raise DatasetError(
            f"{name}: cannot be made here; choose one of {', '.join(EMBEDDED)}, or {REGENERATED}TASK/KIND-v0, for "
            f"instance {REGENERATED}hopper/medium-v0, or one of OGBench's, for instance {PREFIX}cube-single-play-v0"
        )
    return pointmaze.ensure_dataset(name)


def download_dataset(name: str, *, mirror: str | None = None, sums: str | os.PathLike[str] | None = None) -> str:
    """Fetches a file of D4RL or OGBench into the cache, or a Minari dataset into Minari's store.

    Args:
      name: a D4RL name, an OGBench name or a Minari id.
      mirror: root addresses of the only servers to ask for the file.
      sums: a file in the format of `sha256sum` that has the SHA-256 of the file.

    Returns:
      The file's path, or the Minari id.

    Raises:
      DatasetError: unknown name, it cannot be fetched, or it is not the file that it must be.
    """
    if is_made_here(name):
        raise DatasetError(f"{name}: is made here, not downloaded: `jaxrl-srpo data make {name}`")
    if name in d4rl.known_names():
        return str(loading.fetch_d4rl_file(name, mirror=mirror, sums=sums))
    if "/" not in name and (found := ogbench.find_name(name)) is not None:
        return str(ogbench.fetch_ogbench_file(found, mirror=mirror, sums=sums))
    if "/" not in name or os.path.exists(name):
        raise loading.unknown_name(name)
    if sums:
        raise DatasetError(f"--checksums={os.fspath(sums)}: is for files of D4RL and OGBench; {name} is Minari's")
    minari_store.download_minari(name)
    return name


def download_all(
    names: Sequence[str],
    tell: Callable[[str], None],
    *,
    mirror: str | None = None,
    sums: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Fetches the files of D4RL names into the cache, going on after a failure.

    Args:
      names: the names.
      tell: receives a line for each: its file, or why it is missing.
      mirror: see `download_dataset`.
      sums: see `download_dataset`.

    Returns:
      The names that are missing.

    Raises:
      DatasetError: a mirror is no address.
    """
    mirrors.mirrored((), "", mirror)
    missing: list[str] = []
    silent: set[str] = set()
    for name in names:
        try:
            tell(f"{name}: {loading.fetch_d4rl_file(name, mirror=mirror, sums=sums, silent=silent)}")
        except DatasetError as error:
            missing.append(name)
            tell(f"{name}: missing: {error}")
    return missing
