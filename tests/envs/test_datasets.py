"""Datasets by any name: made, downloaded, or refused with the command that is right."""

import json
import pathlib

import gymnasium
import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import minari_files
from jaxrl_srpo.envs.datasets import download_dataset, load_dataset, make_dataset
from jaxrl_srpo.envs.rollouts import Rollouts
from jaxrl_srpo.errors import DatasetError
from tests import own_tasks, synthetic
from tests.data import ogbench_files
from tests.data.test_download import serving
from tests.data.test_minari_source import edit, make


@pytest.fixture
def stores(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Empty stores of Minari's and D4RL's files."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXRL_SRPO_MIRROR", raising=False)
    return tmp_path


def test_an_embedded_dataset_is_made_on_first_use(stores: pathlib.Path) -> None:
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    data = load_dataset("pointmaze/umaze")
    assert (data.name, data.family, data.observation_size, data.action_size) == ("pointmaze/umaze", "pointmaze", 6, 2)
    assert data.environment is not None
    assert data.environment.goal_task
    assert minari_files.local_ids() == [make_dataset("pointmaze/umaze")] == ["pointmaze/umaze-v0"]
    assert load_dataset("pointmaze/umaze").fingerprint == data.fingerprint


def test_an_environment_that_means_something_else_here_is_not_evaluated_in(
    stores: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    make("made/swing-v0", [5])
    own_spec = json.loads(gymnasium.spec("Pendulum-v1").to_json())
    spec = own_spec | {"entry_point": "os:system", "kwargs": {"command": "true", "render_mode": "human"}}
    edit(stores / "minari", "made/swing-v0", lambda metadata: metadata | {"env_spec": json.dumps(spec)})
    assert load_dataset("made/swing-v0").environment is None
    (line,) = (record.getMessage() for record in caplog.records)
    assert "its environment Pendulum-v1 is made by os:system, which is not what is installed here" in line
    named = load_dataset("made/swing-v0", env="Pendulum-v1").environment
    assert named is not None
    assert named.kwargs == {}
    sound = own_spec | {"kwargs": {"g": 9.0, "render_mode": "human"}}
    edit(stores / "minari", "made/swing-v0", lambda metadata: metadata | {"env_spec": json.dumps(sound)})
    own = load_dataset("made/swing-v0").environment
    assert own is not None
    assert (own.id, own.kwargs) == ("Pendulum-v1", {"g": 9.0})


def test_paths_and_other_names_are_read_as_they_are(stores: pathlib.Path) -> None:
    path = synthetic.write_pendulum(stores / "swing.hdf5")
    assert load_dataset(path).name == "swing"
    with pytest.raises(DatasetError, match="hopper-medium-v2 is not at"):
        load_dataset("hopper-medium-v2", download=False)
    with pytest.raises(DatasetError, match="make it with `jaxrl-srpo data make regenerated/hopper/medium-v0`"):
        load_dataset("regenerated/hopper/medium-v0")


@pytest.mark.parametrize("name", ["hopper-medium-v2", "D4RL/door/human-v2", "pointmaze/cube"])
def test_only_embedded_datasets_are_made(name: str) -> None:
    with pytest.raises(DatasetError, match=f"{name}: cannot be made here; choose one of pointmaze/umaze"):
        make_dataset(name)


@pytest.mark.parametrize("name", ["pointmaze/large", "regenerated/hopper/medium-v0"])
def test_what_is_made_here_is_not_downloaded(name: str) -> None:
    with pytest.raises(DatasetError, match=f"is made here, not downloaded: `jaxrl-srpo data make {name}`"):
        download_dataset(name)


def test_downloading_names_the_file(stores: pathlib.Path) -> None:
    with serving() as server:
        server.content = synthetic.write_pendulum(stores / "swing.hdf5").read_bytes()
        path = download_dataset("hopper-medium-v2", mirror=server.url)
    assert path == str(stores / "cache" / "gym_mujoco_v2" / "hopper_medium-v2.hdf5")
    assert pathlib.Path(path).read_bytes() == server.content
    with pytest.raises(DatasetError, match="unknown dataset 'hoper-medium-v2'; closest: hopper-medium-v2"):
        download_dataset("hoper-medium-v2")


def test_a_file_of_ogbench_is_downloaded_for_all_its_tasks(stores: pathlib.Path) -> None:
    with serving() as server:
        server.content = ogbench_files.write(stores / "x.npz", ogbench_files.trajectories("scene")).read_bytes()
        path = download_dataset("scene-play-singletask-task2-v0-val", mirror=server.url)
        assert download_dataset("scene-play-v0-val", mirror=server.url) == path
        server.content = b"<html>"
        with pytest.raises(DatasetError, match=r"cannot download scene-noisy-v0.npz .* is no NumPy archive"):
            download_dataset("scene-noisy-v0", mirror=server.url)
    assert path == str(stores / "cache" / "ogbench" / "scene-play-v0-val.npz")
    data = load_dataset("scene-play-singletask-task5-v0-val")
    assert (data.source, data.size) == (path, 8)
    assert data.environment is not None
    assert data.environment.id == "scene-singletask-task5-v0"
    ogbench_files.write(pathlib.Path(path), ogbench_files.trajectories("scene", seed=1))
    with pytest.raises(
        DatasetError, match=r"SHA-256 .*; delete the file to fetch it again, or that line if the file is"
    ):
        load_dataset("scene-play-singletask-task5-v0-val")
    with pytest.raises(DatasetError, match=r"^scene-play-100m-v0: is a folder of files; fetch it from https://"):
        download_dataset("scene-play-100m-v0")


def test_the_time_limit_of_a_named_environment_ends_episodes(stores: pathlib.Path) -> None:
    """Pendulum's is 200 steps; without time-outs the file is one episode of 600."""
    path = synthetic.write_pendulum(stores / "swing.hdf5", episodes=3, steps=200)
    with h5py.File(path, "a") as file:
        del file["timeouts"]
    assert load_dataset(path).episode_lengths.tolist() == [600]
    named = load_dataset(path, env="Pendulum-v1")
    assert (named.episode_lengths.tolist(), named.timeouts) == ([200] * 3, 3)
    assert named.warnings == (f"{path}: no `timeouts`; the time limit of Pendulum-v1, 200 steps, is taken",)
    assert load_dataset(path, env="NotInstalled-v0").episode_lengths.tolist() == [600]


def test_names_that_no_file_can_have_are_unknown(stores: pathlib.Path) -> None:
    for name in ("x" * 5000, "/" + "x" * 5000, "a\0b"):
        with pytest.raises(DatasetError, match=r"unknown dataset|no dataset file|expected printable text"):
            load_dataset(name)


def test_an_environment_without_a_time_limit_gets_that_of_the_data(
    stores: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_tasks.register()
    path = synthetic.write_pendulum(stores / "line.hdf5", episodes=3, steps=40)
    data = load_dataset(path, env="LineEndless-v0")
    assert data.environment is not None
    assert data.environment.max_episode_steps == 40
    (line,) = (record.getMessage() for record in caplog.records)
    assert "environment LineEndless-v0 has no time limit; its episodes are cut at 40 steps, the longest of" in line
    assert data.warnings == (line,)
    with Rollouts([data.environment], 2, 0) as rollouts:
        episodes = rollouts.run(lambda observations: np.zeros((*observations.shape[:2], 1), np.float32))
    assert (episodes.lengths == 40).all()
    limited = load_dataset(path, env="LineVector-v0").environment
    assert limited is not None
    assert limited.max_episode_steps is None
