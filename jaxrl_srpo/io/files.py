"""Files that are whole or absent, that processes take turns to change, and messages."""

import contextlib
import errno
import math
import os
import pathlib
import secrets
import socket
import sys
from collections.abc import Iterator

import filelock

from jaxrl_srpo.errors import UserError

LOCK_SECONDS = 120.0
"""How long a process waits for its turn before it says who does not give it up."""

_POLL_SECONDS = 0.01
_HINTS = {
    errno.ENOSPC: "make room, then give the same command again",
    errno.EDQUOT: "make room, then give the same command again",
    errno.EFBIG: "files may not be as large here; raise the limit, then give the same command again",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that can be read and written",
    errno.EPERM: "choose a place that can be read and written",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EEXIST: "a file is in the place of a directory; move it away",
    errno.ENOTDIR: "a file is in the place of a directory; move it away",
    errno.EISDIR: "a directory is in the place of a file; move it away",
    errno.ENOENT: "it was moved or removed; give its present place",
}


def expand_home(path: str | os.PathLike[str]) -> pathlib.Path:
    """A path with `~` as the home folder; that of a user who is not known here stays as it is."""
    return pathlib.Path(os.path.expanduser(path))


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file under a temporary name, then renames it, so that nobody ever sees half of it.

    Raises:
      OSError: it cannot be written; the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several hosts may write here, so a process id would not be enough.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with errors_of(path):
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def locked(path: pathlib.Path, patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Keeps every other process out that asks for the same lock, `.<name>.lock` beside the file.

    The system takes the lock back from a process that dies.

    Args:
      path: of the file, whose directory must exist.
      patience: see `holding`.

    Raises:
      UserError: see `holding`.
      OSError: the directory is missing or cannot be written.
    """
    with holding(path.with_name(f".{path.name}.lock"), patience):
        yield


@contextlib.contextmanager
def holding(lock: pathlib.Path, patience: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds a lock file, which keeps the name of its last holder.

    Args:
      lock: of the lock file.
      patience: seconds to wait for it; `math.inf` for as long as it takes.

    Raises:
      UserError: another process did not give it up; the message names it.
      OSError: the file cannot be written.
    """
    own = filelock.FileLock(lock, thread_local=False)
    try:
        own.acquire(timeout=-1 if math.isinf(patience) else patience, poll_interval=_POLL_SECONDS)
    except filelock.Timeout:
        raise UserError(
            f"{lock}: {holder(lock)} has held it for {patience:g} s; let that process go on (kill -CONT) or end it, "
            "then give the same command again"
        ) from None
    try:
        _sign(own, lock)
        yield
    finally:
        own.release()


def sign_of_process() -> str:
    """What names this process to others: its host and its number."""
    return f"{socket.gethostname()} {os.getpid()}"


def holder(lock: pathlib.Path) -> str:
    """Who holds a lock file, for messages."""
    try:
        host, pid = lock.read_text(errors="replace").split()[:2]
    except (OSError, ValueError):
        return "another process"
    return f"process {pid} on {host}"


def _sign(own: filelock.BaseFileLock, lock: pathlib.Path) -> None:
    """Writes this process's name into a lock file, where the system lets it and the file is not the lock itself."""
    if isinstance(own, filelock.SoftFileLock):
        return
    with contextlib.suppress(OSError):
        lock.write_text(sign_of_process())


@contextlib.contextmanager
def errors_of(path: pathlib.Path) -> Iterator[None]:
    """Has errors of the system name a file; those of writing to an open one do not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Tells errors of the system, such as a full disk, as a user's errors; also a decorator.

    Raises:
      UserError: one line with the file, the reason and what to do.
    """
    try:
        yield
    except OSError as error:
        raise UserError(error_line(error)) from error


def error_line(error: OSError) -> str:
    """One line on an error of the system: the file, the reason and what to do."""
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hint = _HINTS.get(error.errno or 0, "")
    return f"{place}{error.strerror or error}" + (f"; {hint}" if hint else "")


def print_message(message: str) -> None:
    """Messages go to standard error, results to standard output."""
    print(message, file=sys.stderr, flush=True)
