"""Adam, its schedule and moving averages against their formulas."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_srpo.nn import optimizers
from tests import reference

PARAMS = {"w": np.asarray([0.5, -1.0, 2.0]), "b": np.asarray([0.25])}


def gradients(step: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(step)
    return {name: random.normal(size=x.shape) for name, x in PARAMS.items()}


def as_arrays(tree: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: jnp.asarray(x, jnp.float32) for name, x in tree.items()}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_adamw_in_double_precision(weight_decay: float) -> None:
    params, expected = as_arrays(PARAMS), reference.learner(PARAMS)
    opt_state = optimizers.init(params)
    for step in range(5):
        params, opt_state = optimizers.adam(params, opt_state, as_arrays(gradients(step)), 0.01, weight_decay)
        expected = reference.adam(expected, gradients(step), 0.01, weight_decay)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), params, expected.params)


def test_first_steps_are_ten_times_as_exact_as_those_of_optax() -> None:
    """1 - 0.999^t is 0.001 at first; float32's 0.999^t leaves four or five digits of it."""
    params, start = {"w": np.ones(200)}, {"w": jnp.ones(200)}
    expected, ours, state = reference.learner(params), start, optimizers.init(start)
    theirs, transform = start, optax.scale_by_adam()
    their_state = transform.init(start)
    for step in range(3):
        gradient = np.random.default_rng(step).normal(size=200)
        expected = reference.adam(expected, {"w": gradient}, 1.0)
        ours, state = optimizers.adam(ours, state, as_arrays({"w": gradient}), 1.0)
        with jax.numpy_dtype_promotion("standard"):
            updates, their_state = transform.update(as_arrays({"w": gradient}), their_state)
        theirs = jax.tree.map(jnp.subtract, theirs, updates)
    errors = [np.abs(np.asarray(found["w"]) - expected.params["w"]).max() for found in (ours, theirs)]
    assert errors[0] < 3e-6
    assert errors[1] > 10 * errors[0]


def test_the_state_is_that_of_optax_as_older_checkpoints_hold_it() -> None:
    start = {"w": jnp.ones(3)}
    state = optimizers.adam(start, optimizers.init(start), start, 1e-3).opt_state
    assert isinstance(state, optax.ScaleByAdamState)
    assert int(state.count) == 1


def test_the_cosine_falls_from_one_to_zero_and_stays_there() -> None:
    factors = [float(optimizers.cosine(jnp.int32(step), 10.0)) for step in (0, 5, 10, 15)]
    np.testing.assert_allclose(factors, [1.0, 0.5, 0.0, 0.0], atol=1e-7)


def test_a_schedule_without_end_stays_at_one() -> None:
    assert float(optimizers.cosine(jnp.int32(10**6), float("inf"))) == 1.0


def test_polyak_goes_a_share_of_the_way() -> None:
    moved = optimizers.polyak({"w": jnp.asarray([1.0, 3.0])}, {"w": jnp.asarray([2.0, 3.0])}, 0.25)
    np.testing.assert_allclose(moved["w"], [1.25, 3.0])


def test_no_average_stays_none() -> None:
    assert optimizers.moving_average(None, {"w": jnp.ones(1)}, 0.9) is None
    averaged = optimizers.moving_average({"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, 0.75)
    assert averaged is not None
    np.testing.assert_allclose(averaged["w"], [0.25])


def test_gradients_are_scaled_by_their_common_norm() -> None:
    grads = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([[4.0]])}
    held = optimizers.clip_norm(grads, 2.5)
    np.testing.assert_allclose(held["a"], [1.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(held["b"], [[2.0]], rtol=1e-6)
    for limit in (0.0, 7.0):
        jax.tree.map(np.testing.assert_array_equal, optimizers.clip_norm(grads, limit), grads)
