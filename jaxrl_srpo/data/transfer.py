"""One attempt to bring a file nearer: asks a server for what is missing, and appends it."""

import contextlib
import http.client
import io
import pathlib
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import tqdm

STEP = 1 << 16
"""Bytes: a server that sends fewer than these in a time-out counts as hung."""

_BLOCK = 1 << 18
_RESERVE = 1 << 30


class CutError(OSError):
    """The connection ended before the file did."""


class _TooLongError(CutError):
    """More came than the server said."""


class RefusedError(Exception):
    """What a server does is not accepted; asking it again does not help."""


class DiskError(Exception):
    """The destination cannot be written; neither trying again nor another server helps."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        # urllib would read the body of a redirect, whatever its length, into memory.
        fp.close()
        scheme = urllib.parse.urlsplit(newurl).scheme.lower()
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise RefusedError(f"the server sends on to {newurl!r}, which is no https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, part: pathlib.Path, name: str, progress: bool, timeout: float) -> None:
    """Requests what is missing of a file and appends it.

    A part is continued only if the server's file is still the one that it began as, by its ETag or date, which are kept
    beside the part; without them, or if it is another, it is begun again.

    Args:
      url: an http or https address.
      part: what has come of the file; it need not exist.
      name: what the progress bar calls the file.
      progress: draw a progress bar on stderr.
      timeout: seconds without any byte, or without `STEP` bytes, after which the attempt counts as cut.

    Raises:
      CutError: the file did not come to its end.
      RefusedError: the server does what is not accepted.
      DiskError: the part cannot be written, or there is no room for it.
      OSError, http.client.HTTPException: no connection, the server's error, or a broken answer.
    """
    known = _known_version(part)
    have = size(part) if known else 0
    try:
        response = _open(_request(url, have, known), timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if _total(error.headers.get("Content-Range")) == have:
            return
        # The part is longer than the file, or of another one: begin again.
        discard(part)
        raise CutError("the server has no more bytes than the part already here") from error
    with response:
        start, total = _extent(response, have)
        if start and _version(response) not in ("", known):
            discard(part)
            raise CutError("the server's file has changed")
        try:
            _append(response, part, start, total, name, progress, timeout)
        except (RefusedError, _TooLongError):
            discard(part)
            raise
    if total is not None and size(part) < total:
        raise CutError(f"the connection ended after {size(part)} of {total} bytes")


def size(path: pathlib.Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def version_file(part: pathlib.Path) -> pathlib.Path:
    """Where the ETag or the date of the file that `part` began as is kept."""
    return part.with_name(part.name + ".version")


def discard(part: pathlib.Path) -> None:
    """Removes a part and what is kept beside it."""
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


def _known_version(part: pathlib.Path) -> str:
    file = version_file(part)
    return _printable(file.read_text(encoding="latin-1")) if file.exists() else ""


def _version(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    return _printable(etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", ""))


def _printable(version: str) -> str:
    """A version that a header can hold, else none."""
    return version if re.fullmatch("[ -~]+", version) else ""


def _request(url: str, have: int, version: str) -> urllib.request.Request:
    """For the bytes from `have` on, or for all of the file where it is another version by now."""
    request = urllib.request.Request(url, headers={"User-Agent": "jaxrl-srpo", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    return request


def _open(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
    except (ValueError, http.client.InvalidURL) as error:
        raise RefusedError(f"the server sends on to what is no address: {error}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise RefusedError(f"its certificate is not trusted: {error.reason.verify_message}") from error
        raise
    return response


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the body of a response begins in the file, and how long the file is, if the server says so."""
    if response.status == 206:
        header = response.headers.get("Content-Range", "")
        match = re.match(r"bytes (\d+)-", header)
        if match and int(match[1]) <= have:
            return int(match[1]), _total(header)
        raise CutError(f"the server sent {header or 'no range'} where bytes from {have} were asked for")
    # Any other answer is the whole file: the server does not know ranges.
    return 0, response.length


def _append(
    response: http.client.HTTPResponse,
    part: pathlib.Path,
    start: int,
    total: int | None,
    name: str,
    progress: bool,
    timeout: float,
) -> None:
    """Writes the body of a response to `part` from byte `start` on."""
    bar = tqdm.tqdm(
        total=total, initial=start, unit="B", unit_scale=True, desc=name, file=sys.stderr, disable=not progress
    )
    with bar, _open_at(part, start) as file:
        if not start:
            _write_version(part, _version(response))
        _refuse_larger_than_the_disk(part, start, total)
        for block in _blocks(response, timeout):
            try:
                file.write(block)
            except OSError as error:
                raise DiskError(f"cannot write {part}: {error.strerror}") from error
            bar.update(len(block))
            _refuse_endless(part, file.tell(), total)


def _blocks(response: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The body as it comes, unless it comes too slowly."""
    since, came = time.monotonic(), 0
    while block := response.read1(_BLOCK):
        yield block
        came += len(block)
        if came >= STEP:
            since, came = time.monotonic(), 0
        elif time.monotonic() - since > timeout:
            raise CutError(f"fewer than {STEP} bytes came in {timeout:g} s")


def _refuse_larger_than_the_disk(part: pathlib.Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise DiskError(f"{total - start} more bytes are to come, and {part.parent} has room for {free}")


def _refuse_endless(part: pathlib.Path, reached: int, total: int | None) -> None:
    """Stops a server that sends more than it said; where it said nothing, before the disk is full."""
    if total is not None and reached > total:
        raise _TooLongError(f"{reached} bytes came of a file of {total}")
    if total is None and (free := shutil.disk_usage(part.parent).free) < _RESERVE:
        raise RefusedError(
            f"the server does not say how long the file is; stopped after {reached} bytes, where {part.parent} has "
            f"room for {free} more"
        )


def _write_version(part: pathlib.Path, version: str) -> None:
    try:
        version_file(part).write_text(version, encoding="ascii")
    except OSError as error:
        raise DiskError(f"cannot write {version_file(part)}: {error.strerror}") from error


@contextlib.contextmanager
def _open_at(part: pathlib.Path, start: int) -> Iterator[io.RawIOBase]:
    """`part`, cut to `start` bytes and open for appending."""
    try:
        file = part.open("r+b" if part.exists() else "wb", buffering=0)
    except OSError as error:
        raise DiskError(f"cannot write {part}: {error.strerror}") from error
    with file:
        file.truncate(start)
        file.seek(start)
        yield file


def _total(content_range: str | None) -> int | None:
    """The length after the slash of a Content-Range header, None if it is unknown."""
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None
