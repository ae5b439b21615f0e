"""Whether data made by OGBench's recipes are sane: counts of what happened, and what is odd about them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.envs.ogbench_episodes import Episode
from jaxrl_srpo.envs.ogbench_recipes import Recipe
from jaxrl_srpo.errors import DatasetError

_ARM_POSITIONS, _CUBE_POSITIONS = 14, 7
_MOVED = 1e-3
# Rows from which on the number of targets says something.
_ENOUGH = 2000


class _Usual(NamedTuple):
    """What a few episodes of a kind of recipe gave, with room on both sides.

    Attributes:
      reached: least share of targets.
      targets: least and largest number in 1,001 rows.
    """

    reached: float
    targets: tuple[float, float]


_USUAL = {
    "cube-play": _Usual(0.85, (9.0, 13.0)),
    "cube-noisy": _Usual(0.65, (5.0, 12.0)),
    "scene-play": _Usual(0.75, (15.0, 30.0)),
    "scene-noisy": _Usual(0.65, (11.0, 28.0)),
    "puzzle-play": _Usual(0.95, (25.0, 35.0)),
    "puzzle-noisy": _Usual(0.85, (25.0, 45.0)),
    "pointmaze-navigate": _Usual(1.0, (2.0, 20.0)),
    # A goal in a corner of its cell is further from the middle, where the point stays, than counts as reached.
    "pointmaze-stitch": _Usual(0.85, (4.9, 5.1)),
    # Who steps into a teleport on the way may not find back in time.
    "pointmaze-teleport-stitch": _Usual(0.6, (4.9, 5.1)),
}


@dataclasses.dataclass(frozen=True)
class Counts:
    """What happened in some episodes.

    Attributes:
      episodes: their number.
      rows: their rows.
      finished: targets of each kind that the oracle was done with, [kinds].
      reached: those among them that were reached, [kinds].
      pursued: rows with a target of each kind, [kinds].
      fruitless: episodes in which no target was reached.
      redone: times that an episode was thrown away and played again.
      moving: rows after which a cube, or the point, is more than a millimetre further, or a button of a puzzle
        has changed.
      at_bound: entries of actions that are -1 or 1.
      entries: of actions.
      lowest, highest: entries of actions.
    """

    episodes: int
    rows: int
    finished: np.ndarray
    reached: np.ndarray
    pursued: np.ndarray
    fruitless: int
    redone: int
    moving: int
    at_bound: int
    entries: int
    lowest: float
    highest: float

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, to be stored."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


def count(recipe: Recipe, episodes: Sequence[Episode]) -> Counts:
    """Counts what happened; all episodes have equally many rows.

    Raises:
      DatasetError: an episode is not what the recipe makes: sizes differ, or numbers are not finite or out of range.
    """
    for episode in episodes:
        _refuse_unsound(recipe, episode)
    actions = np.concatenate([episode.columns["actions"] for episode in episodes])
    return Counts(
        len(episodes),
        len(actions),
        np.sum([episode.finished for episode in episodes], axis=0),
        np.sum([episode.reached for episode in episodes], axis=0),
        np.sum([episode.pursued for episode in episodes], axis=0),
        sum(not episode.reached.any() for episode in episodes),
        sum(episode.redone for episode in episodes),
        sum(_count_moving(recipe, episode.columns) for episode in episodes),
        int((np.abs(actions) == 1.0).sum()),
        actions.size,
        float(actions.min()),
        float(actions.max()),
    )


def add_up(parts: Sequence[Counts]) -> Counts:
    """The counts of all parts together."""
    lowest, highest = min(part.lowest for part in parts), max(part.highest for part in parts)
    names = [field.name for field in dataclasses.fields(Counts) if field.name not in ("lowest", "highest")]
    sums = {name: sum(getattr(part, name) for part in parts) for name in names}
    return Counts(**sums, lowest=lowest, highest=highest)


def from_arrays(arrays: dict[str, np.ndarray]) -> Counts:
    """The counts that `Counts.arrays` stored."""
    values: dict[str, Any] = {name: array if array.ndim else array.item() for name, array in arrays.items()}
    return Counts(**values)


def describe(recipe: Recipe, counts: Counts) -> dict[str, Any]:
    """The counts as shares, to be read by people and programs."""
    return {
        "rows": counts.rows,
        "targets_per_episode": _by_kind(recipe, counts.finished / counts.episodes),
        "targets_reached": _by_kind(recipe, counts.reached / np.maximum(counts.finished, 1)),
        "rows_by_target": _by_kind(recipe, counts.pursued / counts.rows),
        "episodes_without_success": counts.fruitless,
        "episodes_played_again": counts.redone,
        f"rows_with_{_moving_thing(recipe)}": round(counts.moving / counts.rows, 4),
        "action_range": [counts.lowest, counts.highest],
        "actions_at_bound": round(counts.at_bound / counts.entries, 4),
    }


def summarize(recipe: Recipe, counts: Counts) -> list[str]:
    """A few lines on the counts."""
    shares = describe(recipe, counts)
    kinds = (
        f"{kind} {shares['targets_per_episode'][kind]:.3g} an episode, {shares['targets_reached'][kind]:.1%} reached, "
        f"{shares['rows_by_target'][kind]:.0%} of rows"
        for kind in recipe.kinds
    )
    return [
        f"{counts.episodes} episodes of {counts.rows // counts.episodes} rows; played again: {counts.redone}",
        f"targets: {'; '.join(kinds)}",
        f"{_moving_thing(recipe).replace('_', ' ')} in {counts.moving / counts.rows:.1%} of rows; actions from "
        f"{counts.lowest:g} to {counts.highest:g}, {shares['actions_at_bound']:.1%} of their entries at a bound",
    ]


def find_oddities(recipe: Recipe, counts: Counts) -> list[str]:
    """What is not as the recipe makes it as a rule; one line each."""
    found = []
    kind = f"{recipe.family.split('-')[0]}-{recipe.style}"
    usual = _USUAL.get(f"{recipe.family}-{recipe.style}", _USUAL[kind])
    finished, reached = int(counts.finished.sum()), int(counts.reached.sum())
    if reached < usual.reached * finished:
        found.append(f"{reached} of {finished} targets were reached; as a rule {usual.reached:.0%} or more are")
    per_episode, (least, most) = finished * 1001 / counts.rows, usual.targets
    if counts.rows >= _ENOUGH and not least <= per_episode <= most:
        found.append(f"{per_episode:.3g} targets in 1,001 rows; as a rule there are {least:g} to {most:g}")
    if not counts.moving:
        found.append(f"{_moving_thing(recipe).replace('_', ' ')} in no row")
    return found


def _by_kind(recipe: Recipe, values: np.ndarray) -> dict[str, float]:
    return {kind: round(float(value), 4) for kind, value in zip(recipe.kinds, values, strict=True)}


def _moving_thing(recipe: Recipe) -> str:
    if recipe.is_maze:
        return "moving_point"
    return "moving_cube" if recipe.cubes else "changed_button"


def _count_moving(recipe: Recipe, columns: dict[str, np.ndarray]) -> int:
    """Rows after which something is elsewhere; of cubes the positions count, not the turns."""
    if not recipe.is_maze and not recipe.cubes:
        return int((np.diff(columns["button_states"], axis=0) != 0).any(axis=1).sum())
    qpos = columns["qpos"].astype(np.float64)
    places = [qpos]
    if recipe.cubes:
        starts = [_ARM_POSITIONS + _CUBE_POSITIONS * cube for cube in range(recipe.cubes)]
        places = [qpos[:, start : start + 3] for start in starts]
    moved = [np.linalg.norm(np.diff(place, axis=0), axis=1) > _MOVED for place in places]
    return int(np.any(moved, axis=0).sum())


def _refuse_unsound(recipe: Recipe, episode: Episode) -> None:
    rows = len(episode.columns["terminals"])
    sizes = {"observations": recipe.observation_size, "actions": 2 if recipe.is_maze else 5}
    for name, column in episode.columns.items():
        if len(column) != rows or column.shape[1:] != (sizes.get(name, *column.shape[1:]),) * (column.ndim - 1):
            raise DatasetError(f"{recipe.name}: {name} {column.shape} in an episode of {rows} rows")
        if not np.isfinite(column).all():
            raise DatasetError(f"{recipe.name}: {name} are not finite; give another --seed")
    if np.abs(episode.columns["actions"]).max() > 1.0:
        raise DatasetError(f"{recipe.name}: actions leave [-1, 1]")
