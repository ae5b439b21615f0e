"""Counts of what happened in OGBench's episodes, and what is odd about them."""

from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.envs import ogbench_checks
from jaxrl_srpo.envs.ogbench_episodes import Episode
from jaxrl_srpo.envs.ogbench_recipes import RECIPES, Recipe
from jaxrl_srpo.errors import DatasetError

CUBES, PUZZLE, SCENE = RECIPES["cube-double-play-v0"], RECIPES["puzzle-3x3-noisy-v0"], RECIPES["scene-play-v0"]


def make(recipe: Recipe, rows: int = 10, finished: int = 3, reached: int = 2, **changed: Any) -> Episode:
    columns = {
        "observations": np.zeros((rows, recipe.observation_size), np.float32),
        "actions": np.zeros((rows, 2 if recipe.is_maze else 5), np.float32),
        "qpos": np.zeros((rows, 40), np.float32),
        "qvel": np.zeros((rows, 40), np.float32),
        "terminals": np.arange(rows) == rows - 1,
    }
    if recipe.has_buttons:
        columns["button_states"] = np.zeros((rows, 9), np.int64)
    kinds = np.ones(len(recipe.kinds), np.int64)
    return Episode(columns | changed, finished * kinds, reached * kinds, rows * kinds // len(kinds), 1)


def test_counts_are_added_up_and_stored() -> None:
    actions = np.zeros((10, 5), np.float32)
    actions[2:4, 0], actions[5, 1] = (-1.0, 0.5), 1.0
    parts = [ogbench_checks.count(CUBES, [make(CUBES), make(CUBES, reached=0)])]
    parts.append(ogbench_checks.count(CUBES, [make(CUBES, actions=actions)]))
    whole = ogbench_checks.add_up(parts)
    assert ogbench_checks.describe(CUBES, whole) == {
        "rows": 30,
        "targets_per_episode": {"cube": 3.0},
        "targets_reached": {"cube": 0.4444},
        "rows_by_target": {"cube": 1.0},
        "episodes_without_success": 1,
        "episodes_played_again": 3,
        "rows_with_moving_cube": 0.0,
        "action_range": [-1.0, 1.0],
        "actions_at_bound": round(2 / 150, 4),
    }
    stored = ogbench_checks.from_arrays({name: np.array(array) for name, array in whole.arrays().items()})
    assert ogbench_checks.describe(CUBES, stored) == ogbench_checks.describe(CUBES, whole)
    assert ogbench_checks.summarize(CUBES, whole) == [
        "3 episodes of 10 rows; played again: 3",
        "targets: cube 3 an episode, 44.4% reached, 100% of rows",
        "moving cube in 0.0% of rows; actions from -1 to 1, 1.3% of their entries at a bound",
    ]


@pytest.mark.parametrize(
    ("recipe", "column", "place", "step", "moving"),
    [
        (CUBES, "qpos", 14, 0.01, 1),
        (CUBES, "qpos", 23, 0.01, 1),
        (CUBES, "qpos", 14, 0.0005, 0),
        (CUBES, "qpos", 17, 1.0, 0),
        (CUBES, "qpos", 13, 1.0, 0),
        (SCENE, "qpos", 21, 1.0, 0),
        (SCENE, "qpos", 16, 0.01, 1),
        (PUZZLE, "button_states", 4, 1, 1),
        (PUZZLE, "qpos", 14, 1.0, 0),
        (RECIPES["pointmaze-large-stitch-v0"], "qpos", 1, 0.01, 1),
    ],
)
def test_what_moves_is_counted(recipe: Recipe, column: str, place: int, step: float, moving: int) -> None:
    episode = make(recipe)
    episode.columns[column][5:, place] = step
    assert ogbench_checks.count(recipe, [episode]).moving == moving


def test_what_is_odd_is_told() -> None:
    def oddities(recipe: Recipe, *episodes: Episode) -> list[str]:
        return ogbench_checks.find_oddities(recipe, ogbench_checks.count(recipe, list(episodes)))

    def turning(rows: int, finished: int, reached: int) -> Episode:
        episode = make(CUBES, rows, finished, reached)
        episode.columns["qpos"][1::2, 14] = 1.0
        return episode

    assert oddities(CUBES, turning(1001, 11, 11), turning(1001, 11, 10)) == []
    assert oddities(CUBES, turning(1001, 11, 3), turning(1001, 11, 10)) == [
        "13 of 22 targets were reached; as a rule 85% or more are"
    ]
    assert oddities(CUBES, turning(2002, 60, 60)) == ["30 targets in 1,001 rows; as a rule there are 9 to 13"]
    # Too few rows to tell.
    assert oddities(CUBES, turning(50, 1, 1)) == []
    assert oddities(CUBES, make(CUBES, 50, 0, 0)) == ["moving cube in no row"]
    assert oddities(PUZZLE, make(PUZZLE, 50, 1, 1)) == ["changed button in no row"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observations": np.zeros((10, 3), np.float32)}, r"observations \(10, 3\) in an episode of 10 rows"),
        ({"qvel": np.zeros((9, 3), np.float32)}, r"qvel \(9, 3\) in an episode of 10 rows"),
        ({"qpos": np.full((10, 40), np.nan, np.float32)}, "qpos are not finite; give another --seed"),
        ({"actions": np.full((10, 5), 1.5, np.float32)}, r"actions leave \[-1, 1\]"),
    ],
)
def test_unsound_episodes_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=f"^cube-double-play-v0: {message}$"):
        ogbench_checks.count(CUBES, [make(CUBES, **changed)])


def test_every_recipe_has_its_usual_numbers() -> None:
    for recipe in RECIPES.values():
        ogbench_checks.find_oddities(recipe, ogbench_checks.count(recipe, [make(recipe)]))
