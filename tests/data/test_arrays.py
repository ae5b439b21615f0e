"""Arrays of a program: the same dataset as the file of them, or one line."""

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import arrays
from jaxrl_srpo.data.d4rl_files import read_hdf5
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.errors import DatasetError
from tests.data.swing import swing


def test_arrays_are_read_as_the_file_of_them(tmp_path: pathlib.Path) -> None:
    fields = swing()
    with h5py.File(tmp_path / "my-data.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file[name] = fields[name]
        file.attrs.update(env_id="Pendulum-v1", action_low=-2.0, action_high=2.0)
    data, stored = Dataset.from_arrays(**fields), read_hdf5(tmp_path / "my-data.hdf5")
    assert data.fingerprint == stored.fingerprint
    assert (data.name, data.size, data.timeouts, data.environment) == ("my-data", 196, 4, stored.environment)
    assert (data.action_low.tolist(), data.action_high.tolist()) == ([-2.0], [2.0])
    assert arrays.is_of_arrays(data.source)
    assert not arrays.is_of_arrays(stored.source)


def test_lists_will_do_and_what_happens_to_them_later_does_not_matter() -> None:
    fields = swing(episodes=2, steps=5)
    data = Dataset.from_arrays(**{key: np.asarray(value).tolist() for key, value in fields.items()})
    before = data.observations.copy()
    fields["observations"][:] = 0.0
    np.testing.assert_array_equal(data.observations, before)
    again = Dataset.from_arrays(**swing(episodes=2, steps=5) | {"name": "other"})
    assert again.fingerprint == data.fingerprint
    assert Dataset.from_arrays(**swing(seed=1, episodes=2, steps=5)).fingerprint != data.fingerprint


def test_the_next_observation_is_taken_where_it_is_given() -> None:
    fields = swing()
    following = np.roll(fields["observations"], -1, axis=0)
    following[fields["timeouts"]] = 7.0
    data = Dataset.from_arrays(**fields, next_observations=following)
    np.testing.assert_array_equal(data.next_observations, following[~fields["timeouts"]].astype(np.float32))


def test_a_name_is_not_needed() -> None:
    fields = {key: value for key, value in swing().items() if key not in ("name", "env")}
    data = Dataset.from_arrays(**fields)
    assert (data.name, data.environment) == ("arrays", None)
    assert arrays.dataset_from_mapping(fields).fingerprint == data.fingerprint


def test_a_time_limit_ends_episodes_where_the_arrays_say_no_time_outs() -> None:
    fields = swing(episodes=3, steps=10)
    without = {key: value for key, value in fields.items() if key != "timeouts"}
    data = Dataset.from_arrays(**without, env_time_limit=10)
    assert data.fingerprint == Dataset.from_arrays(**fields).fingerprint
    assert data.episode_lengths.tolist() == [10, 10, 10]


CASES: list[tuple[dict[str, Any], str]] = [
    ({"rewards": np.full(200, "1.0")}, "rewards holds <U3; expected real numbers"),
    ({"rewards": [None] * 200}, "rewards holds object; expected real numbers"),
    ({"rewards": np.zeros(200, complex)}, "rewards holds complex128; expected real numbers"),
    ({"rewards": np.zeros(199)}, "rewards has 199 rows, observations has 200"),
    ({"rewards": 1.0}, r"rewards has shape \(\); expected 1 axes"),
    ({"rewards": np.full(200, np.nan)}, r"rewards, row 0: nan \(200 rows in all\)"),
    ({"observations": np.zeros((200, 3, 3))}, r"observations has shape \(200, 3, 3\); expected 2 axes"),
    ({"observations": {"position": np.zeros(200)}}, "observations is a dict; expected an array of numbers"),
    ({"observations": [[1.0], [1.0, 2.0]]}, "observations cannot be read: setting an array element"),
    ({"observations": np.zeros((0, 3))}, "observations is empty; a dataset needs at least two steps"),
    ({"actions": np.zeros(200)}, r"actions has shape \(200,\); expected 2 axes"),
    ({"actions": np.zeros((200, 1), int)}, "actions are of type int64, as discrete ones are"),
    ({"actions": np.full((200, 1), 3.0)}, r"actions, row 0, dimension 0: 3 is outside \[-2, 2\]"),
    ({"action_low": None}, "action_low and action_high must be a number, or one for each of 1"),
    ({"action_high": "two"}, "action_low and action_high must be a number, or one for each of 1"),
    ({"terminals": np.full(200, 2)}, "terminals, row 0: 2; expected 0 or 1"),
    ({"terminals": None}, "missing field terminals; found observations"),
    ({"timeouts": np.full(200, 0.5)}, "timeouts, row 0: 0.5; expected 0 or 1"),
    ({"timeouts": np.ones(200)}, "no transition is left of 200 rows"),
    ({"name": "a\nb"}, r"the name of a dataset is 'a\\nb'; expected printable text"),
    ({"name": " "}, "the name of a dataset is empty"),
    ({"name": "../other"}, r"the name of a dataset is '../other'; files are named by it"),
    ({"name": "/tmp/other"}, "no / at an end"),
    ({"name": "a\\..\\b"}, "files are named by it"),
    ({"name": 7}, "the name of a dataset is int; expected text"),
    ({"env": 7}, "env is int; expected text"),
]


@pytest.mark.parametrize(("changes", "message"), CASES)
def test_what_is_not_as_it_must_be_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        Dataset.from_arrays(**swing() | changes)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=message):
        arrays.dataset_from_mapping(swing() | changes)


@pytest.mark.parametrize(
    ("key", "message"),
    [("observation", "did you mean observations"), ("hopper", "expected observations, actions"), (3, "3; expected")],
)
def test_a_dictionary_has_no_other_entries(key: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"my-data \(arrays of a Python program\): unknown field .*{message}"):
        arrays.dataset_from_mapping(swing() | {key: 1})


def test_invalid_data_may_be_taken_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    fields = swing() | {"actions": np.full((200, 1), 3.0)}
    data = Dataset.from_arrays(**fields, allow_invalid=True)
    assert "is outside [-2, 2]" in data.warnings[0]
    assert "is outside [-2, 2]" in caplog.text
