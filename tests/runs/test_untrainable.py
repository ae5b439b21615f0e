"""Stages that stand on a diverged one, told by the results alone; that they are not trained is for test_trainer.py."""

import pathlib
from typing import Any

import pytest

import jaxrl_srpo
from jaxrl_srpo.methods import iql, srpo
from jaxrl_srpo.report.outcomes import NotTrained
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.untrainable import Untrainable
from tests import synthetic


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunDirectory:
    dataset = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    options = jaxrl_srpo.Options(evaluate=False)
    defaults: dict[str, Any] = synthetic.TINY | {"seeds": range(2), "beta": [0.1, 0.2], "log": lambda message: None}
    jaxrl_srpo.prepare(dataset, tmp_path / "run", options=options, **defaults)
    return RunDirectory(tmp_path / "run")


def test_a_member_is_told_once_the_result_is_there(run: RunDirectory) -> None:
    members, untrainable = run.members(), Untrainable(run)
    assert untrainable.reason(srpo.STAGE, members[0]) is None
    for seed, at in ((0, 7), (1, None)):
        member = next(one for one in members if one.seed == seed)
        run.save_result(iql.STAGE, member.address(iql.STAGE), {"x": [1.0]}, at)
    reasons = [untrainable.reason(srpo.STAGE, member) for member in members]
    assert [str(reason) if reason else "" for reason in reasons] == ["its critic diverged at update 7"] * 2 + [""] * 2
    assert untrainable.reason(iql.STAGE, members[0]) is None


def test_each_is_named_once(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    members = run.members()
    run.save_result(iql.STAGE, members[0].address(iql.STAGE), {"x": [1.0]}, 7)
    untrainable = Untrainable(run)
    untrainable.name(members)
    untrainable.name(members)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"not trained: srpo pendulum seed=0 beta={beta}: its critic diverged at update 7" for beta in ("0.1", "0.2")
    ]
    # Another worker says it too, and the file keeps it once.
    Untrainable(run).name(members)
    assert NotTrained(run.read()).names == [
        f"srpo pendulum seed=0 beta={beta} (its critic diverged at update 7)" for beta in ("0.1", "0.2")
    ]


def test_results_of_earlier_versions_go_by_the_list_of_the_run(run: RunDirectory) -> None:
    member = run.members()[0]
    place = run.artefact(iql.STAGE, member.address(iql.STAGE))
    place.mkdir(parents=True)
    assert Untrainable(run).reason(srpo.STAGE, member) is None
    run.add_diverged([member.row(iql.STAGE) | {"update": 3}])
    assert str(Untrainable(run).reason(srpo.STAGE, member)) == "its critic diverged at update 3"
