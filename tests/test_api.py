"""What a program asks for; whole runs are tested with the command line and in `integration`."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo import api
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import iql
from jaxrl_srpo.report import Row
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import synthetic


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "one.hdf5")


@pytest.fixture(scope="module")
def run_dir(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run of IQL, two seeds."""
    out = tmp_path_factory.mktemp("api") / "run"
    rows = jaxrl_srpo.train(
        dataset, out, seeds=np.arange(2), algorithm="iql", log=lambda message: None, **synthetic.TINY
    )
    assert all(isinstance(row, Row) for row in rows)
    assert [(row.algorithm, row.seeds) for row in rows] == [("data", None), ("iql", 2)]
    return out


def test_a_finished_run_is_continued_with_nothing_to_train(run_dir: pathlib.Path, dataset: pathlib.Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").glob("*/*")}
    messages: list[str] = []
    rows = jaxrl_srpo.train(
        dataset,
        out=run_dir,
        seeds=range(2),
        algorithm=iql.METHOD,
        expectile=np.asarray([0.7]),
        log=messages.append,
        **synthetic.TINY,
    )
    assert {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").glob("*/*")} == stamps
    assert messages[0] == "one: 196 transitions, 4 episodes, reward transform none"
    assert rows == jaxrl_srpo.load_results(run_dir)


def test_a_budget_scales_the_preset_but_nothing_that_is_given(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=[0], budget=0.01, critic_steps=7, log=lambda message: None)
    (member,) = RunDirectory(tmp_path / "run").members()
    assert (member.settings["policy_steps"], member.settings["critic_steps"]) == (50, 7)
    assert not (tmp_path / "run" / "checkpoints").exists()


def refuse(call: Callable[..., Any], message: str, *arguments: Any, **values: Any) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, log=lambda line: None, **values)
    assert "\n" not in str(caught.value)


def test_two_files_of_one_name_are_refused(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = synthetic.write_pendulum(tmp_path / "one.hdf5", seed=3)
    refuse(jaxrl_srpo.prepare, "would both be called one", [dataset, other], tmp_path / "run")


def test_equal_data_of_one_task_are_refused(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(dataset, tmp_path / "other.hdf5")
    message = "--datasets: one and other hold the same transitions; name one of them"
    refuse(jaxrl_srpo.prepare, message, [dataset, tmp_path / "other.hdf5"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluating_needs_something_finished(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=[0], log=lambda message: None)
    refuse(jaxrl_srpo.evaluate, "no stage is finished yet", tmp_path / "run")
    refuse(jaxrl_srpo.evaluate, "nowhere is not a run directory, it does not exist", tmp_path / "nowhere")


def test_a_negative_number_of_members_is_refused() -> None:
    with pytest.raises(UserError, match="--members_per_population=-1: must not be"):
        jaxrl_srpo.Options(members_per_population=-1)


def test_the_command_is_named_by_the_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/somewhere/bin/jaxrl-srpo", "/somewhere/jaxrl_srpo/__main__.py"):
        monkeypatch.setattr("sys.argv", [program, "train", "--out=x"])
        assert api.command() == ["jaxrl-srpo", "train", "--out=x"]
