"""Programs compiled ahead: kept for the population that they are of, and for no other."""

import pathlib

import jax
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.data.facts import dataset_facts
from jaxrl_srpo.data.packing import pack_with_columns
from jaxrl_srpo.methods import behavior, iql
from jaxrl_srpo.runs.ahead import CompileAhead
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import TrainingData, in_groups, make_population
from jaxrl_srpo.runs.sweep import Member, Sweep
from tests import synthetic

OVERRIDES = {name: (value,) for name, value in synthetic.TINY.items()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> jaxrl_srpo.Dataset:
    return jaxrl_srpo.load_dataset(synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "one.hdf5", 1))


@pytest.fixture(scope="module")
def data(dataset: jaxrl_srpo.Dataset) -> TrainingData:
    facts = {"one": dataset_facts(dataset, reward_transform="none")}
    packed = pack_with_columns(dataset, (), reward_transform="none")
    return TrainingData(lambda name: packed, lambda: facts)


@pytest.fixture(scope="module")
def members(dataset: jaxrl_srpo.Dataset) -> list[Member]:
    return Sweep(("one",), (0, 1), "quick", OVERRIDES, algorithms=("srpo",)).members([dataset])


def test_a_population_has_the_numbers_of_one_that_compiles_itself(
    data: TrainingData, members: list[Member], tmp_path: pathlib.Path
) -> None:
    run, groups = RunDirectory(tmp_path / "run"), in_groups(iql.STAGE, members)
    ahead = CompileAhead(data, "auto")
    ahead.begin(iql.STAGE, members)
    programs = ahead.take(iql.STAGE, members)
    ahead.close()
    assert programs is not None
    one = make_population(run, data, iql.STAGE, groups, "auto", programs)
    other = make_population(run, data, iql.STAGE, groups, "auto")
    jax.tree.map(np.testing.assert_array_equal, one.fetch(one.launch(0, 3)), other.fetch(other.launch(0, 3)))
    jax.tree.map(np.testing.assert_array_equal, one.checkpoint(), other.checkpoint())


def test_programs_are_of_one_population_and_taken_once(data: TrainingData, members: list[Member]) -> None:
    ahead = CompileAhead(data, "auto")
    assert ahead.take(iql.STAGE, members) is None
    ahead.begin(iql.STAGE, members[:1])
    assert ahead.take(iql.STAGE, members) is None
    ahead.begin(iql.STAGE, members[:1])
    assert ahead.take(behavior.STAGE, members[:1]) is None
    ahead.begin(iql.STAGE, members[:1])
    ahead.begin(iql.STAGE, members[:1])
    assert ahead.take(iql.STAGE, members[:1]) is not None
    assert ahead.take(iql.STAGE, members[:1]) is None
    ahead.close()
