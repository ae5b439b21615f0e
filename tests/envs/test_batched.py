"""Batched simulation against plain Gymnasium loops: the same observations, rewards and ends for the same actions."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data.d4rl import environment as d4rl_environment
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.observations import flatten_observation
from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.envs.batched import MujocoSimulator, make_simulator
from jaxrl_srpo.envs.make import make_environment, make_unflattened
from jaxrl_srpo.envs.simulator import GymnasiumSimulator, VectorSimulator

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium_robotics")

Episode = list[tuple[np.ndarray, float, bool, bool, bool]]
"""Per step the observation float32, the reward, and whether it terminated, was truncated and reported success."""

SEEDS = (3, 8, 3, 2**31 - 1)
D4RL_ANT = d4rl_environment("ant-medium-v2")
assert D4RL_ANT is not None
UMAZE = pointmaze.environment_spec()
LOCOMOTION = [
    EnvironmentSpec(f"{name}-{version}")
    for name in ("Hopper", "HalfCheetah", "Walker2d", "Ant")
    for version in ("v4", "v5")
]
ARGUMENTS = [
    D4RL_ANT,
    EnvironmentSpec("Ant-v4", {"use_contact_forces": True, "contact_cost_weight": 0.1}, 80),
    EnvironmentSpec("Ant-v5", {"main_body": 2, "include_cfrc_ext_in_observation": False, "frame_skip": 2}, 80),
    EnvironmentSpec("Ant-v5", {"exclude_current_positions_from_observation": False, "healthy_z_range": [0.4, 0.8]}),
    EnvironmentSpec("Hopper-v4", {"terminate_when_unhealthy": False, "healthy_reward": 3.0}, 90),
    EnvironmentSpec("Walker2d-v5", {"terminate_when_unhealthy": False, "forward_reward_weight": 2.0}, 90),
    EnvironmentSpec("HalfCheetah-v5", {"reset_noise_scale": 0.5, "ctrl_cost_weight": 0.3}, 50),
    UMAZE,
    EnvironmentSpec("PointMaze_Medium_Diverse_GR-v3", {"continuing_task": False}, 200),
    EnvironmentSpec("PointMaze_UMazeDense-v3", max_episode_steps=150),
]


def actions_of(spec: EnvironmentSpec, count: int, steps: int) -> np.ndarray:
    """[count, steps, action_size] float32 that drift, some of them out of bounds."""
    size = make_environment(spec, lean=True).action_space.shape
    assert size is not None
    random = np.random.default_rng(0)
    drift = random.normal(size=(count, 1, *size)) * np.linspace(0.0, 1.0, count)[:, None, None]
    return (drift + 0.6 * random.normal(size=(count, steps, *size))).astype(np.float32)


def plain(spec: EnvironmentSpec, seed: int, actions: np.ndarray) -> Episode:
    environment = make_unflattened(spec)
    observation, info = environment.reset(seed=seed)
    episode = [(flatten_observation(observation), 0.0, False, False, bool(info.get("success", False)))]
    for action in actions:
        observation, reward, terminated, truncated, info = environment.step(action)
        success = bool(info.get("success", False))
        episode.append((flatten_observation(observation), float(reward), bool(terminated), bool(truncated), success))
        if terminated or truncated:
            break
    environment.close()
    return episode


def batched(simulator: VectorSimulator, seeds: Sequence[int], actions: np.ndarray) -> list[Episode]:
    start = simulator.reset(seeds)
    episodes: list[Episode] = [
        [(observation, 0.0, False, False, bool(success))] for observation, success in zip(*start, strict=True)
    ]
    for step in range(actions.shape[1]):
        active = np.array([i for i, own in enumerate(episodes) if not (own[-1][2] or own[-1][3])], np.int64)
        if not len(active):
            break
        for i, *values in zip(active, *simulator.step(active, actions[active, step]), strict=True):
            observation, reward, terminated, truncated, success = values
            episodes[i].append((observation, float(reward), bool(terminated), bool(truncated), bool(success)))
    return episodes


def assert_same(ours: Episode, theirs: Episode) -> None:
    assert len(ours) == len(theirs)
    for own, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        np.testing.assert_array_equal(np.array(own), np.array(other))
    assert sum(step[1] for step in ours) == sum(step[1] for step in theirs)


def identify(spec: Any) -> str | None:
    return "-".join([spec.id, *spec.kwargs]) if isinstance(spec, EnvironmentSpec) else None


@pytest.mark.parametrize("spec", LOCOMOTION + ARGUMENTS, ids=identify)
def test_whole_episodes_are_those_of_gymnasium_to_the_last_bit(spec: EnvironmentSpec) -> None:
    actions = actions_of(spec, len(SEEDS), 1000)
    simulator = make_simulator(spec, len(SEEDS), workers=2)
    assert isinstance(simulator, MujocoSimulator)
    episodes = batched(simulator, SEEDS, actions)
    simulator.close()
    assert all(episode[-1][2] or episode[-1][3] for episode in episodes)
    for episode, seed, own in zip(episodes, SEEDS, actions, strict=True):
        assert_same(episode, plain(spec, seed, own))
