"""Flips single bits in every file of a finished and of a half-finished run, and looks whether `verify` finds each.

A flip is found if `verify` names its file, and harmless if what the package reads of the file is as it was: nothing
reads the name in a lock, for instance. Anything else is missed. Some flipped runs are then continued: each must be
refused in one line, or end as the whole run does, to the last bit.
"""

import contextlib
import pathlib
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log, manifest
from jaxrl_srpo.io.files import print_message, write_atomically
from jaxrl_srpo.report.records import read_sweep
from jaxrl_srpo.runs.verify import verify

from .. import common
from . import small_runs
from .small_runs import CASES, Starter

NAME = "bit_flips"
FOUND, HARMLESS, MISSED = "found", "harmless", "missed"
_RESULTS = (FOUND, HARMLESS, MISSED)


class Flip(NamedTuple):
    """One flipped bit.

    Attributes:
      run: `finished` or `half-finished`.
      file: its path in the run directory.
      bit: its number in the file.
      result: `found`, `harmless` or `missed`.
      message: what `verify` said first.
    """

    run: str
    file: str
    bit: int
    result: str
    message: str

    @property
    def kind(self) -> str:
        """What the file is, for tables."""
        name = pathlib.PurePosixPath(self.file)
        if name.name == manifest.NAME:
            return "manifests"
        if name.suffix == ".lock":
            return "locks"
        first = name.parts[0]
        if first == "checkpoints":
            return "checkpoints under way" if "under_way" in name.parts else "results"
        return first


def files_of(run: pathlib.Path) -> list[str]:
    """Every file of a run directory that has a bit to flip."""
    paths = (path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path.relative_to(run).as_posix() for path in paths)


@contextlib.contextmanager
def flipped(run: pathlib.Path, file: str, bit: int) -> Iterator[None]:
    """A run directory with one bit flipped, which is flipped back afterwards."""
    path = run / file
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(changed))
    try:
        yield
    finally:
        path.write_bytes(content)


def flip(run: pathlib.Path, name: str, file: str, bit: int) -> Flip:
    """Flips one bit, looks what `verify` says, and flips it back.

    Args:
      run: the run directory.
      name: what the outcome calls the run.
      file: the file.
      bit: the bit.
    """
    before = _content(run, file)()
    with flipped(run, file, bit):
        problems = verify(run).problems
        named = any(_names(problem, file) for problem in problems)
        result = FOUND if named else MISSED if problems or _differs(run, file, before) else HARMLESS
    return Flip(name, file, bit, result, problems[0] if problems else "")


def _names(problem: str, file: str) -> bool:
    """Whether a message names a file, or the checkpoint or report that it belongs to."""
    parts = pathlib.PurePosixPath(file).parts
    places = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(f"/{place}" in problem and place != "checkpoints" for place in places)


def _differs(run: pathlib.Path, file: str, before: object) -> bool:
    try:
        return _content(run, file)() != before
    except UserError:
        return True


def _content(run: pathlib.Path, file: str) -> Callable[[], object]:
    """What the package reads of a file."""
    path = run / file
    if file == "sweep.json":
        return lambda: read_sweep(run)
    if path.suffix == ".csv" and path.parent == run:
        return lambda: csv_log.read_rows(path)
    if path.name == manifest.NAME:
        return lambda: manifest.read(path.parent)
    if path.suffix in (".lock", ".alive") or path.parent.name == "leases":
        # Who held or holds it, for messages; nothing is computed from it.
        return lambda: None
    return path.read_bytes


def campaign(runs: dict[str, pathlib.Path], flips: int, seed: int) -> list[Flip]:
    """So many flips in all, over the files of the runs in turn, each file before any a second time."""
    dice = random.Random(seed)
    places = [(name, file) for name, run in runs.items() for file in files_of(run)]
    dice.shuffle(places)
    outcomes = []
    for number in range(max(flips, len(places))):
        name, file = places[number % len(places)]
        bit = dice.randrange(8 * (runs[name] / file).stat().st_size)
        outcomes.append(flip(runs[name], name, file, bit))
    return outcomes


def make_runs(directory: pathlib.Path, starter: Starter) -> dict[str, pathlib.Path]:
    """A finished run, and one that was killed in its last stage."""
    case, dataset = CASES[0], directory / "pendulum.hdf5"
    small_runs.write_dataset(dataset)
    finished, half = directory / "finished", directory / "half"
    starter.finish(small_runs.commands(case, dataset, finished)[0])
    process = starter.start(small_runs.commands(case, dataset, half)[0])
    # Two checkpoints of the last stage, and the first evaluations.
    while not any(len(list(one.glob("[0-9]*"))) > 1 for one in (half / "checkpoints/under_way").glob("policy-*")):
        if not process.is_alive():
            raise RuntimeError(f"the run ended by itself:\n{starter.last_lines()}")
        time.sleep(0.005)
    process.kill()
    process.join()
    return {"finished": finished, "half-finished": half}


def continued(directory: pathlib.Path, starter: Starter, flips: Sequence[Flip]) -> list[str]:
    """Gives the command again after each of some flips in a half-finished run; what was not as it should be."""
    case, half, faults = CASES[0], directory / "half", []
    kept = directory / "kept"
    shutil.copytree(half, kept)
    for one in flips:
        shutil.rmtree(half)
        shutil.copytree(kept, half)
        with contextlib.suppress(FileNotFoundError), flipped(half, one.file, one.bit):
            process = starter.start(small_runs.commands(case, directory / "pendulum.hdf5", half)[0])
            process.join()
            different = starter.differences(half, directory / "finished") if process.exitcode == 0 else []
        if process.exitcode not in (0, 2) or different:
            faults.append(f"{one.file} bit {one.bit}: code {process.exitcode}, {', '.join(different)}")
        print_message(f"continued after a flip in {one.file}: code {process.exitcode} {', '.join(different)}")
    return faults


def summarize(outcomes: Sequence[Flip], count: int, faults: Sequence[str]) -> str:
    """What came out, as Markdown."""
    lines = []
    for run in dict.fromkeys(outcome.run for outcome in outcomes):
        for kind in sorted({outcome.kind for outcome in outcomes if outcome.run == run}):
            own = [outcome for outcome in outcomes if (outcome.run, outcome.kind) == (run, kind)]
            lines.append(_cells([run, kind], own))
    lines.append(_cells(["all", ""], outcomes))
    missed = [f"- missed: {one.run} {one.file} bit {one.bit}" for one in outcomes if one.result == MISSED]
    table = common.markdown_table(("run", "files", "flips", *_RESULTS), lines, words=2)
    said = f"{count} half-finished runs were continued after a flip: {len(faults)} not as they should be."
    return "\n".join(["# Flipped bits", "", *table, "", said, *(f"- {fault}" for fault in faults), *missed]) + "\n"


def _cells(names: Sequence[str], outcomes: Sequence[Flip]) -> list[str]:
    counts = Counter(outcome.result for outcome in outcomes)
    return [*names, str(len(outcomes)), *(str(counts[result]) for result in _RESULTS)]


def main(arguments: Sequence[str]) -> list[Flip] | None:
    """Runs the campaign of a command line; None after printing help.

    Raises:
      UserError: for bad input, or if a flip was missed.
    """
    line = common.CommandLine(f"benchmarks.{NAME}", __doc__)
    line.whole("flips", 200, "Flips in all; every file has one at least.", 1)
    line.whole("continued", 10, "How many of those in the half-finished run are continued.", 0)
    line.whole("seed", 0, "Of the random bits.", 0)
    out = line.parse(arguments)
    if out is None:
        return None
    with tempfile.TemporaryDirectory(prefix="bit_flips_") as place:
        directory = pathlib.Path(place)
        starter = Starter(directory / "log.txt")
        runs = make_runs(directory, starter)
        outcomes = campaign(runs, line.values.flips, line.values.seed)
        half = [outcome for outcome in outcomes if outcome.run == "half-finished"][: line.values.continued]
        faults = continued(directory, starter, half)
    text = summarize(outcomes, len(half), faults)
    write_atomically(out / f"{NAME}.md", text)
    print(text, end="")
    if faults or any(outcome.result == MISSED for outcome in outcomes):
        raise UserError("a flip was missed; see the table")
    return outcomes


def _prepare() -> None:
    """The processes prepare JAX themselves."""


if __name__ == "__main__":
    common.run(f"benchmarks.{NAME}", main, _prepare)
