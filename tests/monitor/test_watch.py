"""Watching: what the table says of runs whose files are written by hand, and a real terminal until Ctrl-C."""

import fcntl
import os
import pathlib
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from rich.console import Console

from jaxrl_srpo.cli import main
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.monitor.status import StatusReader
from jaxrl_srpo.monitor.watch import render
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import synthetic
from tests.monitor import run_files

BEHAVIOR, CRITIC, POLICY = srpo.METHOD.stages
TOTAL = synthetic.TINY["policy_steps"]
LIMIT = 120.0


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("fresh") / "run"
    run_files.write_run(path)
    return path


@pytest.fixture
def run(fresh: pathlib.Path, tmp_path: pathlib.Path) -> RunDirectory:
    """A run of two seeds that has not begun."""
    shutil.copytree(fresh, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    run.create()
    return run


def text(reader: StatusReader, height: int | None = None, after: float = 0.0) -> str:
    """What a wide terminal shows, some seconds after the last row."""
    statuses = reader.read()
    now = max((status.written or 0.0 for status in statuses), default=0.0) + after
    console = Console(width=160)
    with console.capture() as capture:
        console.print(render("runs/x", statuses, now, height))
    return capture.get()


def line(shown: str, *words: str) -> list[str]:
    """The words of the one line that has all of these."""
    (found,) = [words_of for words_of in map(str.split, shown.splitlines()) if set(words) <= set(words_of)]
    return [word for word in found if not word.startswith("━")]


def test_a_run_that_has_not_begun_waits(run: RunDirectory) -> None:
    for name in ("metrics.csv", "evaluations.csv"):
        (run.path / name).unlink()
    shown = text(StatusReader(run.path))
    assert "0 of 6 stages of members finished" in shown
    assert line(shown, "policy", "1") == ["policy", "pendulum", "0.1", "1", "waiting"]


def test_a_line_of_every_stage_and_member(run: RunDirectory) -> None:
    first, second = run.members()
    run.metrics.append([run_files.metrics(BEHAVIOR, member, TOTAL, loss="0.25") for member in (first, second)])
    run.evaluations.append([run_files.evaluation(BEHAVIOR, first, TOTAL, -7.0, final=True)])
    run.metrics.append([run_files.metrics(CRITIC, first, 2, loss="3", value_loss="0.5", q_loss="1.5", q="9")])
    run.evaluations.append([run_files.evaluation(CRITIC, first, step, mean) for step, mean in ((1, -20.0), (2, -10.0))])
    shown = text(StatusReader(run.path), after=125.0)
    assert "2 of 6 stages of members finished" in shown
    assert line(shown, "behavior", "0") == ["behavior", "pendulum", "0", "100%", "50", "-7.0", "loss", "0.25"]
    losses = ["value", "0.5", "q", "1.5"]
    assert line(shown, "critic", "0") == ["critic", "pendulum", "0", "25%", "50", "-10.0", *losses, "2", "min", "ago"]
    assert line(shown, "critic", "1") == ["critic", "pendulum", "1", "waiting"]
    assert "undiscounted return" in shown


def test_diverged_members_are_marked(run: RunDirectory) -> None:
    run.metrics.append([run_files.metrics(POLICY, member, 4, loss="0.5") for member in run.members()])
    run.add_diverged([run.members()[1].row(POLICY) | {"update": 4}])
    reader = StatusReader(run.path)
    shown = text(reader, after=125.0)
    assert "1 diverged" in shown.splitlines()[0]
    assert line(shown, "policy", "1")[4:6] == ["50%,", "diverged"]
    assert "diverged" not in line(shown, "policy", "0")


def test_members_that_are_not_trained_are_marked(run: RunDirectory) -> None:
    run.add_not_trained([run.members()[1].row(POLICY) | {"because": "critic", "update": 4}])
    reader = StatusReader(run.path)
    shown = text(reader, after=125.0)
    assert "1 not trained" in shown.splitlines()[0]
    assert line(shown, "policy", "1")[-2:] == ["not", "trained"]
    assert "not trained" not in line(shown, "policy", "0")


def test_rows_that_a_resumed_run_dropped_are_forgotten(run: RunDirectory) -> None:
    (member, _), reader = run.members(), StatusReader(run.path)
    run.metrics.append([run_files.metrics(BEHAVIOR, member, step, loss="1") for step in (4, TOTAL)])
    assert "100%" in line(text(reader), "behavior", "0")
    run.metrics.keep(lambda row: int(row["step"]) <= 4)
    assert "50%" in line(text(reader), "behavior", "0")


def test_hundreds_of_members_are_summed_up_until_they_fit(tmp_path: pathlib.Path) -> None:
    run = run_files.write_run(tmp_path / "run", seeds=range(100), betas=(0.1, 0.3))
    members = run.members()
    policies = [run_files.metrics(POLICY, member, 2 * (1 + member.seed % 2), loss=member.seed) for member in members]
    run.metrics.append(policies)
    run.evaluations.append([run_files.evaluation(POLICY, member, 1, float(member.seed)) for member in members])
    reader = StatusReader(run.path)
    lines = {height: text(reader, height).splitlines() for height in (None, 399, 4, 3)}
    assert [len(shown) - len(lines[3]) for shown in lines.values()] == [397, 1, 1, 0]
    betas = "\n".join(lines[4])
    scores = ["49.5", "(0.0", "to", "99.0)", "loss", "49.5"]
    assert line(betas, "policy", "0.3")[2:10] == ["0.3", "100", "37%", "50", *scores[:4]]
    assert line(betas, "policy", "0.3")[10:] == [*scores[4:], "0", "s", "ago"]
    assert line("\n".join(lines[3]), "policy")[2:4] == ["200", "37%"]


def test_without_a_terminal_it_prints_one_snapshot(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.run(["watch", str(run.path)])
    assert stop.value.code == 0
    assert [words.split()[0] for words in capsys.readouterr().out.splitlines() if "waiting" in words] == [
        name for name in ("behavior", "critic", "policy") for _ in range(2)
    ]


def test_a_terminal_shows_new_rows_until_it_is_interrupted(run: RunDirectory) -> None:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
    command = [sys.executable, "-m", "jaxrl_srpo", "watch", str(run.path), "--interval=0.1"]
    # The terminal is as wide as it says, not as pytest-xdist tells its processes.
    variables = synthetic.environment() | {"TERM": "xterm", "COLUMNS": "110", "LINES": "24"}
    # Tests that a shell started in the background ignore interrupts, and so would the process that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=variables) as process:
        os.close(terminal)
        os.set_blocking(screen, False)
        try:
            wait_for("waiting", screen, process)
            # The first row brings the column.
            run.metrics.append([run_files.metrics(CRITIC, run.members()[1], 1, loss="0.5")])
            wait_for("loss 0.5", screen, process)
            with (run.path / "metrics.csv").open("a") as file:
                file.write("behavior,pendulum,0,,,4,77")
                file.flush()
                wait_for("waiting", screen, process)
                file.write("7.0,,0.125\n")
            wait_for("loss 0.125", screen, process)
            (run.path / "sweep.json").rename(run.path / "away.json")
            wait_for("sweep.json;", screen, process)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
            os.close(screen)
    assert process.returncode == 130
    assert errors.decode().split("\n")[1:] == ["jaxrl-srpo: interrupted; the run itself goes on", ""]


def wait_for(words: str, screen: int, process: subprocess.Popen[bytes]) -> None:
    """Reads a terminal until it shows some words."""
    shown, deadline = "", time.monotonic() + LIMIT
    while words not in shown:
        assert process.poll() is None, shown
        assert time.monotonic() < deadline, shown
        try:
            shown += os.read(screen, 65_536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.01)
