"""Manifests: the SHA-256 of every file of a directory, written last, by which damage is found."""

import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import sealed
from jaxrl_srpo.io.files import write_atomically

NAME = "manifest.json"


class Manifest(NamedTuple):
    """What a manifest says.

    Attributes:
      files: SHA-256 in hex by path below the directory.
      about: what whoever wrote the directory tells of it.
    """

    files: dict[str, str]
    about: dict[str, Any]


def write(directory: pathlib.Path, about: Mapping[str, Any] | None = None, files: Iterable[pathlib.Path] = ()) -> None:
    """Writes the manifest of a directory that is otherwise complete.

    Args:
      directory: the directory.
      about: what to tell of it.
      files: those that belong to it; all that lie in it by default.
    """
    own = sorted(files) or sorted(path for path in directory.rglob("*") if path.is_file() and path.name != NAME)
    digests = {path.relative_to(directory).as_posix(): _digest(path) for path in own}
    write_atomically(directory / NAME, sealed.text_of({"files": digests, "about": dict(about or {})}))


def read(directory: pathlib.Path) -> Manifest | None:
    """The manifest of a directory; None if it has none, as those of earlier versions.

    Raises:
      UserError: the manifest itself is damaged.
    """
    path = directory / NAME
    if not path.exists():
        return None
    content = sealed.read(path)
    files, about = content.get("files"), content.get("about")
    if not isinstance(files, dict) or not files or not isinstance(about, dict):
        raise UserError(f"{path} is damaged: it does not list the files of its directory")
    return Manifest(files, about)


def problem(directory: pathlib.Path) -> str:
    """What is wrong with a directory by its manifest, naming the file; "" if nothing is, or there is no manifest."""
    try:
        manifest = read(directory)
        for name, digest in manifest.files.items() if manifest else ():
            if _outside(name):
                return f"{NAME} names {name!r}, which is no file of it"
            if _digest(directory / name) != digest:
                return f"{name} is not what was written (another SHA-256)"
    except UserError:
        return f"{NAME} is not what was written"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    return ""


def _outside(name: str) -> bool:
    path = pathlib.PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\0" in name


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
