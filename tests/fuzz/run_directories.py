"""Damaged run directories, made at random from a whole one, and what the command line does with them.

`python -m tests.fuzz.run_directories --count=N` tries N of them, 100 by default: each must be refused with one line and
exit code 2, or end with the results of the whole run.
"""

import argparse
import contextlib
import io
import json
import pathlib
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from jaxrl_srpo.cli import main as command_line
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import checkpoint
from jaxrl_srpo.runs import devices
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from tests import run_comparison, synthetic

_SETTINGS: dict[str, Any] = {
    "seeds": "0:2",
    "beta": 0.1,
    "checkpoint_seconds": 0,
    "policy_steps": 16,
    "policy_evaluation_interval": 16,
}


class Base(NamedTuple):
    """Whole run directories to damage.

    Attributes:
      command: of both.
      out: where the command trains.
      finished: a copy of the finished one.
      half: a copy of the one that was interrupted in its last stage, with two checkpoints.
    """

    command: list[str]
    out: pathlib.Path
    finished: pathlib.Path
    half: pathlib.Path


class Damage(NamedTuple):
    """A way to damage a run directory.

    Attributes:
      name: what reports call it.
      apply: changes a directory, with random choices.
      refused: whether the command must refuse; otherwise it may also end with the results of the whole run.
      loses_rows: whether rows of finished stages may be gone, which nobody can know.
    """

    name: str
    apply: Callable[[pathlib.Path, random.Random], None]
    refused: bool = False
    loses_rows: bool = False


class Outcome(NamedTuple):
    """What the command line did: its exit code and what it said; `fault` is empty if that is as it should be."""

    damage: str
    code: int
    said: str
    fault: str


class _InterruptedError(Exception):
    """Stands for a kill."""


def run_command(arguments: list[str]) -> tuple[int, str]:
    """Runs `jaxrl-srpo` in this process: its exit code, 1 with a traceback, and what it wrote to standard error."""
    said = io.StringIO()
    # JAX is set up already.
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(devices, "prepare_jax", return_value=None),
    ):
        try:
            command_line.run(arguments)
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
        except _InterruptedError:
            return -9, said.getvalue()
        except Exception:
            return 1, said.getvalue() + traceback.format_exc()
    raise AssertionError("a command always exits")


def make_base(directory: pathlib.Path) -> Base:
    """Trains the run that is damaged, in a few seconds once it is compiled."""
    dataset = synthetic.write_pendulum(directory / "pendulum.hdf5")
    out, half, finished = directory / "run", directory / "half", directory / "finished"
    command = synthetic.train_command([dataset], out, **_SETTINGS)
    with _interrupted_in_last_stage():
        code, said = run_command(command)
    assert code == -9, said
    shutil.copytree(out, half)
    code, said = run_command(command)
    assert code == 0, said
    shutil.copytree(out, finished)
    return Base(command, out, finished, half)


@contextlib.contextmanager
def _interrupted_in_last_stage() -> Iterator[None]:
    original = checkpoint.Progress.save

    def save(self: checkpoint.Progress, step: int, tree: Any) -> None:
        original(self, step, tree)
        if step == 12:
            raise _InterruptedError

    with mock.patch.object(checkpoint.Progress, "save", save):
        yield


def try_damage(base: Base, damage: Damage, dice: random.Random) -> Outcome:
    """Damages a copy and gives the command again."""
    shutil.rmtree(base.out, ignore_errors=True)
    shutil.copytree(dice.choice((base.finished, base.half)), base.out)
    damage.apply(base.out, dice)
    code, said = run_command(base.command)
    return Outcome(damage.name, code, said, _fault(base, damage, code, said))


def _fault(base: Base, damage: Damage, code: int, said: str) -> str:
    if code == 2:
        lines = [line for line in said.splitlines() if line.startswith("jaxrl-srpo: ")]
        return "" if len(lines) == 1 and "Traceback" not in said else "it did not say one line"
    if code != 0:
        return f"it ended with code {code}"
    if damage.refused:
        return "it was accepted"
    try:
        _assert_same_results(base)
        for name in () if damage.loses_rows else ("metrics.csv", "evaluations.csv"):
            ours, theirs = (run_comparison.table(one, name) for one in (base.out, base.finished))
            assert run_comparison.by_content(ours) == run_comparison.by_content(theirs)
    except (AssertionError, UserError) as error:
        return f"it was accepted, and ended with other results ({error})"
    return ""


def _assert_same_results(base: Base) -> None:
    """The results of the whole run's members are the same; a changed file may name more members."""
    run, whole = RunDirectory(base.out), RunDirectory(base.finished)
    for member in whole.members():
        for stage in member.stages:
            ours, theirs = (load_result(one, stage, member) for one in (run, whole))
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def _unsealed(path: pathlib.Path, change: Callable[[Any], None]) -> None:
    """Changes `sweep.json` as somebody who removes its digest, so that its content is looked at."""
    content = json.loads((path / "sweep.json").read_text())
    del content["sha256"]
    change(content)
    (path / "sweep.json").write_text(json.dumps(content))


def _places(content: Any) -> Iterator[list[Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield [key]
        yield from ([key, *rest] for rest in _places(value))


_VALUES: tuple[Any, ...] = (None, [], {}, "x", "../../x", -1, 10**30, 1e308, True, [[]], "\ud800", "a\0b")


def _replace_anything(path: pathlib.Path, dice: random.Random) -> None:
    def change(content: Any) -> None:
        inner: Any = content
        place = dice.choice(list(_places(content)))
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = dice.choice(_VALUES)

    _unsealed(path, change)


def _remove_anything(path: pathlib.Path, dice: random.Random) -> None:
    def change(content: Any) -> None:
        inner: Any = content
        place = dice.choice(list(_places(content)))
        for key in place[:-1]:
            inner = inner[key]
        del inner[place[-1]]

    _unsealed(path, change)


def _flip(file: pathlib.Path, dice: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        bit = dice.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bytes(content))


def _files(path: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    return sorted(file for file in path.glob(pattern) if file.is_file())


def _flip_one_of(pattern: str) -> Callable[[pathlib.Path, random.Random], None]:
    def apply(path: pathlib.Path, dice: random.Random) -> None:
        if files := _files(path, pattern):
            _flip(dice.choice(files), dice)

    return apply


def _cut_one_of(pattern: str) -> Callable[[pathlib.Path, random.Random], None]:
    def apply(path: pathlib.Path, dice: random.Random) -> None:
        if files := _files(path, pattern):
            file = dice.choice(files)
            content = file.read_bytes()
            file.write_bytes(content[: dice.randrange(len(content) + 1)])

    return apply


def _write(name: str, content: bytes) -> Callable[[pathlib.Path, random.Random], None]:
    def apply(path: pathlib.Path, dice: random.Random) -> None:
        _clear(path / name)
        (path / name).write_bytes(content)

    return apply


def _make_directory(name: str) -> Callable[[pathlib.Path, random.Random], None]:
    def apply(path: pathlib.Path, dice: random.Random) -> None:
        _clear(path / name)
        (path / name).mkdir(parents=True)

    return apply


def _clear(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _change_header(path: pathlib.Path, dice: random.Random) -> None:
    file = path / dice.choice(("metrics.csv", "evaluations.csv"))
    header, _, rest = file.read_text().partition("\n")
    columns = header.split(",")
    i = dice.randrange(7)
    columns[i] = dice.choice(["", "x", columns[i - 1], columns[i].upper()])
    file.write_text("\n".join([",".join(columns), rest]))


def _change_cell(path: pathlib.Path, dice: random.Random) -> None:
    """A cell of a row without a checksum, as earlier versions wrote them."""
    file = path / dice.choice(("metrics.csv", "evaluations.csv"))
    lines = [line.split(",") for line in file.read_text().splitlines()]
    check = lines[0].index("check")
    row = dice.choice(lines[1:])
    row[check] = ""
    row[lines[0].index(dice.choice(("seed", "step")))] = dice.choice(["", "x", "1e999", "nan", "0.5", "\0", "9" * 400])
    file.write_text("".join(",".join(line) + "\n" for line in lines))


def _empty_checkpoint(path: pathlib.Path, dice: random.Random) -> None:
    for population in (path / "checkpoints" / "under_way").glob("policy-*"):
        (population / dice.choice(("99999", "13", "9" * 80))).mkdir()


def _remove_checkpoint_file(path: pathlib.Path, dice: random.Random) -> None:
    """Only what is certain to be read: a checkpoint under way, or an earlier result that the last stage needs."""
    if files := _files(path, "checkpoints/under_way/*/*/*"):
        dice.choice(files).unlink()


def _lease(content: bytes) -> Callable[[pathlib.Path, random.Random], None]:
    """A lease that a dead process of this machine left, with another content."""

    def apply(path: pathlib.Path, dice: random.Random) -> None:
        for population in (path / "checkpoints" / "under_way").glob("*"):
            (path / "leases" / population.name).write_bytes(content)

    return apply


def _own_lease() -> bytes:
    import socket

    return f"{socket.gethostname()} 1 00000000".encode()


DAMAGES = (
    Damage("sweep.json: another value", _replace_anything),
    Damage("sweep.json: another value", _replace_anything),
    Damage("sweep.json: another value", _replace_anything),
    Damage("sweep.json: an entry missing", _remove_anything),
    Damage("sweep.json: an entry missing", _remove_anything),
    Damage("sweep.json: a bit", _flip_one_of("sweep.json")),
    Damage("sweep.json: cut", _cut_one_of("sweep.json")),
    Damage("sweep.json: a list", _write("sweep.json", b"[1, 2]"), refused=True),
    Damage("sweep.json: other text", _write("sweep.json", b"\xff\xfe{}"), refused=True),
    Damage("sweep.json: deep", _write("sweep.json", b"[" * 100_000), refused=True),
    Damage("sweep.json: a huge number", _write("sweep.json", b'{"datasets": ' + b"9" * 5000 + b"}"), refused=True),
    Damage("sweep.json: a directory", _make_directory("sweep.json"), refused=True),
    Damage("CSV: a bit", _flip_one_of("*.csv")),
    Damage("CSV: cut", _cut_one_of("*.csv"), loses_rows=True),
    Damage("CSV: another header", _change_header, refused=True),
    Damage("CSV: another cell", _change_cell, refused=True),
    Damage("CSV: no text", _write("metrics.csv", bytes(range(256)) * 4), refused=True),
    Damage("CSV: other columns", _write("evaluations.csv", b"a,b\n1,2\n"), refused=True),
    Damage("CSV: a directory", _make_directory("metrics.csv"), refused=True),
    Damage("leases: a file", _write("leases", b""), refused=True),
    Damage("leases: another text", _lease(_own_lease()), refused=False),
    Damage("checkpoints: a file", _write("checkpoints", b""), refused=True),
    Damage("checkpoints: an empty one", _empty_checkpoint),
    Damage("checkpoints: a bit", _flip_one_of("checkpoints/under_way/*/*/**/*")),
    Damage("checkpoints: a bit", _flip_one_of("checkpoints/under_way/*/*/**/*")),
    Damage("checkpoints: cut", _cut_one_of("checkpoints/under_way/*/*/**/*")),
    Damage("checkpoints: a file missing", _remove_checkpoint_file),
    Damage("results: a bit", _flip_one_of("checkpoints/[bc]*/*/**/*")),
    Damage("results: a bit", _flip_one_of("checkpoints/[bc]*/*/**/*")),
    Damage("report: a file", _write("report", b""), refused=True),
)


def damaged(base: Base, count: int, seed: int) -> Iterator[Outcome]:
    """Tries so many damaged directories, each kind in turn."""
    dice = random.Random(seed)
    for number in range(count):
        yield try_damage(base, DAMAGES[number % len(DAMAGES)], dice)


def main(arguments: list[str]) -> int:
    """Tries damaged directories and prints what came out; 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args(arguments)
    faults = refused = 0
    with tempfile.TemporaryDirectory() as directory:
        base = make_base(pathlib.Path(directory))
        for outcome in damaged(base, values.count, values.seed):
            faults, refused = faults + bool(outcome.fault), refused + (outcome.code == 2)
            last = outcome.said.strip().splitlines()[-1:] or [""]
            print(f"{outcome.damage}: {outcome.code} {outcome.fault or 'as it should'}: {last[0][:160]}", flush=True)
            if outcome.fault:
                print(outcome.said[-3000:])
    print(f"{values.count} damaged run directories: {refused} refused, {values.count - refused} ended, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
