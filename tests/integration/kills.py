"""Runs that are killed in the middle of a stage, and started again."""

import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence

from tests import synthetic


def kill_in_stage(
    command: Sequence[str],
    out: pathlib.Path,
    stage: str,
    rows: int,
    delay: float,
    directory: pathlib.Path | None = None,
) -> None:
    """Starts a run and kills it `delay` seconds after `metrics.csv` shows that many chunks of a stage.

    Args:
      command: arguments of `jaxrl-srpo`.
      out: its run directory.
      stage: name of the stage.
      rows: chunks.
      delay: seconds.
      directory: current folder of the process.
    """
    process, log = _launch(command, out, directory)
    try:
        deadline = time.monotonic() + synthetic.LIMIT
        while _chunks_of(out, stage) < rows:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    finished = out / "checkpoints" / stage
    assert not finished.exists() or not any(p.name.isalnum() for p in finished.iterdir()), "it was killed too late"
    assert list((out / "checkpoints" / "under_way").glob(f"{stage}-*/*")), "it had no checkpoint to continue from"


def finish(command: Sequence[str], out: pathlib.Path, directory: pathlib.Path | None = None) -> str:
    """Runs a command to its end; returns what it printed."""
    process, log = _launch(command, out, directory)
    try:
        assert process.wait(synthetic.LIMIT) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    return log.read_text()


def _launch(
    command: Sequence[str], out: pathlib.Path, directory: pathlib.Path | None
) -> tuple[subprocess.Popen[bytes], pathlib.Path]:
    log = out.with_suffix(".txt")
    with log.open("wb") as file:
        return synthetic.start(command, file, directory), log


def _chunks_of(out: pathlib.Path, stage: str) -> int:
    """Chunks of a stage in `metrics.csv`, of the first seed and temperature."""
    path = out / "metrics.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    steps = [line.split(",")[5] for line in lines if line.startswith(f"{stage},") and line.count(",") > 5]
    return len(set(steps))
