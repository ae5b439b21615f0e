"""Sweeps as members, addresses and populations; run directories that are extended, repaired or refused."""

import dataclasses
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
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods.stages import (
    AWAC,
    AWAC_ONLINE,
    BEHAVIOR,
    CLONING,
    CRITIC,
    ONLINE,
    POLICY,
    SRPO_ONLINE,
    STAGES,
    Stage,
)
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member, Sweep, populations, shared_groups, unique
from jaxrl_srpo.runs.trainer import load_result
from jaxrl_srpo.types import Array, Batch, Metrics
from tests import synthetic

Paths = dict[str, pathlib.Path]
SRPO = (BEHAVIOR, CRITIC, POLICY)
NAMES = tuple(stage.name for stage in SRPO)
ELSEWHERE = jaxrl_srpo.Options(evaluate=False, environment="MountainCarContinuous-v0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Two datasets of equal sizes."""
    directory = tmp_path_factory.mktemp("data")
    return {
        "one": synthetic.write_pendulum(directory / "one.hdf5", seed=1),
        "two": synthetic.write_pendulum(directory / "two.hdf5", seed=2, episodes=3),
    }


@pytest.fixture(scope="module")
def datasets(files: Paths) -> list[Dataset]:
    return [jaxrl_srpo.load_dataset(path) for path in files.values()]


def members_of(datasets: list[Dataset], seeds: tuple[int, ...] = (0, 1), **overrides: tuple[Any, ...]) -> list[Member]:
    names = tuple(dataset.name for dataset in datasets)
    return Sweep(names, seeds, "quick", overrides).members(datasets)


class TestMembers:
    def test_they_are_the_product_of_datasets_seeds_and_values(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, (3, 5), beta=(0.1, 0.2), expectile=(0.7, 0.9), policy_steps=(70,))
        found = [(m.dataset, m.seed, m.settings.beta, m.settings.expectile) for m in members]
        expected = [(d, s, b, e) for d in ("one", "two") for s in (3, 5) for b in (0.1, 0.2) for e in (0.7, 0.9)]
        assert found == expected
        assert {m.settings.policy_steps for m in members} == {70}

    def test_labels_name_what_varies_and_only_where_it_reaches(self, datasets: list[Dataset]) -> None:
        values: dict[str, tuple[Any, ...]] = {
            "beta": (0.1,),
            "expectile": (0.7, 0.9),
            "policy_learning_rate": (1e-3, 1e-4),
            "discount": (0.9,),
        }
        member = members_of(datasets[:1], (4,), **values)[-1]
        assert member.setting == "expectile=0.9;policy_learning_rate=0.0001"
        assert [member.row(stage)["setting"] for stage in SRPO] == ["", "expectile=0.9", member.setting]
        assert [member.row(stage)["beta"] for stage in SRPO] == ["", "", "0.1"]
        assert member.name(BEHAVIOR) == "bc one seed=4"
        assert member.name(CRITIC) == "iql one seed=4 expectile=0.9"
        assert member.name(POLICY) == "srpo one seed=4 beta=0.1 expectile=0.9 policy_learning_rate=0.0001"

    def test_a_sweep_without_values_takes_the_presets(self, datasets: list[Dataset]) -> None:
        (member,) = members_of(datasets[:1], (0,))
        assert member.settings == members_of(datasets[:1], (0,), beta=(member.settings.beta,))[0].settings
        assert member.setting == ""

    @pytest.mark.parametrize(
        ("sweep", "message"),
        [
            ({"datasets": ()}, "name at least one dataset"),
            ({"seeds": ()}, "name at least one seed"),
            ({"seeds": (1, 1)}, "a value is given twice in 1, 1"),
            ({"datasets": ("a", "a")}, "a value is given twice in a, a"),
            ({"overrides": {"beta": (0.1, 0.1)}}, "--beta: a value is given twice"),
            ({"overrides": {"policy_steps": (1, 2)}}, "--policy_steps: takes one value; .* beta"),
            (
                {"overrides": {"time_min": (0.5,), "time_max": (0.4,)}},
                "--time_min=0.5: must not be above --time_max=0.4",
            ),
            ({"overrides": {"time_min": (0.1, 0.99)}}, "--time_min=0.99: must not be above --time_max=0.98"),
            ({"overrides": {"expectile": (0.5, 1.0)}}, "--expectile=1.0: must be below 1"),
            ({"overrides": {"betas": (0.5,)}}, "betas: no such setting"),
        ],
    )
    def test_what_cannot_be_trained_is_refused(self, sweep: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Sweep(**{"datasets": ("one",), "seeds": (0,)} | sweep)


class TestAlgorithms:
    def members(self, datasets: list[Dataset], *algorithms: str, **overrides: tuple[Any, ...]) -> list[Member]:
        return Sweep(("one",), (0,), "quick", overrides, algorithms=algorithms).members(datasets[:1])

    def test_each_makes_members_of_what_it_reads(self, datasets: list[Dataset]) -> None:
        members = self.members(datasets, "srpo", "awac", beta=(0.1, 0.2), awac_lambda=(0.3, 1.0, 3.0))
        assert [(m.algorithm, m.settings.beta) for m in members[:2]] == [("srpo", 0.1), ("srpo", 0.2)]
        assert [(m.algorithm, m.settings.awac_lambda) for m in members[2:]] == [("awac", x) for x in (0.3, 1.0, 3.0)]
        counts = {name: len(unique(members, stage)) for name, stage in STAGES.items()}
        assert {name: count for name, count in counts.items() if count} == {
            **{"behavior": 1, "critic": 1, "policy": 2},
            **{"cloning": 1, "awac": 3},
        }
        assert members[-1].name(AWAC) == "awac one seed=0 awac_lambda=3"
        assert members[-1].name(CLONING) == "cloning one seed=0"

    @pytest.mark.parametrize(
        ("change", "changed"),
        [
            ({"awac_lambda": (0.3,)}, {"awac"}),
            ({"discount": (0.9,)}, {"awac"}),
            ({"awac_actor_layers": (1,)}, {"cloning", "awac"}),
            ({"expectile": (0.6,)}, set()),
        ],
    )
    def test_settings_change_what_reads_them(
        self, datasets: list[Dataset], change: dict[str, tuple[Any, ...]], changed: set[str]
    ) -> None:
        (before,), (after,) = self.members(datasets, "awac"), self.members(datasets, "awac", **change)
        assert {stage.name for stage in before.stages if before.address(stage) != after.address(stage)} == changed

    def test_what_goes_on_online_follows_what_it_goes_on_from(self, datasets: list[Dataset]) -> None:
        settings: dict[str, tuple[Any, ...]] = {"online_steps": (9,), "beta": (0.1, 0.2), "awac_lambda": (0.3, 1.0)}
        members = self.members(datasets, "srpo", "awac", "iql", "sac", "sac-offline", **settings)
        assert [len(unique(members, STAGES[name])) for name in ONLINE.values()] == [4, 1, 2, 1, 1]
        assert members[3].name(SRPO_ONLINE) == "srpo_online one seed=0 beta=0.2 awac_lambda=1"
        (changed,) = self.members(datasets, "awac", online_steps=(9,), awac_critic_layers=(1,))
        (kept,) = self.members(datasets, "awac", online_steps=(9,), update_to_data=(2.0,))
        (before,) = self.members(datasets, "awac", online_steps=(9,))
        assert changed.address(AWAC_ONLINE) != before.address(AWAC_ONLINE) != kept.address(AWAC_ONLINE)
        assert kept.address(AWAC) == before.address(AWAC)

    def test_sac_from_scratch_has_nothing_to_do_offline(self, datasets: list[Dataset]) -> None:
        with pytest.raises(UserError, match="--algorithm=sac: learns online alone; give --online_steps"):
            self.members(datasets, "sac")

    @pytest.mark.parametrize("algorithms", [(), ("cql",)])
    def test_unknown_ones_are_refused(self, datasets: list[Dataset], algorithms: tuple[str, ...]) -> None:
        with pytest.raises(UserError, match=r"--algorithm=.*: choose from srpo, iql, awac"):
            self.members(datasets, *algorithms)


class TestAddresses:
    def addresses(self, datasets: list[Dataset], **overrides: tuple[Any, ...]) -> dict[str, str]:
        (member,) = members_of(datasets[:1], (0,), **overrides)
        return {name: member.address(stage) for name, stage in zip(NAMES, SRPO, strict=True)}

    @pytest.mark.parametrize(
        ("change", "changed"),
        [
            ({"beta": (0.123,)}, {"policy"}),
            ({"policy_learning_rate": (0.123,)}, {"policy"}),
            ({"expectile": (0.6,)}, {"critic", "policy"}),
            ({"reward_transform": ("d4rl-antmaze",)}, {"critic", "policy"}),
            ({"behavior_steps": (17,)}, {"behavior", "policy"}),
            ({"actor_layers": (3,)}, {"critic", "policy"}),
            ({"precision": ("tf32",)}, {"behavior", "critic", "policy"}),
            ({"episodes": (3,)}, set()),
            ({"log_interval": (3,)}, set()),
        ],
    )
    def test_a_setting_changes_its_stage_and_the_later_ones_only(
        self, datasets: list[Dataset], change: dict[str, tuple[Any, ...]], changed: set[str]
    ) -> None:
        before, after = self.addresses(datasets), self.addresses(datasets, **change)
        assert {name for name in before if before[name] != after[name]} == changed

    def test_seed_and_data_change_all_of_them(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets)
        for stage in SRPO:
            assert len({member.address(stage) for member in members}) == 4

    def test_the_name_of_the_data_does_not_matter(self, datasets: list[Dataset]) -> None:
        renamed = dataclasses.replace(datasets[0], name="other", source="elsewhere")
        assert members_of([renamed])[0].address(POLICY) == members_of(datasets)[0].address(POLICY)

    def test_the_environment_determines_what_is_learned_online_alone(self, datasets: list[Dataset]) -> None:
        elsewhere = dataclasses.replace(datasets[0], environment=EnvironmentSpec("Pendulum-v1", {"g": 9.0}))
        before, after = (
            Sweep(("one",), (0,), "quick", {"online_steps": (9,)}, algorithms=("awac",)).members([dataset])[0]
            for dataset in (datasets[0], elsewhere)
        )
        changed = {stage.name for stage in before.stages if before.address(stage) != after.address(stage)}
        assert changed == {"awac_online"}

    def test_equal_data_of_two_tasks_have_a_member_each(self, datasets: list[Dataset]) -> None:
        twin = dataclasses.replace(datasets[0], name="twin", environment=EnvironmentSpec("Pendulum-v1", {"g": 9.0}))
        members = members_of([datasets[0], twin])
        for stage in SRPO:
            assert unique(members, stage) == members
            assert len({member.address(stage) for member in members}) == 2

    def test_a_new_version_of_a_stage_makes_new_results(self, datasets: list[Dataset]) -> None:
        member = members_of(datasets)[0]
        assert member.address(dataclasses.replace(CRITIC, version=CRITIC.version + 1)) != member.address(CRITIC)

    def test_whole_numbers_are_the_same_as_decimals(self, datasets: list[Dataset]) -> None:
        assert self.addresses(datasets, beta=(1,)) == self.addresses(datasets, beta=(1.0,))

    def test_temperatures_share_behaviour_and_critic(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, beta=(0.1, 0.2, 0.3))
        assert [len(unique(members, stage)) for stage in SRPO] == [4, 4, 12]
        assert unique(members, BEHAVIOR) == members[::3]
        groups = shared_groups(members, POLICY)
        assert [[m.settings.beta for m in group] for group in groups] == [[0.1, 0.2, 0.3]] * 4
        assert shared_groups(members[:2] + members[3:4], POLICY) == [[members[0]], [members[1]], [members[3]]]


class TestPopulations:
    def test_datasets_of_equal_sizes_share_one(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, beta=(0.1, 0.2))
        for stage in SRPO:
            assert populations(members, stage) == [members]

    def test_datasets_of_other_sizes_have_their_own(self, datasets: list[Dataset]) -> None:
        wider = dataclasses.replace(
            datasets[1], observations=np.zeros((9, 4), np.float32), next_observations=np.zeros((9, 4), np.float32)
        )
        members = members_of([datasets[0], wider])
        for stage in SRPO:
            assert populations(members, stage) == [members[:2], members[2:]]

    def test_families_with_other_presets_have_their_own(self, datasets: list[Dataset]) -> None:
        maze = dataclasses.replace(datasets[1], family="pointmaze")
        members = members_of([datasets[0], maze])
        assert populations(members, CRITIC) == [members[:2], members[2:]]

    def test_swept_numbers_do_not_split_one(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, expectile=(0.6, 0.7), policy_learning_rate=(1e-3, 1e-4))
        for stage in SRPO:
            assert populations(members, stage) == [members]


class TestCsvFiles:
    COLUMNS = ("name", "value")

    def log(self, directory: pathlib.Path) -> csv_log.CsvLog:
        return csv_log.CsvLog(directory / "log.csv", self.COLUMNS)

    @pytest.mark.parametrize("torn", ["b", "b,", "b,2", '"b', "b,2.5e"])
    def test_a_torn_last_line_is_dropped_and_written_again(self, tmp_path: pathlib.Path, torn: str) -> None:
        self.log(tmp_path).append([{"name": "a", "value": 1}])
        with (tmp_path / "log.csv").open("a") as file:
            file.write(torn)
        log = self.log(tmp_path)
        assert log.rows() == [{"name": "a", "value": "1"}]
        log.append([{"name": "b", "value": 2}])
        assert (tmp_path / "log.csv").read_text() == "name,value\na,1\nb,2\n"

    @pytest.mark.parametrize("content", ["", "nam", "name,value"])
    def test_a_torn_header_is_replaced(self, tmp_path: pathlib.Path, content: str) -> None:
        (tmp_path / "log.csv").write_text(content)
        assert self.log(tmp_path).rows() == []
        assert (tmp_path / "log.csv").read_text() == "name,value\n"

    def test_a_file_with_fewer_columns_gets_the_new_ones(self, tmp_path: pathlib.Path) -> None:
        self.log(tmp_path).append([{"name": "a", "value": 1}])
        log = csv_log.CsvLog(tmp_path / "log.csv", ("name", "added", "value"))
        log.append([{"name": "b", "value": 2, "added": 3}])
        assert (tmp_path / "log.csv").read_text() == "name,added,value\na,,1\nb,3,2\n"

    def test_rows_are_dropped_by_choice(self, tmp_path: pathlib.Path) -> None:
        log = self.log(tmp_path)
        log.append([{"name": f"a,{i}", "value": i} for i in range(3)])
        log.keep(lambda row: row["value"] != "1")
        assert [row["name"] for row in self.log(tmp_path).rows()] == ["a,0", "a,2"]


@pytest.fixture(scope="module")
def traces() -> Iterator[Counter[str]]:
    """How often each stage's update was traced."""
    counts: Counter[str] = Counter()

    def counting(stage: Stage) -> Stage:
        def update(state: Any, batch: Batch, key: Array, hyper: Any, frozen: Any) -> tuple[Any, Metrics]:
            counts[stage.name] += 1
            return stage.update(state, batch, key, hyper, frozen)

        return dataclasses.replace(stage, update=update)

    with pytest.MonkeyPatch.context() as patch:
        for name, stage in STAGES.items():
            patch.setitem(STAGES, name, counting(stage))
        yield counts


@pytest.fixture(scope="module")
def train(files: Paths) -> Callable[..., RunDirectory]:
    def train(out: pathlib.Path, names: tuple[str, ...] = ("one", "two"), **values: Any) -> RunDirectory:
        options = jaxrl_srpo.Options(evaluate=False)
        messages: list[str] = []
        datasets = [str(files[name]) for name in names]
        defaults = synthetic.TINY | {"options": options, "seeds": range(2), "log": messages.append}
        jaxrl_srpo.train(datasets, out, **defaults | values)
        return RunDirectory(out)

    return train


@pytest.fixture(scope="module")
def whole(
    train: Callable[..., RunDirectory], traces: Counter[str], tmp_path_factory: pytest.TempPathFactory
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
        rows = csv_log.CsvLog(run.path / "csv_log.csv", csv_log.METRICS_COLUMNS).rows()
        assert Counter((row["stage"], row["step"]) for row in rows) == {
            (name, step): count for name, count in kept.items() for step in ("4", "8")
        }

    def test_smaller_runs_extended_by_seeds_data_and_temperatures_end_bitwise_the_same(
        self,
        train: Callable[..., RunDirectory],
        whole: tuple[RunDirectory, Counter[str]],
        traces: Counter[str],
        tmp_path: pathlib.Path,
    ) -> None:
        reference, once = whole
        traces.clear()
        train(tmp_path / "run", ("one",), seeds=[0], beta=0.1)
        # Eight members of two datasets were traced as often as a single one is.
        assert traces == once
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

    def test_a_diverged_member_is_named_and_changes_no_other(
        self, train: Callable[..., RunDirectory], whole: tuple[RunDirectory, Counter[str]], tmp_path: pathlib.Path
    ) -> None:
        reference, _ = whole
        for stage in ("behavior", "critic"):
            shutil.copytree(reference.path / "checkpoints" / stage, tmp_path / "run" / "checkpoints" / stage)
        rates = [reference.members()[0].settings.policy_learning_rate, 3e38]
        run = train(tmp_path / "run", beta=[0.1, 0.2], policy_learning_rate=rates)
        sweep = json.loads((run.path / "sweep.json").read_text())
        assert sorted(sweep["diverged"]) == sorted(
            f"srpo {dataset} seed={seed} beta={beta} policy_learning_rate=3e+38"
            for dataset in ("one", "two")
            for seed in (0, 1)
            for beta in (0.1, 0.2)
        )
        assert_same_results(reference, run)
        for member in run.members():
            leaves = jax.tree.leaves(load_result(run, POLICY, member))
            assert all(np.isfinite(leaf).all() for leaf in leaves)
        rows = csv_log.CsvLog(run.path / "csv_log.csv", csv_log.METRICS_COLUMNS).rows()
        stopped = [row["loss"] for row in rows if "3e+38" in row["setting"] and row["step"] == "8"]
        assert stopped == [""] * 8

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"policy_steps": 9}, r"holds a run with policy_steps=8, not 9; .* --policy_steps=8"),
            ({"critic_width": 8}, r"holds a run with critic_width=16, not 8"),
            ({"behavior_learning_rate": 0.5}, r"holds a run with behavior_learning_rate=.*, not 0.5"),
            ({"episodes": 2}, r"holds a run with episodes=1, not 2"),
            ({"options": ELSEWHERE}, r"holds a run in another environment, Pendulum-v1; choose another"),
            ({"seeds": [7], "policy_steps": 9}, r"holds a run with policy_steps=8, not 9"),
        ],
    )
    def test_a_directory_of_another_sweep_is_refused(
        self,
        train: Callable[..., RunDirectory],
        whole: tuple[RunDirectory, Counter[str]],
        change: dict[str, Any],
        message: str,
    ) -> None:
        run, _ = whole
        before = (run.path / "sweep.json").read_bytes()
        with pytest.raises(UserError, match=message):
            train(run.path, **{"beta": [0.1, 0.2]} | change)
        assert (run.path / "sweep.json").read_bytes() == before

    def test_a_directory_of_other_data_of_the_same_name_is_refused(
        self, train: Callable[..., RunDirectory], whole: tuple[RunDirectory, Counter[str]], tmp_path: pathlib.Path
    ) -> None:
        run, _ = whole
        other = synthetic.write_pendulum(tmp_path / "one.hdf5", seed=3)
        with pytest.raises(UserError, match="holds a run on other data named one"):
            jaxrl_srpo.train(str(other), run.path, log=lambda message: None, **synthetic.TINY)

    def test_two_files_of_one_name_are_refused(self, files: Paths, tmp_path: pathlib.Path) -> None:
        other = synthetic.write_pendulum(tmp_path / "one.hdf5", seed=3)
        with pytest.raises(UserError, match="would both be called one"):
            jaxrl_srpo.train([str(files["one"]), str(other)], tmp_path / "run")

    def test_equal_data_of_one_task_are_refused(self, files: Paths, tmp_path: pathlib.Path) -> None:
        shutil.copy(files["one"], tmp_path / "other.hdf5")
        with pytest.raises(UserError, match="--datasets: one and other hold the same transitions; name one of them"):
            jaxrl_srpo.train([str(files["one"]), str(tmp_path / "other.hdf5")], tmp_path / "run")
        assert not (tmp_path / "run").exists()


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
