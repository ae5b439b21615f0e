"""Workers that finish a prepared run; several of them at once are tested with the launchers."""

import pathlib
from typing import Any

import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import iql
from jaxrl_srpo.runs import workers
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import run_comparison, synthetic

SETTINGS: dict[str, Any] = synthetic.TINY | {"algorithm": "iql", "log": lambda message: None}


@pytest.fixture
def dataset(tmp_path: pathlib.Path) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path / "pendulum.hdf5")


def test_a_prepared_run_ends_as_the_command_that_trains_at_once(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trained, prepared = tmp_path / "trained", tmp_path / "prepared"
    rows = jaxrl_srpo.train(dataset, trained, seeds=range(2), **SETTINGS)
    jaxrl_srpo.prepare(dataset, prepared, seeds=range(2), **SETTINGS)
    messages: list[str] = []
    assert workers.work(prepared, messages.append) == rows
    assert any(line.startswith("wrote ") for line in messages)
    run_comparison.assert_same_but_for_order(prepared, trained)
    # There is nothing left to do.
    assert workers.work(prepared, messages.append) == rows


def test_other_data_in_the_place_of_those_that_were_prepared_are_refused(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=[0], **SETTINGS)
    synthetic.write_pendulum(dataset, seed=5)
    with pytest.raises(UserError, match=r"holds other transitions than pendulum in .*sweep.json"):
        workers.work(tmp_path / "run", lambda message: None)


def test_what_is_no_run_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a run directory"):
        workers.work(tmp_path / "nowhere")


@pytest.mark.parametrize(("size", "expected"), [(0, 3), (2, 2)])
def test_members_that_share_nothing_train_side_by_side(
    dataset: pathlib.Path, tmp_path: pathlib.Path, size: int, expected: int
) -> None:
    options = jaxrl_srpo.Options(members_per_population=size)
    values = SETTINGS | {"algorithm": "srpo", "beta": [0.1, 0.2], "options": options}
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=range(3), **values)
    assert workers.side_by_side(tmp_path / "run") == expected


def test_data_of_other_settings_are_other_rows(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=[0], trajectory_weighting=2.0, **SETTINGS)
    (member,) = RunDirectory(tmp_path / "run").members()
    assert workers.data_settings(member.settings) == {
        "reward_transform": "none",
        "trajectory_weighting": 2.0,
        "normalize_observations": True,
    }


def test_methods_are_named_or_given() -> None:
    assert workers.own_methods(["iql", iql.METHOD]) == [iql.METHOD, iql.METHOD]
