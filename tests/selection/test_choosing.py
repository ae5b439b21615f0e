"""From a finished run to the policy in use, by the data alone and by episodes."""

import csv
import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs.policies import Policy
from jaxrl_srpo.selection import choosing
from jaxrl_srpo.selection.records import Selection
from tests.selection.conftest import SMALLEST


def select(run_dir: pathlib.Path, **values: Any) -> Selection:
    return jaxrl_srpo.select(run_dir, log=lambda message: None, **SMALLEST | values)


@pytest.fixture(scope="module")
def run_dir(finished_run: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("chosen") / "run"
    shutil.copytree(finished_run, out)
    select(out)
    return out


def table(run_dir: pathlib.Path) -> list[dict[str, str]]:
    with (run_dir / "selection.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_policies_are_ranked_by_fitted_q_evaluation(run_dir: pathlib.Path) -> None:
    selection = select(run_dir, by="fqe")
    values = [row.fqe for row in selection.rows]
    assert len(values) == 12
    assert values == sorted(values, reverse=True)
    assert all(row.fqe_low <= row.fqe <= row.fqe_high for row in selection.rows)
    assert all(np.isfinite([row.one_step, row.cloning, row.ess]).all() for row in selection.rows)
    rows = table(run_dir)
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(12)]
    assert rows[0]["algorithm"] == selection.chosen["one"].algorithm
    kept = json.loads((run_dir / "selection.json").read_text())
    assert kept["by"] == "fqe"
    assert kept["settings"]["settings"]["fqe_steps"] == 12


def test_by_default_only_those_that_the_data_speak_of_are_believed(run_dir: pathlib.Path) -> None:
    selection = select(run_dir)
    assert selection.by == "supported"
    largest = max(row.ess for row in selection.rows)
    believed = [row for row in selection.rows if row.ess >= 0.5 * largest]
    assert 0 < len(believed) < 12
    assert list(selection.rows[: len(believed)]) == sorted(believed, key=lambda row: -row.fqe)
    assert all(np.isnan(row.supported) for row in selection.rows[len(believed) :])


def test_the_chosen_policy_is_loaded_by_the_call_that_is_printed(run_dir: pathlib.Path) -> None:
    selection = select(run_dir, by="critic")
    assert selection.by == "critic"
    chosen = selection.load()
    printed: Policy = eval(selection.chosen["one"].call(run_dir), {"jaxrl_srpo": jaxrl_srpo})
    assert printed.member == chosen.member
    with pytest.raises(UserError, match="dataset two: choose one of one"):
        selection.load("two")


def test_what_is_there_is_not_trained_again_and_gives_the_same_table(run_dir: pathlib.Path) -> None:
    select(run_dir)
    before, first = {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").glob("fqe*/*")}, table(run_dir)
    assert len(before) == 26, "13 results, each with its last row of metrics"
    select(run_dir)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert table(run_dir) == first
    lost = next(path for path in before if path.is_dir() and path.parent.name == "fqe_policy")
    shutil.rmtree(lost)
    select(run_dir)
    assert table(run_dir) == first


def test_some_policies_alone(run_dir: pathlib.Path) -> None:
    selection = select(run_dir, policies=["srpo"], by="one_step")
    assert {row.algorithm for row in selection.rows} == {"srpo"}
    gains = [row.one_step for row in selection.rows]
    assert gains == sorted(gains, reverse=True)


def test_episodes_are_spent_by_the_bandit_alike_with_one_seed(run_dir: pathlib.Path) -> None:
    first, again = (select(run_dir, episodes=16, policies=["srpo", "iql"], pulls_at_once=4) for _ in range(2))
    assert first.rows == again.rows
    assert sum(row.episodes for row in first.rows) == 16
    assert all(row.episodes >= 1 and row.metric == "return" for row in first.rows)
    means = [row.mean for row in first.rows]
    assert means == sorted(means, reverse=True)


def test_a_prior_plays_the_better_half_alone(run_dir: pathlib.Path) -> None:
    selection = select(run_dir, episodes=6, prior="fqe", policies=["srpo", "iql"], pulls_at_once=3)
    played = {row.name for row in selection.rows if row.episodes}
    better = sorted(selection.rows, key=lambda row: -row.fqe)[:3]
    assert played == {row.name for row in better}
    assert selection.rows[0].name in played


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"by": "luck"}, r"--by=luck: choose one of supported, fqe, one_step, critic, cloning, ess"),
        ({"prior": "fqe"}, r"--prior=fqe: is for --episodes"),
        ({"prior": "luck", "episodes": 50}, r"--prior=luck: choose one of"),
        ({"episodes": -1}, r"--episodes=-1: must be at least 0"),
        ({"episodes": 5}, r"--episodes=5: one has 12 policies to play; give at least one episode for each, or --prior"),
        ({"episodes": 5, "prior": "fqe"}, r"--episodes=5: one has 6 policies to play; give at least one episode for e"),
        ({"episodes": 12, "pulls_at_once": 0}, r"--pulls_at_once=0: must be at least 1"),
        ({"fqe_stepps": 3}, r"fqe_stepps: no such setting; choose one of fqe_steps"),
        ({"fqe_steps": 0}, r"--fqe_steps=0: must be at least 1"),
        ({"policies": ["sac"]}, r"--policies=sac: this run has no such policies"),
    ],
)
def test_what_cannot_be_done_gets_one_line(run_dir: pathlib.Path, values: dict[str, Any], line: str) -> None:
    before = table(run_dir)
    with pytest.raises(UserError, match=line):
        select(run_dir, **values)
    assert table(run_dir) == before


def test_without_the_environment_episodes_get_one_line(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run")
    path = tmp_path / "run" / "sweep.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["datasets"][0]["environment"]["id"] = "Nowhere-v0"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="Nowhere-v0"):
        select(tmp_path / "run", episodes=12)


def test_no_run_directory_gets_one_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        select(tmp_path)


def test_a_request_is_what_the_flags_say() -> None:
    fields = {field.name for field in dataclasses.fields(choosing.Request)}
    assert fields == {"by", "episodes", "prior", "at_once", "seed", "policies", "settings"}
