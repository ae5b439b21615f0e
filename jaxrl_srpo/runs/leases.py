"""Leases: files in a run directory that say which worker has which work, and that outlive no dead worker."""

import contextlib
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

import filelock

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import locked, sign_of_process, write_atomically

HEARTBEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0


class LeaseLost(Exception):
    """Another worker took over what this one had, because it gave no sign of life for too long."""


class Lease:
    """Work that this process has: a file with its name, touched every few seconds until it is released.

    A lock beside the file, `.<name>.alive`, tells other processes of this machine that the owner lives. Whoever makes
    it holds the lock of the directory and has seen that nobody else has the work.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._owner = f"{sign_of_process()} {secrets.token_hex(4)}"
        self._alive = _alive_lock(path)
        self._alive.acquire(timeout=0)
        write_atomically(path, self._owner)
        self._released = threading.Event()
        threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True).start()

    def lost(self) -> bool:
        """Whether another worker took over."""
        return _owner_of(self._path) != self._owner

    @contextlib.contextmanager
    def writing(self) -> Iterator[bool]:
        """Gives whether the work is this process's still, and keeps it so meanwhile: nobody takes over."""
        with locked(self._path.parent):
            yield not self.lost()

    def release(self) -> None:
        """Lets others have it."""
        self._released.set()
        with contextlib.suppress(FileNotFoundError), self.writing() as own:
            if own:
                _remove(self._path)
        self._alive.release()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            # A storage that is away for a moment must not end the heartbeat.
            with contextlib.suppress(OSError):
                if not self.lost():
                    os.utime(self._path)


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
        """The lease of that name; None while another worker has it.

        Raises:
          UserError: a directory lies where the lease should be.
          OSError: the directory of the leases cannot be made, in one that exists, or written.
        """
        path = self._directory / name
        self._directory.mkdir(exist_ok=True)
        if path.is_dir():
            raise UserError(f"{path}: is a directory in the place of a lease; remove it")
        with locked(self._directory):
            if not self._is_free(path):
                return None
            _remove(path)
            try:
                return Lease(path)
            except filelock.Timeout:
                # Windows keeps a file that its owner, who stands still, has open.
                return None

    def _is_free(self, path: pathlib.Path) -> bool:
        owner = _owner_of(path)
        if owner is None:
            return True
        # Only on one machine is a lock that can be had a sure sign that its holder is dead.
        if owner.split(" ")[0] == socket.gethostname() and _is_dead(path):
            return True
        beat, now = path.stat().st_mtime_ns, time.monotonic()
        known = self._signs.get(path.name)
        if known is None or (known.owner, known.beat) != (owner, beat):
            known = self._signs[path.name] = _Sign(owner, beat, now)
        return now - known.seen > self._patience


def _owner_of(path: pathlib.Path) -> str | None:
    """What a lease says; None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _alive_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.alive")


def _alive_lock(path: pathlib.Path) -> filelock.BaseFileLock:
    return filelock.FileLock(_alive_path(path), thread_local=False)


def _is_dead(path: pathlib.Path) -> bool:
    """Whether the lock of an owner on this machine can be had."""
    if not _alive_path(path).exists():
        return True
    try:
        with _alive_lock(path).acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False


def _remove(path: pathlib.Path) -> None:
    """Removes a lease; whoever holds its lock still keeps it on a file without a name."""
    for file in (path, _alive_path(path)):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
