"""What every command line shares: lists of seeds, numbers and words, help, exit codes, devices."""

import errno
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from absl import flags

from jaxrl_srpo.cli import command_line
from jaxrl_srpo.errors import UserError


def test_numbers_and_words() -> None:
    assert command_line.parse_numbers("betas", ["0.1", "1e3"]) == (0.1, 1000.0)
    assert command_line.parse_words("to", "b,a,b", ("a", "b", "c")) == ("b", "a")
    for words in ([], ["x"]):
        with pytest.raises(UserError, match=r"--betas=.*: give numbers, for instance 0.01,0.1"):
            command_line.parse_numbers("betas", words)
    for text in ("", "d", "a,d"):
        with pytest.raises(UserError, match=f"--to={text}: choose from a, b, c"):
            command_line.parse_words("to", text, ("a", "b", "c"))


def test_positional_arguments_are_refused_by_name() -> None:
    command_line.refuse_rest([], "flags only")
    with pytest.raises(UserError, match="stray: unexpected; flags only"):
        command_line.refuse_rest(["stray", "other"], "flags only")


def experiment_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "Directory of the results.", flag_values=values)
    flags.DEFINE_boolean("quick", True, "Smaller.", flag_values=values)
    return values


def test_experiments_need_a_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    out = command_line.parse_experiment(experiment_flags(), "probe", "usage", [f"--out={tmp_path / 'new'}"])
    assert out == tmp_path / "new"
    mistakes = {"--noquick": "--out: is required; for instance --out=docs/results/probe"}
    mistakes[f"--out={tmp_path / 'file'}"] = "is a file; give a directory"
    for argument, message in mistakes.items():
        with pytest.raises(UserError, match=message):
            command_line.parse_experiment(experiment_flags(), "probe", "usage", [argument])


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.parse_experiment(experiment_flags(), "probe", "usage: probe", ["--help"]) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: probe"
    assert any(line.split() == ["--[no]quick", "Smaller.", "(default", "'true')"] for line in lines)
    assert not command_line.asks_for_help(["--helpless", "-x"])


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (None, 0, ""),
        (UserError("two\nlines"), 2, "probe: two lines\n"),
        (flags.Error("bad flag"), 2, "probe: bad flag\n"),
        (UserError("x" * 5000), 2, f"probe: {'x' * 1000} ... {'x' * 1000}\n"),
        (
            PermissionError(13, "Permission denied", "/root/x"),
            2,
            "probe: /root/x: Permission denied; choose a place that can be read and written\n",
        ),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 bytes."),
            2,
            "probe: memory does not suffice (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.); train fewer "
            "members together (--members_per_population), or choose smaller networks or batches\n",
        ),
        (
            MemoryError(),
            2,
            "probe: memory does not suffice (none left); train fewer members together (--members_per_population), or "
            "choose smaller networks or batches\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            2,
            "probe: runs/x: No space left on device; make room, then give the same command again\n",
        ),
    ],
)
def test_exit_codes(raised: BaseException | None, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[Sequence[str]] = []

    def command(arguments: Sequence[str]) -> Any:
        given.append(arguments)
        if raised is not None:
            raise raised

    with pytest.raises(SystemExit) as stop:
        command_line.exit_with("probe", command, ["a"], "stopped")
    assert (stop.value.code, given) == (code, [["a"]])
    assert capsys.readouterr().err == message


def test_an_interrupt_waits_for_no_thread() -> None:
    program = """
import threading
from jaxrl_srpo.cli import command_line

def command(arguments):
    threading.Thread(target=threading.Event().wait).start()
    raise KeyboardInterrupt

command_line.exit_with("probe", command, [], "stopped")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (130, "\nprobe: stopped\n")


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), OSError("no file"), ValueError("a bug")])
def test_faults_of_the_program_are_not_hidden(fault: Exception) -> None:
    def command(arguments: Sequence[str]) -> None:
        raise fault

    with pytest.raises(type(fault)):
        command_line.exit_with("probe", command, [])


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0.01", "text", "1e400"])
def test_seconds_are_finite_and_not_too_few(seconds: str) -> None:
    values = flags.FlagValues()
    command_line.define_seconds(values, "pause", 2.0, "Seconds.", 0.1)
    assert values(["x", "--pause=0.5"]) == ["x"]
    assert values.pause == 0.5
    with pytest.raises(flags.Error, match="pause"):
        values(["x", f"--pause={seconds}"])


def test_the_home_folder_is_found_wherever_a_path_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["report", "~/run", "--out=~/run", "--datasets=~/a.hdf5,~/b.hdf5", "--env=x~/y", "a~b", "~"]
    expected = ["report", "/home/me/run", "--out=/home/me/run", "--datasets=/home/me/a.hdf5,/home/me/b.hdf5"]
    assert command_line.expand_home(given) == [*expected, "--env=x~/y", "a~b", "~"]
