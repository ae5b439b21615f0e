"""Dictionary observations become the same vector everywhere."""

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data.observations import flatten_observation


def test_array_passes_through() -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(flatten_observation(array), array)
    assert flatten_observation(array).dtype == np.float32


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3)])
def test_position_that_is_part_of_the_observation_is_not_repeated(batch: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    state, goal = random.normal(size=(*batch, 4)), random.normal(size=(*batch, 2))
    vector = flatten_observation({"observation": state, "achieved_goal": state[..., :2], "desired_goal": goal})
    np.testing.assert_array_equal(vector, np.concatenate([state, goal], axis=-1).astype(np.float32))


@pytest.mark.parametrize("batch", [(), (1,), (5,)])
def test_position_that_is_missing_from_the_observation_comes_first(batch: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    state, position, goal = (random.normal(size=(*batch, n)) for n in (27, 2, 2))
    vector = flatten_observation({"observation": state, "achieved_goal": position, "desired_goal": goal})
    np.testing.assert_array_equal(vector, np.concatenate([position, state, goal], axis=-1).astype(np.float32))


def test_goals_that_are_dictionaries_are_left_out() -> None:
    goals = {"kettle": np.zeros(7)}
    vector = flatten_observation({"observation": np.ones(59), "achieved_goal": goals, "desired_goal": goals})
    assert vector.shape == (59,)


def test_real_point_maze_and_ant_maze() -> None:
    robotics = pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    gymnasium.register_envs(robotics)
    for name, width in (("PointMaze_UMaze-v3", 6), ("AntMaze_UMaze-v5", 109)):
        env = gymnasium.make(name)
        observation, _ = env.reset(seed=0)
        assert flatten_observation(observation).shape == (width,)
        observation, *_ = env.step(env.action_space.sample())
        assert flatten_observation(observation).shape == (width,)
        env.close()
