"""One attempt, against the server of `test_download`, where the rest is tested."""

import pathlib
import shutil
import types
import urllib.error

import pytest

from jaxrl_srpo.data import transfer
from tests.data.test_download import CONTENT, Server, serving


def attempt(server: Server, part: pathlib.Path) -> None:
    transfer.fetch(f"{server.url}/x.hdf5", part, "x", progress=False, timeout=5.0)


def test_an_attempt_keeps_what_came_and_of_which_version_it_is(tmp_path: pathlib.Path) -> None:
    part = tmp_path / "x.part"
    with serving(plan=["cut"]) as server:
        with pytest.raises(transfer.CutError, match=f"ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
            attempt(server, part)
        assert transfer.size(part) == len(CONTENT) // 2
        assert transfer.version_file(part).read_text() == '"first"'
        attempt(server, part)
        assert part.read_bytes() == CONTENT
    transfer.discard(part)
    assert list(tmp_path.iterdir()) == []
    assert transfer.size(part) == 0


@pytest.mark.parametrize("kept", [b"", b"\xff", b"two\nlines"])
def test_a_damaged_version_counts_as_none(tmp_path: pathlib.Path, kept: bytes) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(b"older")
    transfer.version_file(part).write_bytes(kept)
    with serving() as server:
        attempt(server, part)
        assert [asked for _, asked in server.asked] == [None]
    assert part.read_bytes() == CONTENT


def test_errors_of_the_server_go_to_the_caller(tmp_path: pathlib.Path) -> None:
    with serving(plan=["busy"]) as server, pytest.raises(urllib.error.HTTPError, match="503") as caught:
        attempt(server, tmp_path / "x.part")
    caught.value.close()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_written_is_no_fault_of_the_server(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        (tmp_path / "x.part").mkdir()
        with pytest.raises(transfer.DiskError, match="cannot write"):
            attempt(server, tmp_path / "x.part")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=len(CONTENT) - 1))
        with pytest.raises(transfer.DiskError, match="has room for"):
            attempt(server, tmp_path / "y.part")
