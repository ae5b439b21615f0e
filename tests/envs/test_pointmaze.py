"""The embedded dataset: what is in it, that it is reproducible, and that it appears whole or not at all."""

import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.envs.pointmaze import MAZES, Maze, Style, WaypointController
from jaxrl_srpo.errors import DatasetError

pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")

MAKE = "from jaxrl_srpo.envs import pointmaze; print(pointmaze.make_dataset('pointmaze/umaze', 0, {transitions}))"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def episodes_of(dataset_id: str) -> list[Any]:
    import minari

    return list(minari.load_dataset(dataset_id).iterate_episodes())


def drive_to_goal(maze: str, seed: int, style: Style) -> tuple[bool, int]:
    task = MAZES[maze]
    environment = make_environment(task.environment, lean=True)
    observation, _ = environment.reset(seed=seed)
    controller = WaypointController(Maze(task.maze_map), np.random.default_rng(0))
    controller.drive((observation[0], observation[1]), task.goal, style)
    for step in range(1, task.max_episode_steps + 1):
        action = np.array(controller.act(*observation[:4].tolist()), np.float32)
        observation, _, terminated, _, _ = environment.step(action)
        if terminated:
            return True, step
    return False, step


@pytest.mark.parametrize("maze", list(MAZES))
def test_driving_to_the_goal_takes_less_than_half_the_time_limit(maze: str) -> None:
    for seed in range(5):
        reached, steps = drive_to_goal(maze, seed, Style(speed=5.0, gain=0.6))
        assert reached
        assert steps < MAZES[maze].max_episode_steps / 2


def test_the_default_dataset_covers_the_maze_and_succeeds_in_less_than_half_of_the_episodes(storage: Path) -> None:
    dataset_id = pointmaze.ensure_dataset()
    assert dataset_id == "pointmaze/umaze-v0"
    episodes = episodes_of(dataset_id)
    assert 80_000 <= sum(len(episode) for episode in episodes) < 80_400
    successes = [bool(episode.terminations[-1]) for episode in episodes]
    assert 0.35 < np.mean(successes) < 0.55
    assert all(episode.rewards.sum() == float(success) for episode, success in zip(episodes, successes, strict=True))
    steps = np.concatenate([episode.observations["observation"][:-1] for episode in episodes])
    forces = np.concatenate([episode.actions for episode in episodes])
    assert np.abs(forces).max() <= 1.0
    # Both ways along, and forces both ways, in every corridor.
    for low, high, axis in [((-1, -1.5), (1, -0.5), 0), ((0.5, -0.5), (1.5, 0.5), 1), ((-0.5, 0.5), (1, 1.5), 0)]:
        here = np.all((steps[:, :2] >= low) & (steps[:, :2] < high), axis=1)
        assert here.sum() > 5_000
        for values in (steps[here, 2 + axis], forces[here, axis]):
            assert 0.2 < np.mean(values > 0) < 0.8


def test_the_environment_is_recovered_from_the_dataset(storage: Path) -> None:
    import minari

    dataset = minari.load_dataset(pointmaze.make_dataset("pointmaze/umaze", transitions=500))
    environment = dataset.recover_environment()
    spec = pointmaze.environment_spec("pointmaze/umaze")
    assert environment.spec is not None
    assert environment.spec.id == spec.id
    assert environment.spec.kwargs == spec.kwargs
    assert environment.spec.max_episode_steps == spec.max_episode_steps
    assert dataset.observation_space == environment.observation_space
    episode = dataset[0]
    observation, _ = environment.reset(seed=int(next(iter(dataset.storage.get_episode_metadata([0])))["seed"]))
    for step, action in enumerate(episode.actions):
        for key, value in observation.items():
            np.testing.assert_array_equal(episode.observations[key][step], value)
        observation, reward, terminated, truncated, _ = environment.step(action)
        assert (reward, terminated, truncated) == (
            episode.rewards[step],
            episode.terminations[step],
            episode.truncations[step],
        )


def test_equal_seeds_give_bitwise_equal_data_and_others_do_not(storage: Path) -> None:
    first = episodes_of(pointmaze.make_dataset("pointmaze/umaze-a", seed=3, transitions=1_000))
    again = episodes_of(pointmaze.make_dataset("pointmaze/umaze-b", seed=3, transitions=1_000))
    other = episodes_of(pointmaze.make_dataset("pointmaze/umaze-c", seed=4, transitions=1_000))
    assert len(first) == len(again)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)
        np.testing.assert_array_equal(one.observations["observation"], two.observations["observation"])
        np.testing.assert_array_equal(one.observations["desired_goal"], two.observations["desired_goal"])
    assert not np.array_equal(first[0].observations["observation"][0], other[0].observations["observation"][0])


def test_a_process_killed_while_writing_leaves_nothing_that_looks_whole(storage: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", MAKE.format(transitions=10**7)], stdout=subprocess.PIPE)
    partial = storage / ".pointmaze-umaze-v0.partial" / "data" / "main_data.hdf5"
    try:
        # The first bytes on disk show that it is in the middle of the work.
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > 0):
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (storage / "pointmaze" / "umaze-v0").exists()
    dataset_id = pointmaze.make_dataset("pointmaze/umaze", transitions=500)
    assert sum(len(episode) for episode in episodes_of(dataset_id)) >= 500
    assert not partial.exists()


def test_of_two_processes_one_makes_the_dataset_and_the_other_waits(storage: Path) -> None:
    code = (
        "import dataclasses; from jaxrl_srpo.envs import pointmaze as p; "
        "p.MAZES['umaze'] = dataclasses.replace(p.MAZES['umaze'], transitions=3000); print(p.ensure_dataset())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
        assert output.strip() == "pointmaze/umaze-v0"
    assert sum(len(episode) for episode in episodes_of("pointmaze/umaze-v0")) >= 3_000


def test_errors_are_one_line_that_says_what_would_be_right(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="no maze dataset is called 'pointmaze/cube'; there are pointmaze/umaze"):
        pointmaze.ensure_dataset("pointmaze/cube")
    with pytest.raises(DatasetError, match="transitions is 0, but must be at least 1"):
        pointmaze.make_dataset("pointmaze/umaze", transitions=0)
    pointmaze.make_dataset("pointmaze/umaze-twice", transitions=1)
    with pytest.raises(DatasetError, match="already exists at"):
        pointmaze.make_dataset("pointmaze/umaze-twice-v0", transitions=1)
    (storage / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(storage / "file"))
    with pytest.raises(DatasetError, match=r"cannot write pointmaze/umaze-v0 at .* set MINARI_DATASETS_PATH"):
        pointmaze.ensure_dataset()


@pytest.mark.parametrize("name", list(MAZES))
def test_paths_are_shortest(name: str) -> None:
    maze, random = Maze(MAZES[name].maze_map), np.random.default_rng(0)
    for start in maze.free:
        distances, queue = {start: 0}, deque([start])
        while queue:
            i, j = queue.popleft()
            for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if cell in maze.free and cell not in distances:
                    distances[cell] = distances[i, j] + 1
                    queue.append(cell)
        for target in maze.free:
            path = maze.path(start, target, random)
            assert len(path) == distances[target]
            assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in zip([start, *path], path, strict=False))
        assert maze.wander(start, random) != start
        assert maze.cell(*maze.center(start)) == start
