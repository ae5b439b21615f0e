"""Sweeps as members, addresses and populations."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, awac, behavior, every_method, find_method, iql, srpo, stages_in_order
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.runs.sweep import Member, Sweep, by_training, populations, shared_groups, stages_of, unique
from tests import synthetic

SRPO = srpo.METHOD.stages
STAGES = {stage.name: stage for stage in stages_in_order(METHODS)}
# Addresses by preset and stage that commit 8248fb0 gave, when all stages had the version 1.
RELEASED = {
    "quick": {
        "behavior": "2358587f3f3968bd",
        "critic": "089241cea72d1811",
        "policy": "5b6735d9901e586c",
        "srpo_online": "6504543d01ceca6c",
        "iql_online": "266f22348b632677",
        "sac": "b2b9d40f30cdf7c3",
        "cloning": "fada84dd0d769a29",
        "awac": "9c0a4a5ecdee09a0",
        "awac_online": "83a76e1b254ffe00",
    },
    "paper": {
        "behavior": "fb697725bfb9c7a2",
        "critic": "9d54bf4e831eec66",
        "policy": "b4c4458ea00a4456",
        "srpo_online": "9dce65fc15727e2a",
        "iql_online": "9c1f0320bc23d0d7",
        "sac": "412247a91c80a0c0",
    },
    "corl": {"cloning": "8da6397f1287458d", "awac": "2492f232f75c618f", "awac_online": "150c7c11f7a5318b"},
}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """Two datasets of equal sizes."""
    directory = tmp_path_factory.mktemp("data")
    paths = [
        synthetic.write_pendulum(directory / "one.hdf5", seed=1),
        synthetic.write_pendulum(directory / "two.hdf5", seed=2, episodes=3),
    ]
    return [jaxrl_srpo.load_dataset(path) for path in paths]


@pytest.fixture
def first_version() -> Iterator[None]:
    """Stages with the version that they had at first."""
    versions = {stage: stage.version for stage in STAGES.values()}
    for stage in versions:
        object.__setattr__(stage, "version", 1)
    yield
    for stage, version in versions.items():
        object.__setattr__(stage, "version", version)


def members_of(datasets: list[Dataset], seeds: tuple[int, ...] = (0, 1), **overrides: tuple[Any, ...]) -> list[Member]:
    names = tuple(dataset.name for dataset in datasets)
    return Sweep(names, seeds, "quick", overrides).members(datasets)


class TestSeeds:
    def test_models_may_be_shared_by_turns(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets[:1], (3, 4, 5), behavior_seeds=(1,), critic_seeds=(2,))
        assert [len(unique(members, stage)) for stage in stages_of(members)] == [1, 2, 3]
        assert [member.seed_of(iql.STAGE) for member in members] == [1, 0, 1]
        assert [member.row(srpo.STAGE)["seed"] for member in members] == [3, 4, 5]
        assert {member.row(behavior.STAGE)["seed"] for member in members} == {0}
        # The model of a seed is the same whoever shares it.
        (alone,) = members_of(datasets[:1], (0,))
        assert members[0].address(behavior.STAGE) == alone.address(behavior.STAGE)
        assert members[1].address(iql.STAGE) == alone.address(iql.STAGE)
        assert members[0].address(iql.STAGE) != alone.address(iql.STAGE)


class TestMembers:
    def test_they_are_the_product_of_datasets_seeds_and_values(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, (3, 5), beta=(0.1, 0.2), expectile=(0.7, 0.9), policy_steps=(70,))
        found = [(m.dataset, m.seed, m.settings["beta"], m.settings["expectile"]) for m in members]
        expected = [(d, s, b, e) for d in ("one", "two") for s in (3, 5) for b in (0.1, 0.2) for e in (0.7, 0.9)]
        assert found == expected
        assert {m.settings["policy_steps"] for m in members} == {70}

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
        assert member.name(behavior.STAGE) == "bc one seed=4"
        assert member.name(iql.STAGE) == "iql one seed=4 expectile=0.9"
        assert member.name(srpo.STAGE) == "srpo one seed=4 beta=0.1 expectile=0.9 policy_learning_rate=0.0001"

    def test_a_sweep_without_values_takes_the_presets(self, datasets: list[Dataset]) -> None:
        (member,) = members_of(datasets[:1], (0,))
        assert member.settings == members_of(datasets[:1], (0,), beta=(member.settings["beta"],))[0].settings
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
            # The last of 1,024 combinations, of settings that have nothing to do with each other but for two.
            (
                {
                    "overrides": {
                        "beta": tuple(0.01 * i for i in range(1, 33)),
                        "time_min": (*(0.01 * i for i in range(1, 16)), 0.9),
                        "time_max": (0.95, 0.5),
                    }
                },
                "--time_min=0.9: must not be above --time_max=0.5",
            ),
        ],
    )
    def test_what_cannot_be_trained_is_refused(self, sweep: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Sweep(**{"datasets": ("one",), "seeds": (0,)} | sweep)

    def test_values_that_are_nearly_equal_have_names_of_their_own(self, datasets: list[Dataset]) -> None:
        close = (0.1, 0.1000001)
        members = members_of(datasets[:1], (0,), beta=close, expectile=(0.7, 0.7000001))
        assert len({member.name(srpo.STAGE) for member in members}) == 4
        assert [member.row(srpo.STAGE)["beta"] for member in members] == ["0.1", "0.1", "0.1000001", "0.1000001"]
        assert [member.result(srpo.STAGE).beta for member in members[::2]] == list(close)
        assert members[1].setting == "expectile=0.7000001"

    def test_a_note_tells_of_a_beta_that_the_paper_does_not_have(self, datasets: list[Dataset]) -> None:
        (note,) = Sweep(("one",), (0,), "paper").notes(datasets[:1])
        assert note.startswith("one: the paper has no beta for it; --beta chooses one")
        assert not Sweep(("one",), (0,), "paper", {"beta": (0.1,)}).notes(datasets[:1])
        assert not Sweep(("one",), (0,), "quick").notes(datasets[:1])


class TestAlgorithms:
    def members(self, datasets: list[Dataset], *algorithms: str, **overrides: tuple[Any, ...]) -> list[Member]:
        return Sweep(("one",), (0,), "quick", overrides, algorithms=algorithms).members(datasets[:1])

    def test_each_makes_members_of_what_it_reads(self, datasets: list[Dataset]) -> None:
        members = self.members(datasets, "srpo", "awac", beta=(0.1, 0.2), awac_lambda=(0.3, 1.0, 3.0))
        assert [(m.algorithm, m.settings["beta"]) for m in members[:2]] == [("srpo", 0.1), ("srpo", 0.2)]
        assert [(m.algorithm, m.settings["awac_lambda"]) for m in members[2:]] == [("awac", x) for x in (0.3, 1.0, 3.0)]
        counts = {name: len(unique(members, stage)) for name, stage in STAGES.items()}
        assert {name: count for name, count in counts.items() if count} == {
            **{"behavior": 1, "critic": 1, "policy": 2},
            **{"cloning": 1, "awac": 3},
        }
        assert members[-1].name(awac.STAGE) == "awac one seed=0 awac_lambda=3"
        assert members[-1].name(awac.CLONING) == "cloning one seed=0"

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
        online = ("srpo_online", "iql_online", "awac_online", "sac_online", "sac")
        assert [len(unique(members, STAGES[name])) for name in online] == [4, 1, 2, 1, 1]
        assert members[3].name(srpo.ONLINE) == "srpo_online one seed=0 beta=0.2 awac_lambda=1"
        (changed,) = self.members(datasets, "awac", online_steps=(9,), awac_critic_layers=(1,))
        (kept,) = self.members(datasets, "awac", online_steps=(9,), update_to_data=(2.0,))
        (before,) = self.members(datasets, "awac", online_steps=(9,))
        assert changed.address(awac.ONLINE) != before.address(awac.ONLINE) != kept.address(awac.ONLINE)
        assert kept.address(awac.STAGE) == before.address(awac.STAGE)

    def test_sac_from_scratch_has_nothing_to_do_offline(self, datasets: list[Dataset]) -> None:
        with pytest.raises(UserError, match="--algorithm=sac: learns online alone; give --online_steps"):
            self.members(datasets, "sac")

    @pytest.mark.parametrize(
        ("algorithms", "message"),
        [
            ((), "--algorithm: name at least one, for instance srpo"),
            (("cql",), r"--algorithm=cql: choose from srpo, "),
            (("iql", "iql"), "--algorithm: a value is given twice in iql, iql"),
        ],
    )
    def test_unknown_ones_are_refused(self, datasets: list[Dataset], algorithms: tuple[str, ...], message: str) -> None:
        with pytest.raises(UserError, match=message):
            self.members(datasets, *algorithms)

    def test_presets_belong_to_methods(self, datasets: list[Dataset]) -> None:
        for preset, algorithm, own in (("corl", "srpo", "quick, paper"), ("paper", "awac", "quick, official-mujoco")):
            sweep = Sweep(("one",), (0,), preset, algorithms=(algorithm,))
            with pytest.raises(UserError, match=f"--preset={preset}: {algorithm} has none .*; choose one of {own}"):
                sweep.members(datasets[:1])

    def test_stages_come_in_the_order_of_training(self, datasets: list[Dataset]) -> None:
        members = self.members(datasets, "awac", "srpo", online_steps=(9,))
        names = [stage.name for stage in stages_of(members)]
        assert sorted(names, key=lambda name: "online" in name) == names
        assert set(names) == {"cloning", "awac", "awac_online", "behavior", "critic", "policy", "srpo_online"}


class TestAddresses:
    def addresses(self, datasets: list[Dataset], **overrides: tuple[Any, ...]) -> dict[str, str]:
        (member,) = members_of(datasets[:1], (0,), **overrides)
        return {stage.name: member.address(stage) for stage in SRPO}

    @pytest.mark.parametrize("preset", RELEASED)
    @pytest.mark.usefixtures("first_version")
    def test_they_are_those_of_the_release_but_for_the_version(self, datasets: list[Dataset], preset: str) -> None:
        dataset = dataclasses.replace(datasets[0], fingerprint=64 * "0")
        found: dict[str, str] = {}
        for method in METHODS:
            if preset in method.presets and {stage.name for stage in method.all_stages} <= RELEASED[preset].keys():
                sweep = Sweep(("one",), (3,), preset, {"online_steps": (700,)}, algorithms=(method.name,))
                (member,) = sweep.members([dataset])
                found |= {stage.name: member.address(stage) for stage in member.stages}
        assert {name: found[name] for name in RELEASED[preset]} == RELEASED[preset]

    def test_of_sac_on_a_dataset_they_have_the_budget(self, datasets: list[Dataset]) -> None:
        """The release reused results of other budgets."""
        both = [
            Sweep(("one",), (0,), "quick", {"offline_steps": (steps,)}, algorithms=("sac-offline",)).members(
                datasets[:1]
            )
            for steps in (8, 9)
        ]
        one, other = (member.address(STAGES["sac_offline"]) for (member,) in both)
        assert one != other

    def test_a_directory_of_the_release_says_its_own(self, datasets: list[Dataset]) -> None:
        (member,) = members_of(datasets[:1], (0,))
        recorded = dataclasses.replace(member, recorded=Values({"critic": "as recorded"}))
        assert recorded.address(iql.STAGE) == "as recorded"
        assert recorded.address(behavior.STAGE) == member.address(behavior.STAGE)
        assert recorded == member

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
        assert members_of([renamed])[0].address(srpo.STAGE) == members_of(datasets)[0].address(srpo.STAGE)

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

    def test_tasks_on_the_same_data_share_stages_that_read_no_rewards(self, datasets: list[Dataset]) -> None:
        tasks = [dataclasses.replace(one, inputs_fingerprint="9" * 64) for one in datasets]
        one, other = members_of(tasks, (0,))
        shared = {stage.name for stage in SRPO if one.address(stage) == other.address(stage)}
        assert shared == {"behavior"}
        assert by_training([one, other], behavior.STAGE) == {one: [other]}
        assert by_training([one, other], iql.STAGE) == {one: [], other: []}
        weighted = members_of(tasks, (0,), trajectory_weighting=(1.0,))
        assert len({member.address(behavior.STAGE) for member in weighted}) == 2

    def test_tasks_with_other_schedules_are_trained_on_their_own(self, datasets: list[Dataset]) -> None:
        one, other = (
            dataclasses.replace(datasets[0], name=name, family=family, inputs_fingerprint="9" * 64)
            for name, family in (("one", "other"), ("other", "antmaze"))
        )
        members = members_of([one, other], (0,), behavior_steps=(9,), normalize_observations=(False,))
        assert len({member.address(behavior.STAGE) for member in members}) == 1
        assert by_training(members, behavior.STAGE) == {member: [] for member in members}

    def test_a_new_version_of_a_stage_makes_new_results(self, datasets: list[Dataset]) -> None:
        member = members_of(datasets)[0]
        assert member.address(dataclasses.replace(iql.STAGE, version=iql.STAGE.version + 1)) != member.address(
            iql.STAGE
        )

    def test_whole_numbers_are_the_same_as_decimals(self, datasets: list[Dataset]) -> None:
        assert self.addresses(datasets, beta=(1,)) == self.addresses(datasets, beta=(1.0,))

    def test_temperatures_share_behavior_and_critic(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, beta=(0.1, 0.2, 0.3))
        assert [len(unique(members, stage)) for stage in SRPO] == [4, 4, 12]
        assert unique(members, behavior.STAGE) == members[::3]
        groups = shared_groups(members, srpo.STAGE)
        assert [[m.settings["beta"] for m in group] for group in groups] == [[0.1, 0.2, 0.3]] * 4
        assert shared_groups(members[:2] + members[3:4], srpo.STAGE) == [[members[0]], [members[1]], [members[3]]]


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
        assert populations(members, iql.STAGE) == [members[:2], members[2:]]

    def test_swept_numbers_do_not_split_one(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, expectile=(0.6, 0.7), policy_learning_rate=(1e-3, 1e-4))
        for stage in SRPO:
            assert populations(members, stage) == [members]

    def test_they_have_at_most_as_many_members_as_asked(self, datasets: list[Dataset]) -> None:
        members = members_of(datasets, beta=(0.1, 0.2, 0.3))
        sizes = {size: [len(part) for part in populations(members, srpo.STAGE, size)] for size in (0, 3, 6, 2)}
        # Members that share earlier results part last.
        assert sizes == {0: [12], 3: [3] * 4, 6: [6, 6], 2: [2, 1] * 4}
        first = unique(members, behavior.STAGE)
        assert [len(part) for part in populations(first, behavior.STAGE, 3)] == [3, 1]


@pytest.mark.parametrize("seed", [-1, 2**31, 10**30, 0.5, "0", None, float("nan")])
def test_seeds_that_make_no_key_are_refused(seed: Any) -> None:
    with pytest.raises(UserError, match=r"--seeds: .* is no whole number from 0 to 2\^31 - 1"):
        Sweep(("d",), (0, seed))


def test_seeds_of_numpy_become_whole_numbers() -> None:
    seeds = Sweep(("d",), tuple(np.arange(2))).seeds
    assert seeds == (0, 1)
    assert {type(seed) for seed in seeds} == {int}


def test_more_members_than_anyone_trains_are_refused_before_they_are_made() -> None:
    values = tuple(float(value) for value in range(1, 2001))
    with pytest.raises(UserError, match="make 4000000 members; at most 100000"):
        Sweep(("d",), (0,), overrides={"beta": values, "awr_temperature": values})


def test_all_are_the_methods_that_learn_from_a_dataset_and_have_the_preset(datasets: list[Dataset]) -> None:
    quick = Sweep(("one",), (0,), "quick", algorithms=("all",))
    assert quick.methods == every_method("quick")
    assert {"srpo", "iql", "awac", "td3_bc", "rebrac"} <= {method.name for method in quick.methods}
    assert "sac" not in {method.name for method in quick.methods}
    assert quick.notes(datasets[:1]) == []
    assert {member.algorithm for member in quick.members(datasets[:1])} == {one.name for one in quick.methods}
    assert {method.name for method in Sweep(("one",), (0,), "corl", algorithms=("all",)).methods} >= {"awac", "td3_bc"}
    with pytest.raises(UserError, match="--algorithm=all: no method has --preset=nothing"):
        Sweep(("one",), (0,), "nothing", algorithms=("all",))


def test_all_leaves_out_what_cannot_learn_by_the_settings(datasets: list[Dataset]) -> None:
    weighted = Sweep(("one",), (0,), "quick", {"trajectory_weighting": (20.0,)}, algorithms=("all",))
    assert find_method("rebrac") not in weighted.methods
    assert find_method("td3_bc") in weighted.methods
    assert any(note.startswith("rebrac: left out, it learns from the order") for note in weighted.notes(datasets[:1]))
    online = Sweep(("one",), (0,), "quick", {"online_steps": (9,)}, algorithms=("all",))
    assert all(method.online for method in online.methods)
    assert "td3_bc: left out, it does not learn online" in online.notes(datasets[:1])
    # One that is named is tried, and refused with its own message.
    named = Sweep(("one",), (0,), "quick", {"trajectory_weighting": (20.0,)}, algorithms=("all", "rebrac"))
    assert find_method("rebrac") in named.methods
