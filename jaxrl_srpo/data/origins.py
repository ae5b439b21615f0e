"""Where data are from that could be taken for D4RL's by their name, and are others."""

import pathlib
import re

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.arrays import is_of_arrays
from jaxrl_srpo.data.names import REGENERATED

# By the beginning of a Minari id; the first that fits counts.
_MINARI = (
    ("D4RL/pointmaze/", "Minari's re-collected PointMaze, not D4RL's maze2d"),
    ("D4RL/antmaze/", "Minari's re-collected AntMaze of another ant and another policy, not D4RL's antmaze"),
    ("D4RL/kitchen/", "Minari's FrankaKitchen, another environment than D4RL's kitchen"),
    ("D4RL/minigrid/", "Minari's re-collected MiniGrid, not D4RL's"),
    ("D4RL/", "Minari's conversion of D4RL's Adroit data, for a later port of the environment"),
    ("mujoco/", "Minari's data of newer policies in v5 environments, not D4RL's"),
)


def origin(name: str, source: str | None = None) -> str:
    """What data are, in some words, where their name could make them D4RL's; empty for D4RL's own and all others.

    Args:
      name: what tables call the dataset.
      source: where it was read from; None where that is not known.
    """
    found = next((words for start, words in _MINARI if name.startswith(start)), "")
    if found:
        return found
    if name.startswith(REGENERATED):
        return "made by D4RL's recipe with SAC of this package, not D4RL's data"
    if re.search(r"[-_]regen(?![a-z])", name):
        return "a regenerated look-alike, not D4RL's data"
    if source is None or name not in d4rl.known_names():
        return ""
    if is_of_arrays(source):
        return "arrays of a Python program, not known to be D4RL's data"
    own = pathlib.PurePosixPath(d4rl.entry(name).path).name
    return "" if pathlib.PurePath(source).name == own else "a file of D4RL's name, not known to hold D4RL's data"
