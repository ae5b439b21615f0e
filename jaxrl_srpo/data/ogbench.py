"""OGBench's datasets (arXiv 2410.20092), read with NumPy alone: rows of its `.npz` with the rewards of one task.

A trajectory of L steps is L + 1 rows; the last one holds its last state, and no action of it was taken. `terminals` of
the file mark these rows. The Bellman mask is the task's: `Dataset.terminals` are the states in which it is solved, in
the midst of trajectories, which go on. Both are as in OGBench's own regular reading and relabelling.
"""

import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_srpo.data import checksums, d4rl, mirrors, npz, ogbench_tasks, validation
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.download import cache_dir, download
from jaxrl_srpo.data.fingerprint import fingerprint, inputs_fingerprint
from jaxrl_srpo.data.ogbench_tasks import Name
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.processors import memory

DIRECTORY_VARIABLE = "OGBENCH_DATASET_DIR"
"""Environment variable: where OGBench's files lie, before `~/.ogbench/data` and the cache's folder `ogbench`."""

FAMILY = "ogbench"
"""`Dataset.family` of all of them."""

_SERVERS = (
    "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main",
    "https://rail.eecs.berkeley.edu/datasets/ogbench",
)
_PAGE = "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets"


class _Rows(NamedTuple):
    """The transitions of a set; arrays that its tasks share and nobody writes to.

    Attributes:
      observations: [N, observation_size] float32.
      actions: [N, action_size] float32.
      next_observations: [N, observation_size] float32.
      ends: [N] bool, the last transition of each trajectory.
      qpos: [N, positions], of the state before the action, in the type of the file.
      button_states: [N, buttons], likewise; None where there are no buttons.
    """

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    ends: np.ndarray
    qpos: np.ndarray
    button_states: np.ndarray | None


def find_name(given: str) -> Name | None:
    """What a name, or a path that ends with one, means; None where it is no dataset of OGBench's.

    A file `cube-single-play-v0.npz` means the data without a task.
    """
    return ogbench_tasks.parse(os.path.basename(given).removesuffix(".npz"))


def read_ogbench(given: str, *, env: str | None = None, allow_invalid: bool = False) -> Dataset:
    """Reads the rows of a set with the rewards of a task.

    Args:
      given: a name such as `cube-single-play-singletask-task3-v0`, or a path that ends with one; the file is
        `cube-single-play-v0.npz` in that folder, else in the folders of `folders()`.
      env: Gymnasium id for evaluation that overrides the task's own.
      allow_invalid: keep what validation finds as warnings instead of raising.

    Raises:
      DatasetError: it is no such name, no task is named, there is no file, or it fails validation.
    """
    name = find_name(given)
    if name is None:
        raise DatasetError(f"{given}: is no dataset of OGBench")
    task, files = ogbench_tasks.find_task(name), find_files(given, name)
    source = os.fspath(files[0].parent if name.large else files[0])
    rows, findings = _read(source, name.environment, tuple(_version(path) for path in files), allow_invalid)
    rewards, solved = task.rewards(rows.qpos, rows.button_states)
    stops = np.flatnonzero(rows.ends) + 1
    starts = np.append(0, stops[:-1])
    high = np.ones(rows.actions.shape[1], np.float32)
    transitions = (rows.observations, rows.actions, rewards, rows.next_observations, solved)
    return Dataset(
        os.path.basename(given).removesuffix(".npz"),
        source,
        *transitions,
        episode_ends=rows.ends,
        episode_returns=np.add.reduceat(rewards.astype(np.float64), starts),
        episode_lengths=stops - starts,
        timeouts=len(stops),
        action_low=-high,
        action_high=high,
        fingerprint=fingerprint(*transitions, -high, high),
        inputs_fingerprint=inputs_fingerprint(rows.observations, rows.actions, rows.next_observations, -high, high),
        family=FAMILY,
        environment=d4rl.environment_spec(env or name.environment_id),
        warnings=findings,
    )


def folders() -> list[pathlib.Path]:
    """Where files are looked for, in order."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    places = [*([named] if named else []), "~/.ogbench/data", os.fspath(cache_dir() / "ogbench")]
    return [pathlib.Path(os.path.expanduser(place)) for place in places]


def find_files(given: str, name: Name) -> list[pathlib.Path]:
    """The file of a set, or all files of one of 100 million steps, in order.

    Raises:
      DatasetError: there is none.
    """
    folder = os.path.dirname(os.path.expanduser(given))
    places = [pathlib.Path(folder)] if folder else folders()
    for place in places:
        found = _parts(place / name.file.removesuffix("-val"), name) if name.large else [place / f"{name.file}.npz"]
        if found and all(path.is_file() for path in found):
            return found
    where = ", ".join(map(os.fspath, places))
    if name.large:
        raise DatasetError(f"{name.file}: no folder of this name with its files is in {where}; fetch it from {_PAGE}")
    made = name.file.removesuffix("-val")
    raise DatasetError(
        f"{name.file}.npz is not in {where}; make it with `jaxrl-srpo data make ogbench/{made}`, or fetch it from "
        f"{_PAGE} or {_SERVERS[-1]}/{name.file}.npz"
    )


def fetch_ogbench_file(
    name: Name, *, mirror: str | None = None, sums: str | os.PathLike[str] | None = None, progress: bool = True
) -> pathlib.Path:
    """Downloads the file of a set into the cache, unless it is there, and notes its SHA-256.

    Args:
      name: what it is called; its task does not matter.
      mirror: root address of the only server to ask.
      sums: a file in the format of `sha256sum` that has the file's SHA-256; None takes what was noted before.
      progress: draw a progress bar on stderr.

    Raises:
      DatasetError: it is a folder of files, is not to be had, or has another SHA-256.
    """
    if name.large:
        raise DatasetError(f"{name.file}: is a folder of files; fetch it from {_PAGE}")
    place, cache = f"ogbench/{name.file}.npz", cache_dir()
    known = checksums.given(pathlib.Path(sums), place) if sums else checksums.recorded(cache, place)
    path = cache / place
    if path.is_file():
        if known is not None:
            checksums.verify(path, known, os.fspath(path))
    else:
        public = tuple(f"{server}/{name.file}.npz" for server in _SERVERS)
        download(mirrors.mirrored(public, place, mirror), path, progress, checksum=known, check=npz.check)
    checksums.record(cache, place, known.sha256 if known else checksums.sha256_of(path))
    return path


def _verify_noted(path: pathlib.Path) -> None:
    """Raises where a file of the cache is no longer the one that was downloaded."""
    cache = cache_dir()
    if not path.is_relative_to(cache):
        return
    known = checksums.recorded(cache, path.relative_to(cache).as_posix())
    try:
        if known is not None:
            checksums.verify(path, known, os.fspath(path))
    except DatasetError as error:
        raise DatasetError(f"{error}; delete the file to fetch it again, or that line if the file is right") from error


def _parts(folder: pathlib.Path, name: Name) -> list[pathlib.Path]:
    """The files of a folder that belong to a set: those for training, or those for validation."""
    stem = f"{name.environment}-{name.kind}-v0"
    form = re.compile(rf"{stem}-\d+{'-val' if name.validation else ''}\.npz")
    return sorted(path for path in folder.glob(f"{stem}-*.npz") if form.fullmatch(path.name))


class _Version(NamedTuple):
    """A file as it is now."""

    path: str
    size: int
    modified: int


def _version(path: pathlib.Path) -> _Version:
    state = path.stat()
    return _Version(os.fspath(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(
    source: str, environment: str, files: tuple[_Version, ...], allow_invalid: bool
) -> tuple[_Rows, tuple[str, ...]]:
    """The rows of all files, and what validation finds; kept, because the tasks of a set follow each other."""
    widths = ogbench_tasks.widths(environment)
    for file in files:
        _verify_noted(pathlib.Path(file.path))
    _refuse_larger_than_memory(source, files, widths)
    parts, findings = [], []
    for file in files:
        rows = _read_file(file.path, widths)
        findings += _validate(file.path, rows, allow_invalid)
        parts.append(rows)
    joined = parts[0] if len(parts) == 1 else _join(parts)
    for values in joined:
        if values is not None:
            values.setflags(write=False)
    return joined, tuple(findings)


def _join(parts: Sequence[_Rows]) -> _Rows:
    columns = list(zip(*parts, strict=True))
    return _Rows(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]


def _refuse_larger_than_memory(source: str, files: Sequence[_Version], widths: ogbench_tasks.Widths) -> None:
    """Refuses rows that would not fit: as they are, and once more as the table that members learn from."""
    count = 0
    for file in files:
        with npz.open_archive(file.path) as archive:
            count += archive.header("terminals").size
    needed = 2 * 4 * count * (2 * widths.observation + widths.action)
    if needed > memory():
        raise DatasetError(
            f"{source}: its {count:,} rows take {needed / 2**30:,.0f} GiB in memory; this machine has "
            f"{memory() / 2**30:,.0f} GiB"
        )


def _read_file(path: str, widths: ogbench_tasks.Widths) -> _Rows:
    """The transitions of a file."""
    expected = {"observations": widths.observation, "actions": widths.action, "qpos": widths.qpos}
    expected |= {"button_states": widths.buttons} if widths.buttons else {}
    with npz.open_archive(path) as archive:
        rows = _count_rows(path, archive, expected)
        last = _last_rows(path, archive.read("terminals"))
        kept, following = ~last, np.append(False, ~last[:-1])
        observations = _floats(archive.read("observations"))
        found = _Rows(
            observations=observations[kept],
            actions=_floats(archive.read("actions"))[kept],
            next_observations=observations[following],
            ends=np.append(last[1:], True)[kept],
            qpos=archive.read("qpos")[kept],
            button_states=archive.read("button_states")[kept] if widths.buttons else None,
        )
    if not len(found.ends):
        raise DatasetError(f"{path}: none of its {rows} rows is a transition; terminals mark them all")
    return found


def _count_rows(path: str, archive: npz.Archive, expected: dict[str, int]) -> int:
    """The number of rows, after a look at the types and shapes of all columns."""
    shape = archive.header("terminals").shape
    if len(shape) != 1 or shape[0] < 2:
        raise DatasetError(f"{path}: terminals has shape {shape}; expected one number for each of two rows or more")
    for name, width in expected.items():
        header = archive.header(name)
        if header.shape != (*shape, width):
            raise DatasetError(
                f"{path}: {name} has shape {header.shape}; expected {(*shape, width)}, as terminals and the "
                "environment have them"
            )
        kinds = "biuf" if name == "button_states" else "f"
        if header.dtype.kind not in kinds:
            raise DatasetError(f"{path}: {name} holds {header.dtype}; expected floats")
    return shape[0]


def _last_rows(path: str, terminals: np.ndarray) -> np.ndarray:
    """[rows] bool: the last row of each trajectory."""
    validation.require_numbers(path, {"terminals": terminals})
    if not terminals[-1]:
        raise DatasetError(f"{path}: terminals, row {len(terminals) - 1}: 0; the last row must end a trajectory")
    return terminals.astype(bool)


def _floats(values: np.ndarray) -> np.ndarray:
    # What float32 does not hold is found by validation.
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _validate(path: str, rows: _Rows, allow_invalid: bool) -> list[str]:
    """What is wrong with the values of a file's transitions."""
    # Rows are counted without the last ones of trajectories.
    source, bound = f"{path}: transitions", np.ones(rows.actions.shape[1], np.float32)
    findings = validation.validate(
        source,
        observations=rows.observations,
        next_observations=rows.next_observations,
        actions=rows.actions,
        rewards=np.zeros(len(rows.ends), np.float32),
        terminals=rows.ends,
        ends=rows.ends,
        action_low=-bound,
        action_high=bound,
        allow_invalid=allow_invalid,
    )
    finite = np.isfinite(rows.qpos).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        column = int(np.argmin(np.isfinite(rows.qpos[row])))
        found = [f"qpos, row {row}, dimension {column}: {rows.qpos[row, column]}; every value must be finite"]
        findings += validation.report(source, found, allow_invalid)
    return findings
