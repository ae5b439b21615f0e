"""The soak's table and comparison; `python -m experiments.benchmarks.soak` kills runs."""

import pathlib
import shutil

import pytest

import jaxrl_srpo
from experiments.benchmarks import small_runs, soak
from experiments.benchmarks.soak import Outcome
from tests import synthetic


def test_what_came_out_is_summed_up_by_case() -> None:
    outcomes = [
        Outcome("SRPO", ("SIGKILL", "SIGINT"), ()),
        Outcome("SRPO", ("SIGTERM",), ("metrics.csv",)),
        Outcome("AWAC", (), ()),
    ]
    text = soak.summarize(outcomes)
    assert "| SRPO | 2 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| all | 3 | 1 | 1 | 1 | 2 | 1 |" in text
    assert text.endswith("- SRPO: metrics.csv\n")


def test_the_commands_of_a_case_train_it(tmp_path: pathlib.Path) -> None:
    (one,) = small_runs.commands(small_runs.CASES[0], tmp_path / "data.hdf5", tmp_path / "run")
    assert one[0] == "train"
    assert f"--out={tmp_path / 'run'}" in one
    two = small_runs.commands(small_runs.CASES[2], tmp_path / "data.hdf5", tmp_path / "run")
    assert [command[:2] for command in two] == [["work", str(tmp_path / "run")]] * 2
    assert small_runs.prepare_command(small_runs.CASES[2], tmp_path / "data.hdf5", tmp_path / "run")[0] == "prepare"


def test_the_dataset_is_a_small_pendulum(tmp_path: pathlib.Path) -> None:
    small_runs.write_dataset(tmp_path / "pendulum.hdf5")
    dataset = jaxrl_srpo.load_dataset(tmp_path / "pendulum.hdf5")
    assert (dataset.observation_size, dataset.action_size, dataset.size) == (3, 1, 196)


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    dataset = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    result = synthetic.run(synthetic.train_command([dataset], tmp_path / "run", algorithm="iql", seeds=0))
    assert result.returncode == 0, result.stderr
    return tmp_path / "run"


def test_what_differs_between_runs_is_named(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert small_runs.compare(run, other) == []
    text = (other / "metrics.csv").read_text().splitlines(keepends=True)
    (other / "metrics.csv").write_text("".join(text[:-1]))
    (other / "report" / "table.csv").write_text("")
    (run / "checkpoints" / "under_way" / "critic-0").mkdir(parents=True)
    assert small_runs.compare(run, other) == ["metrics.csv", "table.csv", "checkpoints left under way"]
