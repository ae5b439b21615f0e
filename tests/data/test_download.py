"""Downloads from a real HTTP server on loopback that misbehaves."""

import collections
import contextlib
import http.server
import pathlib
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import pytest

from jaxrl_srpo.data import hdf5
from jaxrl_srpo.data.download import cache_dir, download, mirrored
from jaxrl_srpo.errors import DatasetError

CONTENT = bytes(range(256)) * 4096


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; `plan` holds one word per request: `cut`, `busy` or `whole` (once it is used up)."""

    daemon_threads = True

    def __init__(self, plan: Sequence[str] = (), ranges: bool = True, chunked: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.ranges, self.chunked = collections.deque(plan), ranges, chunked
        self.content = CONTENT
        self.etag: str | None = None
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append((self.path, asked))
        if self.headers.get("If-Range") not in (None, server.etag):
            asked = None
        step = server.plan.popleft() if server.plan else "whole"
        if self.path.endswith("missing.hdf5"):
            self.send_error(404)
            return
        if step == "busy":
            self.send_error(503)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if not server.chunked:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if step == "cut" else body)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Server]:
    server = Server(**options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(server: Server, target: pathlib.Path, **options: Any) -> pathlib.Path:
    return download(f"{server.url}/a/x.hdf5", target, progress=False, backoff=0.01, **options)


def test_whole_file_gets_its_name_and_leaves_no_part(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        path = fetch(server, tmp_path / "sub" / "x.hdf5")
        assert path.read_bytes() == CONTENT
        assert not path.with_name("x.hdf5.part").exists()
        fetch(server, path)
        assert len(server.asked) == 1


def test_cut_half_way_is_resumed_where_it_was_cut(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut", "cut"]) as server:
        assert fetch(server, tmp_path / "x.hdf5", retries=1).read_bytes() == CONTENT
        half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
        assert [asked for _, asked in server.asked] == [None, f"bytes={half}-", f"bytes={half + quarter}-"]


def test_part_of_an_earlier_call_is_continued(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut"]) as server:
        with pytest.raises(DatasetError, match=r"the connection ended after 524288 of 1048576 bytes"):
            fetch(server, tmp_path / "x.hdf5", retries=-1)
        assert (tmp_path / "x.hdf5.part").stat().st_size == len(CONTENT) // 2
        assert not (tmp_path / "x.hdf5").exists()
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert server.asked[1][1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("changed", [False, True])
def test_a_part_is_continued_only_if_the_file_is_still_the_same(tmp_path: pathlib.Path, changed: bool) -> None:
    with serving(plan=["cut"]) as server:
        server.etag = '"first"'
        with pytest.raises(DatasetError, match=r"the connection ended"):
            fetch(server, tmp_path / "x.hdf5", retries=-1)
        if changed:
            server.etag, server.content = '"second"', CONTENT[::-1]
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == server.content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hdf5", "x.hdf5.lock"]


def test_what_is_no_such_file_never_gets_its_name(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        server.content = b"<html>Please log in</html>"
        with pytest.raises(DatasetError, match=r"what came is no HDF5 file, it begins with b'<html>Please log in"):
            fetch(server, tmp_path / "x.hdf5", check=hdf5.check)
        assert [path.name for path in tmp_path.iterdir()] == ["x.hdf5.lock"]
        with h5py.File(tmp_path / "sound", "w") as file:
            file["rewards"] = [1.0, 2.0]
        server.content = (tmp_path / "sound").read_bytes()
        assert fetch(server, tmp_path / "x.hdf5", check=hdf5.check).read_bytes() == server.content


def test_server_that_ignores_ranges_is_read_from_the_start(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut"], ranges=False) as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert len(server.asked) == 2


def test_server_that_always_cuts_at_the_same_place_is_given_up(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut"] * 50, ranges=False) as server:
        with pytest.raises(DatasetError, match=r"cannot download x.hdf5"):
            fetch(server, tmp_path / "x.hdf5", retries=3)
        assert len(server.asked) <= 5


def test_part_that_is_already_whole_needs_no_more_bytes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.hdf5.part").write_bytes(CONTENT)
    with serving() as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert len(server.asked) == 1


def test_part_that_is_too_long_is_begun_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.hdf5.part").write_bytes(CONTENT + b"more")
    with serving() as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert [asked is None for _, asked in server.asked] == [False, True]


def test_length_may_be_unknown(tmp_path: pathlib.Path) -> None:
    with serving(chunked=True) as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT


def test_busy_server_is_asked_again(tmp_path: pathlib.Path) -> None:
    with serving(plan=["busy", "busy"]) as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT


def test_missing_file_is_asked_for_once_and_names_the_way_out(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        with pytest.raises(DatasetError) as caught:
            download(f"{server.url}/missing.hdf5", tmp_path / "missing.hdf5", progress=False)
        assert len(server.asked) == 1
    message = str(caught.value)
    assert "404" in message
    assert "--mirror" in message
    assert str(tmp_path / "missing.hdf5") in message
    assert "\n" not in message


def test_refused_connection(tmp_path: pathlib.Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.hdf5"
        with pytest.raises(DatasetError, match=r"cannot download x.hdf5 from http.*refused.*put the file at .*x\.hdf5"):
            download(url, tmp_path / "x.hdf5", progress=False, retries=1, backoff=0.01)


def test_destination_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with serving() as server, pytest.raises(DatasetError, match=r"cannot download x.hdf5"):
        fetch(server, tmp_path / "file" / "x.hdf5")


def test_other_addresses_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="must start with http"):
        download("ftp://example.org/x.hdf5", tmp_path / "x.hdf5")


def test_progress_bar_goes_to_stderr(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        download(f"{server.url}/x.hdf5", tmp_path / "x.hdf5")
    captured = capsys.readouterr()
    assert "x.hdf5: 100%" in captured.err
    assert captured.out == ""


def test_mirror_by_argument_and_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("JAXRL_SRPO_MIRROR", raising=False)
    url, path = "http://origin/offline_rl/gym/x.hdf5", "gym/x.hdf5"
    assert mirrored(url, path) == url
    assert mirrored(url, path, "https://m/d4rl/") == "https://m/d4rl/gym/x.hdf5"
    monkeypatch.setenv("JAXRL_SRPO_MIRROR", "https://v")
    assert mirrored(url, path) == "https://v/gym/x.hdf5"
    assert mirrored(url, path, "https://m") == "https://m/gym/x.hdf5"
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
