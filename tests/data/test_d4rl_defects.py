"""The known defects are found where they are, and nowhere else."""

import logging
import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.d4rl_files import read_hdf5

ROWS = 400


def write(folder: pathlib.Path, name: str, rewarded: list[int], at_goal: list[int]) -> pathlib.Path:
    """A file with D4RL's name of AntMaze's widths, its rewards as in D4RL's, and positions that wander."""
    random = np.random.default_rng(0)
    observations = 0.01 * random.normal(size=(ROWS, 29)).cumsum(axis=0)
    observations[:, :2] += np.where(np.isin(np.arange(ROWS), at_goal), 20.5, 12.0)[:, None]
    rewards = np.isin(np.arange(ROWS), rewarded).astype(np.float32)
    path = folder / pathlib.PurePosixPath(d4rl.entry(name).path).name
    with h5py.File(path, "w") as file:
        file["observations"] = observations.astype(np.float32)
        file["actions"] = random.uniform(-1.0, 1.0, (ROWS, 8)).astype(np.float32)
        file["rewards"], file["terminals"] = rewards, rewards > 0
        file["timeouts"] = np.arange(ROWS) % 100 == 99
    return path


def lines(path: pathlib.Path) -> list[str]:
    return [line for line in read_hdf5(path, allow_invalid=True).warnings if "known defect" in line]


def test_rewards_away_from_the_goal_are_counted(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "antmaze-medium-play-v2", [10, 11, 12, 50, 51], [10, 11, 12])
    with caplog.at_level(logging.WARNING):
        (line,) = lines(path)
    assert line.startswith(f"{path}: 2 of 5 rewarded rows are not at the goal, where x and y are above 19")
    assert "SfBC repairs by reward = terminal = 0 there; they are trained on as they are" in line
    assert line in caplog.text
    # Nothing was changed.
    assert read_hdf5(path, allow_invalid=True).rewards.sum() == 5


def test_one_of_two_coordinates_is_not_enough(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "antmaze-medium-play-v2", [10, 11], [10, 11])
    with h5py.File(path, "a") as file:
        file["observations"][11, 1] = 18.9
    assert "1 of 2 rewarded rows" in lines(path)[0]


def test_goals_that_pay_once_are_told_of(tmp_path: pathlib.Path) -> None:
    (line,) = lines(write(tmp_path, "antmaze-umaze-diverse-v2", [10, 110, 210], []))
    assert "each of 3 goals reached is one rewarded row" in line
    assert "D4RL issue 199" in line


@pytest.mark.parametrize(
    ("name", "rewarded"),
    [
        ("antmaze-medium-play-v2", [10, 11, 12]),
        ("antmaze-umaze-diverse-v2", [10, 11, 12]),
        ("antmaze-umaze-diverse-v2", []),
        ("antmaze-umaze-v2", [30, 90]),
        ("antmaze-large-play-v2", [30, 90]),
    ],
)
def test_sound_files_and_other_names_are_not(tmp_path: pathlib.Path, name: str, rewarded: list[int]) -> None:
    at_goal: Any = [10, 11, 12]
    assert lines(write(tmp_path, name, rewarded, at_goal)) == []
