"""Adam, its schedule and moving averages against their formulas."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=2e-5), params, expected.params)


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
