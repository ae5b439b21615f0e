"""Names of datasets, and ranges of names and seeds, as a command line or a file has them."""

import re
from collections.abc import Sequence

from jaxrl_srpo.errors import UserError

EMBEDDED = ("pointmaze/umaze", "pointmaze/medium", "pointmaze/large")
"""Datasets that `envs.pointmaze` makes in seconds."""

REGENERATED = "regenerated/"
"""Prefix of the Minari datasets that `exploration.regenerated` makes."""

_RANGE = re.compile(r"(?P<start>.*)\{(?P<low>\d+):(?P<high>\d+)\}(?P<stop>.*)", re.DOTALL)
_MOST_OF_A_RANGE = 1000
_MOST_SEEDS = 100_000

OGBENCH = re.compile(
    r"(visual-)?((pointmaze|antmaze|humanoidmaze|antsoccer)-\w+-(navigate|stitch|explore)|"
    r"(cube-\w+|scene|puzzle-\w+|powderworld-\w+)-(play|noisy))(-singletask(-task\d)?|-oraclerep)?-v\d+"
)
"""Names of OGBench's datasets, such as `cube-single-play-singletask-v0`."""

FORMS = (
    "an .hdf5 or .npz file, a D4RL name (hopper-medium-v2), a Minari id (D4RL/door/human-v2), a task of OGBench "
    "(cube-single-play-singletask-task1-v0) or pointmaze/umaze"
)
"""What a dataset may be called, for messages."""


def expand_ranges(names: Sequence[str]) -> tuple[str, ...]:
    """Names with `{1:6}` in them as several, with 1 to 5 in its place, as seeds are counted; others as they are.

    Raises:
      UserError: a range is empty or far too long.
    """
    return tuple(one for name in names for one in _expand(name))


def _expand(name: str) -> list[str]:
    match = _RANGE.fullmatch(name)
    if match is None:
        return [name]
    low, high = int(match["low"]), int(match["high"])
    if not low < high <= low + _MOST_OF_A_RANGE:
        raise UserError(f"--datasets={name}: {{{low}:{high}}} is no range; {{1:6}} is 1 to 5")
    return [f"{match['start']}{number}{match['stop']}" for number in range(low, high)]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of `0:4` (0 to 3) or `0,1,5`.

    Raises:
      UserError: for anything else.
    """
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            if stop - start > _MOST_SEEDS:
                raise UserError(f"--seeds={text}: are {stop - start} seeds; at most {_MOST_SEEDS}")
            seeds = tuple(range(start, stop))
        else:
            seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31:
        raise UserError(
            f"--seeds={text}: give a range such as 0:4 or a list such as 0,1,5 of numbers from 0 to 2^31 - 1"
        )
    return seeds


def is_made_here(name: str) -> bool:
    """Whether `jaxrl-srpo data make NAME` makes a dataset; all others are downloaded."""
    return name in EMBEDDED or name.startswith(REGENERATED)
