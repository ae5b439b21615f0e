"""Files that are whole or absent, and locks between real processes."""

import pathlib
import subprocess
import sys

import pytest

from jaxrl_srpo.io.files import locked, write_atomically
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
