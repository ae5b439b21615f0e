"""Files that are whole or absent, and locks between real processes."""

import errno
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import files
from jaxrl_srpo.io.files import error_line, errors_told, holder, locked, write_atomically
from tests import synthetic

HOLD = """
import pathlib, sys
from jaxrl_srpo.io.files import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    pathlib.Path(sys.argv[1]).write_text("released")
"""


def hold(path: pathlib.Path) -> subprocess.Popen[str]:
    """A process that has the lock of a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=synthetic.environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_files_are_whole_or_absent(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report" / "table.csv"
    write_atomically(path, b"first")
    write_atomically(path, "zwölf")
    assert path.read_bytes() == "zwölf".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "table.csv"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, "content")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: pathlib.Path) -> None:
    code = """
import pathlib, resource, sys
from jaxrl_srpo.io.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_atomically(pathlib.Path(sys.argv[1]), b"x" * 20_000)
except OSError as error:
    print(error.errno, error.filename)
"""
    path = tmp_path / "table.csv"
    path.write_text("old")
    result = synthetic.python("-c", code, str(path))
    assert result.stdout == f"{errno.EFBIG} {path}\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "make room, then give the same command again"),
        (errno.EROFS, "choose a place that can be written"),
        (errno.ENAMETOOLONG, "give a shorter name"),
        (errno.EEXIST, "a file is in the place of a directory; move it away"),
        (errno.EIO, ""),
    ],
)
def test_errors_of_the_system_become_one_line(code: int, hint: str) -> None:
    error = OSError(code, os.strerror(code), "runs/x")
    assert error_line(error) == f"runs/x: {os.strerror(code)}" + (f"; {hint}" if hint else "")
    with pytest.raises(UserError, match=os.strerror(code)), errors_told():
        raise error


def test_a_lock_waits_for_the_process_that_has_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    with hold(path) as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        with locked(path):
            assert path.read_text() == "released"


def test_a_lock_of_a_dead_process_is_free(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    with hold(path) as process:
        process.kill()
        with locked(path):
            assert not path.exists()


def test_a_lock_that_is_not_given_up_names_its_holder(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    with hold(path) as process:
        process.send_signal(signal.SIGSTOP)
        sentence = rf"process {process.pid} on {socket.gethostname()} has held it for 0.2 s"
        with pytest.raises(UserError, match=sentence), locked(path, 0.2):
            pass
        process.kill()
        with locked(path):
            assert holder(tmp_path / ".file.lock") == f"process {os.getpid()} on {socket.gethostname()}"


def test_locks_work_where_there_is_no_fcntl() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import jaxrl_srpo; jaxrl_srpo.train; jaxrl_srpo.work"
    # On a system without it, other than Windows, filelock warns that its locks outlive a process that is killed.
    result = synthetic.python("-W", "ignore", "-c", code)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_lock_file_without_a_name_is_of_another_process(tmp_path: pathlib.Path) -> None:
    (tmp_path / "lock").write_text("")
    assert holder(tmp_path / "lock") == holder(tmp_path / "nothing") == "another process"
    assert files.LOCK_SECONDS > 60


def test_the_home_of_somebody_unknown_is_a_name_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert files.expand_home("~/run") == pathlib.Path("/home/me/run")
    assert files.expand_home("~no-such-user/run") == pathlib.Path("~no-such-user/run")
