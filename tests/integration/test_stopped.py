"""Workers that stand still and go on, and run directories that are moved or whose disk is full while they train."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import locked
from tests import run_comparison, synthetic
from tests.integration.test_resume import command

WORK = """
import sys
from jaxrl_srpo.cli import main
from jaxrl_srpo.runs.leases import Leases
# Patience for a worker that stands still.
Leases.__init__.__defaults__ = (float(sys.argv[2]),)
main.run(["work", sys.argv[1], "--cpu_devices=1"])
"""

# Enough for sweep.json, but not for a checkpoint or for all of metrics.csv.
WITH_SMALL_FILES = """
import resource, sys
from jaxrl_srpo.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
main.run(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


def start(log: pathlib.Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=file, env=synthetic.environment())


def wait_for_rows(out: pathlib.Path, process: subprocess.Popen[bytes], rows: int) -> None:
    deadline = time.monotonic() + synthetic.LIMIT
    while not (out / "metrics.csv").exists() or (out / "metrics.csv").read_bytes().count(b"\n") <= rows:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stop_outside_locks(out: pathlib.Path, process: subprocess.Popen[bytes]) -> None:
    """Stops a process where it holds no lock, which would keep the others out."""
    for _ in range(100):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        try:
            for name in ("leases", "metrics.csv", "evaluations.csv", "sweep.json"):
                with locked(out / name, 0.0):
                    pass
        except UserError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.03)
        else:
            return
    pytest.fail("it holds a lock all the time")


def test_a_revived_worker_writes_nothing_of_what_another_took_over(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    train = [*command(dataset, tmp_path / "run", "awac"), "--online_steps=0"]
    whole = [*command(dataset, tmp_path / "whole", "awac"), "--online_steps=0"]
    log = tmp_path / "log.txt"
    assert start(log, "-m", "jaxrl_srpo", *whole).wait(synthetic.LIMIT) == 0
    assert start(log, "-m", "jaxrl_srpo", "prepare", *train[1:]).wait(synthetic.LIMIT) == 0
    first = start(log, "-c", WORK, str(tmp_path / "run"), "60")
    wait_for_rows(tmp_path / "run", first, 6)
    try:
        stop_outside_locks(tmp_path / "run", first)
        second = start(log, "-c", WORK, str(tmp_path / "run"), "1")
        wait_for_rows(tmp_path / "run", second, 20)
        first.send_signal(signal.SIGCONT)
        assert (first.wait(synthetic.LIMIT), second.wait(synthetic.LIMIT)) == (0, 0), log.read_text()
    finally:
        first.kill()
        first.wait()
    run_comparison.assert_same_but_for_order(tmp_path / "run", tmp_path / "whole")


def test_a_directory_that_is_moved_away_stops_the_run_and_is_not_made_anew(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log.txt"
    process = start(log, "-m", "jaxrl_srpo", *command(dataset, out, "awac"))
    wait_for_rows(out, process, 3)
    out.rename(tmp_path / "moved")
    assert process.wait(synthetic.LIMIT) == 2, log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("jaxrl-srpo: ")]
    assert f"{out}: was moved or removed while it was trained" in line
    assert "Traceback" not in log.read_text()
    assert not out.exists()


def test_a_full_disk_is_told_in_one_line_and_the_same_command_goes_on(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = [*command(dataset, out, "awac"), "--online_steps=0"]
    result = synthetic.python("-c", WITH_SMALL_FILES, *arguments)
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("jaxrl-srpo: ")]
    assert "File too large; files may not be as large here" in line
    assert "Traceback" not in result.stderr
    assert start(log, "-m", "jaxrl_srpo", *arguments).wait(synthetic.LIMIT) == 0, log.read_text()


def test_a_place_that_cannot_be_written_or_named_is_one_line(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # Nobody makes a directory in /proc, a superuser neither.
    for out in (pathlib.Path("/proc/run"), tmp_path / ("x" * 300)):
        result = synthetic.python("-m", "jaxrl_srpo", *command(dataset, out, "srpo"))
        assert result.returncode == 2, result.stderr
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("jaxrl-srpo: ")]
        assert line.startswith(f"jaxrl-srpo: --out={out}: cannot be written (")
        assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
