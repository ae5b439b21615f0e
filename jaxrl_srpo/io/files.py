"""Files that are whole or absent, that processes take turns to change, and messages."""

import contextlib
import fcntl
import os
import pathlib
import secrets
import sys
from collections.abc import Iterator


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file under a temporary name, then renames it, so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several hosts may write here, so a process id would not be enough.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Keeps every other process out that asks for the same lock, `.<name>.lock` beside the file.

    The system takes the lock back from a process that dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def print_message(message: str) -> None:
    """Messages go to standard error, results to standard output."""
    print(message, file=sys.stderr, flush=True)
