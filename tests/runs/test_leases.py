"""Leases between real processes: one owner at a time, and none that is dead."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxrl_srpo.runs import leases
from jaxrl_srpo.runs.leases import Leases
from tests import synthetic

HOLD = """
import pathlib, sys, time
from jaxrl_srpo.runs.leases import Leases
lease = Leases(pathlib.Path(sys.argv[1])).claim("work")
print(lease is not None, flush=True)
time.sleep(60)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=synthetic.environment())


def test_one_process_has_it_until_it_dies(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "leases"
    with python(HOLD, directory) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "True\n"
            others = Leases(directory)
            assert others.claim("work") is None
            with others.claim("other work") or pytest.fail("other work was free") as other:
                assert not other.lost()
            process.send_signal(signal.SIGKILL)
            process.wait()
            lease = others.claim("work")
        finally:
            process.kill()
    assert lease is not None
    assert Leases(directory).claim("work") is None
    lease.release()
    assert not list(directory.iterdir())


def test_of_another_machine_it_is_free_once_its_heartbeat_stands_still(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "leases" / "work"
    path.parent.mkdir()
    path.write_text("elsewhere 1 0000")
    # Its clock may be wrong by a year.
    os.utime(path, (1e9, 1e9))
    workers = Leases(path.parent, patience=0.2)
    assert workers.claim("work") is None
    time.sleep(0.3)
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert workers.claim("work") is None
    assert Leases(path.parent, patience=0.2).claim("work") is None
    time.sleep(0.3)
    with workers.claim("work") or pytest.fail("nobody has it") as lease:
        assert not lease.lost()


def test_the_heartbeat_goes_on_while_it_is_held(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.01)
    with Leases(tmp_path).claim("work") or pytest.fail("nobody has it"):
        os.utime(tmp_path / "work", (1e9, 1e9))
        deadline = time.monotonic() + 30
        while (tmp_path / "work").stat().st_mtime == 1e9 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "work").stat().st_mtime > 1e9


def test_who_was_taken_for_dead_learns_it_and_takes_nothing_back(tmp_path: pathlib.Path) -> None:
    lease = Leases(tmp_path).claim("work")
    assert lease is not None
    (tmp_path / "work").unlink()
    assert lease.lost()
    (tmp_path / "work").write_text("elsewhere 1 0000")
    assert lease.lost()
    lease.release()
    assert (tmp_path / "work").read_text() == "elsewhere 1 0000"
