"""OGBench's recipes (arXiv 2410.20092): how each of its scripted datasets is made, in numbers.

The oracles come with the package `ogbench`; the scripts that call them (`data_gen_scripts` of its repository:
`commands.sh`, `generate_manipspace.py`, `generate_locomaze.py`) do not. Numbers and order of events are theirs, as read
in public copies of the repository.
"""

import dataclasses
import difflib
from typing import Any

from jaxrl_srpo.errors import DatasetError

PREFIX = "ogbench/"
"""What begins the names of datasets that are made here."""

UNREAD = (
    "the published files' seeds: the scripts seed nothing, so the published bytes cannot be made again",
    "the versions of MuJoCo and ogbench that made the published files",
    "whether the scripts changed after the published files were made: they were read in public copies",
)
"""What the recipe leaves open; written beside every dataset."""

_VALIDATION = 10


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What determines a dataset, but for its seed.

    Attributes:
      name: of the dataset, such as `cube-single-play-v0`.
      episodes: in the training file.
      rows: per episode; the last one's action leads nowhere.
      observation_size: entries of an observation.
      kinds: of targets: `cube`, `button`, `drawer` and `window`, or `goal`.
      noise: standard deviation of a maze's action noise; level of the play oracles' noise; largest x of noisy oracles,
        whose standard deviations are (x, x, x, 3x, 10x) with x drawn once per episode.
      random_actions: probability of a uniformly random action instead of the oracle's.
      stacking: least and largest probability, drawn once per episode, that a new cube target is on another cube.
    """

    name: str
    episodes: int
    rows: int
    observation_size: int
    kinds: tuple[str, ...]
    noise: float
    random_actions: float = 0.0
    stacking: tuple[float, float] = (0.0, 0.0)

    @property
    def family(self) -> str:
        """Such as `cube-single`."""
        return self.name.rsplit("-", 2)[0]

    @property
    def style(self) -> str:
        """`play` or `noisy`, `navigate` or `stitch`."""
        return self.name.rsplit("-", 2)[1]

    @property
    def is_maze(self) -> bool:
        """Whether a point walks; else an arm manipulates."""
        return self.family.startswith("pointmaze")

    @property
    def cubes(self) -> int:
        """Cubes on the table."""
        if "cube" not in self.kinds:
            return 0
        return 1 + ("single", "double", "triple", "quadruple").index((*self.family.split("-"), "single")[1])

    @property
    def has_buttons(self) -> bool:
        """Whether rows have `button_states`."""
        return "button" in self.kinds

    @property
    def environment_id(self) -> str:
        """Gymnasium id, such as `cube-single-v0`."""
        return f"{self.family}-v0"

    @property
    def validation_episodes(self) -> int:
        """A tenth of the training file's, and one at least."""
        return max(1, self.episodes // _VALIDATION)

    @property
    def oracle(self) -> str:
        """What acts, for people."""
        if self.is_maze:
            goal = {
                "navigate": "a random crossing or corner, a new one whenever it is reached",
                "stitch": "a random cell four steps away, where it stays",
            }[self.style]
            return f"the direction of the breadth-first way to {goal}; Gaussian noise {self.noise:g}"
        names = ", ".join(
            f"{kind.capitalize()}{'Plan' if self.style == 'play' else 'Markov'}Oracle" for kind in self.kinds
        )
        if self.style == "play":
            return f"{names}; noise {self.noise:g}, noise_smoothing {SMOOTHING:g}"
        return (
            f"{names}; min_norm {LEAST_NORM:g}; Gaussian noise (x, x, x, 3x, 10x), x from U(0, {self.noise:g}); "
            f"random actions {self.random_actions:g}"
        )


SMOOTHING = 0.5
"""Smoothing of the play oracles' noise, in steps."""

LEAST_NORM = 0.4
"""Least norm of the way that noisy oracles want to go."""

_SCENE = ("cube", "button", "drawer", "window")
# Family, episodes, observation size, kinds of targets, stacking, random actions of noisy.
_ARM = (
    ("cube-single", 1000, 28, ("cube",), (0.0, 0.0), 0.1),
    ("cube-double", 1000, 37, ("cube",), (0.0, 0.25), 0.1),
    ("cube-triple", 3000, 46, ("cube",), (0.05, 0.35), 0.1),
    ("cube-quadruple", 5000, 55, ("cube",), (0.1, 0.5), 0.1),
    ("scene", 1000, 40, _SCENE, (0.5, 0.5), 0.1),
    ("puzzle-3x3", 1000, 55, ("button",), (0.5, 0.5), 0.2),
    ("puzzle-4x4", 1000, 83, ("button",), (0.5, 0.5), 0.2),
    ("puzzle-4x5", 3000, 99, ("button",), (0.5, 0.5), 0.2),
    ("puzzle-4x6", 5000, 115, ("button",), (0.5, 0.5), 0.2),
)
# Family, episodes and rows of navigate.
_MAZES = (
    ("pointmaze-medium", 1000, 1001),
    ("pointmaze-large", 1000, 1001),
    ("pointmaze-giant", 500, 2001),
    ("pointmaze-teleport", 1000, 1001),
)


def _recipes() -> list[Recipe]:
    found = []
    for family, episodes, size, kinds, stacking, random_actions in _ARM:
        for style, probability in (("play", 0.0), ("noisy", random_actions)):
            name = f"{family}-{style}-v0"
            found.append(Recipe(name, episodes, 1001, size, kinds, 0.1, probability, stacking))
    for family, episodes, rows in _MAZES:
        found.append(Recipe(f"{family}-navigate-v0", episodes, rows, 2, ("goal",), 0.5))
        found.append(Recipe(f"{family}-stitch-v0", 5000, 201, 2, ("goal",), 0.5))
    return found


RECIPES = {recipe.name: recipe for recipe in _recipes()}
"""Every dataset that can be made here, by name."""


def find_recipe(name: str) -> Recipe:
    """The published recipe of a name such as `ogbench/cube-single-play-v0`.

    Raises:
      DatasetError: there is none.
    """
    bare = name.removeprefix(PREFIX)
    if bare in RECIPES:
        return RECIPES[bare]
    close = difflib.get_close_matches(bare, RECIPES, n=3, cutoff=0.5)
    hint = f"; closest: {', '.join(PREFIX + one for one in close)}" if close else ""
    raise DatasetError(
        f"{name}: cannot be made here{hint}; expected {PREFIX}FAMILY-STYLE-v0: {_names(_ARM)} with play or noisy, "
        f"{_names(_MAZES)} with navigate or stitch; the others need trained experts"
    )


def _names(families: tuple[tuple[Any, ...], ...]) -> str:
    return ", ".join(str(row[0]) for row in families)
