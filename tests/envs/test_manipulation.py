"""The Fetch manipulation task: what is seen, what is paid, and when it ends."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import manipulation
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.errors import UserError

STILL = np.zeros(4, np.float32)


def make(**kwargs: Any) -> Any:
    return make_environment(EnvironmentSpec("jaxrl_srpo/Manipulation-v0", kwargs))


def put(environment: Any, x: float, y: float, z: float = 0.425) -> None:
    """Puts the block somewhere."""
    robot = environment.unwrapped._robot
    robot.data.joint("object0:joint").qpos[:3] = (x, y, z)
    robot._mujoco.mj_forward(robot.model, robot.data)


def test_an_episode_begins_with_the_block_in_the_middle_below_the_gripper() -> None:
    environment = make()
    observation, _ = environment.reset(seed=0)
    assert (observation.shape, observation.dtype) == ((25,), np.float32)
    np.testing.assert_allclose(observation[manipulation.BLOCK], (1.3, 0.75, 0.425), atol=1e-3)
    assert np.linalg.norm(observation[manipulation.GRIPPER][:2] - manipulation.MIDDLE) < 0.05
    np.testing.assert_array_equal(environment.reset(seed=1)[0], observation)
    environment.close()


def test_it_takes_fifty_steps_and_a_time_limit_is_no_end() -> None:
    environment = make()
    environment.reset(seed=0)
    ends = [environment.step(STILL)[2:4] for _ in range(50)]
    assert ends == [*[(False, False)] * 49, (False, True)]
    environment.close()


@pytest.mark.parametrize(
    ("kwargs", "place", "reward", "terminated"),
    [
        # Far from the gripper nothing is paid for a place that is not the goal.
        ({}, (1.1, 0.6), 0.0, False),
        ({}, (1.34, 0.75, 0.46), 0.1, False),
        ({"goal_prior": "half"}, (1.1, 1.0), 1.0, False),
        ({"goal_prior": "half"}, (1.1, 0.5), 0.0, False),
        ({"goal": (1.1, 0.5, 0.42)}, (1.15, 0.5), 1.0, False),
        ({"goal": (1.1, 0.5, 0.42)}, (1.25, 0.5), 0.0, False),
        ({}, (1.0, 1.3, 0.3), -20.0, True),
    ],
)
def test_rewards_and_ends(kwargs: dict[str, Any], place: tuple[float, ...], reward: float, terminated: bool) -> None:
    environment = make(**kwargs)
    environment.reset(seed=0)
    put(environment, *place)
    _, paid, ended, _, info = environment.step(STILL)
    assert (paid, ended) == (pytest.approx(reward), terminated)
    assert info["success"] is (reward == 1.0)
    # An action costs a tenth of its square.
    if not terminated:
        put(environment, *place)
        assert environment.step(np.asarray([0.0, 0.0, 0.0, -1.0], np.float32))[1] == pytest.approx(reward - 0.1)
    environment.close()


def test_an_action_moves_the_gripper_by_centimetres() -> None:
    environment = make()
    before = environment.reset(seed=0)[0][manipulation.GRIPPER]
    for _ in range(4):
        after = environment.step(np.asarray([0.0, 1.0, 0.0, 0.0], np.float32))[0][manipulation.GRIPPER]
    assert 0.08 < after[1] - before[1] < 0.22
    environment.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"goal_prior": "left"}, "goal_prior='left': choose uniform or half"), ({"goal": (1.0, 2.0)}, "give x, y and z")],
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**kwargs)
