"""What one member is made of, and its guarded update."""

import functools
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


def run(carry: Carry, totals: Totals, rates: list[float], first: int = 0) -> tuple[Any, Any]:
    """As many updates as rates, each by its own."""

    def update_of(state: Array, batch: Batch, settings: Settings) -> tuple[Array, Metrics]:
        return update(state, batch, settings.replace(rate=batch.discounts[0]))  # type: ignore[attr-defined]

    def batch_at(number: Array) -> tuple[Batch, Array]:
        batch = batch_of(3.0)
        rate = jnp.asarray([*rates, 0.0])[number - first]
        return batch.replace(discounts=jnp.full(4, rate)), jax.random.key(0)  # type: ignore[attr-defined]

    numbers = jnp.int32(first), jnp.int32(len(rates))
    return jax.jit(
        lambda carry, totals: member.run_updates(update_of, carry, totals, batch_at, *numbers, Settings(), None)
    )(carry, totals)


def fresh() -> tuple[Carry, Totals]:
    carry = Carry(jnp.float32(0.0), jnp.int32(-1))
    return carry, member.empty_totals(update, SPEC, carry.state, Settings(), None)


def test_a_member_that_fails_goes_back_to_the_start_of_its_chunk_and_stays_there() -> None:
    carry, totals = fresh()
    assert (totals.names, totals.sums.tolist(), int(totals.count)) == (("loss", "reward"), [0.0, 0.0], 0)
    carry, totals = run(carry, totals, [1.0, 2.0])
    assert (float(carry.state), int(carry.diverged_at), int(totals.count)) == (3.0, -1, 2)
    # Losses of 1 and 3.
    assert {name: float(value) for name, value in totals.means().items()} == {"loss": 2.0, "reward": 3.0}
    carry, totals = run(carry, totals, [1.0, float("inf"), 5.0], first=2)
    assert (float(carry.state), int(carry.diverged_at), int(totals.count)) == (3.0, 3, 3)
    carry, after = run(carry, totals, [1.0, 1.0], first=5)
    assert (float(carry.state), int(carry.diverged_at), int(after.count)) == (3.0, 3, 3)
    np.testing.assert_array_equal(after.sums, totals.sums)


def test_a_state_that_the_loss_does_not_show_is_seen_at_the_end() -> None:
    carry, totals = fresh()

    def hidden(state: Array, batch: Batch) -> tuple[Array, Metrics]:
        return state + jnp.inf, {"loss": jnp.float32(1.0), "reward": jnp.mean(batch.rewards)}

    def batch_at(number: Array) -> tuple[Batch, Array]:
        return batch_of(1.0), jax.random.key(0)

    numbers = jnp.int32(10), jnp.int32(4)
    carry, totals = member.run_updates(hidden, carry, totals, batch_at, *numbers, Settings(), None)
    assert (float(carry.state), int(carry.diverged_at)) == (0.0, 13)


def test_no_update_changes_nothing() -> None:
    carry, totals = fresh()
    after, totals = run(carry, totals, [])
    assert (float(after.state), int(after.diverged_at), int(totals.count)) == (0.0, -1, 0)
    assert all(np.isnan(value) for value in totals.means().values())


def test_all_members_of_a_batched_program_share_the_number_of_the_update() -> None:
    """So that a condition on it computes one branch; of a number in their states it would compute both."""

    def rare(state: Array, step: Array, own: bool) -> tuple[Array, Metrics]:
        due = state == 2.0 if own else step == 2
        new = jax.lax.cond(due, lambda: jnp.sin(state), lambda: state + 1.0)
        return new, {"loss": new}

    def program(state: Array, own: bool) -> tuple[Array, Array]:
        def update(state: Array, step: Array) -> tuple[Array, Metrics]:
            return rare(state, step, own)

        carry, totals = Carry(state, jnp.int32(-1)), Totals.of(["loss"])
        numbers = jnp.int32(0), jnp.int32(4)
        carry, _ = member.run_updates(update, carry, totals, lambda i: (batch_of(0.0), i), *numbers, None, None)
        return carry.state, carry.diverged_at

    states = jnp.zeros(3)
    for own in (False, True):
        batched = jax.vmap(functools.partial(program, own=own))
        assert ("cond[" in str(jax.make_jaxpr(batched)(states))) == (not own)
        np.testing.assert_allclose(batched(states)[0], np.full(3, np.sin(2.0) + 1.0), rtol=1e-6)


def test_trees_are_stacked_on_a_leading_axis() -> None:
    stacked = member.stack([{"a": np.ones(2), "b": 1.0}, {"a": np.zeros(2), "b": 2.0}])
    assert (stacked["a"].tolist(), stacked["b"].tolist()) == ([[1.0, 1.0], [0.0, 0.0]], [1.0, 2.0])
