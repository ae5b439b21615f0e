"""Downloads from a real HTTP server on loopback that misbehaves."""

import collections
import contextlib
import hashlib
import http.server
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import types
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import pytest

from jaxrl_srpo.data import checksums, hdf5
from jaxrl_srpo.data.download import cache_dir, download
from jaxrl_srpo.errors import DatasetError

CONTENT = bytes(range(256)) * 4096


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, and misbehaves.

    `plan` holds one word per request: `cut` (half of the body), `busy`, `hang` (until the server ends), `longer` (more
    than was said), `endless`, `drip` (a byte now and then) or `whole` (once it is used up). `length` is how the end of
    a body is told: `said`, `close` (not at all) or `chunks`. `moved` is where every request is sent on to. Without
    `folders` only the root has files. A server that is not `honest` does not look at If-Range.
    """

    daemon_threads = True

    def __init__(
        self,
        plan: Sequence[str] = (),
        ranges: bool = True,
        length: str = "said",
        moved: str = "",
        folders: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.ranges, self.length, self.moved = collections.deque(plan), ranges, length, moved
        self.content = CONTENT
        self.etag: str | None = '"first"'
        self.honest, self.folders = True, folders
        self.over = threading.Event()
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
        if server.honest and self.headers.get("If-Range") not in (None, server.etag):
            asked = None
        if server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved + self.path)
            self.end_headers()
            return
        step = server.plan.popleft() if server.plan else "whole"
        if self.path.endswith("missing.hdf5") or (self.path.count("/") > 1 and not server.folders):
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
        if server.length == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        elif server.length == "said" and step != "longer":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self._send(body, step)

    def _send(self, body: bytes, step: str) -> None:
        if step == "hang":
            self.server.over.wait()
        elif step == "drip":
            while not self.server.over.wait(0.02):
                self.wfile.write(b"x")
        elif step == "endless":
            while not self.server.over.is_set():
                self.wfile.write(body)
        elif step == "longer":
            self.wfile.write(body + b"more")
        elif self.server.length == "chunks":
            sent = body[: len(body) // 2] if step == "cut" else body
            self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) + (b"" if step == "cut" else b"0\r\n\r\n"))
        else:
            self.wfile.write(body[: len(body) // 2] if step == "cut" else body)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Server]:
    server = Server(**options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(server: Server, target: pathlib.Path, **options: Any) -> pathlib.Path:
    return download([f"{server.url}/a/x.hdf5"], target, progress=False, backoff=0.01, **options)


def files(folder: pathlib.Path) -> list[str]:
    """Names of what a download left, but for its lock."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def part(folder: pathlib.Path) -> pathlib.Path:
    (found,) = folder.glob("x.hdf5.*.part")
    return found


def test_whole_file_gets_its_name_and_leaves_no_part(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        path = fetch(server, tmp_path / "sub" / "x.hdf5")
        assert path.read_bytes() == CONTENT
        assert files(path.parent) == ["x.hdf5"]
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
        assert part(tmp_path).stat().st_size == len(CONTENT) // 2
        assert not (tmp_path / "x.hdf5").exists()
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert server.asked[1][1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("changed", [False, True])
def test_a_part_is_continued_only_if_the_file_is_still_the_same(
    tmp_path: pathlib.Path, changed: bool, honest: bool
) -> None:
    with serving(plan=["cut"]) as server:
        server.honest = honest
        with pytest.raises(DatasetError, match=r"the connection ended"):
            fetch(server, tmp_path / "x.hdf5", retries=-1)
        if changed:
            server.etag, server.content = '"second"', CONTENT[::-1]
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == server.content
        assert files(tmp_path) == ["x.hdf5"]


@pytest.mark.parametrize("etag", [None, 'W/"weak"', '"\xe9"'])
def test_a_part_of_which_no_version_is_known_is_begun_again(tmp_path: pathlib.Path, etag: str | None) -> None:
    with serving(plan=["cut"]) as server:
        server.etag = etag
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert [asked for _, asked in server.asked] == [None, None]


def test_what_is_no_such_file_never_gets_its_name(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        server.content = b"<html>Please log in</html>"
        with pytest.raises(DatasetError, match=r"what came is no HDF5 file, it begins with b'<html>Please log in"):
            fetch(server, tmp_path / "x.hdf5", check=hdf5.check)
        assert files(tmp_path) == []
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


@pytest.mark.parametrize(("more", "asked"), [(b"", 1), (b"more", 2)])
def test_a_part_that_is_whole_or_longer(tmp_path: pathlib.Path, more: bytes, asked: int) -> None:
    with serving(plan=["cut"]) as server:
        with pytest.raises(DatasetError, match="the connection ended"):
            fetch(server, tmp_path / "x.hdf5", retries=-1)
        part(tmp_path).write_bytes(CONTENT + more)
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT
        assert len(server.asked) == 1 + asked


@pytest.mark.parametrize("length", ["close", "chunks"])
def test_length_may_be_unknown(tmp_path: pathlib.Path, length: str) -> None:
    with serving(length=length) as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT


def test_a_last_chunk_that_never_comes_is_a_cut(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut"], length="chunks") as server:
        with pytest.raises(DatasetError, match="IncompleteRead"):
            fetch(server, tmp_path / "x.hdf5", retries=-1)
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT


def test_a_cut_that_no_length_shows_is_seen_in_the_file(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "sound", "w") as file:
        file["rewards"] = [1.0, 2.0]
    with serving(plan=["cut"], length="close") as server:
        server.content = (tmp_path / "sound").read_bytes()
        with pytest.raises(DatasetError, match=r"what came is a cut or damaged HDF5 file: .*truncated"):
            fetch(server, tmp_path / "x.hdf5", check=hdf5.check)
        assert files(tmp_path) == ["sound"]
        assert fetch(server, tmp_path / "x.hdf5", check=hdf5.check).read_bytes() == server.content


def test_more_than_the_server_said_is_not_taken(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut", "longer", "longer"]) as server:
        with pytest.raises(DatasetError, match=r"1048580 bytes came of a file of 1048576"):
            fetch(server, tmp_path / "x.hdf5", retries=0)
        assert files(tmp_path) == []


def test_a_file_larger_than_the_disk_is_refused_before_it_comes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with serving() as server:
        with pytest.raises(DatasetError, match=r"1048576 more bytes are to come, and .* has room for 1000"):
            fetch(server, tmp_path / "x.hdf5")
        assert len(server.asked) == 1
        assert part(tmp_path).stat().st_size == 0


def test_a_server_without_end_is_stopped_before_the_disk_is_full(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = (1 << 30) + (4 << 20)
    usage = lambda path: types.SimpleNamespace(free=room - sum(one.stat().st_size for one in path.iterdir()))  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with serving(plan=["endless"], length="close") as server:
        with pytest.raises(DatasetError, match=r"does not say how long the file is; stopped after \d+ bytes"):
            fetch(server, tmp_path / "x.hdf5")
        assert len(server.asked) == 1
        assert files(tmp_path) == []


@pytest.mark.parametrize(("step", "reason"), [("hang", "timed out"), ("drip", r"fewer than 65536 bytes came in 0.2 s")])
def test_a_server_that_hangs_is_given_up(tmp_path: pathlib.Path, step: str, reason: str) -> None:
    with serving(plan=[step] * 9) as server:
        with pytest.raises(DatasetError, match=reason):
            fetch(server, tmp_path / "x.hdf5", retries=1, timeout=0.2)
        assert len(server.asked) == 2


@pytest.mark.parametrize("length", ["-5", "many", "1e9"])
def test_a_length_that_is_none_counts_as_unknown(
    tmp_path: pathlib.Path, length: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Handler.send_header
    monkeypatch.setattr(
        Handler, "send_header", lambda self, name, text: send(self, name, length if name == "Content-Length" else text)
    )
    with serving() as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT


def test_busy_server_is_asked_again(tmp_path: pathlib.Path) -> None:
    with serving(plan=["busy", "busy"]) as server:
        assert fetch(server, tmp_path / "x.hdf5").read_bytes() == CONTENT


def test_missing_file_is_asked_for_once_and_names_the_way_out(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        with pytest.raises(DatasetError) as caught:
            download([f"{server.url}/missing.hdf5"], tmp_path / "missing.hdf5", progress=False)
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
            download([url], tmp_path / "x.hdf5", progress=False, retries=1, backoff=0.01)


def test_destination_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with serving() as server, pytest.raises(DatasetError, match=r"cannot download x.hdf5"):
        fetch(server, tmp_path / "file" / "x.hdf5")


def test_other_addresses_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="must start with http"):
        download(["ftp://example.org/x.hdf5"], tmp_path / "x.hdf5")


def test_progress_bar_goes_to_stderr(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        download([f"{server.url}/x.hdf5"], tmp_path / "x.hdf5")
    captured = capsys.readouterr()
    assert "x.hdf5: 100%" in captured.err
    assert captured.out == ""


def test_addresses_are_asked_in_turn(tmp_path: pathlib.Path) -> None:
    with serving(plan=["whole", "cut"]) as first, serving() as second:
        first.content = b"<html>Please log in</html>" * 10
        urls = [f"{first.url}/missing.hdf5", f"{first.url}/x.hdf5", f"{second.url}/x.hdf5"]
        expected = checksums.Checksum(hashlib.sha256(CONTENT).hexdigest(), tmp_path / "sums")
        path = download(urls, tmp_path / "x.hdf5", progress=False, backoff=0.01, checksum=expected)
        assert path.read_bytes() == CONTENT
        assert [path for path, _ in first.asked] == ["/missing.hdf5", "/x.hdf5", "/x.hdf5"]
        assert files(tmp_path) == ["x.hdf5"]


def test_a_host_that_does_not_answer_is_asked_for_one_address(tmp_path: pathlib.Path) -> None:
    with serving() as silent:
        pass
    with serving() as server:
        urls = [f"{silent.url}/a/x.hdf5", f"{silent.url}/x.hdf5", f"{server.url}/missing.hdf5"]
        with pytest.raises(DatasetError) as caught:
            download(urls, tmp_path / "x.hdf5", progress=False, retries=0)
    assert str(caught.value).count(f"from {silent.url}") == 1
    assert f"from {server.url}/missing.hdf5: the server answers 404 Not Found; name a mirror" in str(caught.value)


def test_a_host_that_did_not_answer_for_another_file_is_not_asked(tmp_path: pathlib.Path) -> None:
    silent: set[str] = set()
    with serving() as down:
        pass
    with pytest.raises(DatasetError, match="refused"):
        download([f"{down.url}/x.hdf5"], tmp_path / "x.hdf5", progress=False, retries=0, silent=silent)
    with serving() as server:
        urls = [f"{down.url}/x.hdf5", f"{server.url}/missing.hdf5"]
        with pytest.raises(DatasetError, match=r"x\.hdf5: the server did not answer for another file; from .* 404"):
            download(urls, tmp_path / "x.hdf5", progress=False, silent=silent)


def test_no_file_is_put_together_from_those_of_two_servers(tmp_path: pathlib.Path) -> None:
    with serving(plan=["cut"] * 2) as first, serving() as second:
        second.content = CONTENT[::-1]
        with pytest.raises(DatasetError, match="the connection ended"):
            fetch(first, tmp_path / "x.hdf5", retries=-1)
        urls = [f"{first.url}/a/x.hdf5", f"{second.url}/a/x.hdf5"]
        path = download(urls, tmp_path / "x.hdf5", progress=False, retries=-1)
        assert path.read_bytes() == second.content
        assert files(tmp_path) == ["x.hdf5"]


def test_what_has_another_checksum_never_gets_its_name(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        with pytest.raises(DatasetError, match=r"what came has SHA-256 \w{64}, where .*sums says 0{64}"):
            fetch(server, tmp_path / "x.hdf5", checksum=checksums.Checksum("0" * 64, tmp_path / "sums"))
        assert files(tmp_path) == []


@pytest.mark.parametrize("known", [True, False])
def test_plain_http_without_a_checksum_is_said(
    tmp_path: pathlib.Path, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    checksum = checksums.Checksum(hashlib.sha256(CONTENT).hexdigest(), tmp_path / "sums") if known else None
    with serving() as server:
        fetch(server, tmp_path / "x.hdf5", checksum=checksum)
    assert [record.getMessage().split(" by ")[1] for record in caplog.records] == (
        [] if known else ["plain http, and its SHA-256 is not known; a change on the way would not be seen"]
    )


@pytest.fixture
def trusted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """TLS of a server on loopback, whose certificate this process trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path / "tls"
    folder.mkdir()
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, "-keyout", "key", "-out", "certificate"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "certificate"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    return context


def secured(server: Server, context: ssl.SSLContext) -> str:
    """The address of a server that speaks TLS from now on."""
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server.url.replace("http:", "https:")


def test_https_is_followed_to_https_and_never_to_plain_http(tmp_path: pathlib.Path, trusted: ssl.SSLContext) -> None:
    with serving() as safe, serving() as plain, serving() as front:
        address, root = secured(front, trusted), secured(safe, trusted)
        front.moved = plain.url
        with pytest.raises(DatasetError, match=r"the server sends on to 'http://127.*', which is no https address"):
            download([f"{address}/x.hdf5"], tmp_path / "x.hdf5", progress=False)
        assert not plain.asked
        front.moved = root
        assert download([f"{address}/x.hdf5"], tmp_path / "x.hdf5", progress=False).read_bytes() == CONTENT


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    tmp_path: pathlib.Path, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with serving() as server, pytest.raises(DatasetError, match="its certificate is not trusted: self-signed"):
        download([f"{secured(server, trusted)}/x.hdf5"], tmp_path / "x.hdf5", progress=False)


@pytest.mark.parametrize("place", ["ftp://127.0.0.1", "file:///etc", "http://[::1", "http://a..b", "http://h:many"])
def test_redirects_to_what_is_no_server_are_refused(tmp_path: pathlib.Path, place: str) -> None:
    with serving(moved=place) as server, pytest.raises(DatasetError) as caught:
        fetch(server, tmp_path / "x.hdf5", retries=0)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []


def test_a_server_that_sends_in_circles_is_given_up_with_one_line(tmp_path: pathlib.Path) -> None:
    with serving() as server:
        server.moved = server.url
        with pytest.raises(DatasetError, match=r"the server answers 302 .*infinite loop") as caught:
            fetch(server, tmp_path / "x.hdf5")
    assert "\n" not in str(caught.value)


def test_the_cache_is_where_a_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
