"""A whole run of a stage without updates: evaluated, in tables, loaded, watched, and completed after a loss."""

import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods import idql
from jaxrl_srpo.monitor.status import StatusReader
from jaxrl_srpo.monitor.watch import watch
from jaxrl_srpo.report import Row
from jaxrl_srpo.runs.footprint import footprint
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import run_comparison, synthetic

VALUES = synthetic.TINY | {"idql_candidates": 2, "idql_sampler_steps": 2, "seeds": range(2), "algorithm": "idql"}


def train(dataset: pathlib.Path, out: pathlib.Path, **values: Any) -> list[Row]:
    return jaxrl_srpo.train(str(dataset), out, log=lambda message: None, **VALUES | values)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "one.hdf5")


@pytest.fixture(scope="module")
def run_dir(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("combined") / "run"
    rows = train(dataset, out)
    assert [(row.algorithm, row.seeds, row.unfinished) for row in rows] == [
        ("data", None, 0),
        ("bc", 2, 0),
        ("iql", 2, 0),
        ("idql", 2, 0),
    ]
    return out


def test_it_is_evaluated_once_and_has_no_metrics(run_dir: pathlib.Path) -> None:
    rows = [row for row in csv_log.read_rows(run_dir / "evaluations.csv") if row["stage"] == "idql"]
    assert [(row["seed"], row["step"], row["final"]) for row in rows] == [("0", "0", "1"), ("1", "0", "1")]
    assert not [row for row in csv_log.read_rows(run_dir / "metrics.csv") if row["stage"] == "idql"]
    statuses = [status for status in StatusReader(run_dir).read() if status.result.stage == "idql"]
    assert [(status.finished, status.step, status.total) for status in statuses] == [(True, 0, 0)] * 2


def test_it_is_watched_as_evaluated(run_dir: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch(run_dir, once=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["idql"]]
    assert lines
    assert all("evaluated" in line for line in lines), lines


def test_its_policy_acts_at_random_and_on_batches(run_dir: pathlib.Path) -> None:
    policy = jaxrl_srpo.load_policy(run_dir, seed=0)
    observation = np.asarray([1.0, 0.0, 0.0], np.float32)
    actions = np.stack([policy(observation) for _ in range(16)])
    assert actions.shape == (16, 1)
    assert np.abs(actions).max() <= 2.0
    assert len(np.unique(actions)) > 1
    assert policy(np.stack([observation] * 5)).shape == (5, 1)


def test_the_same_command_repeats_nothing_and_completes_what_was_lost(
    run_dir: pathlib.Path, dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run_dir, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "checkpoints").glob("*/*")}
    train(dataset, out)
    assert {path: path.stat().st_mtime_ns for path in (out / "checkpoints").glob("*/*")} == before
    # As after a kill between the critic's end and the first row of IDQL.
    shutil.rmtree(out / "checkpoints" / "idql")
    log = csv_log.CsvLog(out / "evaluations.csv", csv_log.EVALUATION_COLUMNS)
    log.keep(lambda row: row["stage"] != "idql")
    train(dataset, out)
    run_comparison.assert_same_results(out, run_dir)
    assert run_comparison.table(out, "evaluations.csv") == run_comparison.table(run_dir, "evaluations.csv")


def test_it_shares_what_srpo_trained(run_dir: pathlib.Path, dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").glob("*/*")}
    rows = train(dataset, tmp_path / "run", algorithm=["srpo", "idql"])
    assert {row.algorithm for row in rows} == {"data", "bc", "iql", "srpo", "idql"}
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").glob("*/*")}
    assert before.items() <= after.items()


def test_a_diverged_critic_leaves_it_untrained(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    options = jaxrl_srpo.Options(evaluate=False)
    train(dataset, tmp_path / "run", seeds=[0], critic_learning_rate=3e38, options=options)
    not_trained = RunDirectory(tmp_path / "run").read()["not_trained"]
    assert [(one["stage"], one["because"]) for one in not_trained] == [("idql", "critic")]


def test_it_needs_memory_for_what_it_combines_only(run_dir: pathlib.Path) -> None:
    member = RunDirectory(run_dir).members()[0]
    size = footprint(idql.STAGE, member.settings, member.spec)
    assert size.product == 0
    assert size.state > 1000
