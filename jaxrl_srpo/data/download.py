"""Downloads that survive cuts, into a cache, with the standard library alone."""

import contextlib
import http.client
import io
import math
import os
import pathlib
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import tqdm

from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.files import holding

CACHE_VARIABLE = "JAXRL_SRPO_CACHE"
"""Environment variable: the directory of downloaded files, by default `~/.cache/jaxrl_srpo`."""

MIRROR_VARIABLE = "JAXRL_SRPO_MIRROR"
"""Environment variable: a mirror's root address, which replaces everything before a file's path.

With `https://example.org/d4rl`, `hopper-medium-v2` comes from `https://example.org/d4rl/gym_mujoco_v2/hopper_medium-v2.hdf5`.
"""

_BLOCK = 1 << 20
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


class _CutError(OSError):
    """The connection ended before the file did."""


class _DiskError(Exception):
    """The destination cannot be written; trying again does not help."""


def cache_dir() -> pathlib.Path:
    """The directory of downloaded files; it need not exist yet."""
    return pathlib.Path(os.environ.get(CACHE_VARIABLE) or pathlib.Path.home() / ".cache" / "jaxrl_srpo").expanduser()


def mirrored(url: str, path: str, mirror: str | None = None) -> str:
    """The address of a file under a mirror.

    Args:
      url: the original address.
      path: the file's path below the server's root, for instance `gym_mujoco_v2/hopper_medium-v2.hdf5`.
      mirror: the mirror's root; None takes `JAXRL_SRPO_MIRROR`, and without it the original address stays.

    Returns:
      The address to download from.
    """
    root = mirror or os.environ.get(MIRROR_VARIABLE)
    return f"{root.rstrip('/')}/{path}" if root else url


def download(
    url: str,
    destination: str | os.PathLike[str],
    progress: bool = True,
    *,
    retries: int = 4,
    timeout: float = 30.0,
    backoff: float = 1.0,
    check: Callable[[pathlib.Path], None] | None = None,
) -> pathlib.Path:
    """Fetches a file, continuing where an earlier attempt was cut.

    The bytes go to `destination` + `.part`, which stays behind on failure and is continued by the next call (HTTP
    Range) if the server's file is still the same (If-Range); the file gets its name only when it is as long as the
    server said and passes `check`.

    Args:
      url: `http://` or `https://`.
      destination: the file to make; its directory is made too. If it exists, nothing is fetched.
      progress: draw a progress bar on stderr.
      retries: attempts after the first one that may bring nothing new; an attempt that gets further is not counted.
      timeout: seconds without any byte after which an attempt counts as cut.
      backoff: seconds before the first repetition; each further one waits twice as long.
      check: looks at the whole file before it gets its name, and raises a `DatasetError` at what is none; such a file,
        the page of a login for instance, is removed.

    Returns:
      `destination` as a path.

    Raises:
      DatasetError: no network, the server refuses, or the disk does; it says where to put the file by hand.
    """
    target = pathlib.Path(destination)
    if not url.startswith(("http://", "https://")):
        raise DatasetError(f"cannot download from {url!r}: the address must start with http:// or https://")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if not target.exists():
                part = target.with_name(target.name + ".part")
                _fetch_with_retries(url, part, target.name, progress, retries, timeout, backoff)
                _finish(part, target, check)
    except urllib.error.HTTPError as error:
        raise _failure(url, target, f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, _DiskError) as error:
        raise _failure(url, target, str(getattr(error, "reason", None) or error or type(error).__name__)) from error
    return target


def _finish(part: pathlib.Path, target: pathlib.Path, check: Callable[[pathlib.Path], None] | None) -> None:
    """Gives a whole file its name, or removes what is no such file."""
    try:
        if check is not None:
            check(part)
    except DatasetError:
        part.unlink()
        raise
    finally:
        _version_file(part).unlink(missing_ok=True)
    os.replace(part, target)


def _fetch_with_retries(
    url: str, part: pathlib.Path, name: str, progress: bool, retries: int, timeout: float, backoff: float
) -> None:
    """Attempts until the part is whole."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            _fetch(url, part, name, progress, timeout)
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code not in _RETRIED_STATUS:
                    raise
            reached = _size(part)
            failures = 0 if reached > furthest else failures + 1
            furthest = max(furthest, reached)
            if failures > retries:
                raise
            time.sleep(backoff * 2.0 ** max(failures - 1, 0))


def _version_file(part: pathlib.Path) -> pathlib.Path:
    """Where the ETag or the date of the file that `part` began as is kept."""
    return part.with_name(part.name + ".version")


def _remember_version(response: http.client.HTTPResponse, part: pathlib.Path) -> None:
    etag = response.headers.get("ETag", "")
    version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    try:
        _version_file(part).write_text(version)
    except OSError as error:
        raise _DiskError(f"cannot write {_version_file(part)}: {error.strerror}") from error


def _request(url: str, part: pathlib.Path) -> urllib.request.Request:
    """For what is missing of `part`, or for all of it where the server's file is another one by now."""
    request = urllib.request.Request(url, headers={"User-Agent": "jaxrl-srpo", "Accept-Encoding": "identity"})
    if have := _size(part):
        request.add_header("Range", f"bytes={have}-")
        version = _version_file(part)
        if version.exists() and (known := version.read_text()):
            request.add_header("If-Range", known)
    return request


def _fetch(url: str, part: pathlib.Path, name: str, progress: bool, timeout: float) -> None:
    """One attempt: requests what is missing of `part` and appends it."""
    have = _size(part)
    try:
        response = urllib.request.urlopen(_request(url, part), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if _total(error.headers.get("Content-Range")) == have:
            return
        # The part is longer than the file, or of another one: begin again.
        part.unlink()
        raise _CutError("the server has no more bytes than the part already here") from error
    with response:
        start, total = _extent(response, have)
        if not start:
            _remember_version(response, part)
        _append(response, part, start, total, name, progress)
    reached = _size(part)
    if total is not None and reached > total:
        part.unlink()
        raise _CutError(f"{reached} bytes came of a file of {total}")
    if total is not None and reached < total:
        raise _CutError(f"the connection ended after {reached} of {total} bytes")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the body of a response begins in the file, and how long the file is, if the server says so."""
    if response.status == 206:
        header = response.headers.get("Content-Range", "")
        match = re.match(r"bytes (\d+)-", header)
        if match and int(match[1]) <= have:
            return int(match[1]), _total(header)
        raise _CutError(f"the server sent {header or 'no range'} where bytes from {have} were asked for")
    # Any other answer is the whole file: the server does not know ranges.
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None else None


def _append(
    response: http.client.HTTPResponse, part: pathlib.Path, start: int, total: int | None, name: str, progress: bool
) -> None:
    """Writes the body of a response to `part` from byte `start` on."""
    bar = tqdm.tqdm(
        total=total, initial=start, unit="B", unit_scale=True, desc=name, file=sys.stderr, disable=not progress
    )
    with bar, _open_at(part, start) as file:
        while block := response.read(_BLOCK):
            try:
                file.write(block)
            except OSError as error:
                raise _DiskError(f"cannot write {part}: {error.strerror}") from error
            bar.update(len(block))


@contextlib.contextmanager
def _open_at(part: pathlib.Path, start: int) -> Iterator[io.RawIOBase]:
    """`part`, cut to `start` bytes and open for appending."""
    try:
        file = part.open("r+b" if part.exists() else "wb", buffering=0)
    except OSError as error:
        raise _DiskError(f"cannot write {part}: {error.strerror}") from error
    with file:
        file.truncate(start)
        file.seek(start)
        yield file


@contextlib.contextmanager
def _lock(target: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from downloading the same file; the second one finds it there."""
    with holding(target.with_name(target.name + ".lock"), math.inf):
        yield


def _size(path: pathlib.Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _total(content_range: str | None) -> int | None:
    """The length after the slash of a Content-Range header, None if it is unknown."""
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None


def _failure(url: str, target: pathlib.Path, reason: str) -> DatasetError:
    """The one line a user reads when a download fails."""
    return DatasetError(
        f"cannot download {target.name} from {url}: {reason}; "
        f"name a mirror (--mirror=URL or {MIRROR_VARIABLE}), or put the file at {target} by hand"
    )
