"""Fields and attributes are what they must be, and of other layouts it is said what there is."""

import pathlib

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data.d4rl_columns import read_columns
from jaxrl_srpo.data.d4rl_files import read_hdf5
from jaxrl_srpo.errors import DatasetError
from tests.data.test_hdf5 import ROWS, write


def test_columns_are_as_they_are_in_the_file(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file["episode_terminals"] = np.arange(ROWS)[:, None] % 4 == 3
        file.attrs["env_id"], file.attrs["action_low"] = np.bytes_(b"Mine-v0"), -1.0
    columns, attributes = read_columns(str(path))
    terminals = np.arange(ROWS) % 5 == 4
    np.testing.assert_array_equal(columns.terminals, terminals)
    assert columns.timeouts is not None
    np.testing.assert_array_equal(columns.timeouts, (np.arange(ROWS) % 4 == 3) & ~terminals)
    assert columns.next_observations is None
    assert (attributes.environment, attributes.action_low, attributes.action_high) == ("Mine-v0", -1.0, None)


def test_rows_are_left_out_of_every_column(tmp_path: pathlib.Path) -> None:
    columns, _ = read_columns(str(write(tmp_path / "data.hdf5")))
    rest = columns.without(np.array([0, 7]))
    np.testing.assert_array_equal(rest.rewards, np.delete(columns.rewards, [0, 7]))
    assert {len(rest.observations), len(rest.actions), len(rest.rewards), len(rest.terminals)} == {ROWS - 2}
    assert (rest.timeouts, rest.next_observations) == (None, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("env_id", 7, "attribute env_id is int64; expected text"),
        ("env_id", np.bytes_(b"\xff"), "attribute env_id is .*; expected printable text in UTF-8"),
        ("env_id", h5py.Empty("S1"), "attribute env_id is Empty; expected text"),
        ("action_low", -1.0, "action_low and action_high must be a number, or one for each of 2"),
        ("action_high", [1.0], "action_low and action_high must be a number, or one for each of 2"),
    ],
)
def test_attributes_of_other_types_are_refused(tmp_path: pathlib.Path, name: str, value: object, message: str) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(DatasetError, match=message):
        read_hdf5(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("episode_0/rewards", "it looks like main_data.hdf5 of a Minari dataset; name that by its id"),
        ("data/demo_0/rewards", "it has data, one part for each episode"),
        ("observations_0", "it has observations_0, one part for each episode"),
        ("a\nb", r"it has 'a\\nb'$"),
    ],
)
def test_another_layout_is_told_of(tmp_path: pathlib.Path, name: str, message: str) -> None:
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        file[name] = np.zeros(3)
    with pytest.raises(DatasetError, match=rf"has none of the fields observations, .*; {message}"):
        read_hdf5(tmp_path / "data.hdf5")
