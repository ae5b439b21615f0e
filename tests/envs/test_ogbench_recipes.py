"""The table of OGBench's recipes against what was published."""

import importlib.util

import pytest

from jaxrl_srpo.data.names import OGBENCH
from jaxrl_srpo.envs.ogbench_recipes import RECIPES, find_recipe
from jaxrl_srpo.errors import DatasetError

# Episodes, rows, probability of random actions, of the repository's commands.
PUBLISHED = {
    "cube-single-play-v0": (1000, 1001, 0.0),
    "cube-single-noisy-v0": (1000, 1001, 0.1),
    "cube-double-play-v0": (1000, 1001, 0.0),
    "cube-double-noisy-v0": (1000, 1001, 0.1),
    "cube-triple-play-v0": (3000, 1001, 0.0),
    "cube-triple-noisy-v0": (3000, 1001, 0.1),
    "cube-quadruple-play-v0": (5000, 1001, 0.0),
    "cube-quadruple-noisy-v0": (5000, 1001, 0.1),
    "scene-play-v0": (1000, 1001, 0.0),
    "scene-noisy-v0": (1000, 1001, 0.1),
    "puzzle-3x3-play-v0": (1000, 1001, 0.0),
    "puzzle-3x3-noisy-v0": (1000, 1001, 0.2),
    "puzzle-4x4-play-v0": (1000, 1001, 0.0),
    "puzzle-4x4-noisy-v0": (1000, 1001, 0.2),
    "puzzle-4x5-play-v0": (3000, 1001, 0.0),
    "puzzle-4x5-noisy-v0": (3000, 1001, 0.2),
    "puzzle-4x6-play-v0": (5000, 1001, 0.0),
    "puzzle-4x6-noisy-v0": (5000, 1001, 0.2),
    "pointmaze-medium-navigate-v0": (1000, 1001, 0.0),
    "pointmaze-large-navigate-v0": (1000, 1001, 0.0),
    "pointmaze-giant-navigate-v0": (500, 2001, 0.0),
    "pointmaze-teleport-navigate-v0": (1000, 1001, 0.0),
    "pointmaze-medium-stitch-v0": (5000, 201, 0.0),
    "pointmaze-large-stitch-v0": (5000, 201, 0.0),
    "pointmaze-giant-stitch-v0": (5000, 201, 0.0),
    "pointmaze-teleport-stitch-v0": (5000, 201, 0.0),
}


def test_the_table_is_what_was_published() -> None:
    assert {name: (one.episodes, one.rows, one.random_actions) for name, one in RECIPES.items()} == PUBLISHED
    assert all(one.validation_episodes * 10 == one.episodes for one in RECIPES.values())
    assert {one.noise for one in RECIPES.values() if one.is_maze} == {0.5}
    assert {one.noise for one in RECIPES.values() if not one.is_maze} == {0.1}


@pytest.mark.parametrize("style", ["play", "noisy"])
def test_cubes_are_stacked_as_often_as_published(style: str) -> None:
    families = ("cube-single", "cube-double", "cube-triple", "cube-quadruple", "scene", "puzzle-4x4")
    recipes = [RECIPES[f"{family}-{style}-v0"] for family in families]
    assert [one.stacking for one in recipes] == [(0, 0), (0, 0.25), (0.05, 0.35), (0.1, 0.5), (0.5, 0.5), (0.5, 0.5)]
    assert [one.cubes for one in recipes] == [1, 2, 3, 4, 1, 0]
    assert [one.has_buttons for one in recipes] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("name", RECIPES)
def test_every_name_is_one_of_ogbenchs(name: str) -> None:
    assert OGBENCH.fullmatch(name)
    assert find_recipe(f"ogbench/{name}") is RECIPES[name]
    assert RECIPES[name].environment_id == name.replace(f"-{RECIPES[name].style}-", "-")


def test_the_oracle_is_told_in_a_line() -> None:
    assert RECIPES["scene-play-v0"].oracle == (
        "CubePlanOracle, ButtonPlanOracle, DrawerPlanOracle, WindowPlanOracle; noise 0.1, noise_smoothing 0.5"
    )
    assert RECIPES["puzzle-4x5-noisy-v0"].oracle == (
        "ButtonMarkovOracle; min_norm 0.4; Gaussian noise (x, x, x, 3x, 10x), x from U(0, 0.1); random actions 0.2"
    )
    assert "four steps away" in RECIPES["pointmaze-giant-stitch-v0"].oracle


def test_other_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(
        DatasetError, match=r"^ogbench/cube-double-pla-v0: cannot be made here; closest: ogbench/cube-dou"
    ):
        find_recipe("ogbench/cube-double-pla-v0")
    with pytest.raises(DatasetError, match=r"scene, puzzle-3x3, .* with play or noisy, pointmaze-medium, .* or stitch"):
        find_recipe("ogbench/powderworld-easy-play-v0")


@pytest.mark.skipif(importlib.util.find_spec("ogbench") is None, reason="extra `ogbench` is not installed")
def test_every_oracle_is_in_the_package() -> None:
    for recipe in RECIPES.values():
        style = "plan" if recipe.style == "play" else "markov"
        for kind in () if recipe.is_maze else recipe.kinds:
            assert importlib.util.find_spec(f"ogbench.manipspace.oracles.{style}.{kind}_{style}")
