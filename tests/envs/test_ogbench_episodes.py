"""Episodes of OGBench's oracles: functions of their seeds alone, in the order of events of the published scripts."""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.envs import ogbench_episodes
from jaxrl_srpo.envs.ogbench import import_package
from jaxrl_srpo.envs.ogbench_episodes import Episode, Player, cells_at, is_hallway, make_player, make_streams
from jaxrl_srpo.envs.ogbench_recipes import RECIPES
from jaxrl_srpo.errors import DatasetError, UserError

MAZE = np.array([[symbol == "." for symbol in row] for row in ("#######", "#....##", "#.##..#", "#....##", "#######")])
NOISY, STITCH = "scene-noisy-v0", "pointmaze-medium-stitch-v0"


def test_a_hallway_is_straight_and_has_no_other_way() -> None:
    hallways = [(i, j) for i, j in np.argwhere(MAZE).tolist() if is_hallway(MAZE, (i, j))]
    assert hallways == [(1, 2), (1, 3), (2, 1), (3, 2), (3, 3)]


def test_cells_are_found_by_the_length_of_the_shortest_way() -> None:
    assert cells_at(MAZE, (1, 1), 0) == [(1, 1)]
    assert sorted(cells_at(MAZE, (1, 1), 4)) == [(2, 4), (3, 3)]
    assert sorted(cells_at(MAZE, (2, 5), 3)) == [(1, 3), (3, 3)]
    assert cells_at(MAZE, (1, 1), 9) == []


def numbers_of(streams: ogbench_episodes.Streams) -> list[Any]:
    return [streams.own.random(), streams.global_seed.tolist(), streams.environment.random(), streams.actions]


def test_every_episode_has_seeds_of_its_own() -> None:
    places = [
        (name, split, seed, k)
        for name in (NOISY, STITCH)
        for split in ("train", "val")
        for seed in (0, 1)
        for k in (0, 1)
    ]
    drawn = [numbers_of(make_streams(*place)) for place in places]
    assert numbers_of(make_streams(*places[3])) == drawn[3]
    for column in zip(*drawn, strict=True):
        assert len({str(entry) for entry in column}) == len(places)


def test_a_scene_whose_cube_gets_lost_is_known() -> None:
    qpos = np.zeros((3, 25), np.float32)
    assert ogbench_episodes._stays_in_sight(qpos)
    for y, z, seen in ((0.3, 0.02, False), (-0.31, 0.02, False), (-0.31, 0.07, True), (-0.31, 0.09, False)):
        qpos[1, 15:17] = y, z
        assert ogbench_episodes._stays_in_sight(qpos) is seen


def test_a_missing_ogbench_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(UserError, match=r"^environment .* needs OGBench \(.*\); pip install 'jaxrl-srpo\[ogb"):
        make_player(RECIPES[STITCH])


@pytest.fixture
def ogbench() -> Iterator[None]:
    """OGBench, and NumPy's global generator as it was afterwards."""
    pytest.importorskip("mujoco", reason="extra `ogbench` is not installed")
    try:
        import_package("cube-single-v0")
    except UserError:
        pytest.skip("extra `ogbench` is not installed")
    state = np.random.get_state()  # noqa: NPY002
    yield
    np.random.set_state(state)  # noqa: NPY002


@functools.cache
def player(name: str) -> Player:
    return make_player(RECIPES[name])


def play(name: str, episode: int, rows: int, by: Player | None = None) -> Episode:
    return (by or player(name)).play(make_streams(name, "train", 0, episode), rows)


def assert_equal(left: Episode, right: Episode) -> None:
    assert list(left.columns) == list(right.columns)
    for name, column in left.columns.items():
        np.testing.assert_array_equal(column, right.columns[name], name)
    for name in ("finished", "reached", "pursued"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.usefixtures("ogbench")
@pytest.mark.parametrize("name", [NOISY, "pointmaze-teleport-navigate-v0"])
def test_nothing_is_kept_from_one_episode_to_the_next(name: str) -> None:
    first = play(name, 0, 120)
    play(name, 1, 90)
    assert_equal(play(name, 0, 120), first)
    np.random.seed(5)  # noqa: NPY002
    assert_equal(play(name, 0, 120, make_player(RECIPES[name])), first)
    assert (play(name, 2, 120).columns["qpos"] != first.columns["qpos"]).any()


@pytest.mark.usefixtures("ogbench")
@pytest.mark.parametrize("name", [NOISY, "cube-double-play-v0", "puzzle-3x3-play-v0", "pointmaze-giant-navigate-v0"])
def test_columns_are_ogbenchs(name: str) -> None:
    recipe, episode = RECIPES[name], play(name, 0, 30)
    assert {name: str(column.dtype) for name, column in episode.columns.items()} == {
        "observations": "float32",
        "actions": "float32",
        "terminals": "bool",
        "qpos": "float32",
        "qvel": "float32",
    } | ({"button_states": "int64"} if recipe.has_buttons else {})
    assert episode.columns["observations"].shape == (30, recipe.observation_size)
    assert episode.columns["actions"].shape == (30, 2 if recipe.is_maze else 5)
    assert np.flatnonzero(episode.columns["terminals"]).tolist() == [29]
    assert np.abs(episode.columns["actions"]).max() <= 1.0
    assert episode.pursued.sum() == 30


@pytest.mark.usefixtures("ogbench")
def test_a_row_holds_the_state_that_its_observation_shows() -> None:
    arm = play("puzzle-3x3-play-v0", 0, 30).columns
    np.testing.assert_array_equal(arm["observations"][:, :6], arm["qpos"][:, :6])
    np.testing.assert_array_equal(arm["observations"][:, 6:12], arm["qvel"][:, :6])
    # Each button's state is one of two indicators, its position and its speed.
    shown = arm["observations"][:, 19:].reshape(30, 9, 4)[..., 1]
    np.testing.assert_array_equal(shown, arm["button_states"])
    maze = play("pointmaze-giant-navigate-v0", 0, 30).columns
    np.testing.assert_array_equal(maze["observations"], maze["qpos"])


@pytest.mark.usefixtures("ogbench")
def test_oracles_reach_their_targets() -> None:
    cube = play("cube-double-play-v0", 0, 400)
    assert (cube.finished.tolist(), cube.reached.tolist()) == ([4], [4])
    navigate = play("pointmaze-medium-navigate-v0", 0, 1001)
    assert navigate.finished == navigate.reached > 3
    stitch = play(STITCH, 0, 201)
    assert (stitch.finished.tolist(), stitch.reached.tolist()) == ([1], [1])


@pytest.mark.usefixtures("ogbench")
def test_the_points_actions_are_noisy_and_cut() -> None:
    columns = [play(STITCH, k, 201).columns for k in range(20)]
    actions = np.concatenate([one["actions"] for one in columns])
    # Of a vector of norm 1 and noise of 0.5 in each entry, about four in ten have an entry that is cut.
    assert 0.4 < (np.abs(actions).max(axis=1) < 1.0).mean() < 0.8
    # Where no wall is, an action of 1 is a step of 0.2.
    moves = np.concatenate([np.diff(one["qpos"], axis=0) - 0.2 * one["actions"][:-1] for one in columns])
    assert (np.abs(moves) < 1e-4).mean() > 0.8


@pytest.mark.usefixtures("ogbench")
def test_random_actions_are_as_many_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet: Any = player(NOISY)
    monkeypatch.setattr(quiet, "_recipe", dataclasses.replace(RECIPES[NOISY], random_actions=1.0))
    actions = play(NOISY, 0, 200, quiet).columns["actions"]
    assert np.abs(actions.mean(axis=0)).max() < 0.2
    np.testing.assert_allclose(actions.std(axis=0), 3**-0.5, atol=0.06)


@pytest.mark.usefixtures("ogbench")
def test_a_version_with_other_observations_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"^pointmaze-medium-stitch-v0: .* has 2 observations instead of 3; install"):
        make_player(dataclasses.replace(RECIPES[STITCH], observation_size=3))
