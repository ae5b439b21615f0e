"""Functions of one member lifted to populations: axes, layouts, donation and actions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.population.member import stack
from jaxrl_srpo.population.vectorize import PlacedMembers, Strategy, act_members
from jaxrl_srpo.types import Array

VALUES = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
FACTORS = np.asarray([10.0, 100.0], np.float32)


def combine(carry: Array, factor: Array, shift: Array) -> tuple[Array, Array]:
    """Of one member: its vector scaled by the group's factor and shifted, and the sum of that."""
    new = carry * factor + shift
    return new, jnp.sum(new)


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.many_devices)])
@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_arguments_are_of_members_of_groups_or_shared(strategy: Strategy, devices: int) -> None:
    placed = PlacedMembers((2, 3), strategy, jax.devices()[:devices])
    run = placed.vectorize(combine, carry="member", factor="group", shift="shared", donate="carry")
    # Named arguments come in any order.
    results = run(shift=jnp.float32(0.5), carry=placed.place(VALUES), factor=placed.place_frozen(FACTORS))
    new, total = placed.unpad(results)
    expected = VALUES * FACTORS[:, None, None] + 0.5
    np.testing.assert_allclose(new, expected, rtol=1e-6)
    np.testing.assert_allclose(total, expected.sum(-1), rtol=1e-6)


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.many_devices)])
def test_what_is_placed_again_needs_no_program_of_its_own(devices: int) -> None:
    """Else a restored run would run another program than one that was never stopped, compiled apart."""
    placed = PlacedMembers((2, 3), "map", jax.devices()[:devices])
    computed = placed.vectorize(jnp.sum, a="member")(a=placed.place(VALUES))

    def program(carry: Array) -> str:
        # A function of its own each time, as each run has, which knows no program yet.
        step: Any = placed.vectorize(lambda x: 2.0 * x, x="member")
        return str(step.lower(x=carry).as_text())

    assert program(placed.place(placed.unpad(computed))) == program(computed)


def test_what_is_replaced_is_given_up() -> None:
    placed = PlacedMembers((2, 3), "map", jax.devices()[:1])
    carry = placed.place(VALUES)
    run = placed.vectorize(combine, carry="member", factor="group", shift="shared", donate="carry")
    run(carry=carry, factor=placed.place_frozen(FACTORS), shift=jnp.float32(0.0))
    assert carry.is_deleted()


@pytest.mark.many_devices
def test_a_strategy_of_its_own_gives_the_same() -> None:
    placed = PlacedMembers((2, 3), "map", jax.devices()[:2])
    results = [
        placed.unpad(placed.vectorize(lambda x: 2.0 * x, x="member", strategy=strategy)(x=placed.place(VALUES)))
        for strategy in (None, "vmap")
    ]
    np.testing.assert_array_equal(results[0], 2.0 * VALUES)
    np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize(
    ("shape", "sharded", "padded"),
    [((3, 8), "members", 8), ((8, 3), "groups", 8), ((5, 1), "groups", 8), ((1, 5), "members", 8)],
)
@pytest.mark.many_devices
def test_only_the_axis_that_divides_better_is_padded(shape: tuple[int, int], sharded: str, padded: int) -> None:
    placed = PlacedMembers(shape, "map", jax.devices()[:8])
    assert (placed.layout.sharded, placed.layout.padded) == (sharded, padded)
    values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    there = placed.place(values)
    assert there.size > values.size or there.shape == shape
    np.testing.assert_array_equal(placed.unpad(there), values)
    assert placed.shapes(there).shape == shape


def test_members_are_mapped_on_a_cpu() -> None:
    assert PlacedMembers((1, 1))._strategy == "map"


@pytest.mark.parametrize("batched", [False, True])
def test_actions_of_all_members_are_those_of_each(batched: bool) -> None:
    random = np.random.default_rng(0)
    policies = [{"w": random.normal(size=(3, 2)).astype(np.float32)} for _ in range(3)]
    observations = jnp.asarray(random.normal(size=(3, 4, 3)).astype(np.float32))
    keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))

    def act(policy: Any, observations: Array, key: Array | None) -> Array:
        assert key is not None
        return observations @ policy["w"] + jax.random.normal(key, (4, 2))

    together = act_members(act, stack(policies), observations, keys, batched)
    for i, policy in enumerate(policies):
        np.testing.assert_allclose(together[i], act(policy, observations[i], keys[i]), rtol=1e-5)


def test_what_acts_without_a_key_need_not_declare_one() -> None:
    def act(policy: Any, observations: Array) -> Array:
        return policy * observations

    keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
    actions = act_members(act, jnp.asarray([2.0, 3.0]), jnp.ones((2, 4, 1)), keys)
    np.testing.assert_array_equal(actions[:, 0, 0], [2.0, 3.0])
