"""Downloads into a cache that survive cuts: servers in turn, several attempts each.

The standard library does it: a client such as pooch neither continues a cut download nor asks a second server.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import logging
import math
import os
import pathlib
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

from jaxrl_srpo.data import checksums, transfer
from jaxrl_srpo.data.mirrors import MIRROR_VARIABLE, refuse_other_addresses
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.files import holding

CACHE_VARIABLE = "JAXRL_SRPO_CACHE"
"""Environment variable: the directory of downloaded files, by default `~/.cache/jaxrl_srpo`."""


_LOG = logging.getLogger(__name__)
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclasses.dataclass(frozen=True)
class _Patience:
    """How long an address is asked; see `download`."""

    retries: int
    timeout: float
    backoff: float


def cache_dir() -> pathlib.Path:
    """The directory of downloaded files; it need not exist yet."""
    return pathlib.Path(os.path.expanduser(os.environ.get(CACHE_VARIABLE) or "~/.cache/jaxrl_srpo"))


def download(
    urls: Sequence[str],
    destination: str | os.PathLike[str],
    progress: bool = True,
    *,
    retries: int = 4,
    timeout: float = 30.0,
    backoff: float = 1.0,
    checksum: checksums.Checksum | None = None,
    check: Callable[[pathlib.Path], None] | None = None,
    silent: set[str] | None = None,
) -> pathlib.Path:
    """Fetches a file from the first address that has it, continuing where an earlier attempt was cut.

    The bytes of an address go to a file of its own, `destination` + `.<address>.part`, which stays behind on failure
    and is continued by the next call if the server's file is still the same. The file gets its name only when it is
    as long as the server said, has its checksum and passes `check`.

    Args:
      urls: `http://` or `https://`, in the order in which they are tried.
      destination: the file to make; its directory is made too. If it exists, nothing is fetched.
      progress: draw a progress bar on stderr.
      retries: attempts at an address after the first one that may bring nothing new; one that gets further is not
        counted.
      timeout: seconds without any byte after which an attempt counts as cut.
      backoff: seconds before the first repetition; each further one waits twice as long.
      checksum: what the file must have, if it is known.
      check: looks at the whole file before it gets its name, and raises a `DatasetError` at what is none; such a file,
        the page of a login for instance, is removed.
      silent: hosts that did not answer for other files and are not asked again; those found here are added.

    Returns:
      `destination` as a path.

    Raises:
      DatasetError: no network, every server refuses, or the disk does; it says where to put the file by hand.
    """
    target = pathlib.Path(destination)
    for url in urls:
        refuse_other_addresses(url, f"cannot download {target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if not target.exists():
                patience = _Patience(retries, timeout, backoff)
                part = _first_to_come(
                    urls, target, progress, patience, checksum, check, set() if silent is None else silent
                )
                os.replace(part, target)
                _clear(target)
    except (OSError, transfer.DiskError) as error:
        raise DatasetError(f"cannot download {target.name} to {target}: {error}") from error
    return target


def _first_to_come(
    urls: Sequence[str],
    target: pathlib.Path,
    progress: bool,
    patience: _Patience,
    checksum: checksums.Checksum | None,
    check: Callable[[pathlib.Path], None] | None,
    silent: set[str],
) -> pathlib.Path:
    """The whole and sound part of the first address that gives one."""
    failures: dict[str, str] = {}
    before = set(silent)
    for url in urls:
        host = urllib.parse.urlsplit(url).netloc
        if host in silent:
            if host in before:
                failures[url] = "the server did not answer for another file"
                before.remove(host)
            continue
        part = _part_of(target, url)
        if url.startswith("http://") and checksum is None:
            _LOG.warning(
                "%s: asking %s by plain http, and its SHA-256 is not known; a change on the way would not be seen",
                target.name,
                host,
            )
        try:
            _fetch_with_retries(url, part, target.name, progress, patience)
            _refuse_unsound(part, checksum, check)
            return part
        except urllib.error.HTTPError as error:
            failures[url] = f"the server answers {error.code} {error.reason}"
        except (DatasetError, transfer.RefusedError) as error:
            failures[url] = str(error)
        except (OSError, http.client.HTTPException) as error:
            failures[url] = str(getattr(error, "reason", None) or error or type(error).__name__)
            silent.add(host)
    raise _failure(failures, target)


def _refuse_unsound(
    part: pathlib.Path, checksum: checksums.Checksum | None, check: Callable[[pathlib.Path], None] | None
) -> None:
    """Removes a whole part that is not the file that was asked for."""
    try:
        if check is not None:
            check(part)
        if checksum is not None:
            checksums.verify(part, checksum, "what came")
    except DatasetError:
        transfer.discard(part)
        raise


def _fetch_with_retries(url: str, part: pathlib.Path, name: str, progress: bool, patience: _Patience) -> None:
    """Attempts until the part is whole."""
    failures, furthest = 0, transfer.size(part)
    while True:
        try:
            transfer.fetch(url, part, name, progress, patience.timeout)
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code not in _RETRIED_STATUS:
                    raise
            reached = transfer.size(part)
            failures = 0 if reached >= furthest + transfer.STEP else failures + 1
            furthest = max(furthest, reached)
            if failures > patience.retries:
                raise
            time.sleep(patience.backoff * 2.0 ** max(failures - 1, 0))


def _part_of(target: pathlib.Path, url: str) -> pathlib.Path:
    """A part for each address, so that no file is put together from those of two servers."""
    return target.with_name(f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")


def _clear(target: pathlib.Path) -> None:
    """Removes the parts of a file that has come."""
    start, ends = f"{target.name}.", (".part", ".part.version")
    for path in target.parent.iterdir():
        if path.name.startswith(start) and path.name.endswith(ends):
            path.unlink()


@contextlib.contextmanager
def _lock(target: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from downloading the same file; the second one finds it there."""
    with holding(target.with_name(target.name + ".lock"), math.inf):
        yield


def _failure(failures: dict[str, str], target: pathlib.Path) -> DatasetError:
    """The one line a user reads when a download fails."""
    reasons = "; ".join(f"from {url}: {' '.join(reason.split())}" for url, reason in failures.items())
    return DatasetError(
        f"cannot download {target.name} {reasons}; name a mirror (--mirror=URL or {MIRROR_VARIABLE}), or put the file "
        f"at {target} by hand"
    )
