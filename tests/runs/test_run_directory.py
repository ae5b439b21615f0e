"""Run directories: what they keep, how they are extended, and what they refuse."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods import iql, srpo
from jaxrl_srpo.runs import run_directory
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import synthetic

ELSEWHERE = jaxrl_srpo.Options(evaluate=False, environment="MountainCarContinuous-v0")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "one.hdf5", seed=1)


def prepare(dataset: pathlib.Path, out: pathlib.Path, **values: Any) -> RunDirectory:
    """The directory of a sweep of two seeds and two temperatures, without training."""
    defaults = synthetic.TINY | {"seeds": range(2), "beta": [0.1, 0.2], "log": lambda message: None}
    options = jaxrl_srpo.Options(evaluate=False)
    jaxrl_srpo.prepare(dataset, out, **defaults | {"options": options} | values)
    return RunDirectory(out)


@pytest.fixture
def run(dataset: pathlib.Path, tmp_path: pathlib.Path) -> RunDirectory:
    return prepare(dataset, tmp_path / "run")


def test_members_come_back_as_they_were(run: RunDirectory, dataset: pathlib.Path) -> None:
    loaded = jaxrl_srpo.load_dataset(dataset)
    members = run.members()
    assert [(m.seed, m.settings["beta"]) for m in members] == [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)]
    first = members[0]
    assert (first.method, first.fingerprint, first.environment) == (srpo.METHOD, loaded.fingerprint, loaded.environment)
    assert all(dict(first.recorded)[stage.name] == first.address(stage) for stage in first.stages)
    # What it addresses is what a sweep addresses.
    plain = dataclasses.replace(first, recorded=type(first.recorded)({}))
    assert [plain.address(stage) for stage in plain.stages] == [first.address(stage) for stage in first.stages]


def test_the_file_tells_reports_of_the_stages_and_no_more(run: RunDirectory) -> None:
    content = json.loads((run.path / "sweep.json").read_text())
    assert [stage["name"] for stage in content["stages"]] == ["behavior", "critic", "policy", "srpo_online"]
    assert content["members"][1]["values"] == {"beta": 0.2}
    assert {"python", "jax", "numpy"} <= content["versions"].keys()
    assert content["command"]


def test_a_part_of_what_is_there_and_more_of_it_are_joined(run: RunDirectory, dataset: pathlib.Path) -> None:
    created = run.read()["created"]
    prepare(dataset, run.path, seeds=[1], beta=0.1)
    assert len(run.members()) == 4
    prepare(dataset, run.path, seeds=[7], beta=[0.1, 0.3])
    prepare(dataset, run.path, seeds=[7], algorithm="awac")
    assert [(m.seed, m.algorithm) for m in run.members()][:3] == [(7, "awac"), (7, "srpo"), (7, "srpo")]
    assert len(run.members()) == 7
    assert run.read()["created"] == created


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy_steps": 9}, r"holds a run with policy_steps=8, not 9; .* --policy_steps=8"),
        ({"critic_width": 8}, r"holds a run with critic_width=16, not 8"),
        ({"behavior_learning_rate": 0.5}, r"holds a run with behavior_learning_rate=.*, not 0.5"),
        ({"episodes": 2}, r"holds a run with episodes=1, not 2"),
        ({"options": ELSEWHERE}, r"holds a run in another environment, Pendulum-v1; choose another"),
        ({"seeds": [7], "policy_steps": 9}, r"holds a run with policy_steps=8, not 9"),
        (
            {"algorithm": "awac", "normalize_observations": False},
            r"holds a run with normalize_observations=True, not Fa",
        ),
    ],
)
def test_another_sweep_is_refused(
    run: RunDirectory, dataset: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    before = (run.path / "sweep.json").read_bytes()
    with pytest.raises(UserError, match=message):
        prepare(dataset, run.path, **change)
    assert (run.path / "sweep.json").read_bytes() == before


def test_other_data_of_the_same_name_are_refused(run: RunDirectory, tmp_path: pathlib.Path) -> None:
    other = synthetic.write_pendulum(tmp_path / "one.hdf5", seed=3)
    with pytest.raises(UserError, match="holds a run on other data named one"):
        prepare(other, run.path)


def test_members_of_a_method_that_is_not_given_are_refused_in_one_line(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Nothing that a file names is imported."""
    mine = dataclasses.replace(iql.METHOD, name="mine")
    prepare(dataset, tmp_path / "run", algorithm=mine, beta=0.1)
    with pytest.raises(UserError, match=r"holds members of mine, .* --algorithm=package.module:METHOD") as caught:
        RunDirectory(tmp_path / "run").members()
    assert "\n" not in str(caught.value)
    assert [m.method for m in RunDirectory(tmp_path / "run", methods=[mine]).members()] == [mine, mine]


def test_diverged_members_are_kept_by_the_columns_that_name_them(run: RunDirectory) -> None:
    member = run.members()[0]
    entry = member.row(srpo.STAGE) | {"update": 3}
    run.add_diverged([entry])
    run.add_diverged([entry, member.row(iql.STAGE) | {"update": 4}])
    diverged = run.read()["diverged"]
    assert [(one["stage"], one["update"]) for one in diverged] == [("policy", 3), ("critic", 4)]


def test_files_cut_short_by_a_kill_are_repaired(run: RunDirectory) -> None:
    row = run.members()[0].row(srpo.STAGE) | {"step": 4}
    run.create()
    run.metrics.append([row])
    with (run.path / "metrics.csv").open("a") as file:
        file.write("policy,on")
    run.create()
    assert [one["step"] for one in csv_log.read_rows(run.path / "metrics.csv")] == ["4"]


def test_results_and_what_they_measured_lie_by_address(run: RunDirectory, tmp_path: pathlib.Path) -> None:
    member = run.members()[0]
    assert not run.has_result(srpo.STAGE, member)
    assert not run.shares_artefacts
    shared = RunDirectory(run.path, tmp_path / "shared")
    assert shared.shares_artefacts
    address = member.address(srpo.STAGE)
    assert shared.artefact(srpo.STAGE, address) == tmp_path / "shared" / "policy" / address
    assert shared.measured(srpo.STAGE, address) == {}
    shared.save_measured(srpo.STAGE, address, {"loss": "1"})
    assert shared.measured(srpo.STAGE, address) == {"loss": "1"}


def test_trajectories_of_an_algorithm_replace_its_older_ones(run: RunDirectory) -> None:
    run.add_trajectories("a/b", {"srpo_0": np.zeros((3, 2)), "srpo_1": np.zeros((3, 2)), "iql_0": np.ones((2, 2))})
    run.add_trajectories("a/b", {"srpo_0": np.ones((4, 2))})
    with np.load(run.path / "trajectories" / "a_b.npz") as kept:
        assert {name: kept[name].shape for name in kept} == {"iql_0": (2, 2), "srpo_0": (4, 2)}


def test_populations_are_named_by_their_members_in_order(run: RunDirectory) -> None:
    members = run.members()
    names = {
        run_directory.population_name(srpo.STAGE, own) for own in (members, members[::-1], members[:1], members[:2])
    }
    assert len(names) == 4
    assert all(name.startswith("policy-") for name in names)
    assert run_directory.population_name(srpo.STAGE, members) in names


def test_what_is_no_place_for_a_run_is_refused(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"--out=.*: cannot be written"):
            prepare(dataset, out)
