"""Rows of a dataset: transformed, weighted and normalized in one call, and each alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.data import table
from jaxrl_srpo.data.packing import pack_dataset
from jaxrl_srpo.data.weighting import weighted_rows
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.types import Spec
from tests.data.arrays import random_dataset

SPEC = Spec(3, 2)


def test_plain_rows_hold_the_dataset() -> None:
    data = random_dataset(20)
    rows = pack_dataset(data, reward_transform="none")
    assert (rows.shape, rows.dtype) == ((20, table.row_width(SPEC)), np.float32)
    batch = table.unpack(jnp.asarray(rows), SPEC)
    for name in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(data, name))


def test_rewards_are_transformed_before_episodes_are_weighted() -> None:
    data = random_dataset(20)
    rows = pack_dataset(data, reward_transform="d4rl-antmaze", trajectory_weighting=20.0)
    chosen = weighted_rows(data, 20.0)
    assert len(np.unique(chosen)) < 20
    batch = table.unpack(jnp.asarray(rows), SPEC)
    np.testing.assert_array_equal(batch.rewards, data.rewards[chosen] - np.float32(1.0))
    np.testing.assert_array_equal(batch.observations, data.observations[chosen])


def test_observations_are_normalized_by_the_rows_that_are_learned_from() -> None:
    data = random_dataset(400, low=-4.0, high=4.0)
    rows = pack_dataset(data, reward_transform="none", trajectory_weighting=5.0, normalize_observations=True)
    batch = table.unpack(jnp.asarray(rows), SPEC)
    np.testing.assert_allclose(np.mean(batch.observations, 0), 0.0, atol=1e-5)
    assert np.abs(np.mean(batch.next_observations, 0)).max() > 1e-3
    assert np.abs(batch.actions).max() <= 1.0


def test_unknown_transform() -> None:
    with pytest.raises(UserError, match="unknown reward transform 'squared'; choose one of"):
        pack_dataset(random_dataset(20), reward_transform="squared")
