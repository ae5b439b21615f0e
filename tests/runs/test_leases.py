"""Leases between real processes: one owner at a time, and none that is dead."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_srpo.errors import UserError
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


def test_who_lost_it_may_not_write(tmp_path: pathlib.Path) -> None:
    with Leases(tmp_path).claim("work") or pytest.fail("nobody has it") as lease:
        with lease.writing() as own:
            assert own
        (tmp_path / "work").write_text("elsewhere 1 0000")
        with lease.writing() as own:
            assert not own


def test_nobody_takes_over_while_something_is_written(tmp_path: pathlib.Path) -> None:
    lease = Leases(tmp_path / "leases").claim("work")
    assert lease is not None
    others = Leases(tmp_path / "leases", patience=-1.0)
    taken: list[leases.Lease | None] = []
    taker = threading.Thread(target=lambda: taken.append(others.claim("work")))
    with lease.writing() as own:
        taker.start()
        taker.join(0.3)
        assert own
        assert not taken
        assert not lease.lost()
    taker.join()
    assert lease.lost()
    lease.release()
    (other,) = taken
    assert other is not None
    assert not other.lost()
    other.release()
    assert not list((tmp_path / "leases").iterdir())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"one-word", b"a b c d e"])
def test_a_lease_that_nobody_can_read_is_taken_for_another_machines(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "work").write_bytes(content)
    workers = Leases(tmp_path, patience=0.2)
    assert workers.claim("work") is None
    time.sleep(0.3)
    with workers.claim("work") or pytest.fail("nobody has it") as lease:
        assert not lease.lost()


def test_what_is_no_lease_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "leases").write_text("")
    with pytest.raises(FileExistsError):
        Leases(tmp_path / "leases").claim("work")
    (tmp_path / "others" / "work").mkdir(parents=True)
    with pytest.raises(UserError, match="a directory in the place of a lease; remove it"):
        Leases(tmp_path / "others").claim("work")
