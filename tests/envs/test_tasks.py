"""Rewards, ends and observations of tasks on physics worked out by hand; `test_batched.py` compares with Gymnasium."""

import math
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import pointmaze, tasks
from jaxrl_srpo.envs.make import find_registered, make_environment
from jaxrl_srpo.envs.tasks import Ant, Planar, PointMaze, Recipe


class Sliding:
    """N bodies whose first coordinates move by half of the first control; a step takes half a second."""

    seconds_per_step = 0.5

    def __init__(self, qpos: Any, qvel: Any) -> None:
        self.qpos, self.qvel = np.array(qpos, float), np.array(qvel, float)
        self.places, self.forces = self.qpos[:, :2].copy(), np.zeros((len(self.qpos), 2, 6))

    def step(self, rows: np.ndarray, controls: np.ndarray) -> None:
        self.qpos[rows, 0] += 0.5 * controls[:, 0]
        self.places[rows] = self.qpos[rows, :2]


def planar(**more: Any) -> Planar:
    common: dict[str, Any] = {
        "forward_weight": 2.0,
        "control_weight": 0.1,
        "bonus": 5.0,
        "bonus_at_end": True,
        "terminates": True,
        "hides_place": True,
        "velocity_limit": 10.0,
        "height": (0.7, math.inf),
        "angle": (-0.2, 0.2),
        "state": (-100.0, 100.0),
    }
    return Planar(**(common | more))


def test_planar_robots_are_paid_for_speed_and_health_less_control() -> None:
    physics = Sliding([[0.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 1.0, 0.3]], np.zeros((3, 3)))
    outcome = planar().step(physics, np.array([0, 1, 2]), np.array([[1.0, 2.0]] * 3))
    # 0.5 m in 0.5 s, twice; 5 for health, also at the end; 0.1 (1 + 4) for control.
    np.testing.assert_allclose(outcome.rewards, 2.0 + 5.0 - 0.5)
    assert outcome.terminated.tolist() == [False, True, True]
    assert not outcome.successes.any()


def test_without_the_bonus_at_the_end_the_last_step_is_paid_less() -> None:
    physics = Sliding([[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]], np.zeros((2, 3)))
    outcome = planar(bonus_at_end=False).step(physics, np.array([0, 1]), np.zeros((2, 1)))
    np.testing.assert_allclose(outcome.rewards, [5.0, 0.0])


def test_a_task_that_ends_nothing_still_wants_health() -> None:
    physics = Sliding([[0.0, 0.5, 0.0]], np.zeros((1, 3)))
    outcome = planar(terminates=False).step(physics, np.array([0]), np.zeros((1, 1)))
    assert (outcome.rewards.tolist(), outcome.terminated.tolist()) == ([0.0], [False])


def test_planar_observations_hide_the_place_and_bound_velocities() -> None:
    physics = Sliding([[7.0, 1.0, 0.1]], [[-20.0, 3.0, 30.0]])
    assert planar().observe(physics, np.array([0])).tolist() == [[1.0, 0.1, -10.0, 3.0, 10.0]]
    assert planar(hides_place=False).observe(physics, np.array([0]))[0, 0] == 7.0


def ant(**more: Any) -> Ant:
    common: dict[str, Any] = {
        "recipe": Recipe(1, forces=True),
        "forward_weight": 1.0,
        "control_weight": 0.5,
        "bonus": 1.0,
        "bonus_at_end": False,
        "terminates": True,
        "hides_place": True,
        "height": (0.2, 1.0),
        "contact_weight": 0.01,
        "force_range": (-1.0, 1.0),
        "observed_bodies": slice(1, 2),
    }
    return Ant(**(common | more))


def test_an_ant_pays_for_contact_within_the_range_of_forces() -> None:
    physics = Sliding([[0.0, 0.0, 0.5]], np.zeros((1, 3)))
    physics.forces[:] = 3.0
    outcome = ant().step(physics, np.array([0]), np.zeros((1, 2)))
    # Twelve forces of 3, held at 1.
    np.testing.assert_allclose(outcome.rewards, 1.0 - 0.01 * 12)
    assert ant().observe(physics, np.array([0])).tolist() == [[0.5, 0.0, 0.0, 0.0] + [1.0] * 6]


@pytest.mark.parametrize(("height", "ends"), [(0.2, False), (1.0, False), (0.19, True), (1.01, True), (math.nan, True)])
def test_an_ant_is_healthy_between_heights(height: float, ends: bool) -> None:
    physics = Sliding([[0.0, 0.0, height]], np.zeros((1, 3)))
    assert ant().step(physics, np.array([0]), np.zeros((1, 2))).terminated.tolist() == [ends]


def found(spec: EnvironmentSpec) -> Any:
    """The task of two environments of a spec."""
    environment = make_environment(spec, lean=True)
    registered = find_registered(spec.id)
    arguments = registered.kwargs | spec.kwargs
    task = tasks.find(str(registered.entry_point), arguments, environment.unwrapped, 2)
    environment.close()
    return task


def test_classes_and_arguments_that_are_covered_are_found() -> None:
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    hopper = found(EnvironmentSpec("Hopper-v4", {"healthy_reward": 3.0}))
    assert isinstance(hopper, Planar)
    assert (hopper.bonus, hopper.bonus_at_end, hopper.velocity_limit) == (3.0, True, 10.0)
    assert not found(EnvironmentSpec("Hopper-v5")).bonus_at_end
    assert found(EnvironmentSpec("HalfCheetah-v4")).velocity_limit == math.inf
    assert isinstance(found(EnvironmentSpec("Ant-v5")), Ant)
    assert isinstance(found(pointmaze.environment_spec()), PointMaze)
    for other in ("Pendulum-v1", "InvertedPendulum-v4"):
        assert found(EnvironmentSpec(other)) is None


def test_a_point_reaches_its_goal_and_is_told_so() -> None:
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    environment = make_environment(pointmaze.environment_spec(), lean=True)
    environment.reset(seed=0)
    task = PointMaze(environment.unwrapped, 2)
    rows, goal = np.array([0, 1]), environment.unwrapped.goal  # type: ignore[attr-defined]
    assert not task.start(rows, environment.unwrapped)
    right = np.array([1.0, 0.0])
    physics = Sliding([goal + 0.2 * right, goal + 1.2 * right], [[9.0, 0.0], [0.0, 0.0]])
    outcome = task.step(physics, rows, np.array([[0.2, 0.0], [-0.2, 0.0]]))
    assert outcome.rewards.tolist() == [1.0, 0.0]
    assert outcome.terminated.tolist() == outcome.successes.tolist() == [True, False]
    # Speeds are held at 5 m/s before the step.
    np.testing.assert_allclose(task.observe(physics, rows)[0], [*(goal + 0.3 * right), 5.0, 0.0, *goal])
    environment.close()
