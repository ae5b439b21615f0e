"""Leases: files in a run directory that say which worker has which work, and that outlive no dead worker."""

import contextlib
import fcntl
import os
import pathlib
import secrets
import socket
import threading
import time
from types import TracebackType
from typing import NamedTuple, TextIO

from jaxrl_srpo.io.files import locked

HEARTBEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0


class LeaseLost(Exception):
    """Another worker took over what this one had, because it gave no sign of life for too long."""


class Lease:
    """Work that this process has: a file with its name, touched every few seconds until it is released.

    Raises:
      FileExistsError: if there is such a file already.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self._file = path.open("x")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.write(self._owner)
        self._file.flush()
        self._released = threading.Event()
        threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True).start()

    def lost(self) -> bool:
        """Whether another worker took over."""
        try:
            return self._path.read_text() != self._owner
        except FileNotFoundError:
            return True

    def release(self) -> None:
        """Lets others have it."""
        self._released.set()
        with locked(self._path.parent):
            if not self.lost():
                self._path.unlink()
        self._file.close()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            # A storage that is away for a moment must not end the heartbeat.
            with contextlib.suppress(OSError, ValueError):
                os.utime(self._file.fileno())


class _Sign(NamedTuple):
    """A sign of life: the owner, its heartbeat in nanoseconds of the storage's clock, and when it was first seen."""

    owner: str
    beat: int
    seen: float


class Leases:
    """The leases of a run directory as one worker sees them.

    A lease is free once its owner's process is gone from this machine, or, wherever the owner was, once its heartbeat
    has stood still for `patience` seconds by this worker's own clock; clocks of machines are never compared.

    Args:
      directory: of the lease files.
      patience: seconds.
    """

    def __init__(self, directory: pathlib.Path, patience: float = PATIENCE_SECONDS) -> None:
        self._directory = directory
        self._patience = patience
        self._signs: dict[str, _Sign] = {}

    def claim(self, name: str) -> Lease | None:
        """The lease of that name; None while another worker has it."""
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._directory), contextlib.suppress(FileExistsError):
            if self._is_free(path):
                path.unlink(missing_ok=True)
                return Lease(path)
        return None

    def _is_free(self, path: pathlib.Path) -> bool:
        try:
            with path.open("r+") as file:
                owner, beat = file.read(), os.fstat(file.fileno()).st_mtime_ns
                # Only on one machine is a lock that can be had a sure sign that its holder is dead.
                if owner.split(" ")[0] == socket.gethostname() and _lock_can_be_had(file):
                    return True
        except FileNotFoundError:
            return True
        now = time.monotonic()
        known = self._signs.get(path.name)
        if known is None or (known.owner, known.beat) != (owner, beat):
            known = self._signs[path.name] = _Sign(owner, beat, now)
        return now - known.seen > self._patience


def _lock_can_be_had(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
