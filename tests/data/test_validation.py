"""Every message of the validation names file, field and row."""

import dataclasses
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import d4rl_files, validation
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.errors import DatasetError
from tests.data.arrays import random_dataset


@pytest.fixture
def fields() -> dict[str, Any]:
    """Five walks of 100 steps; every episode starts elsewhere."""
    random = np.random.default_rng(0)
    starts = np.repeat(np.arange(5.0) * 10.0, 100)[:, None]
    walk = np.concatenate([np.cumsum(random.normal(0.0, 0.1, (100, 4)), axis=0) for _ in range(5)])
    timeouts = np.arange(500) % 100 == 99
    observations = (walk + starts).astype(np.float32)
    following = np.roll(observations, -1, axis=0)
    following[timeouts] = observations[timeouts]
    return {
        "observations": observations,
        "actions": random.uniform(-1, 1, (500, 2)).astype(np.float32),
        "rewards": random.normal(size=500).astype(np.float32),
        "terminals": np.zeros(500, bool),
        "timeouts": timeouts,
        "next_observations": following,
    }


def read(tmp_path: pathlib.Path, fields: dict[str, Any], **options: Any) -> Dataset:
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file[name] = value
        file.attrs["env_id"] = "Hopper-v4"
    return d4rl_files.read_hdf5(path, **options)


def broken(fields: dict[str, Any], name: str, index: Any, value: float) -> dict[str, Any]:
    changed = dict(fields)
    changed[name] = fields[name].copy()
    changed[name][index] = value
    return changed


def test_sound_file_passes(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    assert read(tmp_path, fields).size == 495


def test_missing_field(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    del fields["rewards"], fields["terminals"]
    with pytest.raises(DatasetError, match=r"x\.hdf5: missing field rewards, terminals; found observations, actions"):
        read(tmp_path, fields, allow_invalid=True)


def test_unequal_lengths(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    fields["actions"] = fields["actions"][:-1]
    with pytest.raises(DatasetError, match=r"x\.hdf5: actions has 499 rows, observations has 500"):
        read(tmp_path, fields, allow_invalid=True)


def test_empty(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"x\.hdf5: observations is empty"):
        read(tmp_path, {name: value[:0] for name, value in fields.items()})


def test_wrong_rank_and_width(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"observations has shape \(500, 4, 1\); expected 2 axes"):
        read(tmp_path, {**fields, "observations": fields["observations"][..., None]})
    with pytest.raises(DatasetError, match="next_observations has width 3, observations has width 4"):
        read(tmp_path, {**fields, "next_observations": fields["next_observations"][:, :3]})


@pytest.mark.parametrize("name", ["observations", "actions", "next_observations"])
def test_a_step_without_numbers_is_refused(tmp_path: pathlib.Path, fields: dict[str, Any], name: str) -> None:
    fields[name] = fields[name][:, :0]
    with pytest.raises(DatasetError, match=rf"{name} has shape \(500, 0\); a step needs at least one number"):
        read(tmp_path, fields, allow_invalid=True)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int64, np.float16, ">f4", np.float64])
@pytest.mark.parametrize("given", [True, False])
def test_observations_of_every_real_type_are_read(
    tmp_path: pathlib.Path, fields: dict[str, Any], dtype: Any, given: bool
) -> None:
    """Values over the whole range of small types, whose differences they do not hold."""
    values = np.random.default_rng(0).integers(-120 if np.dtype(dtype).kind != "u" else 0, 120, (500, 4))
    fields["observations"] = values.astype(dtype)
    fields["next_observations"] = np.roll(values, -1, axis=0).astype(dtype)
    if not given:
        del fields["next_observations"]
    np.testing.assert_array_equal(read(tmp_path, fields).observations, values[fields["timeouts"] == 0])


def test_the_largest_numbers_of_float32_are_read(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    """Their differences are infinite."""
    fields["observations"] = np.where(np.arange(500) % 2, 3e38, -3e38).astype(np.float32)[:, None]
    fields["next_observations"] = np.roll(fields["observations"], -1, axis=0)
    assert read(tmp_path, fields).size == 495
    del fields["next_observations"]
    assert read(tmp_path, fields).size == 495


def test_rows_of_environments_that_take_turns_are_refused_with_the_way_out(
    tmp_path: pathlib.Path, fields: dict[str, Any]
) -> None:
    twice = {name: np.concatenate([value, value]) for name, value in fields.items()}
    turns = {name: value.reshape(5, 200, -1).swapaxes(0, 1).reshape(value.shape) for name, value in twice.items()}
    with pytest.raises(
        DatasetError, match=r"the rows of 5 interleaved environments take turns: .*x\.reshape\(-1, 5, \*x"
    ):
        read(tmp_path, turns)
    assert read(tmp_path, turns, allow_invalid=True).warnings
    del turns["next_observations"]
    (warning,) = read(tmp_path, turns).warnings
    assert "the rows of 5 interleaved environments take turns" in warning


def test_scalars_in_a_column_are_read(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    changed = {**fields, "rewards": fields["rewards"][:, None], "terminals": fields["terminals"][:, None]}
    np.testing.assert_array_equal(read(tmp_path, changed).rewards, read(tmp_path, fields).rewards)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations"])
def test_not_finite(tmp_path: pathlib.Path, fields: dict[str, Any], name: str, value: float) -> None:
    index = 123 if name == "rewards" else (123, 1)
    with pytest.raises(DatasetError, match=rf"x\.hdf5: {name}, row 123.*: -?(nan|inf) \(1 row in all\).*allow_invalid"):
        read(tmp_path, broken(fields, name, index, value))


def test_finite_values_whose_sum_overflows_pass() -> None:
    assert validation._not_finite("rewards", np.full(4, 3e38)) is None
    assert validation._not_finite("rewards", np.full(4, 3e38, np.float32)) is None


def test_values_that_float32_does_not_hold_are_not_finite(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    fields["rewards"] = fields["rewards"].astype(np.float64)
    with pytest.raises(
        DatasetError, match=r"rewards, row 9: 1e\+300 \(1 row in all\); every value must be finite in float32"
    ):
        read(tmp_path, broken(fields, "rewards", 9, 1e300))


@pytest.mark.parametrize(
    ("name", "convert", "message"),
    [
        ("actions", lambda x: x.astype(np.complex64), "actions holds complex64; expected real numbers"),
        ("rewards", lambda x: x.astype("S8"), r"rewards holds (\|S8|object); expected real numbers"),
        ("actions", lambda x: (x > 0).astype(np.int64), "actions are of type int64, as discrete ones are"),
        ("actions", lambda x: (x > 0)[:, 0].astype(np.int64), "actions are of type int64, as discrete ones are"),
        ("terminals", lambda x: np.where(np.arange(len(x)) == 7, 0.5, x), "terminals, row 7: 0.5; expected 0 or 1"),
        ("timeouts", lambda x: np.where(np.arange(len(x)) == 7, np.nan, x), "timeouts, row 7: nan; expected 0 or 1"),
    ],
)
def test_other_kinds_of_values_are_refused(
    tmp_path: pathlib.Path, fields: dict[str, Any], name: str, convert: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    fields[name] = convert(fields[name])
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, fields)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_flags_and_small_integers_are_observations(
    tmp_path: pathlib.Path, fields: dict[str, Any], dtype: type[Any]
) -> None:
    """Differences of unsigned integers would wrap, and those of flags are refused by NumPy."""
    shape = fields["observations"].shape
    fields["observations"] = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    del fields["next_observations"]
    observations = read(tmp_path, fields).observations
    assert observations.dtype == np.float32
    assert set(np.unique(observations)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (np.nan, 1.0, "actions, dimension 0: bounds nan and 1; expected low <= high"),
        (-1.0, np.inf, "actions, dimension 0: bounds -1 and inf"),
        (1.0, -1.0, "actions, dimension 0: bounds 1 and -1"),
        ([-1.0] * 9, 1.0, "action_low and action_high must be a number, or one for each of"),
        ("low", 1.0, "action_low and action_high must be a number, or one for each of"),
    ],
)
def test_bounds_that_are_none_are_refused(
    tmp_path: pathlib.Path, fields: dict[str, Any], low: Any, high: Any, message: str
) -> None:
    read(tmp_path, fields)
    with h5py.File(tmp_path / "x.hdf5", "a") as file:
        file.attrs["action_low"], file.attrs["action_high"] = low, high
    with pytest.raises(DatasetError, match=message):
        d4rl_files.read_hdf5(tmp_path / "x.hdf5")


def test_discrete_actions_are_named(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    fields["discrete_action"] = np.asarray(True)
    with pytest.raises(DatasetError, match=r"its actions are discrete \(discrete_action\)"):
        read(tmp_path, fields)


def test_actions_outside_bounds(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"actions, row 7, dimension 1: 1\.5 is outside \[-1, 1\] \(1 row in all\)"):
        read(tmp_path, broken(fields, "actions", (7, 1), 1.5))
    assert read(tmp_path, broken(fields, "actions", (7, 1), 1.0 + 1e-6)).size == 495


def test_next_observation_that_is_not_the_next_row(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"next_observations, row 250, dimension 2: 99 and then .*no episode ends"):
        read(tmp_path, broken(fields, "next_observations", (250, 2), 99.0))
    # At the end of an episode it may be anything.
    assert read(tmp_path, broken(fields, "next_observations", (299, 2), 99.0)).size == 495


def test_time_outs_out_of_step_are_found_without_next_observations(
    tmp_path: pathlib.Path, fields: dict[str, Any]
) -> None:
    del fields["next_observations"]
    assert read(tmp_path, fields).size == 495
    shifted = {**fields, "timeouts": np.roll(fields["timeouts"], 1)}
    with pytest.raises(
        DatasetError, match=r"observations, row 99, dimension 0: .*\(4 rows in all\); the next row is impl"
    ):
        read(tmp_path, shifted)


def test_maze_with_an_unmarked_reset_per_thousand_steps() -> None:
    """D4RL's first AntMaze files: a thousand steps of 0.2 m each, then back to the start without a time-out."""
    random = np.random.default_rng(1)
    walk = np.cumsum(np.abs(random.normal(0.0, 0.02, (20, 1000, 2))), axis=1).reshape(-1, 2).astype(np.float32)
    rows = len(walk)
    arguments: dict[str, Any] = {
        "observations": walk,
        "actions": np.zeros((rows, 1), np.float32),
        "rewards": np.zeros(rows, np.float32),
        "terminals": np.zeros(rows, bool),
    }
    ends = np.arange(rows) % 1000 == 999
    assert validation.validate("maze", ends=ends, **arguments) == []
    with pytest.raises(DatasetError, match=r"maze: observations, row 999, dimension 0: .*19 rows in all"):
        validation.validate("maze", ends=np.roll(ends, 1), **arguments)


def test_allowed_findings_are_returned_and_logged(
    tmp_path: pathlib.Path, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    changed = broken(broken(fields, "actions", (7, 1), 1.5), "rewards", 3, np.nan)
    data = read(tmp_path, changed, allow_invalid=True)
    assert data.size == 495
    assert [record.message.split(": ")[1] for record in caplog.records] == [
        "rewards, row 3",
        "actions, row 7, dimension 1",
    ]
    with pytest.raises(DatasetError, match="and 1 more") as caught:
        read(tmp_path, changed)
    assert "\n" not in str(caught.value)


def test_dataset_must_fit_the_environment(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    data = dataclasses.replace(read(tmp_path, fields), environment=EnvironmentSpec("Hopper-v4"))
    validation.check_fits(data, 4, 2)
    with pytest.raises(DatasetError, match=r"width 4 and actions 2, but Hopper-v4 has 11 and 3; .*--env"):
        validation.check_fits(data, 11, 3)


@pytest.mark.parametrize("stem", ["hopper_medium-regen", "hopper_mixed-regen", "halfcheetah_mixed-regen"])
def test_real_steps_are_plausible_without_next_observations(stem: str, test_data: pathlib.Path) -> None:
    with h5py.File(test_data / f"{stem}.hdf5") as file:
        names = ("observations", "actions", "rewards", "terminals")
        arguments = {name: file[name][()] for name in names}
        ends = arguments["terminals"] | file["timeouts"][()]
    assert validation.validate(stem, ends=ends, **arguments) == []


def test_d3rlpys_ends_of_episodes_are_read(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    """Five episodes of 100 steps, the second of which terminated."""
    fields["terminals"] = np.arange(500) == 199
    fields["episode_terminals"] = fields.pop("timeouts")
    del fields["next_observations"]
    dataset = read(tmp_path, fields)
    assert dataset.episode_lengths.tolist() == [100] * 5
    # A row that a time limit ends is dropped, a terminal one is kept.
    assert (dataset.timeouts, dataset.size, int(dataset.terminals.sum())) == (4, 496, 1)


def test_a_file_in_which_no_episode_ends_is_told_of(
    tmp_path: pathlib.Path, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    fields["timeouts"] = np.zeros(500, bool)
    assert read(tmp_path, fields, allow_invalid=True).episode_lengths.tolist() == [500]
    assert "no terminals and no time-outs end an episode in it; it is one of 500 steps" in caplog.text


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)),
            "is an archive that cannot be read, not HDF5; get it again",
        ),
        (lambda path: path.write_bytes(b"\x93NUMPY" + bytes(40)), r"is a NumPy array \(\.npy\), not HDF5"),
        (lambda path: path.write_bytes(pickle.dumps({"rewards": [1.0]})), r"is a pickle, which is not read because"),
        (lambda path: path.write_bytes(b"PAR1....PAR1"), "is Parquet, not HDF5"),
    ],
)
def test_other_formats_are_named(tmp_path: pathlib.Path, write: Callable[[pathlib.Path], Any], message: str) -> None:
    write(tmp_path / "x.hdf5")
    with pytest.raises(DatasetError, match=message):
        d4rl_files.read_hdf5(tmp_path / "x.hdf5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros(12)}, "rewards holds float64, not float32; Dataset.from_arrays converts"),
        ({"rewards": [0.0] * 12}, "rewards holds list, not float32"),
        ({"episode_ends": np.zeros(12, np.int64)}, "episode_ends holds int64, not bool"),
        ({"terminals": np.zeros(11, bool)}, "terminals has 11 rows, observations has 12"),
        ({"action_low": np.zeros(3, np.float32)}, "action_low and action_high need one number for each action"),
    ],
)
def test_a_dataset_of_which_a_program_replaced_a_part(changes: dict[str, Any], message: str) -> None:
    data = random_dataset(12)
    validation.require_sound(data)
    with pytest.raises(DatasetError, match=message):
        validation.require_sound(dataclasses.replace(data, **changes))
