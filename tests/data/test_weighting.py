"""Datasets weighted by their episodes' returns, counted by hand, and what a policy learns from one."""

import dataclasses
import pathlib

import h5py
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.api import dataset_facts
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.loading import load_dataset
from jaxrl_srpo.data.weighting import weighted_rows
from jaxrl_srpo.methods.settings import Settings
from tests import synthetic

LENGTHS = (30, 50, 19)
RETURNS = (10.0, -30.0, 50.0)
RANKS = (0.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Three episodes of Pendulum's sizes; the one of the best return takes the action 1, the others -1."""
    path = tmp_path_factory.mktemp("weighting") / "three.hdf5"
    size = sum(LENGTHS) + 1  # Reading drops the last row of a file.
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = random.normal(size=(size, 3)).astype(np.float32)
        file["actions"] = np.repeat([-1.0, -1.0, 1.0, 1.0], (*LENGTHS, 1)).astype(np.float32)[:, None]
        file["rewards"] = np.repeat([*np.divide(RETURNS, LENGTHS), 0.0], (*LENGTHS, 1)).astype(np.float32)
        file["terminals"] = np.isin(np.arange(size), np.cumsum(LENGTHS[:2]) - 1)
        file["timeouts"] = np.zeros(size, bool)
        file.attrs.update(action_low=[-1.0], action_high=[1.0])
    return path


@pytest.fixture(scope="module")
def dataset(path: pathlib.Path) -> Dataset:
    return load_dataset(path)


def test_without_weights_every_row_comes_once(dataset: Dataset) -> None:
    np.testing.assert_array_equal(weighted_rows(dataset, 0.0), np.arange(dataset.size))


@pytest.mark.parametrize("inverse_temperature", [0.3, 1.0, 4.0, 50.0])
def test_rows_come_in_proportion_to_their_weights(dataset: Dataset, inverse_temperature: float) -> None:
    rows = weighted_rows(dataset, inverse_temperature)
    weights = np.repeat(np.exp(inverse_temperature * np.array(RANKS)), LENGTHS)
    expected = dataset.size * weights / weights.sum()
    assert rows.shape == (dataset.size,)
    assert np.all(np.diff(rows) >= 0)
    assert np.all(np.abs(np.bincount(rows, minlength=dataset.size) - expected) < 1.0)


def test_equal_returns_weigh_the_same(dataset: Dataset) -> None:
    level = dataclasses.replace(dataset, rewards=np.zeros(dataset.size, np.float32))
    np.testing.assert_array_equal(weighted_rows(level, 10.0), np.arange(dataset.size))


def test_observations_are_normalised_by_what_is_learned_from(dataset: Dataset) -> None:
    facts = dataset_facts(dataset, Settings(normalize_observations=True, trajectory_weighting=50.0))
    best = dataset.observations[-LENGTHS[-1] :]
    np.testing.assert_allclose(facts.observation_mean, best.mean(0), atol=0.05)
    np.testing.assert_allclose(facts.observation_std, best.std(0) + 1e-3, atol=0.05)
    assert facts.return_mean == pytest.approx(np.mean(RETURNS[:2]))  # The file has no end of the third episode.


def test_a_cloning_policy_follows_the_weights(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The mean action of the file is -0.6; weighted, the best episode has all but 1% of the rows."""
    training = {"critic_steps": 300, "critic_evaluation_interval": 300, "iql_actor_learning_rate": 0.01}
    weights = {"awr_temperature": 0.0, "trajectory_weighting": 10.0}
    settings = synthetic.TINY | training | weights | {"options": jaxrl_srpo.Options(evaluate=False)}
    jaxrl_srpo.train(path, tmp_path / "run", seeds=[0], log=lambda message: None, **settings)
    policy = jaxrl_srpo.load_policy(tmp_path / "run", algorithm="iql")
    assert np.mean(policy(load_dataset(path).observations)) == pytest.approx(0.98, abs=0.05)
