"""SHA-256 of files, in the format of `sha256sum`: those of the cache, and those that a person gives."""

import dataclasses
import hashlib
import pathlib
import re

from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.files import locked, write_atomically

RECORD = "SHA256SUMS"
"""The file in the cache that `data download` fills; `sha256sum -c SHA256SUMS` reads it there."""

_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Checksum:
    """What a file must have.

    Attributes:
      sha256: SHA-256 in lower-case hex.
      source: the file that says so.
    """

    sha256: str
    source: pathlib.Path


def sha256_of(path: pathlib.Path) -> str:
    """SHA-256 of a file in hex.

    Raises:
      DatasetError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def verify(path: pathlib.Path, checksum: Checksum, what: str) -> None:
    """Raises unless a file has the SHA-256 that it must have.

    Args:
      path: the file.
      checksum: what it must have.
      what: what the message calls the file.

    Raises:
      DatasetError: it has another, or cannot be read.
    """
    found = sha256_of(path)
    if found != checksum.sha256:
        raise DatasetError(f"{what} has SHA-256 {found}, where {checksum.source} says {checksum.sha256}")


def recorded(folder: pathlib.Path, path: str) -> Checksum | None:
    """What was noted of a file of the cache, None if nothing was.

    Args:
      folder: the cache.
      path: the file's path in it.

    Raises:
      DatasetError: the notes cannot be read.
    """
    record = folder / RECORD
    found = _read(record).get(path) if record.exists() else None
    return Checksum(found, record) if found else None


def given(source: pathlib.Path, path: str) -> Checksum:
    """What a person's file says of a file: of its path, or else of its name in whatever folder.

    Raises:
      DatasetError: it cannot be read, says nothing of the file, or several things.
    """
    sums = _read(source)
    name = pathlib.PurePosixPath(path).name
    found = {sums[path]} if path in sums else {sums[one] for one in sums if pathlib.PurePosixPath(one).name == name}
    if len(found) != 1:
        raise DatasetError(f"{source}: has {'several lines' if found else 'no line'} for {name}; one is needed")
    return Checksum(found.pop(), source)


def record(folder: pathlib.Path, path: str, sha256: str) -> None:
    """Notes the SHA-256 of a file of the cache, in the place of what was noted before.

    Raises:
      DatasetError: the notes cannot be read or written.
    """
    target = folder / RECORD
    try:
        with locked(target):
            sums = _read(target) if target.exists() else {}
            if sums.get(path) != sha256:
                sums[path] = sha256
                write_atomically(target, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    except OSError as error:
        raise DatasetError(f"{target}: cannot be written: {error.strerror}") from error


def _read(source: pathlib.Path) -> dict[str, str]:
    """SHA-256 by name."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{source}: cannot be read as checksums: {error}") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if match is None:
            raise DatasetError(
                f"{source}, line {number}: expected 64 hex digits, two spaces and a name, as of sha256sum"
            )
        if sums.setdefault(match[2], match[1].lower()) != match[1].lower():
            raise DatasetError(f"{source}, line {number}: {match[2]} has another checksum above")
    return sums
