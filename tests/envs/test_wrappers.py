"""Environments in the wrappers under which data were recorded."""

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec, WrapperSpec
from jaxrl_srpo.envs.batched import make_simulator
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.envs.wrappers import wrap
from jaxrl_srpo.errors import UserError

RESCALED = WrapperSpec("RescaleAction", {"min_action": -1.0, "max_action": [1.0]})


def test_a_wrapped_environment_is_what_gymnasium_makes() -> None:
    wrappers = (
        RESCALED,
        WrapperSpec("RecordVideo", {"video_folder": "videos"}),
        WrapperSpec("TimeAwareObservation", {}),
    )
    own = make_environment(EnvironmentSpec("Pendulum-v1", wrappers=wrappers))
    other = gymnasium.wrappers.TimeAwareObservation(
        gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1"), np.float32(-1.0), np.float32(1.0))
    )
    assert own.action_space == other.action_space
    np.testing.assert_array_equal(own.reset(seed=3)[0], np.float32(other.reset(seed=3)[0]))
    for _ in range(3):
        ours, theirs = own.step(np.ones(1, np.float32)), other.step(np.ones(1, np.float32))
        np.testing.assert_array_equal(ours[0], np.float32(theirs[0]))
        assert ours[1] == theirs[1]


def test_a_task_in_wrappers_is_stepped_by_gymnasium() -> None:
    pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
    plain = make_simulator(EnvironmentSpec("Hopper-v4"), 1)
    scaled = make_simulator(EnvironmentSpec("Hopper-v4", wrappers=(WrapperSpec("ClipReward", {"max_reward": 0.5}),)), 1)
    rows, action = np.zeros(1, np.int64), np.zeros((1, 3), np.float32)
    for simulator in (plain, scaled):
        simulator.reset([0])
    assert plain.step(rows, action).rewards[0] > 0.5
    assert scaled.step(rows, action).rewards[0] == 0.5
    for simulator in (plain, scaled):
        simulator.close()


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (WrapperSpec("NormalizeObservation", {}), "the wrapper NormalizeObservation, which cannot be rebuilt"),
        (WrapperSpec("RescaleAction", None), "the wrapper RescaleAction, which cannot be rebuilt"),
        (WrapperSpec("os:system", {"command": "touch pwned"}), "the wrapper os:system, which cannot be rebuilt"),
        (WrapperSpec("RescaleAction", {"legs": 2}), "the wrapper RescaleAction cannot be made with"),
        (WrapperSpec("FilterObservation", {"filter_keys": ["x"]}), "the wrapper FilterObservation cannot be made with"),
    ],
)
def test_a_wrapper_that_cannot_be_rebuilt_is_named(wrapper: WrapperSpec, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        wrap(gymnasium.make("Pendulum-v1"), (wrapper,))
    assert "\n" not in str(raised.value)
