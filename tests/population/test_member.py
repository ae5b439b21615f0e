"""What one member is made of, and its guarded update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.population import member
from jaxrl_srpo.population.member import Carry, Totals, call, make_members
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

SPEC = Spec(2, 1)


@struct.dataclass
class Settings:
    rate: Array | float = 1.0
    batch_size: int = struct.field(pytree_node=False, default=4)


def update(state: Array, batch: Batch, settings: Settings) -> tuple[Array, Metrics]:
    """Adds the rate; the loss is the new state."""
    new = state + settings.rate
    return new, {"loss": new, "reward": jnp.mean(batch.rewards)}


def batch_of(reward: float) -> Batch:
    ones = jnp.ones(4)
    return Batch(jnp.zeros((4, 2)), jnp.zeros((4, 1)), reward * ones, jnp.zeros((4, 2)), ones)


def test_functions_get_what_they_declare_and_no_more() -> None:
    assert call(lambda key, spec: (key, spec), key=1, spec=2, settings=3) == (1, 2)
    assert call(lambda settings, frozen=None: (settings, frozen), settings=3) == (3, None)
    with pytest.raises(TypeError, match="missing"):
        call(lambda key, other: None, key=1)


def test_members_are_laid_out_group_by_group() -> None:
    keys = [jax.random.key(seed) for seed in range(6)]
    slices = [table.Slice(10 * i, i) for i in range(6)]
    found: Any = make_members(keys, [Settings(rate=float(i)) for i in range(6)], slices, groups=2)
    assert found.keys.shape == (2, 3)
    assert found.settings.rate.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert found.settings.rate.dtype == jnp.float32
    assert found.settings.batch_size == 4
    assert found.where.offset.tolist() == [[0, 10, 20], [30, 40, 50]]
    np.testing.assert_array_equal(jax.random.key_data(found.keys[1, 2]), jax.random.key_data(keys[5]))
    nowhere: Any = make_members(keys[:2], [Settings()] * 2).where
    assert nowhere.size.tolist() == [[0, 0]]


def test_a_state_begins_by_the_members_key_folded_with_zero() -> None:
    members = jax.tree.map(lambda x: x[0, 0], make_members([jax.random.key(3)], [Settings(rate=2.0)]))

    def init(key: Array, settings: Settings) -> Array:
        return settings.rate * jax.random.uniform(key)

    carry = member.init_member(init, SPEC, members, None)
    expected = 2.0 * jax.random.uniform(jax.random.fold_in(jax.random.key(3), 0))
    np.testing.assert_array_equal(carry.state, expected)
    assert int(carry.diverged_at) == -1


def guarded(carry: Carry, totals: Totals, settings: Settings, number: int) -> tuple[Any, Any]:
    key = jax.random.key(0)
    return member.guarded_update(update, carry, totals, batch_of(3.0), key, settings, None, jnp.int32(number))


def test_updates_that_are_not_finite_are_undone_and_not_counted() -> None:
    carry = Carry(jnp.float32(0.0), jnp.int32(-1))
    totals = member.empty_totals(update, SPEC, carry.state, Settings(), None)
    assert (totals.sums, int(totals.count)) == ({"loss": 0.0, "reward": 0.0}, 0)
    for number, rate in enumerate([1.0, 2.0, float("inf"), 5.0]):
        carry, totals = guarded(carry, totals, Settings(rate=rate), number)
    assert (float(carry.state), int(carry.diverged_at), int(totals.count)) == (3.0, 2, 2)
    # Losses of 1 and 3.
    assert {name: float(value) for name, value in totals.means().items()} == {"loss": 2.0, "reward": 3.0}


def test_means_of_no_update_are_not_numbers() -> None:
    totals = member.empty_totals(update, SPEC, jnp.float32(0.0), Settings(), None)
    assert all(np.isnan(value) for value in totals.means().values())


def test_trees_are_stacked_on_a_leading_axis() -> None:
    stacked = member.stack([{"a": np.ones(2), "b": 1.0}, {"a": np.zeros(2), "b": 2.0}])
    assert (stacked["a"].tolist(), stacked["b"].tolist()) == ([[1.0, 1.0], [0.0, 0.0]], [1.0, 2.0])
