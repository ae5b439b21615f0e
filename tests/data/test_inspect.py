"""Descriptions name the numbers; pictures are drawn for every shape of data."""

import dataclasses
import pathlib
import struct

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import d4rl_files, inspect
from jaxrl_srpo.data.dataset import Dataset


def dataset(
    tmp_path: pathlib.Path,
    widths: tuple[int, int] = (11, 3),
    rows: int = 300,
    stem: str = "hopper_x",
    terminal: bool = True,
) -> Dataset:
    random = np.random.default_rng(0)
    path = tmp_path / f"{stem}.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.cumsum(random.normal(size=(rows, widths[0])), axis=0).astype(np.float32)
        file["actions"] = np.clip(random.normal(size=(rows, widths[1])), -1, 1).astype(np.float32)
        file["rewards"] = random.normal(size=rows).astype(np.float32)
        file["terminals"] = (np.arange(rows) % 30 == 29) & terminal
        file["timeouts"] = np.zeros(rows, bool)
    return d4rl_files.read_hdf5(path)


def test_states_that_solve_a_task_are_no_ends(tmp_path: pathlib.Path) -> None:
    data = dataset(tmp_path)
    ends = data.episode_ends & (np.cumsum(data.episode_ends) % 2 == 0)
    lines = dict(line.split(maxsplit=1) for line in inspect.describe(data).splitlines())
    assert lines["terminals"] == "9 transitions end in a terminal state"
    data = dataclasses.replace(data, episode_ends=ends)
    lines = dict(line.split(maxsplit=1) for line in inspect.describe(data).splitlines())
    assert lines["terminals"] == "9 transitions solve the task; nothing is bootstrapped there, and the episodes go on"


def test_description(tmp_path: pathlib.Path) -> None:
    data = dataset(tmp_path)
    lines = dict(line.split(maxsplit=1) for line in inspect.describe(data).splitlines())
    assert lines["dataset"] == "hopper_x"
    assert lines["transitions"] == "299"
    assert lines["episodes"].startswith("10 complete, of 30 to 30")
    assert lines["terminals"].startswith("9 ")
    assert lines["time-outs"].startswith("0 ")
    assert lines["fingerprint"] == data.fingerprint
    assert "expert 3234.3" in lines["normalized"]
    assert "[-1, 1]" in lines["actions"]
    assert "d4rl-locomotion" in lines["reward"]
    assert "Hopper-v4" in lines["environment"]


def test_description_without_reference_and_environment(tmp_path: pathlib.Path) -> None:
    text = inspect.describe(dataset(tmp_path, (2, 1), stem="mine"))
    assert "no reference returns are known" in text
    assert "unknown; name one with --env" in text


@pytest.mark.parametrize(
    ("widths", "stem"), [((11, 3), "hopper_x"), ((4, 2), "maze2d-x"), ((1, 1), "mine"), ((60, 28), "mine")]
)
@pytest.mark.parametrize("terminal", [True, False])
def test_picture(tmp_path: pathlib.Path, widths: tuple[int, int], stem: str, terminal: bool) -> None:
    data = dataset(tmp_path, widths, stem=stem, terminal=terminal)
    inspect.plot(data, tmp_path / "x.png")
    header = (tmp_path / "x.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:24])
    assert (width, height) == (1650, 946)


def test_picture_of_constant_states_and_rewards(tmp_path: pathlib.Path) -> None:
    data = dataset(tmp_path)
    constant = dataclasses.replace(
        data,
        observations=np.zeros_like(data.observations),
        rewards=np.zeros_like(data.rewards),
        episode_returns=np.zeros_like(data.episode_returns),
    )
    inspect.plot(constant, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_description_ends_with_what_is_doubtful(tmp_path: pathlib.Path) -> None:
    data = dataset(tmp_path, (2, 1), stem="mine")
    (line,) = [line for line in inspect.describe(data).splitlines() if line.startswith("warning")]
    assert line.split(maxsplit=1)[1].startswith("10 of the 10 episodes that end with terminals = 1 have 30 steps")
    assert "warning" not in inspect.describe(dataclasses.replace(data, warnings=()))


@pytest.mark.parametrize(("name", "value"), [("observations", np.nan), ("actions", -np.inf), ("rewards", np.inf)])
def test_data_that_were_read_all_the_same_are_described_and_drawn(
    tmp_path: pathlib.Path, name: str, value: float
) -> None:
    """Who looks at spoiled data wants to see where they are spoiled."""
    dataset(tmp_path, stem="mine")
    with h5py.File(tmp_path / "mine.hdf5", "a") as file:
        file[name][40:42] = value
    data = d4rl_files.read_hdf5(tmp_path / "mine.hdf5", allow_invalid=True)
    assert f"{name}, row 40" in inspect.describe(data)
    inspect.plot(data, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000
