"""The star as a Gymnasium task: the same moves as in JAX, and one goal."""

import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import STAR, make_environment
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.mazes import draw_maze_trajectories

MOVE = jax.jit(Star().move)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_numpy_and_jax_move_the_point_alike(seed: int) -> None:
    random, star = np.random.default_rng(seed), Star()
    position = np.zeros(2, np.float32)
    drift = random.uniform(-1.0, 1.0, 2)
    for _ in range(30):
        action = (drift + random.uniform(-1.0, 1.0, 2)).astype(np.float32)
        moved = star.move(position, action, np)
        np.testing.assert_allclose(moved, MOVE(position, action), atol=2e-6)
        position = moved.astype(np.float32)


def test_walking_down_a_hall_ends_at_its_goal() -> None:
    environment = make_environment(EnvironmentSpec(STAR, {"goal": [1, 7.2]}))
    observation, _ = environment.reset(seed=0)
    np.testing.assert_array_equal(observation, [0.0, 0.0])
    direction = Star().place(1, 1.0)
    outcomes = [environment.step(direction) for _ in range(14)]
    assert [(reward, terminated) for _, reward, terminated, _, _ in outcomes] == [(0.0, False)] * 13 + [(1.0, True)]
    assert [info["success"] for *_, info in outcomes] == [False] * 13 + [True]
    np.testing.assert_allclose(outcomes[-1][0], 7.0 * direction, atol=1e-5)


def test_without_a_goal_only_time_ends_an_episode() -> None:
    environment = make_environment(EnvironmentSpec(STAR, {"length": 3.0}, 5))
    environment.reset(seed=0)
    outcomes = [environment.step(np.ones(2, np.float32))[1:4] for _ in range(5)]
    assert outcomes == [(0.0, False, False)] * 4 + [(0.0, False, True)]
    with pytest.raises(UserError, match="needs at least one hall"):
        make_environment(EnvironmentSpec(STAR, {"halls": 0}))


def test_it_is_a_goal_task_of_the_mazes_and_its_picture_can_be_drawn(tmp_path: pathlib.Path) -> None:
    spec = d4rl.environment_spec(STAR, {"goal": [0, 12]}, 100)
    assert (spec.goal_task, d4rl.environment_family(STAR)) == (True, "pointmaze")
    path = tmp_path / "star.png"
    draw_maze_trajectories(spec, {"SRPO": [np.linspace((0.0, 0.0), (12.0, 0.0), 25)]}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
