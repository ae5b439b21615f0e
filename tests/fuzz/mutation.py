"""What a mutation of a sound dataset is, and the bytes that any file may be damaged by."""

import dataclasses
import enum
import pathlib
from collections.abc import Callable

import numpy as np


class Expected(enum.Enum):
    """What must come of a dataset: one line, the unmutated transitions, other ones, or either but never a traceback."""

    REFUSED = "refused"
    EQUAL = "equal"
    LOADS = "loads"
    MAY = "may load"


Mutate = Callable[[np.random.Generator, pathlib.Path], pathlib.Path | None]
"""Mutates the file or folder at a path; returns another path where the dataset is another one then."""


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A way to change a dataset."""

    name: str
    expected: Expected
    mutate: Mutate


def cut(random: np.random.Generator, path: pathlib.Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(random.integers(0, len(content)))])


def flip(random: np.random.Generator, path: pathlib.Path) -> None:
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    where = random.integers(0, len(content), int(random.integers(1, 9)))
    content[where] ^= random.integers(1, 256, len(where), np.uint8)
    path.write_bytes(content.tobytes())


def flip_in_front(random: np.random.Generator, path: pathlib.Path) -> None:
    """Where HDF5 has its structure."""
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    where = random.integers(0, min(len(content), 4096), int(random.integers(1, 9)))
    content[where] ^= random.integers(1, 256, len(where), np.uint8)
    path.write_bytes(content.tobytes())


def blank(random: np.random.Generator, path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    start, size = int(random.integers(0, len(content))), int(random.integers(1, 600))
    content[start : start + size] = bytes(len(content[start : start + size]))
    path.write_bytes(content)


def append(random: np.random.Generator, path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes() + random.bytes(int(random.integers(1, 600))))


def scramble(random: np.random.Generator, path: pathlib.Path) -> None:
    path.write_bytes(random.bytes(int(random.integers(0, 2000))))


DAMAGE = (
    Mutation("cut short", Expected.REFUSED, cut),
    Mutation("bytes flipped", Expected.MAY, flip),
    Mutation("bytes in front flipped", Expected.MAY, flip_in_front),
    Mutation("a part blank", Expected.MAY, blank),
    Mutation("bytes appended", Expected.MAY, append),
    Mutation("random bytes", Expected.REFUSED, scramble),
)
"""Of a file of any format."""
