"""Dictionary observations become the same vector everywhere, decided by all that was seen."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from jaxrl_srpo.data.observations import flatten_observation, goal_keys_of_width, observation_keys
from jaxrl_srpo.errors import UserError


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def goal_space(observation: int, goal: int) -> spaces.Dict:
    return spaces.Dict({"observation": box(observation), "achieved_goal": box(goal), "desired_goal": box(goal)})


def goal_observation(state: np.ndarray, position: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
    return {"observation": state, "achieved_goal": position, "desired_goal": goal}


def test_array_passes_through() -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(flatten_observation(array), array)
    assert flatten_observation(array).dtype == np.float32


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3)])
def test_position_that_is_part_of_the_observation_is_not_repeated(batch: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    state, goal = random.normal(size=(*batch, 4)), random.normal(size=(*batch, 2))
    observation = goal_observation(state, state[..., :2], goal)
    keys = observation_keys(goal_space(4, 2), [observation])
    assert keys == ("observation", "desired_goal")
    expected = np.concatenate([state, goal], axis=-1).astype(np.float32)
    np.testing.assert_array_equal(flatten_observation(observation, keys), expected)


@pytest.mark.parametrize("batch", [(), (1,), (5,)])
def test_position_that_is_missing_from_the_observation_comes_first(batch: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    state, position, goal = (random.normal(size=(*batch, n)) for n in (27, 2, 2))
    observation = goal_observation(state, position, goal)
    keys = observation_keys(goal_space(27, 2), [observation])
    assert keys == ("achieved_goal", "observation", "desired_goal")
    expected = np.concatenate([position, state, goal], axis=-1).astype(np.float32)
    np.testing.assert_array_equal(flatten_observation(observation, keys), expected)


def test_position_that_is_repeated_in_some_observations_only_is_kept_in_all() -> None:
    state, goal = np.arange(6.0).reshape(2, 3), np.ones((2, 2))
    same, other = goal_observation(state, state[:, :2], goal), goal_observation(state, state[:, 1:], goal)
    keys = observation_keys(goal_space(3, 2), [same, other, same])
    assert keys == ("achieved_goal", "observation", "desired_goal")
    assert {flatten_observation(one, keys).shape for one in (same, other)} == {(2, 7)}


def test_goals_that_are_dictionaries_are_left_out() -> None:
    goals = spaces.Dict({"kettle": box(7)})
    space = spaces.Dict({"observation": box(59), "achieved_goal": goals, "desired_goal": goals})
    assert observation_keys(space, [space.sample()]) == ("observation",)


def test_entries_of_any_name_come_in_the_order_of_the_space() -> None:
    inner = spaces.Dict([("velocity", box(2)), ("angle", box(1))])
    space = spaces.Dict([("position", box(3)), ("joint", inner), ("contacts", spaces.MultiBinary(4))])
    sample = space.sample()
    keys = observation_keys(space, [sample])
    assert keys == ("position", "joint/velocity", "joint/angle", "contacts")
    parts = [sample["position"], sample["joint"]["velocity"], sample["joint"]["angle"], sample["contacts"]]
    np.testing.assert_array_equal(flatten_observation(sample, keys), np.concatenate(parts).astype(np.float32))
    # The order of a dictionary does not matter.
    turned = dict(reversed(list(sample.items())))
    np.testing.assert_array_equal(flatten_observation(turned, keys), flatten_observation(sample, keys))


def test_observation_beside_other_entries_is_one_of_them() -> None:
    space = spaces.Dict([("context", box(2)), ("observation", box(3))])
    assert observation_keys(space, []) == ("context", "observation")


def test_a_state_that_is_a_dictionary_is_taken_apart() -> None:
    state = spaces.Dict([("arm", box(3)), ("hand", box(1))])
    space = spaces.Dict({"observation": state, "achieved_goal": box(2), "desired_goal": box(2)})
    assert set(observation_keys(space, [])) == {"observation/arm", "observation/hand", "achieved_goal", "desired_goal"}


@pytest.mark.parametrize(
    "part", [spaces.Discrete(3), box(2, 2), box(), spaces.MultiDiscrete([2, 3]), spaces.Text(4), spaces.Tuple([box(1)])]
)
def test_an_entry_that_is_no_vector_is_named(part: spaces.Space[Any]) -> None:
    with pytest.raises(UserError, match="'odd' cannot be made vectors; expected one axis"):
        observation_keys(spaces.Dict({"odd": part, "even": box(2)}), [])


def test_a_dictionary_without_an_entry_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="has no 'joint/angle', which the data have; it has"):
        flatten_observation({"joint": np.zeros(3)}, ("joint/angle",))
    with pytest.raises(UserError, match=r"a dictionary observation .position. where the data have vectors"):
        flatten_observation({"position": np.zeros(3)})


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        (4, ("observation",)),
        (6, ("observation", "desired_goal")),
        (8, ("achieved_goal", "observation", "desired_goal")),
        (5, ()),
    ],
)
def test_a_goal_task_by_the_width_of_the_vector(size: int, keys: tuple[str, ...]) -> None:
    assert goal_keys_of_width(goal_observation(np.zeros((3, 4)), np.ones((3, 2)), np.ones((3, 2))), size) == keys


def test_real_point_maze_and_ant_maze() -> None:
    robotics = pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    gymnasium.register_envs(robotics)
    for name, width in (("PointMaze_UMaze-v3", 6), ("AntMaze_UMaze-v5", 109)):
        env = gymnasium.make(name)
        observation, _ = env.reset(seed=0)
        keys = observation_keys(env.observation_space, [observation])
        assert flatten_observation(observation, keys).shape == (width,)
        observation, *_ = env.step(env.action_space.sample())
        assert flatten_observation(observation, keys).shape == (width,)
        env.close()
