"""Workers that stand still and go on, and run directories that are moved or whose disk is full while they train."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

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
    first.send_signal(signal.SIGSTOP)
    try:
        # The one that takes over ends, or waits for a lock that the other stopped with.
        second = start(log, "-c", WORK, str(tmp_path / "run"), "1")
        wait_for_rows(tmp_path / "run", second, 20)
    finally:
        first.send_signal(signal.SIGCONT)
    assert (first.wait(synthetic.LIMIT), second.wait(synthetic.LIMIT)) == (0, 0), log.read_text()
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


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_a_full_disk_is_told_in_one_line_and_the_same_command_goes_on(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log.txt"
    arguments = ["-m", "jaxrl_srpo", *command(dataset, out, "awac"), "--online_steps=0"]
    # Enough for sweep.json, but not for a checkpoint or for all of metrics.csv.
    size = 10_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=synthetic.environment(), preexec_fn=limit
    )
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("jaxrl-srpo: ")]
    assert "File too large; files may not be as large here" in line
    assert "Traceback" not in result.stderr
    assert start(log, *arguments).wait(synthetic.LIMIT) == 0, log.read_text()
