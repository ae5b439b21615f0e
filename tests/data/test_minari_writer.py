"""Minari datasets written here: whole or not at all, read back as they were given."""

import pathlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data import minari_files, minari_source, minari_writer
from jaxrl_srpo.errors import DatasetError

DESCRIPTION = {"algorithm_name": "random", "description": "for a test"}


@pytest.fixture
def storage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def make_environment() -> gymnasium.Env:
    return gymnasium.make("Pendulum-v1")


def play(environment: gymnasium.Env) -> Iterator[dict[str, Any]]:
    """Two episodes of three steps; the first ends by termination."""
    for seed in range(2):
        observations, rewards = [environment.reset(seed=seed)[0]], []
        for _ in range(3):
            observation, reward, *_ = environment.step(np.array([0.5], np.float32))
            observations.append(observation)
            rewards.append(float(reward))
        last = np.arange(3) == 2
        yield {
            "observations": np.stack(observations),
            "actions": np.full((3, 1), 0.5, np.float32),
            "rewards": np.array(rewards),
            "terminations": last & (seed == 0),
            "truncations": last & (seed == 1),
        }


def test_what_is_written_is_read_back(storage: pathlib.Path) -> None:
    minari_writer.write_dataset("mine/swing-v0", make_environment, play, DESCRIPTION)
    assert minari_writer.exists("mine/swing-v0")
    assert minari_files.local_ids() == ["mine/swing-v0"]
    expected = list(play(make_environment()))
    data = minari_source.read_minari("mine/swing-v0")
    np.testing.assert_array_equal(data.rewards, np.concatenate([one["rewards"] for one in expected]).astype(np.float32))
    np.testing.assert_array_equal(data.observations[3:], expected[1]["observations"][:-1])
    assert data.terminals.tolist() == [False, False, True, False, False, False]
    assert (data.timeouts, data.action_low.tolist(), data.action_high.tolist()) == (1, [-2.0], [2.0])
    assert data.environment is not None
    assert (data.environment.id, data.environment.max_episode_steps) == ("Pendulum-v1", 200)


def test_a_dataset_that_is_there_is_kept_and_nothing_is_made(storage: pathlib.Path) -> None:
    minari_writer.write_dataset("mine/swing-v0", make_environment, play, DESCRIPTION)

    def refuse(*_: object) -> Any:
        raise AssertionError("nothing is to be made")

    minari_writer.write_dataset("mine/swing-v0", refuse, refuse, DESCRIPTION, exist_ok=True)
    with pytest.raises(DatasetError, match=r"mine/swing-v0 already exists at .*; remove it or choose another name"):
        minari_writer.write_dataset("mine/swing-v0", refuse, refuse, DESCRIPTION)


def test_an_error_on_the_way_leaves_nothing_that_looks_whole(storage: pathlib.Path) -> None:
    def fail(environment: gymnasium.Env) -> Iterator[dict[str, Any]]:
        yield next(play(environment))
        raise RuntimeError("the power failed")

    with pytest.raises(RuntimeError, match="power"):
        minari_writer.write_dataset("mine/swing-v0", make_environment, fail, DESCRIPTION)
    assert not minari_writer.exists("mine/swing-v0")
    assert minari_files.local_ids() == []
    minari_writer.write_dataset("mine/swing-v0", make_environment, play, DESCRIPTION)
    assert minari_source.read_minari("mine/swing-v0").size == 6


def test_a_place_that_cannot_be_written_is_named(storage: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (storage / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(storage / "file"))
    with pytest.raises(DatasetError, match=r"cannot write mine/swing-v0 at .* set MINARI_DATASETS_PATH"):
        minari_writer.write_dataset("mine/swing-v0", make_environment, play, DESCRIPTION)


def test_looking_does_not_create_the_storage(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    assert not minari_writer.exists("mine/swing-v0")
    assert not (tmp_path / "none").exists()
