"""Datasets weighted by their episodes' returns, counted by hand, and what a policy learns from one."""

import dataclasses
import pathlib

import h5py
import numpy as np
import pytest
import synthetic

import jaxrl_srpo
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.loading import load_dataset
from jaxrl_srpo.data.weighting import weighted_rows

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
        file["next_observations"] = random.normal(size=(size, 3)).astype(np.float32)
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


@pytest.mark.parametrize(("trajectory_weighting", "action"), [(0.0, -0.6), (10.0, 0.98)])
def test_a_cloning_policy_follows_the_weights(
    path: pathlib.Path, tmp_path: pathlib.Path, trajectory_weighting: float, action: float
) -> None:
    """The mean action of the file is -0.6; weighted, the other episodes have exp(-5) and exp(-10) of the best's."""
    options = jaxrl_srpo.Options(evaluate=False)
    training = {"critic_steps": 400, "critic_evaluation_interval": 400, "iql_actor_learning_rate": 0.01}
    weights = {"awr_temperature": 0.0, "trajectory_weighting": trajectory_weighting}
    settings = synthetic.TINY | training | weights
    with synthetic.precision_kept():
        jaxrl_srpo.train(path, tmp_path / "run", seeds=[0], options=options, log=lambda message: None, **settings)
    policy = jaxrl_srpo.load_policy(tmp_path / "run", algorithm="iql")
    observations = load_dataset(path).observations
    assert np.mean(policy(observations)) == pytest.approx(action, abs=0.1)
