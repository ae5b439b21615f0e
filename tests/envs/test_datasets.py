"""Datasets by any name: made, downloaded, or refused with the command that is right."""

import dataclasses
import json
import pathlib
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest

from jaxrl_srpo.data import minari_files, minari_source
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.envs.datasets import as_dataset, download_dataset, load_dataset, make_dataset, name_of
from jaxrl_srpo.envs.rollouts import Rollouts
from jaxrl_srpo.errors import DatasetError, UserError
from tests import own_tasks, synthetic
from tests.data import ogbench_files
from tests.data.swing import swing
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


def test_arrays_are_given_as_a_dictionary_or_as_a_dataset(stores: pathlib.Path) -> None:
    held = Dataset.from_arrays(**swing())
    assert [name_of(given) for given in (swing(), held, stores / "x.npz")] == ["my-data", "my-data", f"{stores}/x.npz"]
    read = as_dataset(swing())
    assert (read.fingerprint, read.source, read.environment) == (held.fingerprint, held.source, held.environment)
    named = as_dataset(held, env="MountainCarContinuous-v0").environment
    assert named is not None
    assert named.id == "MountainCarContinuous-v0"
    assert as_dataset(swing(), env="Pendulum-v1").environment == held.environment
    with pytest.raises(DatasetError, match=r"is outside \[-2, 2\]"):
        as_dataset(swing() | {"actions": np.full((200, 1), 3.0)})
    assert as_dataset(swing() | {"actions": np.full((200, 1), 3.0)}, allow_invalid=True).warnings


def test_a_dataset_is_known_by_what_it_holds_now() -> None:
    held = Dataset.from_arrays(**swing())
    assert as_dataset(held).fingerprint == held.fingerprint
    replaced = dataclasses.replace(held, rewards=held.rewards + 1.0)
    assert replaced.fingerprint == held.fingerprint != as_dataset(replaced).fingerprint
    with pytest.raises(DatasetError, match="rewards has 195 rows, observations has 196"):
        as_dataset(dataclasses.replace(held, rewards=held.rewards[1:]))


def test_arrays_of_an_environment_without_a_time_limit_get_that_of_the_data() -> None:
    own_tasks.register()
    for given in (swing() | {"env": "LineEndless-v0"}, Dataset.from_arrays(**swing() | {"env": "LineEndless-v0"})):
        spec = as_dataset(given).environment
        assert spec is not None
        assert spec.max_episode_steps == 50


def test_a_dataset_of_minari_may_be_its_own_object(stores: pathlib.Path) -> None:
    make("mine/walk-v0", [3, 5, 2], terminated=(1,))
    stored = minari.load_dataset("mine/walk-v0")
    assert name_of(stored) == "mine/walk-v0"
    whole = as_dataset(stored)
    assert (whole.name, whole.source) == ("mine/walk-v0", "mine/walk-v0")
    assert whole.fingerprint == load_dataset("mine/walk-v0").fingerprint
    part = as_dataset(stored.filter_episodes(lambda episode: len(episode.rewards) > 2))
    assert (part.size, part.episode_lengths.tolist()) == (8, [3, 5])
    assert part.fingerprint != whole.fingerprint


def test_an_object_of_minari_is_not_trusted_with_its_environment(stores: pathlib.Path) -> None:
    make("made/swing-v0", [5])
    own = json.loads(gymnasium.spec("Pendulum-v1").to_json())
    for entry, expected in ((own["entry_point"], "Pendulum-v1"), ("os:system", None)):
        spec = own | {"entry_point": entry}
        edit(stores / "minari", "made/swing-v0", lambda metadata: metadata | {"env_spec": json.dumps(spec)})  # noqa: B023
        found = as_dataset(minari.load_dataset("made/swing-v0")).environment
        assert (found.id if found else None) == expected
    assert not minari_source.is_object("made/swing-v0")


@pytest.mark.parametrize("given", [3, None, np.zeros((3, 2)), b"x", iter("ab")])
def test_what_is_no_dataset_is_named(given: Any) -> None:
    with pytest.raises(UserError, match=f"datasets: {type(given).__name__} is no dataset; give a name, a path, a"):
        as_dataset(given)
