"""Populations made ready: rows, groups, replay buffers and results of earlier stages."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.data.facts import dataset_facts
from jaxrl_srpo.data.packing import PackedDataset, pack_with_columns
from jaxrl_srpo.io import checkpoint
from jaxrl_srpo.methods import awac, behavior, iql, sac, srpo
from jaxrl_srpo.runs import setup
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import TrainingData, in_groups, make_population
from jaxrl_srpo.runs.sweep import Member, Sweep
from tests import synthetic

OVERRIDES = {name: (value,) for name, value in synthetic.TINY.items()}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, jaxrl_srpo.Dataset]:
    directory = tmp_path_factory.mktemp("data")
    paths = [synthetic.write_pendulum(directory / f"{name}.hdf5", seed) for seed, name in enumerate(("one", "two"))]
    return {path.stem: jaxrl_srpo.load_dataset(path) for path in paths}


@pytest.fixture(scope="module")
def data(datasets: dict[str, jaxrl_srpo.Dataset]) -> TrainingData:
    facts = {name: dataset_facts(dataset, reward_transform="none") for name, dataset in datasets.items()}

    def pack(name: str) -> PackedDataset:
        return pack_with_columns(datasets[name], (), reward_transform="none")

    return TrainingData(pack, lambda: facts)


def members_of(datasets: dict[str, jaxrl_srpo.Dataset], algorithm: str, **overrides: Any) -> list[Member]:
    sweep = Sweep(tuple(datasets), (0, 1), "quick", OVERRIDES | overrides, algorithms=(algorithm,))
    return sweep.members(list(datasets.values()))


def test_datasets_are_packed_once_and_members_have_their_slices(
    datasets: dict[str, jaxrl_srpo.Dataset], data: TrainingData
) -> None:
    members = members_of(datasets, "iql")
    packed = data.pack(members)
    assert packed.rows.shape == (2 * 196, 3 + 1 + 1 + 3 + 1)
    assert [(int(where.offset), int(where.size)) for where in packed.slices] == [(0, 196)] * 2 + [(196, 196)] * 2
    assert [facts.name for facts in data.facts_of(members)] == ["one", "one", "two", "two"]


def test_groups_share_what_is_frozen_and_results_come_back(
    datasets: dict[str, jaxrl_srpo.Dataset], data: TrainingData, tmp_path: pathlib.Path
) -> None:
    run, members = RunDirectory(tmp_path / "run"), members_of(datasets, "srpo", beta=(0.1, 0.2))
    for stage in (behavior.STAGE, iql.STAGE):
        firsts = members[::2]
        population = make_population(run, data, stage, in_groups(stage, firsts), "map")
        results = population.fetch(population.copy_of(stage.result))
        for number, member in enumerate(firsts):
            own = jax.tree.map(lambda x, number=number: x[number, 0], results)
            checkpoint.save(run.artefact(stage, member.address(stage)), own)
        loaded = setup.load_results(run, stage, firsts)
        jax.tree.map(lambda all_, one: np.testing.assert_array_equal(all_, one[:, 0]), loaded, results)
        first = setup.load_result(run, stage, firsts[0])
        jax.tree.map(lambda one, all_: np.testing.assert_array_equal(one, all_[0]), first, loaded)
    groups = in_groups(srpo.STAGE, members)
    assert groups == [members[i : i + 2] for i in range(0, 8, 2)]
    population = make_population(run, data, srpo.STAGE, groups, "map")
    outcome = population.fetch(population.launch(0, 2))
    assert outcome.metrics["loss"].shape == outcome.diverged_at.shape == (4, 2)
    # The actor starts as IQL's, for both temperatures.
    start = setup.load_result(run, iql.STAGE, members[0]).policy.params
    population = make_population(run, data, srpo.STAGE, groups, "map")
    fresh = population.fetch(population.copy_of(lambda state: state.actor.params))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0, 1], y), fresh, start)


def test_replay_buffers_start_as_the_dataset_or_empty(
    datasets: dict[str, jaxrl_srpo.Dataset], data: TrainingData, tmp_path: pathlib.Path
) -> None:
    run, online = RunDirectory(tmp_path / "run"), {"online_steps": (16,), "sac_width": (8,), "sac_layers": (1,)}
    members = members_of({"one": datasets["one"]}, "awac", **online)[:1]
    state = awac.init(jax.random.key(0), members[0].spec, awac.STAGE.read(members[0].settings))
    checkpoint.save(run.artefact(awac.STAGE, members[0].address(awac.STAGE)), jax.tree.map(np.asarray, state))
    scratch = members_of({"one": datasets["one"]}, "sac", **online, sac_random_steps=(4,))[:1]
    for stage, own, size in ((awac.ONLINE, members, 196), (sac.FROM_SCRATCH, scratch, 0)):
        population: Any = make_population(run, data, stage, [own], "map")
        replay = population._run.replay
        assert replay.size.tolist() == [[size]]
        assert replay.rows.shape[2] == size + 16
        population.close()
