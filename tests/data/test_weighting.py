"""Datasets weighted by their episodes' returns, counted by hand."""

import dataclasses

import numpy as np
import pytest

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from jaxrl_srpo.errors import DatasetError
from tests.data.arrays import random_dataset

LENGTHS = (30, 50, 19)
RETURNS = (10.0, -30.0, 50.0)
RANKS = (0.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Three episodes; rewards within one are equal."""
    size = sum(LENGTHS)
    rewards = np.repeat(np.divide(RETURNS, LENGTHS), LENGTHS).astype(np.float32)
    return random_dataset(size, rewards=rewards, episode_ends=np.isin(np.arange(size), np.cumsum(LENGTHS) - 1))


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


def test_taken_rows_are_whole_transitions(dataset: Dataset) -> None:
    taken = take_rows(dataset, np.array([3, 3, 98]))
    for name in ("observations", "actions", "rewards", "next_observations", "terminals"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(dataset, name)[[3, 3, 98]])
    assert (taken.size, taken.fingerprint) == (3, dataset.fingerprint)


def test_returns_that_are_no_numbers_cannot_weight() -> None:
    """Data that were read all the same are taken as they are, unless they are to be weighted."""
    data = random_dataset(20)
    broken = dataclasses.replace(data, rewards=np.where(np.arange(20) == 7, np.nan, data.rewards))
    np.testing.assert_array_equal(weighted_rows(broken, 0.0), np.arange(20))
    with pytest.raises(DatasetError, match="trajectory weighting needs finite returns; nan is among them"):
        weighted_rows(broken, 10.0)


def test_equal_returns_weight_nothing() -> None:
    data = random_dataset(20)
    equal = dataclasses.replace(data, rewards=np.ones_like(data.rewards))
    np.testing.assert_array_equal(weighted_rows(equal, 10.0), np.arange(20))
