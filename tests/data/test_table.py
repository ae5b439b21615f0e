"""Packing, and the shuffled walk that never stores a permutation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxrl_srpo.data import table
from jaxrl_srpo.data.packing import pack_dataset, pack_with_columns
from jaxrl_srpo.data.weighting import weighted_rows
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.types import Array, Batch, Spec
from tests.data.arrays import random_dataset

WINDOW = 4096
SEEDS = st.integers(0, 2**31 - 1)
SPEC = Spec(observation_size=3, action_size=2)


@jax.jit
def permuted(size: Array, seed: int) -> Array:
    """The first `WINDOW` entries of the permutation, repeated where `size` is smaller."""
    positions = jnp.arange(WINDOW, dtype=jnp.uint32) % size.astype(jnp.uint32)
    return table.permute(positions, size, jax.random.key(seed))


@given(size=st.integers(1, WINDOW), seed=SEEDS)
@example(size=1, seed=0)
@example(size=2, seed=0)
@example(size=3, seed=0)
@example(size=WINDOW - 1, seed=0)
@example(size=WINDOW, seed=0)
def test_permutation(size: int, seed: int) -> None:
    order = np.asarray(permuted(jnp.int32(size), seed))[:size]
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


@given(size=st.integers(WINDOW, 2**31 - 1), seed=SEEDS)
@example(size=2**31 - 1, seed=0)
@example(size=2**30, seed=0)
@example(size=2**30 + 1, seed=0)
def test_large_sizes_stay_in_range_and_never_repeat(size: int, seed: int) -> None:
    order = np.asarray(permuted(jnp.int32(size), seed))
    assert order.max() < size
    assert len(np.unique(order)) == WINDOW


@pytest.mark.parametrize("size", [100, 1000, 4096])
def test_every_position_visits_every_row(size: int) -> None:
    """Over many epochs the row at a position is uniform: a chi-squared statistic within five standard deviations."""
    positions = jnp.asarray([0, 1, size // 2, size - 1], jnp.uint32)
    draw = jax.jit(jax.vmap(lambda key: table.permute(positions, jnp.int32(size), key)))
    epochs = 20000
    order = np.asarray(draw(jax.random.split(jax.random.key(0), epochs)))
    bins = min(size, 50)
    for column in order.T:
        counts = np.bincount(column.astype(np.int64) * bins // size, minlength=bins)
        expected = np.bincount(np.arange(size) * bins // size, minlength=bins) * (epochs / size)
        statistic = np.sum((counts - expected) ** 2 / expected)
        assert abs(statistic - (bins - 1)) < 5.0 * np.sqrt(2.0 * (bins - 1))


@pytest.mark.parametrize(("size", "batch_size"), [(5000, 256), (100000, 2048)])
def test_batches_are_as_mixed_as_random_ones(size: int, batch_size: int) -> None:
    """Data lie in order of time; the spread of batch means and of 16 equal parts is that of sampling at random."""
    positions = jnp.arange(batch_size, dtype=jnp.uint32)
    draw = jax.jit(jax.vmap(lambda key: table.permute(positions, jnp.int32(size), key)))
    place = (np.asarray(draw(jax.random.split(jax.random.key(0), 1000)), np.float64) + 0.5) / size
    expected = np.sqrt((1.0 - batch_size / size) / (12.0 * batch_size))
    assert 0.85 < place.mean(axis=1).std() / expected < 1.15
    parts = np.stack([np.bincount((row * 16).astype(int), minlength=16) for row in place])
    statistic = np.mean(np.sum((parts - batch_size / 16) ** 2, axis=1) / (batch_size / 16))
    assert 0.85 < statistic / (15.0 * (1.0 - batch_size / size)) < 1.15


@functools.partial(jax.jit, static_argnames="batch_size")
def batches(rows: Any, where: table.Slice, batch_size: int, seed: int, steps: Array) -> Batch:
    return jax.vmap(lambda step: table.sample(rows, where, SPEC, batch_size, jax.random.key(seed), step))(steps)


@pytest.mark.parametrize(("size", "batch_size"), [(64, 16), (70, 16), (31, 16), (16, 16)])
def test_an_epoch_covers_each_row_once(size: int, batch_size: int) -> None:
    rows = np.tile(np.arange(200, dtype=np.float32)[:, None], (1, 10))
    where, per_epoch, epochs = table.Slice(100, size), size // batch_size, 3
    seen = batches(rows, where, batch_size, 0, jnp.arange(epochs * per_epoch)).rewards
    seen = np.asarray(seen).reshape(epochs, per_epoch * batch_size)
    for epoch in seen:
        # The rows of the slice and no others, none twice; what does not fill a batch is left for another epoch.
        assert len(np.unique(epoch)) == per_epoch * batch_size
        assert epoch.min() >= 100
        assert epoch.max() < 100 + size
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])
    assert not np.array_equal(seen[0], np.sort(seen[0]))


def test_dropped_rows_change_from_epoch_to_epoch() -> None:
    rows = np.tile(np.arange(20, dtype=np.float32)[:, None], (1, 10))
    seen = batches(rows, table.Slice(0, 20), 16, 0, jnp.arange(30)).rewards
    counts = np.bincount(np.asarray(seen).ravel().astype(int), minlength=20)
    assert counts.sum() == 30 * 16
    assert counts.min() > 12


def test_keys_give_different_walks_and_steps_stand_alone() -> None:
    rows = np.tile(np.arange(64, dtype=np.float32)[:, None], (1, 10))
    where = table.Slice(0, 64)
    together = batches(rows, where, 16, 0, jnp.arange(9)).rewards
    alone = batches(rows, where, 16, 0, jnp.asarray([7])).rewards
    np.testing.assert_array_equal(alone[0], together[7])
    assert not np.array_equal(together, batches(rows, where, 16, 1, jnp.arange(9)).rewards)


@pytest.mark.parametrize("size", [1, 5, 15])
def test_small_datasets_wrap(size: int) -> None:
    rows = np.tile(np.arange(20, dtype=np.float32)[:, None], (1, 10))
    for batch in np.asarray(batches(rows, table.Slice(3, size), 16, 0, jnp.arange(4)).rewards):
        counts = np.bincount(batch.astype(int) - 3, minlength=size)
        assert len(counts) == size
        assert counts.max() - counts.min() <= 1


def test_packing_round_trip() -> None:
    datasets = [random_dataset(7, seed=1), random_dataset(1, seed=2), random_dataset(12, seed=3)]
    rewards = [2.0 * data.rewards for data in datasets]
    packed = table.pack([table.pack_rows(*pair) for pair in zip(datasets, rewards, strict=True)])
    assert packed.rows.dtype == np.float32
    assert packed.rows.shape == (20, 2 * SPEC.observation_size + SPEC.action_size + 2)
    assert packed.slices == [(0, 7), (7, 1), (8, 12)]
    for data, reward, where in zip(datasets, rewards, packed.slices, strict=True):
        batch = table.unpack(jnp.asarray(packed.rows[where.offset : where.offset + where.size]), SPEC)
        np.testing.assert_array_equal(batch.observations, data.observations)
        np.testing.assert_array_equal(batch.actions, data.actions)
        np.testing.assert_array_equal(batch.rewards, reward)
        np.testing.assert_array_equal(batch.next_observations, data.next_observations)
        np.testing.assert_array_equal(batch.discounts, np.where(data.terminals, 0.0, 1.0))


def test_sampled_rows_belong_to_the_dataset() -> None:
    datasets = [random_dataset(40, seed=1), random_dataset(50, seed=2)]
    packed = table.pack([table.pack_rows(data, data.rewards) for data in datasets])
    for data, where in zip(datasets, packed.slices, strict=True):
        batch = jax.tree.map(
            lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), batches(packed.rows, where, 10, 0, jnp.arange(4))
        )
        index = [int(np.flatnonzero(data.rewards == reward)[0]) for reward in batch.rewards]
        assert len(set(index)) == 40
        np.testing.assert_array_equal(batch.observations, data.observations[index])
        np.testing.assert_array_equal(batch.actions, data.actions[index])
        np.testing.assert_array_equal(batch.next_observations, data.next_observations[index])
        np.testing.assert_array_equal(batch.discounts, 1.0 - data.terminals[index])


WIDE = SPEC._replace(columns=("next_actions", "steps_left"))


def test_columns_follow_the_transitions_and_end_with_their_episodes() -> None:
    data = random_dataset(12, low=-4.0, high=4.0)
    rows = pack_with_columns(data, WIDE.columns, reward_transform="none").with_columns(WIDE.columns)
    assert rows.shape == (12, table.row_width(WIDE))
    batch = table.unpack(jnp.asarray(rows), WIDE)
    np.testing.assert_array_equal(batch.steps_left, [4, 3, 2, 1, 0, 4, 3, 2, 1, 0, 1, 0])
    following = np.array([1, 2, 3, 4, 4, 6, 7, 8, 9, 9, 11, 11])
    np.testing.assert_array_equal(batch.next_actions, np.asarray(batch.actions)[following])
    plain = table.unpack(jnp.asarray(pack_dataset(data, reward_transform="none")), SPEC)
    for name in ("observations", "actions", "rewards", "next_observations", "discounts"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(plain, name))


def test_columns_go_with_the_rows_that_weighting_takes() -> None:
    data = random_dataset(20)
    chosen, names = weighted_rows(data, 20.0), ("next_actions",)
    rows = pack_with_columns(data, names, reward_transform="none", trajectory_weighting=20.0).with_columns(names)
    batch = table.unpack(jnp.asarray(rows), SPEC._replace(columns=("next_actions",)))
    ends = data.episode_ends[chosen]
    np.testing.assert_array_equal(batch.next_actions, data.actions[np.where(ends, chosen, chosen + 1)])


def test_what_needs_the_order_of_episodes_refuses_weights() -> None:
    with pytest.raises(UserError, match=r"--trajectory_weighting=10: x is learned from in the order of its episodes"):
        pack_with_columns(random_dataset(20), ["steps_left"], reward_transform="none", trajectory_weighting=10.0)


def test_a_batch_knows_its_rows_and_all_transitions_are_at_hand() -> None:
    packed = table.pack([table.pack_rows(data, data.rewards) for data in (random_dataset(9), random_dataset(20, 1))])
    data = table.Transitions(jnp.asarray(packed.rows), packed.slices[1], SPEC)
    batch = table.sample(data.rows, data.where, SPEC, 8, jax.random.key(0), jnp.int32(1))
    assert batch.index is not None
    assert len(np.unique(batch.index)) == 8
    jax.tree.map(np.testing.assert_array_equal, data.take(batch.index), batch)
    beyond = data.take(jnp.asarray([-5, 0, 19, 40]))
    np.testing.assert_array_equal(beyond.index, [0, 0, 19, 19])
    np.testing.assert_array_equal(beyond.rewards, random_dataset(20, 1).rewards[[0, 0, 19, 19]])
    assert int(data.size) == 20
