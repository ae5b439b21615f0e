"""Real runs of all stages: extended, diverged, and traced as often as a single member is."""

import functools
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.population.offline import OfflinePopulation, compile_programs
from jaxrl_srpo.runs import setup
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from tests import synthetic
from tests.data import ogbench_files

Paths = dict[str, pathlib.Path]
Train = Callable[..., RunDirectory]
SRPO = srpo.METHOD.stages
NAMES = tuple(stage.name for stage in SRPO)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Two datasets of equal sizes."""
    directory = tmp_path_factory.mktemp("data")
    return {
        "one": synthetic.write_pendulum(directory / "one.hdf5", seed=1),
        "two": synthetic.write_pendulum(directory / "two.hdf5", seed=2, episodes=3),
    }


@pytest.fixture(scope="module")
def traces() -> Iterator[Counter[str]]:
    """How often the update of each module was traced."""
    counts: Counter[str] = Counter()

    def counting(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(init: Any, update: Any, *arguments: Any, **options: Any) -> Any:
            @functools.wraps(update)
            def counted(**declared: Any) -> Any:
                counts[update.__module__] += 1
                return update(**declared)

            return make(init, counted, *arguments, **options)

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "OfflinePopulation", counting(OfflinePopulation))
        patch.setattr(setup, "compile_programs", counting(compile_programs))
        yield counts


@pytest.fixture(scope="module")
def train(files: Paths) -> Train:
    def train(
        out: pathlib.Path, names: tuple[str, ...] = ("one", "two"), paths: Paths = files, **values: Any
    ) -> RunDirectory:
        options = jaxrl_srpo.Options(evaluate=False)
        messages: list[str] = []
        datasets = [str(paths[name]) for name in names]
        defaults = synthetic.TINY | {"options": options, "seeds": range(2), "log": messages.append}
        jaxrl_srpo.train(datasets, out, **defaults | values)
        return RunDirectory(out)

    return train


@pytest.fixture(scope="module")
def whole(
    train: Train, traces: Counter[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDirectory, Counter[str]]:
    """Two datasets, two seeds, two temperatures in one command, and the traces that it took."""
    traces.clear()
    run = train(tmp_path_factory.mktemp("whole") / "run", beta=[0.1, 0.2])
    return run, Counter(traces)


class TestTraining:
    """Real runs of all stages; the first test's directory is the reference of the others."""

    def test_every_stage_of_every_member_is_trained(self, whole: tuple[RunDirectory, Counter[str]]) -> None:
        run, _ = whole
        kept = {name: len(list((run.path / "checkpoints" / name).iterdir())) for name in NAMES}
        assert kept == {"behavior": 4, "critic": 4, "policy": 8}
        assert not list((run.path / "checkpoints" / "under_way").glob("*"))
        rows = csv_log.read_rows(run.path / "metrics.csv")
        assert Counter((row["stage"], row["step"]) for row in rows) == {
            (name, step): count for name, count in kept.items() for step in ("4", "8")
        }

    def test_smaller_runs_extended_by_seeds_data_and_temperatures_end_bitwise_the_same(
        self,
        train: Train,
        whole: tuple[RunDirectory, Counter[str]],
        traces: Counter[str],
        tmp_path: pathlib.Path,
    ) -> None:
        reference, once = whole
        traces.clear()
        train(tmp_path / "run", ("one",), seeds=[0], beta=0.1)
        # Eight members of two datasets were traced as often as a single one is.
        assert traces == once
        assert len(once) == 3
        stamps = {path: path.stat().st_mtime_ns for path in results(tmp_path / "run")}
        assert len(stamps) == 3
        traces.clear()
        run = train(tmp_path / "run", beta=[0.1, 0.2])
        assert traces == once
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
        assert_same_results(run, reference)
        traces.clear()
        train(tmp_path / "run", beta=[0.1, 0.2])
        assert not traces
        # A part of what is there leaves the rest in the directory.
        train(tmp_path / "run", ("two",), seeds=[1], beta=0.1)
        assert not traces
        assert len(RunDirectory(tmp_path / "run").members()) == 8

    def test_tasks_on_the_same_data_cost_one_behavior_model(self, train: Train, tmp_path: pathlib.Path) -> None:
        ogbench_files.write(tmp_path / "scene-play-v0.npz", ogbench_files.solved_tasks("scene", "play"))
        names = tuple(f"scene-play-singletask-task{number}-v0" for number in (1, 4))
        paths = {name: tmp_path / name for name in names}
        run = train(tmp_path / "run", names, paths=paths, seeds=[3])
        kept = {name: len(list((run.path / "checkpoints" / name).iterdir())) for name in NAMES}
        assert kept == {"behavior": 1, "critic": 2, "policy": 2}
        rows = [row for row in csv_log.read_rows(run.path / "metrics.csv") if row["stage"] == "behavior"]
        assert [(row["dataset"], row["step"]) for row in rows] == [(name, step) for step in "48" for name in names]
        assert len({row["loss"] for row in rows}) == 2
        for name in names:
            assert_same_results(train(tmp_path / name / "alone", (name,), paths=paths, seeds=[3]), run)
        # What is added later finds the behavior model there.
        later = train(tmp_path / "later", names[1:], paths=paths, seeds=[3])
        stamps = {path: path.stat().st_mtime_ns for path in results(later.path)}
        train(tmp_path / "later", names, paths=paths, seeds=[3])
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
        assert_same_results(later, run)
        assert len(results(later.path)) == 5
        rows = [row for row in csv_log.read_rows(later.path / "metrics.csv") if row["stage"] == "behavior"]
        assert [(row["dataset"], row["step"]) for row in rows] == [(names[1], "4"), (names[1], "8"), (names[0], "8")]
        assert rows[1]["loss"] == rows[2]["loss"]

    def test_a_shared_result_that_diverged_is_told_of_for_every_task(
        self, train: Train, tmp_path: pathlib.Path
    ) -> None:
        ogbench_files.write(tmp_path / "scene-play-v0.npz", ogbench_files.solved_tasks("scene", "play"))
        names = tuple(f"scene-play-singletask-task{number}-v0" for number in (1, 4))
        paths = {name: tmp_path / name for name in names}
        run = train(tmp_path / "run", names, paths=paths, seeds=[0, 1], behavior_learning_rate=3e38)
        told = run.read()
        found = [(one["stage"], one["dataset"], one["seed"]) for one in told["diverged"]]
        assert sorted(found) == [("behavior", name, seed) for name in names for seed in (0, 1)]
        without = [(one["stage"], one["dataset"], one["seed"], one["because"]) for one in told["not_trained"]]
        assert sorted(without) == [("policy", name, seed, "behavior") for name in names for seed in (0, 1)]

    def test_tasks_that_share_a_result_are_evaluated_each_in_its_own(
        self, train: Train, tmp_path: pathlib.Path
    ) -> None:
        pytest.importorskip("ogbench", reason="OGBench is not installed")
        name = "pointmaze-medium"
        ogbench_files.write(tmp_path / f"{name}-stitch-v0.npz", ogbench_files.solved_tasks(name, "stitch"))
        paths = {task: tmp_path / f"{name}-stitch-singletask-{task}-v0" for task in ("task2", "task3")}
        run = train(tmp_path / "run", tuple(paths), paths, seeds=[0], options=jaxrl_srpo.Options(), episodes=1)
        rows = csv_log.read_rows(run.path / "evaluations.csv")
        found = Counter((row["stage"], pathlib.Path(row["dataset"]).name) for row in rows)
        assert found == {(stage, path.name): 1 for stage in NAMES for path in paths.values()}
        assert {(row["metric"], row["final"], row["return_mean"], row["length_mean"]) for row in rows} == {
            ("success_rate", "1", "-1000", "1000")
        }
        drawn = {path.stem for path in (run.path / "trajectories").glob("[!.]*.npz")}
        assert drawn == {path.name for path in paths.values()}

    def test_a_diverged_member_is_named_and_changes_no_other(
        self, train: Train, whole: tuple[RunDirectory, Counter[str]], tmp_path: pathlib.Path
    ) -> None:
        reference, _ = whole
        for stage in ("behavior", "critic"):
            shutil.copytree(reference.path / "checkpoints" / stage, tmp_path / "run" / "checkpoints" / stage)
        rates = [reference.members()[0].settings["policy_learning_rate"], 3e38]
        run = train(tmp_path / "run", beta=[0.1, 0.2], policy_learning_rate=rates)
        diverged = json.loads((run.path / "sweep.json").read_text())["diverged"]
        names = [(one["dataset"], one["seed"], one["beta"], one["setting"]) for one in diverged]
        assert sorted(names) == [
            (dataset, seed, beta, "policy_learning_rate=3e+38")
            for dataset in ("one", "two")
            for seed in (0, 1)
            for beta in ("0.1", "0.2")
        ]
        assert {(one["stage"], one["update"] >= 0) for one in diverged} == {("policy", True)}
        assert_same_results(reference, run)
        for member in run.members():
            leaves = jax.tree.leaves(load_result(run, srpo.STAGE, member))
            assert all(np.isfinite(leaf).all() for leaf in leaves)
        rows = csv_log.read_rows(run.path / "metrics.csv")
        stopped = [row["loss"] for row in rows if "3e+38" in row["setting"] and row["step"] == "8"]
        assert stopped == [""] * 8

    def test_what_stands_on_a_diverged_stage_is_named_and_changes_no_other(
        self,
        train: Train,
        whole: tuple[RunDirectory, Counter[str]],
        traces: Counter[str],
        tmp_path: pathlib.Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        reference, _ = whole
        shutil.copytree(reference.path / "checkpoints" / "behavior", tmp_path / "shared" / "behavior")
        rates = [reference.members()[0].settings["critic_learning_rate"], 3e38]
        values = {
            "beta": [0.1, 0.2],
            "critic_learning_rate": rates,
            "options": jaxrl_srpo.Options(evaluate=False, artefacts=tmp_path / "shared"),
        }
        train(tmp_path / "run", **values)
        run = RunDirectory(tmp_path / "run", tmp_path / "shared")
        said = capsys.readouterr().err
        update = run.read()["diverged"][0]["update"]
        assert "not trained: srpo one seed=0 beta=0.1 critic_learning_rate=3e+38: its critic diverged at up" in said
        not_trained = run.read()["not_trained"]
        assert len(not_trained) == 8
        assert {(one["stage"], one["because"], one["setting"]) for one in not_trained} == {
            ("policy", "critic", "critic_learning_rate=3e+38")
        }
        # The others are trained as they are without it.
        assert len(list((tmp_path / "shared" / "policy").glob("*[!n]"))) == 8
        for member in reference.members():
            ours, theirs = (load_result(one, srpo.STAGE, member) for one in (run, reference))
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        # The same command again, and another run that finds the results, agree.
        traces.clear()
        train(tmp_path / "run", **values)
        train(tmp_path / "other", **values)
        assert not traces
        assert RunDirectory(tmp_path / "run").read()["not_trained"] == not_trained
        assert RunDirectory(tmp_path / "other").read()["not_trained"] == not_trained
        assert update >= 0


def results(run: pathlib.Path) -> list[pathlib.Path]:
    """Directories of finished stages."""
    return [path for name in NAMES for path in (run / "checkpoints" / name).iterdir()]


def assert_same_results(run: RunDirectory, other: RunDirectory) -> None:
    """Every result of `run` is bitwise that of `other`."""
    members = run.members()
    assert members
    for member in members:
        for stage in SRPO:
            jax.tree.map(
                np.testing.assert_array_equal, load_result(run, stage, member), load_result(other, stage, member)
            )
