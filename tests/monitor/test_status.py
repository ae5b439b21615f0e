"""What every stage of every member is doing, from real run directories whose rows are written by a test."""

import os
import pathlib

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import sealed
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.monitor.status import Status, StatusReader, read_member_stages
from jaxrl_srpo.report.records import Result
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests.monitor import run_files

BEHAVIOR, CRITIC, POLICY = srpo.METHOD.stages


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunDirectory:
    """One seed and two betas, which share behavior model and critic."""
    return run_files.write_run(tmp_path / "run", seeds=(0,), betas=(0.1, 0.3))


def by_result(reader: StatusReader) -> dict[Result, Status]:
    return {status.result: status for status in reader.read()}


def test_members_that_share_a_result_have_one_status(run: RunDirectory) -> None:
    assert [(status.result.stage, status.result.beta) for status in StatusReader(run.path).read()] == [
        ("behavior", None),
        ("critic", None),
        ("policy", 0.1),
        ("policy", 0.3),
    ]
    assert len(read_member_stages(run)) == 6


def test_stages_come_in_the_order_of_the_list_in_the_directory(run: RunDirectory) -> None:
    path = run.path / "sweep.json"
    sweep = sealed.read(path)
    sweep["stages"].reverse()
    path.write_text(sealed.text_of(sweep))
    assert [status.result.stage for status in StatusReader(run.path).read()] == [
        *("policy", "policy", "critic", "behavior")
    ]


@pytest.mark.parametrize("old", [False, True], ids=["object", "string of an earlier version"])
def test_only_the_diverged_member_is_marked(run: RunDirectory, old: bool) -> None:
    member = run.members()[1]
    entry = member.name(POLICY) if old else member.row(POLICY) | {"update": 4}
    path = run.path / "sweep.json"
    path.write_text(sealed.text_of(sealed.read(path) | {"diverged": [entry]}))
    marked = [status.result for status in StatusReader(run.path).read() if status.diverged]
    assert marked == [Result("policy", "pendulum", 0, "", 0.3)]


def test_a_new_column_does_not_make_old_rows_look_new(run: RunDirectory) -> None:
    (member, _), reader = run.members(), StatusReader(run.path)
    first, second = (Result(stage.name, "pendulum", 0, "", None) for stage in (BEHAVIOR, CRITIC))
    run.metrics.append([run_files.metrics(BEHAVIOR, member, 4, loss="1")])
    os.utime(run.path / "metrics.csv", (1000.0, 1000.0))
    assert by_result(reader)[first].written == 1000.0
    run.metrics.append([run_files.metrics(CRITIC, member, 4, surprise="2")])
    os.utime(run.path / "metrics.csv", (2000.0, 2000.0))
    found = by_result(reader)
    assert (found[first].written, found[first].values) == (1000.0, {"loss": 1.0})
    assert (found[second].written, found[second].values) == (2000.0, {"surprise": 2.0})


def test_a_result_of_another_run_is_finished_by_its_evaluation(run: RunDirectory) -> None:
    member = run.members()[0]
    total = CRITIC.steps(member.settings)
    run.evaluations.append([run_files.evaluation(CRITIC, member, total, -3.0, final=True)])
    status = by_result(StatusReader(run.path))[Result("critic", "pendulum", 0, "", None)]
    assert (status.step, status.finished, status.updates_per_second) == (total, True, None)


def test_a_directory_of_another_program_is_refused(run: RunDirectory) -> None:
    path = run.path / "sweep.json"
    sweep = sealed.read(path)
    del sweep["members"]
    path.write_text(sealed.text_of(sweep))
    with pytest.raises(UserError, match=r"sweep\.json: it has no 'members'; it should be the file that train wrote"):
        StatusReader(run.path).read()
