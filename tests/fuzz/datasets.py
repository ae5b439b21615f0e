"""Malformed and odd datasets, made from a seed: none may give a traceback, hang, or be taken for sound.

`python -m tests.fuzz.datasets --count=1000 --seed=0` makes and reads them; the suite reads a part.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import logging
import multiprocessing
import os
import pathlib
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from jaxrl_srpo.cli import main as command_line
from jaxrl_srpo.data import inspect
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.facts import DatasetFacts, dataset_facts
from jaxrl_srpo.data.packing import pack_dataset
from jaxrl_srpo.data.rewards import TRANSFORMS
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import UserError
from tests.fuzz import hdf5_files, minari_folders
from tests.fuzz.mutation import Expected, Mutation

HANGS = 120
"""Seconds after which a case hangs."""
PICTURES = 10
"""One of so many datasets is drawn."""
COMMANDS = 5
"""One of so many is also read by the command line."""
OFTEN = 4
"""How often a mutation comes that is another one each time, as damage to random bytes is."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One dataset to read: its number, and the kind of file that is mutated."""

    seed: int
    kind: str
    mutation: Mutation

    def __str__(self) -> str:
        return f"case {self.seed}: {self.kind}, {self.mutation.name}, {self.mutation.expected.value}"


def kinds() -> dict[str, Sequence[Mutation]]:
    """The mutations by the kind of file; pyarrow's where it is installed."""
    found: dict[str, Sequence[Mutation]] = {"d4rl": hdf5_files.MUTATIONS, "hdf5": minari_folders.HDF5}
    with contextlib.suppress(ImportError):
        import pyarrow  # noqa: F401

        found |= {"arrow": minari_folders.ARROW, "parquet": minari_folders.ARROW}
    return found


def cases(count: int, seed: int, only: str = "") -> Iterator[Case]:
    """Cases that go through all mutations of all kinds in turn, in another order for every seed.

    Args:
      count: how many.
      seed: of all that is random.
      only: text that kind and mutation must contain, for instance `arrow, a file`.
    """
    everything = [
        (kind, mutation)
        for kind, mutations in kinds().items()
        for mutation in mutations
        if only in f"{kind}, {mutation.name}"
        for _ in range(OFTEN if mutation.expected is Expected.MAY else 1)
    ]
    order = np.random.default_rng(seed).permutation(len(everything))
    for k in range(count):
        kind, mutation = everything[order[k % len(order)]]
        yield Case(seed * 1_000_000 + k, kind, mutation)


def play(case: Case, root: pathlib.Path) -> str:
    """Makes a dataset, mutates it and reads it all.

    Args:
      case: what to make.
      root: an empty folder, also of Minari's store.

    Returns:
      "", or what is wrong with how it was read.
    """
    random = np.random.default_rng(case.seed)
    with _store(root):
        if case.kind == "d4rl":
            name = root / "data.hdf5"
            hdf5_files.write(random, name)
            sound = _read(str(name))
            path = case.mutation.mutate(random, name) or name
            return _judge(case, str(path), sound)
        minari_folders.write(random, case.kind)
        sound = _read(minari_folders.DATASET)
        case.mutation.mutate(random, root / minari_folders.DATASET / "data")
        return _judge(case, minari_folders.DATASET, sound)


@contextlib.contextmanager
def _store(root: pathlib.Path) -> Iterator[None]:
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before


def _judge(case: Case, name: str, sound: Dataset) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            said = _compared(case, name, sound)
        return said or _loosely(case, name)
    except Exception:
        return f"{case}: {traceback.format_exc()}"


def _compared(case: Case, name: str, sound: Dataset) -> str:
    """What is wrong with how a dataset was read, or was not."""
    expected = case.mutation.expected
    try:
        found = _read(name)
        if case.seed % COMMANDS == 0:
            with contextlib.redirect_stdout(io.StringIO()):
                command_line.main(["data", "info", "--", name])
    except UserError as error:
        if said := _no_line(error):
            return f"{case}: {said}"
        return "" if expected in (Expected.REFUSED, Expected.MAY) else f"{case}: refused: {error}"
    if expected is Expected.REFUSED:
        return f"{case}: was read"
    if expected is Expected.EQUAL and found.fingerprint != sound.fingerprint:
        return f"{case}: holds other transitions"
    return _invalid(case, found)


def _loosely(case: Case, name: str) -> str:
    """What is wrong with how a dataset was read by somebody who wants it anyway."""
    try:
        with warnings.catch_warnings():
            # NumPy warns of infinite numbers, which were asked for.
            warnings.simplefilter("ignore")
            data = _read(name, allow_invalid=True, drop_reset_rows=True, env="Pendulum-v1")
            if case.seed % PICTURES == 0:
                inspect.plot(data, os.devnull)
    except UserError as error:
        said = _no_line(error)
        return f"{case}, loosely: {said}" if said else ""
    return ""


def _no_line(error: UserError) -> str:
    text = str(error)
    return "" if len(text.splitlines()) == 1 and len(text) <= 2000 else f"not one line: {text!r}"


def _read(name: str, **options: Any) -> Dataset:
    """Reads a dataset and does all with it that `data info` and `train` do before training."""
    data = load_dataset(name, download=False, **options)
    inspect.describe(data).encode()
    for transform in TRANSFORMS:
        settings: dict[str, Any] = {"reward_transform": transform, "normalize_observations": transform == "none"}
        # Returns that are all equal cannot be scaled.
        with contextlib.suppress(UserError):
            facts = dataset_facts(data, trajectory_weighting=10.0, given=name, **settings)
            pack_dataset(data, trajectory_weighting=10.0, **settings)
            DatasetFacts(**json.loads(json.dumps(dataclasses.asdict(facts)).encode()))
    return data


def _invalid(case: Case, data: Dataset) -> str:
    columns = (data.observations, data.actions, data.rewards, data.next_observations, data.action_low, data.action_high)
    if not all(column.dtype == np.float32 and np.isfinite(column).all() and column.size for column in columns):
        return f"{case}: values that are no numbers"
    if len({len(column) for column in (*columns[:4], data.terminals, data.episode_ends)}) != 1:
        return f"{case}: columns of several lengths"
    if not (data.episode_ends[-1] and len(data.episode_returns) == len(data.episode_lengths) > 0):
        return f"{case}: no episodes"
    return ""


def main() -> int:
    """Reads many datasets, in another process that may crash or hang; 0 where all went as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="text that kind and mutation must contain")
    arguments = parser.parse_args()
    every = list(cases(arguments.count, arguments.seed, arguments.only))
    done = wrong = 0
    while done < len(every):
        sound, said = _play_until_it_ends(every[done:])
        done += sound
        if said:
            wrong, done = wrong + 1, done + 1
            print(said if said.startswith("case") else f"{every[done - 1]}: {said}", flush=True)
    read = collections.Counter(f"{case.kind}, {case.mutation.expected.value}" for case in every)
    for kind, number in sorted(read.items()):
        print(f"{number:6} {kind}")
    print(f"{len(every)} datasets, {wrong} wrong")
    return 1 if wrong else 0


def _play_until_it_ends(left: Sequence[Case]) -> tuple[int, str]:
    """Plays cases in a process of their own.

    Returns:
      How many went as they must, and what is wrong with the one after them, if there is one.
    """
    # A mutation is a function inside of another, which cannot be sent.
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_play_all, args=(left, there), daemon=True)
    process.start()
    there.close()
    done, said = 0, ""
    try:
        while not said and here.poll(HANGS):
            said = here.recv()
            done += not said
        said = said or f"hangs, for more than {HANGS} seconds"
    except EOFError:
        process.join()
        said = f"ends the process with code {process.exitcode}" if process.exitcode else ""
    process.kill()
    process.join()
    return done, said


def _play_all(left: Sequence[Case], answers: Connection) -> None:
    logging.disable(logging.WARNING)
    for case in left:
        root = pathlib.Path(tempfile.mkdtemp(prefix="fuzz_"))
        said = play(case, root)
        shutil.rmtree(root, ignore_errors=True)
        answers.send(said)


if __name__ == "__main__":
    sys.exit(main())
