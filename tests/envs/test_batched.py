"""Batched simulation against plain Gymnasium loops: the same observations, rewards and ends for the same actions."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data.d4rl import environment as d4rl_environment
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.observations import flatten_observation
from jaxrl_srpo.envs import batched, pointmaze, tasks
from jaxrl_srpo.envs.batched import MujocoSimulator, make_simulator
from jaxrl_srpo.envs.make import make_environment, make_unflattened
from jaxrl_srpo.envs.rollouts import Rollouts
from jaxrl_srpo.envs.simulator import GymnasiumSimulator, VectorSimulator

pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")

Episode = list[tuple[np.ndarray, float, bool, bool, bool]]
"""Per step the observation float32, the reward, and whether it terminated, was truncated and reported success."""

SEEDS = (3, 8, 3)
D4RL_ANT = d4rl_environment("ant-medium-v2")
assert D4RL_ANT is not None
UMAZE = pointmaze.environment_spec()
LOCOMOTION = [
    EnvironmentSpec(f"{name}-{version}")
    for name in ("Hopper", "HalfCheetah", "Walker2d", "Ant")
    for version in ("v4", "v5")
]
ARGUMENTS = [
    dataclasses.replace(D4RL_ANT, max_episode_steps=300),
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
    keys = tasks.OBSERVATION_KEYS[isinstance(observation, dict)]
    episode = [(flatten_observation(observation, keys), 0.0, False, False, bool(info.get("success", False)))]
    for action in actions:
        observation, reward, terminated, truncated, info = environment.step(action)
        success = bool(info.get("success", False))
        flat = flatten_observation(observation, keys)
        episode.append((flat, float(reward), bool(terminated), bool(truncated), success))
        if terminated or truncated:
            break
    environment.close()
    return episode


def play(simulator: VectorSimulator, seeds: Sequence[int], actions: np.ndarray) -> list[Episode]:
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
    episodes = play(simulator, SEEDS, actions)
    simulator.close()
    assert all(episode[-1][2] or episode[-1][3] for episode in episodes)
    for episode, seed, own in zip(episodes, SEEDS, actions, strict=True):
        assert_same(episode, plain(spec, seed, own))


@pytest.mark.parametrize("spec", [EnvironmentSpec("Ant-v5"), UMAZE], ids=identify)
def test_results_do_not_depend_on_the_number_of_threads(spec: EnvironmentSpec) -> None:
    seeds, actions = range(7), actions_of(spec, 7, 40)
    first, *others = (play(make_simulator(spec, 7, workers), seeds, actions) for workers in (1, 3, 8))
    for other in others:
        for own, same in zip(first, other, strict=True):
            assert_same(own, same)


def test_environments_that_are_left_out_stand_still_and_a_reset_starts_all_again() -> None:
    spec = EnvironmentSpec("HalfCheetah-v4", max_episode_steps=5)
    simulator, actions = make_simulator(spec, 3, workers=2), actions_of(spec, 3, 5)
    start = simulator.reset(SEEDS)
    for step in range(3):
        simulator.step(np.array([2]), actions[2:, step])
    late = [simulator.step(np.array([1, 0]), actions[[1, 0], step]) for step in range(5)]
    np.testing.assert_array_equal([step.truncated for step in late], [[False] * 2] * 4 + [[True] * 2])
    again = simulator.reset(SEEDS)
    np.testing.assert_array_equal(start.observations, again.observations)
    np.testing.assert_array_equal(start.observations[0], start.observations[2])
    for number, i in enumerate((1, 0)):
        theirs = plain(spec, SEEDS[i], actions[i])
        np.testing.assert_array_equal(
            [step.observations[number] for step in late], [observation for observation, *_ in theirs[1:]]
        )


def test_an_unstable_simulation_is_put_back_as_in_gymnasium(tmp_path: pathlib.Path) -> None:
    # MuJoCo starts an environment again when its accelerations explode, and logs that in the working directory.
    spec = EnvironmentSpec("HalfCheetah-v4", {"reset_noise_scale": 1e6}, max_episode_steps=12)
    actions = actions_of(spec, 2, 12)
    with contextlib.chdir(tmp_path):
        episodes = play(make_simulator(spec, 2, workers=1), SEEDS[:2], actions)
        for episode, seed, own in zip(episodes, SEEDS, actions, strict=False):
            assert_same(episode, plain(spec, seed, own))
    assert "unstable" in (tmp_path / "MUJOCO_LOG.TXT").read_text()


def test_one_environment_is_made_however_many_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count(*arguments: Any, **keywords: Any) -> Any:
        made.append(arguments)
        return make_environment(*arguments, **keywords)

    monkeypatch.setattr(batched, "make_environment", count)
    with Rollouts([EnvironmentSpec("Hopper-v4", max_episode_steps=3)] * 90, 20, 0) as rollouts:
        assert len(made) == 1
        result = rollouts.run(lambda observations: np.zeros((*observations.shape[:2], 3), np.float32))
    np.testing.assert_array_equal(result.returns, np.broadcast_to(result.returns[:1], (90, 20)))


@pytest.mark.parametrize(
    "spec",
    [
        EnvironmentSpec("Pendulum-v1"),
        EnvironmentSpec("InvertedPendulum-v4"),
        EnvironmentSpec("Hopper-v4", {"max_geom": 500}),
        EnvironmentSpec("PointMaze_Medium_Diverse_GR-v3", {"reset_target": True}),
    ],
    ids=identify,
)
def test_what_is_not_covered_is_stepped_by_gymnasium(spec: EnvironmentSpec) -> None:
    actions = actions_of(spec, 2, 30)
    simulator = make_simulator(dataclasses.replace(spec, max_episode_steps=30), 2, workers=2)
    assert isinstance(simulator, GymnasiumSimulator)
    episodes = play(simulator, SEEDS[:2], actions)
    simulator.close()
    for episode, seed, own in zip(episodes, SEEDS, actions, strict=False):
        assert_same(episode, plain(dataclasses.replace(spec, max_episode_steps=30), seed, own))
