"""Threads that share rows, and Gymnasium environments behind the simulators' interface."""

import threading

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.envs.simulator import (
    GymnasiumSimulator,
    Threads,
    action_bounds,
    default_workers,
    rows_by_spec,
    time_limit,
)
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import usable_cores
from tests import own_tasks

PENDULUM = EnvironmentSpec("Pendulum-v1", max_episode_steps=3)


@given(count=st.integers(1, 6), rows=st.integers(1, 100))
def test_threads_do_every_row_once(count: int, rows: int) -> None:
    threads, seen, lock = Threads(count), [], threading.Lock()

    def work(thread: int, own: np.ndarray) -> None:
        assert 0 <= thread < count
        with lock:
            seen.extend(own.tolist())

    threads.share(work, rows)
    threads.close()
    assert sorted(seen) == list(range(rows))


def test_an_exception_in_a_thread_comes_out() -> None:
    threads = Threads(2)

    def work(thread: int, own: np.ndarray) -> None:
        if 5 in own:
            raise ValueError("row five")

    with pytest.raises(ValueError, match="row five"):
        threads.share(work, 8)
    threads.close()


def test_gymnasium_environments_are_stepped_where_asked() -> None:
    simulator = GymnasiumSimulator([make_environment(PENDULUM) for _ in range(3)], 1, workers=2)
    plain = [gymnasium.make("Pendulum-v1") for _ in range(3)]
    start = simulator.reset([4, 5, 6])
    expected = [one.reset(seed=seed)[0] for one, seed in zip(plain, (4, 5, 6), strict=True)]
    np.testing.assert_array_equal(start.observations, expected)
    assert not start.successes.any()
    rows, actions = np.array([2, 0]), np.array([[1.5], [-0.5]], np.float32)
    for number in range(3):
        step = simulator.step(rows, actions)
        for i, row in enumerate(rows):
            observation, reward, *_ = plain[row].step(actions[i])
            np.testing.assert_array_equal(step.observations[i], observation)
            assert step.rewards[i] == reward
        assert step.truncated.tolist() == [number == 2] * 2
    again = simulator.reset([4], np.array([0]))
    np.testing.assert_array_equal(again.observations, expected[:1])
    simulator.close()


def test_sizes_bounds_and_time_limit() -> None:
    environment = make_environment(PENDULUM)
    simulator = GymnasiumSimulator([environment], 1, workers=1)
    assert (simulator.observation_size, simulator.action_size, simulator.max_episode_steps) == (3, 1, 3)
    assert [bound.tolist() for bound in action_bounds(environment)] == [[-2.0], [2.0]]
    assert time_limit(environment) == 3


def test_rows_go_by_environment_in_the_order_of_members() -> None:
    other = EnvironmentSpec("Pendulum-v1", {"g": 5.0})
    groups = rows_by_spec([PENDULUM, other, PENDULUM], 2)
    assert [(spec, rows.tolist()) for spec, rows in groups] == [(PENDULUM, [0, 1, 4, 5]), (other, [2, 3])]


def test_threads_are_used_where_mujoco_takes_several_steps_per_action() -> None:
    assert default_workers(make_environment(PENDULUM)) == 1
    pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
    assert default_workers(make_environment(EnvironmentSpec("Hopper-v4"))) == min(usable_cores(), 16)


def test_a_reward_may_be_an_array_of_one_number() -> None:
    own_tasks.register()
    plain, array = (
        GymnasiumSimulator([make_environment(EnvironmentSpec(name))], 1) for name in ("LineVector-v0", "LineArray-v0")
    )
    for simulator in (plain, array):
        simulator.reset([0])
    rows, action = np.zeros(1, np.int64), np.ones((1, 1), np.float32)
    np.testing.assert_array_equal(plain.step(rows, action).rewards, array.step(rows, action).rewards)


def test_a_reward_of_several_numbers_is_one_line() -> None:
    several = gymnasium.wrappers.TransformReward(make_environment(PENDULUM), lambda reward: np.array([reward, 1.0]))
    simulator = GymnasiumSimulator([several], 1)
    simulator.reset([0])
    with pytest.raises(UserError, match=r"an environment gave the reward .*; expected one number"):
        simulator.step(np.zeros(1, np.int64), np.ones((1, 1), np.float32))
