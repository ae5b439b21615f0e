"""Evaluations of members in real environments, beside training."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods import iql
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.population.member import stack
from jaxrl_srpo.runs import scorer as scorer_lib
from jaxrl_srpo.runs.leases import Leases
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import Scorer, usable_environments
from jaxrl_srpo.runs.sweep import Member
from tests import synthetic


def results_of(stage: Stage, members: Sequence[Member]) -> Any:
    """Untrained policies, by seed."""
    settings = stage.read(members[0].settings)
    states = [iql.init(jax.random.key(member.seed), member.spec, settings) for member in members]
    return jax.tree.map(np.asarray, stack([iql.result_of(state) for state in states]))


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunDirectory:
    """Two seeds of IQL, ready to train."""
    dataset = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    values = synthetic.TINY | {"seeds": range(2), "algorithm": "iql", "log": lambda message: None}
    jaxrl_srpo.prepare(dataset, tmp_path / "run", **values)
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


@pytest.fixture
def scorer(run: RunDirectory) -> Iterator[Scorer]:
    own = Scorer(run, run.facts(), results_of)
    yield own
    own.close()


def steps(run: RunDirectory) -> list[tuple[str, str, str]]:
    return [(row["seed"], row["step"], row["final"]) for row in csv_log.read_rows(run.path / "evaluations.csv")]


def test_every_member_has_a_row_and_is_not_evaluated_twice(run: RunDirectory, scorer: Scorer) -> None:
    members = run.members()
    assert scorer.unfinished(iql.STAGE, members) == members
    scorer.finish(iql.STAGE, members)
    assert steps(run) == [("0", "8", "1"), ("1", "8", "1")]
    assert scorer.unfinished(iql.STAGE, members) == []
    scorer.finish(iql.STAGE, members)
    assert len(steps(run)) == 2
    rows = csv_log.read_rows(run.path / "evaluations.csv")
    assert {(row["algorithm"], row["metric"], row["episodes"], row["length_mean"]) for row in rows} == {
        ("iql", "return", "1", "200")
    }
    assert all(float(row["mean"]) < 0.0 for row in rows)


def test_a_dropped_evaluation_leaves_no_row_and_the_next_one_is_sound(run: RunDirectory, scorer: Scorer) -> None:
    members = run.members()
    scorer.submit(iql.STAGE, members, 4, results_of(iql.STAGE, members), final=False)
    scorer.drop(None)
    scorer.wait()
    assert steps(run) == []
    # Another number of members closes the environments of the one that was dropped.
    scorer.finish(iql.STAGE, members[1:])
    assert steps(run) == [("1", "8", "1")]


def test_a_last_evaluation_keeps_its_lease_beside_other_work(run: RunDirectory, scorer: Scorer) -> None:
    members, leases = run.members(), Leases(run.path / "leases")
    first, second = leases.claim("first"), leases.claim("second")
    assert first is not None
    assert second is not None
    with run.leased(first):
        scorer.submit(iql.STAGE, members, 8, results_of(iql.STAGE, members), final=True)
    assert scorer.unfinished(iql.STAGE, members) == []
    assert scorer.keep(first)
    with run.leased(second):
        scorer.drop(second)
        assert not scorer.keep(second)
        scorer.wait(before=100)
        assert steps(run) == []
    assert scorer.wait()
    assert not scorer.wait()
    assert steps(run) == [("0", "8", "1"), ("1", "8", "1")]
    assert not (run.path / "leases" / "first").exists()
    assert (run.path / "leases" / "second").exists()
    second.release()


def test_a_last_evaluation_of_work_that_was_taken_over_writes_nothing(run: RunDirectory, scorer: Scorer) -> None:
    members = run.members()
    lease = Leases(run.path / "leases").claim("first")
    assert lease is not None
    with run.leased(lease):
        scorer.submit(iql.STAGE, members, 8, results_of(iql.STAGE, members), final=True)
    assert scorer.keep(lease)
    (run.path / "leases" / "first").write_text("elsewhere 1 abc")
    assert scorer.wait()
    assert steps(run) == []
    assert scorer.unfinished(iql.STAGE, members) == members
    assert (run.path / "leases" / "first").read_text() == "elsewhere 1 abc"


def test_what_a_kill_left_out_is_evaluated_after_all(run: RunDirectory, scorer: Scorer) -> None:
    members = run.members()
    results = results_of(iql.STAGE, members)
    scorer.resume(iql.STAGE, members, 5, results)
    scorer.wait()
    assert steps(run) == []
    scorer.resume(iql.STAGE, members, 8, results)
    scorer.wait()
    scorer.resume(iql.STAGE, members, 8, results)
    scorer.wait()
    assert steps(run) == [("0", "8", "0"), ("1", "8", "0")]


def test_members_of_data_without_an_environment_are_passed_over(run: RunDirectory) -> None:
    facts = {name: dataclasses.replace(fact, environment=None) for name, fact in run.facts().items()}
    own = Scorer(run, facts, results_of)
    assert own.unfinished(iql.STAGE, run.members()) == []
    own.finish(iql.STAGE, run.members())
    own.close()
    assert steps(run) == []


def facts_of(run: RunDirectory, **changes: Any) -> list[DatasetFacts]:
    return [dataclasses.replace(fact, **changes) for fact in run.facts().values()]


def test_environments_that_cannot_be_made_are_named_or_refused(run: RunDirectory) -> None:
    messages: list[str] = []
    assert set(usable_environments(run, facts_of(run), True, messages.append)) == {"pendulum"}
    assert not messages
    unknown = facts_of(run, environment=None)
    assert usable_environments(run, unknown, False, messages.append) == {}
    assert messages == [
        "not evaluated: pendulum: no environment is known; give one with --env=ID; "
        f"`jaxrl-srpo evaluate {run.path}` can do it later"
    ]
    with pytest.raises(UserError, match="no environment is known"):
        usable_environments(run, unknown, True, messages.append)


def test_data_that_do_not_fit_their_environment_are_refused(run: RunDirectory) -> None:
    car = facts_of(run, environment=EnvironmentSpec("MountainCarContinuous-v0").to_json())
    with pytest.raises(UserError, match=r"MountainCarContinuous-v0 is not the environment of pendulum: .*\(2,\)"):
        usable_environments(run, car, False, print)
    messages: list[str] = []
    narrow = facts_of(run, action_low=[-1.0], action_high=[1.0])
    usable_environments(run, narrow, True, messages.append)
    assert messages == [
        "pendulum: its actions lie in [-1, 1], those of Pendulum-v1 in [-2, 2]; policies keep to the data's bounds"
    ]
    with pytest.raises(UserError, match="to learn online give the file the environment's action_low and action_high"):
        usable_environments(run, narrow, True, messages.append, online=True)


def test_policies_act_on_the_host() -> None:
    assert scorer_lib.acting_device().platform == "cpu"
