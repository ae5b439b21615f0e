"""OGBench's scripted datasets made on this machine: several processes, blocks of episodes, one file at the end.

Every episode depends on its dataset, its seed and its number alone, so neither the number of processes nor a kill
changes the bytes. Processes store blocks of whole episodes; after a kill the same command makes the missing ones.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Generator, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import tqdm

from jaxrl_srpo.data.checksums import sha256_of
from jaxrl_srpo.data.download import cache_dir
from jaxrl_srpo.envs import ogbench_checks
from jaxrl_srpo.envs.ogbench import INSTALL
from jaxrl_srpo.envs.ogbench_checks import Counts
from jaxrl_srpo.envs.ogbench_episodes import Episode, Player, make_player, make_streams
from jaxrl_srpo.envs.ogbench_recipes import LEAST_NORM, SMOOTHING, UNREAD, Recipe, find_recipe
from jaxrl_srpo.errors import DatasetError, UserError
from jaxrl_srpo.io.files import expand_home, locked, write_atomically
from jaxrl_srpo.io.npz import Column, write_npz
from jaxrl_srpo.io.processors import usable_cores

SPLITS = ("train", "val")

_COLUMNS = ("observations", "actions", "terminals", "qpos", "qvel", "button_states")
_ROWS_PER_BLOCK = 2000
# To be raised by whoever changes what an episode holds, so that old blocks are not mixed with new ones.
_FORMAT = 1
_COUNTS = "counts_"
_SEEDING = (
    "each episode: numpy SeedSequence([first 8 bytes of SHA-256 of 'NAME/train' or 'NAME/val', seed, episode]) spawns "
    "the seeds of the recipe's draws, of NumPy's global generator (MT19937, from which ogbench's oracles and mazes "
    "draw), of the environment's generator and of its action space"
)


class Made(NamedTuple):
    """A dataset on the disk.

    Attributes:
      train, val: OGBench's two files.
      note: JSON beside them: recipe, versions, checks.
      lines: a few lines for people.
      warnings: what is odd about the data.
    """

    train: pathlib.Path
    val: pathlib.Path
    note: pathlib.Path
    lines: list[str]
    warnings: list[str]


@dataclasses.dataclass(frozen=True)
class _Block:
    """Episodes `first` to `stop - 1` of a split, which one process plays in a row."""

    split: str
    first: int
    stop: int

    @property
    def file(self) -> str:
        return f"{self.split}-{self.first}-{self.stop}.npz"


@dataclasses.dataclass(frozen=True)
class _Job:
    """A dataset to be made.

    Attributes:
      recipe: with the numbers of episodes and rows that are wanted.
      seed: of the dataset.
      train: file to make; `-val.npz` and `.json` stand beside it.
    """

    recipe: Recipe
    seed: int
    train: pathlib.Path

    @property
    def val(self) -> pathlib.Path:
        return self.train.with_name(f"{self.train.stem}-val.npz")

    @property
    def note(self) -> pathlib.Path:
        return self.train.with_suffix(".json")

    @functools.cached_property
    def parts(self) -> pathlib.Path:
        """Folder of the blocks; those of another recipe, seed or version are in another."""
        # An episode does not depend on how many there are.
        about = {"recipe": dataclasses.asdict(self.recipe) | {"episodes": None}, "seed": self.seed}
        text = json.dumps([about, _versions(), _FORMAT], sort_keys=True)
        return self.train.with_name(f".{self.train.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.parts")

    def blocks(self, split: str) -> list[_Block]:
        """All blocks of a split, in order."""
        episodes = self.recipe.episodes if split == "train" else self.recipe.validation_episodes
        size = max(1, _ROWS_PER_BLOCK // self.recipe.rows)
        return [_Block(split, first, min(first + size, episodes)) for first in range(0, episodes, size)]

    def described(self) -> dict[str, Any]:
        """The recipe for the note."""
        recipe = self.recipe
        about: dict[str, Any] = {"family": recipe.family, "style": recipe.style, "environment": recipe.environment_id}
        about |= {"oracle": recipe.oracle, "noise": recipe.noise}
        if recipe.style == "play":
            about["noise_smoothing"] = SMOOTHING
        if recipe.style == "noisy":
            about |= {"min_norm": LEAST_NORM, "random_actions": recipe.random_actions}
        if not recipe.is_maze:
            about["stacking"] = list(recipe.stacking)
        sizes = {"episodes": recipe.episodes, "validation_episodes": recipe.validation_episodes, "rows": recipe.rows}
        return about | sizes | {"seed": self.seed}


def make_dataset(
    name: str,
    *,
    episodes: int | None = None,
    rows: int | None = None,
    seed: int = 0,
    processes: int | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Made:
    """Makes one of OGBench's scripted datasets, unless it is there already.

    Args:
      name: such as `ogbench/cube-single-play-v0`.
      episodes: of the training file, a tenth more for validation; None takes the published number.
      rows: per episode; None takes the published number.
      seed: of all that is random.
      processes: that play episodes; None takes a process per core.
      out: the training file (`.npz`) or a folder; None takes `ogbench` in the cache.

    Raises:
      DatasetError: the name or a number is wrong, another dataset is in the place, or an episode is not sound.
      UserError: OGBench is not installed, or a process was killed.
      OSError: a file cannot be written.
    """
    recipe = _with_sizes(find_recipe(name), episodes, rows)
    _check_numbers(recipe, seed, processes)
    _require_ogbench()
    job = _Job(recipe, seed, _target(recipe, out))
    job.train.parent.mkdir(parents=True, exist_ok=True)
    with locked(job.train, math.inf):
        if not _is_made(job):
            job.parts.mkdir(exist_ok=True)
            seconds = _make_blocks(job, processes or usable_cores())
            _assemble(job, seconds, processes or usable_cores())
        shutil.rmtree(job.parts, ignore_errors=True)
    return _read_made(job)


def default_folder() -> pathlib.Path:
    """Where datasets go unless they are told otherwise."""
    return cache_dir() / "ogbench"


def _with_sizes(recipe: Recipe, episodes: int | None, rows: int | None) -> Recipe:
    return dataclasses.replace(
        recipe,
        episodes=recipe.episodes if episodes is None else episodes,
        rows=recipe.rows if rows is None else rows,
    )


def _check_numbers(recipe: Recipe, seed: int, processes: int | None) -> None:
    for name, number, least in (("episodes", recipe.episodes, 1), ("rows", recipe.rows, 2), ("seed", seed, 0)):
        if not least <= number < 2**31:
            raise DatasetError(f"--{name}={number}: must be from {least} to 2^31 - 1")
    if processes is not None and not 1 <= processes <= 1024:
        raise DatasetError(f"--processes={processes}: must be from 1 to 1024")


def _require_ogbench() -> None:
    if importlib.util.find_spec("ogbench") is None:
        raise UserError(f"OGBench's data need OGBench, which is not installed; install it: {INSTALL}")


def _target(recipe: Recipe, out: str | os.PathLike[str] | None) -> pathlib.Path:
    """The training file, absolute."""
    place = default_folder() if out is None else expand_home(out)
    if place.suffix == ".npz" and not place.is_dir():
        return place.absolute()
    if place.is_file():
        raise DatasetError(f"--out={place}: is a file; give a folder, or a file whose name ends in .npz")
    return place.absolute() / f"{recipe.name}.npz"


def _is_made(job: _Job) -> bool:
    """Whether the dataset is there.

    Raises:
      DatasetError: files of another origin are in its place.
    """
    there = [path for path in (job.train, job.val) if path.exists()]
    if there and _note(job).get("recipe") != job.described():
        raise DatasetError(
            f"{there[0]}: is here and was not made by this recipe and seed; move it away, or name another place (--out)"
        )
    return len(there) == 2


def _note(job: _Job) -> dict[str, Any]:
    """What the note says; nothing where there is none that can be read."""
    try:
        found = json.loads(job.note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _make_blocks(job: _Job, processes: int) -> float:
    """Makes the blocks that are missing; returns rows a second, 0 where nothing was missing."""
    blocks = [block for split in SPLITS for block in job.blocks(split)]
    missing = [block for block in blocks if not (job.parts / block.file).exists()]
    if not missing:
        return 0.0
    start, total = time.perf_counter(), sum(block.stop - block.first for block in blocks)
    left = sum(block.stop - block.first for block in missing)
    with (
        tqdm.tqdm(total=total, initial=total - left, desc=job.recipe.name, unit="episode", disable=None) as bar,
        contextlib.closing(_played(job, missing, min(processes, len(missing)))) as played,
    ):
        for block in played:
            bar.update(block.stop - block.first)
    return left * job.recipe.rows / (time.perf_counter() - start)


def _played(job: _Job, missing: list[_Block], processes: int) -> Generator[_Block, None, None]:
    """Has processes make blocks, and tells of each when it is stored."""
    # A fork would take over the threads of JAX, and its locks.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, _begin_worker, (theirs, str(job.parts)))
    try:
        waiting = {pool.submit(_make_block, job.recipe, job.seed, block, job.parts): block for block in missing}
        for future in concurrent.futures.as_completed(waiting):
            future.result()
            yield waiting[future]
    except BrokenProcessPool as error:
        raise UserError(
            f"{job.recipe.name}: a process that played episodes was ended from outside; if memory was short, give "
            "fewer --processes; the same command goes on from the finished episodes"
        ) from error
    finally:
        # First, because a second interrupt may cut the pool's own shutdown short, and then it would never end.
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _begin_worker(line: Connection, folder: str) -> None:
    """What every process does first; it ends when the other end of its line is closed, by a kill for instance."""
    # Nothing is drawn, so no display is looked for.
    os.environ["MUJOCO_GL"] = "disable"
    # MuJoCo writes a log into the working directory when a simulation becomes unstable.
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave() -> None:
        line.poll(None)
        os._exit(0)

    # What an episode writes is whole or absent, so nothing is lost by leaving at once.
    threading.Thread(target=leave, daemon=True).start()


@functools.lru_cache(maxsize=1)
def _player(recipe: Recipe) -> Player:
    return make_player(recipe)


def _make_block(recipe: Recipe, seed: int, block: _Block, folder: pathlib.Path) -> None:
    """Plays the episodes of a block and stores them, in a process of its own."""
    player = _player(recipe)
    episodes = [
        player.play(make_streams(recipe.name, block.split, seed, number), recipe.rows)
        for number in range(block.first, block.stop)
    ]
    counts = ogbench_checks.count(recipe, episodes)
    arrays = _concatenate(episodes) | {_COUNTS + name: array for name, array in counts.arrays().items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(folder / block.file, buffer.getvalue())


def _concatenate(episodes: list[Episode]) -> dict[str, np.ndarray]:
    names = episodes[0].columns
    return {name: np.concatenate([episode.columns[name] for episode in episodes]) for name in names}


def _assemble(job: _Job, rate: float, processes: int) -> None:
    """Joins the blocks; the dataset's files get their names when all of it is written."""
    made = {split: job.parts / f"{split}.npz" for split in SPLITS}
    counts = {split: _join(job, split, path) for split, path in made.items()}
    named = {"train": job.train, "val": job.val}
    checks = {split: ogbench_checks.describe(job.recipe, counts[split]) for split in SPLITS}
    note = {
        "dataset": job.recipe.name,
        "origin": f"regenerated by the published recipe, seed {job.seed}; not the published file",
        "recipe": job.described(),
        "seeding": _SEEDING,
        "not_known_of_the_recipe": UNREAD,
        "versions": _versions(),
        "sha256": {named[split].name: sha256_of(made[split]) for split in SPLITS},
        "checks": checks,
        "summary": ogbench_checks.summarize(job.recipe, counts["train"]),
        "warnings": ogbench_checks.find_oddities(job.recipe, counts["train"]),
        "steps_per_second": round(rate, 1),
        "processes": processes,
    }
    # The note comes first: what it does not describe is never overwritten.
    write_atomically(job.note, json.dumps(note, indent=2) + "\n")
    for split in reversed(SPLITS):
        os.replace(made[split], named[split])


def _join(job: _Job, split: str, path: pathlib.Path) -> Counts:
    """Writes a file of OGBench's format from the blocks of a split; returns their counts."""
    blocks = [job.parts / block.file for block in job.blocks(split)]
    with _block(blocks[0]) as first:
        heads = {name: first[name][:0] for name in _COLUMNS if name in first}
    rows = job.recipe.rows * sum(block.stop - block.first for block in job.blocks(split))
    columns = {name: Column((rows, *head.shape[1:]), head.dtype, _pieces(blocks, name)) for name, head in heads.items()}
    write_npz(path, columns)
    return ogbench_checks.add_up([_counts(block) for block in blocks])


def _pieces(blocks: list[pathlib.Path], name: str) -> Iterator[np.ndarray]:
    for path in blocks:
        with _block(path) as arrays:
            yield arrays[name]


def _counts(path: pathlib.Path) -> Counts:
    with _block(path) as arrays:
        return ogbench_checks.from_arrays(
            {name.removeprefix(_COUNTS): arrays[name] for name in arrays if name.startswith(_COUNTS)}
        )


@contextlib.contextmanager
def _block(path: pathlib.Path) -> Iterator[Any]:
    """A block's arrays; one that cannot be read is removed.

    Raises:
      DatasetError: it is damaged.
    """
    try:
        # NumPy leaves a file that it opened itself open where it cannot be read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        path.unlink(missing_ok=True)
        raise DatasetError(
            f"{path}: was damaged, by a full disk or a crash of the machine perhaps, and is removed; give the same "
            "command again"
        ) from error


def _versions() -> dict[str, str]:
    names = ("jaxrl-srpo", "ogbench", "mujoco", "gymnasium", "numpy", "scipy")
    return {name: importlib.metadata.version(name) for name in names}


def _read_made(job: _Job) -> Made:
    note = _note(job)
    return Made(job.train, job.val, job.note, list(note.get("summary", [])), list(note.get("warnings", [])))
