"""Checksums are written and read as `sha256sum` does."""

import hashlib
import pathlib
import shutil
import subprocess
import threading

import pytest

from jaxrl_srpo.data import checksums
from jaxrl_srpo.errors import DatasetError

ONE, TWO = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, content in (("a/one.hdf5", b"one"), ("two.hdf5", b"two")):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "cache"


def test_what_is_noted_is_found_and_replaced(cache: pathlib.Path) -> None:
    assert checksums.recorded(cache, "a/one.hdf5") is None
    checksums.record(cache, "two.hdf5", ONE)
    checksums.record(cache, "a/one.hdf5", ONE)
    checksums.record(cache, "two.hdf5", TWO)
    assert checksums.recorded(cache, "a/one.hdf5") == checksums.Checksum(ONE, cache / "SHA256SUMS")
    assert checksums.recorded(cache, "one.hdf5") is None
    assert (cache / "SHA256SUMS").read_text() == f"{ONE}  a/one.hdf5\n{TWO}  two.hdf5\n"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_ours_and_we_read_its(cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("a/one.hdf5", "two.hdf5"):
        checksums.record(cache, name, checksums.sha256_of(cache / name))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=cache, check=True, capture_output=True)
    for mode in ("--text", "--binary"):
        told = subprocess.run(
            ["sha256sum", mode, "./a/one.hdf5", "two.hdf5"], cwd=cache, check=True, capture_output=True
        )
        (tmp_path / "sums").write_bytes(told.stdout)
        assert checksums.given(tmp_path / "sums", "a/one.hdf5").sha256 == ONE
        assert checksums.given(tmp_path / "sums", "b/two.hdf5").sha256 == TWO


def test_two_threads_note_at_once_and_both_are_kept(cache: pathlib.Path) -> None:
    names = [f"{number}.hdf5" for number in range(20)]
    threads = [threading.Thread(target=checksums.record, args=(cache, name, ONE)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(checksums.recorded(cache, name) for name in names)


def test_a_file_is_verified(cache: pathlib.Path) -> None:
    checksums.verify(cache / "two.hdf5", checksums.Checksum(TWO, cache), "it")
    with pytest.raises(DatasetError, match=f"it has SHA-256 {TWO}, where .*cache says {ONE}"):
        checksums.verify(cache / "two.hdf5", checksums.Checksum(ONE, cache), "it")
    with pytest.raises(DatasetError, match="missing: cannot be read: No such file"):
        checksums.sha256_of(cache / "missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line for one.hdf5"),
        (f"{ONE}  other.hdf5\n", "has no line for one.hdf5"),
        (f"{ONE}  b/one.hdf5\n{TWO}  c/one.hdf5\n", "has several lines for one.hdf5"),
        (f"{ONE}  one.hdf5\n{TWO}  one.hdf5\n", "line 2: one.hdf5 has another checksum above"),
        (f"# ours\n\n{ONE[:-1]}  one.hdf5\n", "line 3: expected 64 hex digits, two spaces and a name"),
        (f"SHA256 (one.hdf5) = {ONE}\n", "line 1: expected 64 hex digits"),
        (f"{ONE}\n", "line 1: expected 64 hex digits"),
        ("\x00" * 70, "line 1: expected 64 hex digits"),
    ],
)
def test_a_file_of_checksums_that_is_none(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "sums").write_text(text)
    with pytest.raises(DatasetError, match=message):
        checksums.given(tmp_path / "sums", "a/one.hdf5")


def test_checksums_that_cannot_be_read_or_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read as checksums"):
        checksums.given(tmp_path, "a")
    (tmp_path / "sums").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="cannot be read as checksums"):
        checksums.given(tmp_path / "sums", "a")
    with pytest.raises(DatasetError, match="cannot be written"):
        checksums.record(tmp_path / "sums", "a", ONE)


def test_the_path_goes_before_the_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sums").write_text(f"{ONE.upper()}  a/one.hdf5\n{TWO} *b/one.hdf5\n")
    assert checksums.given(tmp_path / "sums", "a/one.hdf5").sha256 == ONE
    assert checksums.given(tmp_path / "sums", "b/one.hdf5").sha256 == TWO
