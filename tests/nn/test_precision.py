"""Precision of matrix products: what is rounded, what stays float32, forward and backward."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxrl_srpo.methods import behavior
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import networks, precision
from jaxrl_srpo.types import Batch, Spec

SPEC = Spec(5, 3)
SETTINGS = behavior.Settings(batch_size=16, width=32, hidden=64, blocks=2)
Rounding = Callable[[jax.Array], np.ndarray]


def tf32(x: jax.Array) -> np.ndarray:
    """Round to ten bits of mantissa, to nearest even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x0FFF) + ((bits >> 13) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(np.float32)


def bfloat16(x: jax.Array) -> np.ndarray:
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float32)


def exact(x: jax.Array) -> np.ndarray:
    return np.asarray(x)


@functools.cache
def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(("name", "rounded"), [("float32", exact), ("tf32", tf32), ("bfloat16", bfloat16)])
def test_product_and_its_derivatives_round_their_operands(name: precision.Precision, rounded: Rounding) -> None:
    x, kernel, bias, cotangent = normal(0, 7, 5), normal(1, 5, 4), normal(3, 4), normal(2, 7, 4)
    with precision.using(name):
        result, pull = jax.vjp(lambda x, kernel, bias: precision.affine(x, kernel, bias, jnp.float32), x, kernel, bias)
        *gradients, bias_gradient = pull(cotangent)
    product = result - bias[None]
    np.testing.assert_allclose(bias_gradient, np.sum(cotangent, axis=0), rtol=1e-6)
    left, right, back = rounded(x), rounded(kernel), rounded(cotangent)
    # The emulated TF32 rounds results too, by half a unit of its last place.
    tolerance = 6e-4 if name == "tf32" else 1e-6
    for own, expected in zip((product, *gradients), (left @ right, back @ right.T, left.T @ back), strict=True):
        np.testing.assert_allclose(own, expected, rtol=tolerance, atol=tolerance)
        assert own.dtype == jnp.float32
    assert (result.dtype, bias_gradient.dtype) == (jnp.float32, jnp.float32)
    if name != "float32":
        assert np.abs(np.asarray(product) - np.asarray(x) @ np.asarray(kernel)).max() > 1e-4


@pytest.mark.parametrize("activation", [networks.mish, jax.nn.relu])
@pytest.mark.parametrize("rows", [16, 2**15])
def test_a_layer_with_an_activation_is_one_without_and_then_the_activation(
    activation: Callable[[jax.Array], jax.Array], rows: int
) -> None:
    factors = normal(0, rows, 8), normal(1, 8, 32), normal(2, 32)
    dtype, cotangent = jnp.bfloat16, normal(3, rows, 32).astype(jnp.bfloat16)
    with precision.using("bfloat16"):
        own, pull = jax.vjp(lambda x, kernel, bias: precision.affine(x, kernel, bias, dtype, activation), *factors)
        apart, pull_apart = jax.vjp(
            lambda x, kernel, bias: activation(precision.affine(x, kernel, bias, dtype)), *factors
        )
        gradients = zip(pull(cotangent), pull_apart(cotangent), strict=True)
    np.testing.assert_array_equal(own, apart)
    for gradient, expected in gradients:
        np.testing.assert_array_equal(gradient, expected)


def test_frozen_kernels_are_rounded_once_and_all_else_is_left() -> None:
    frozen = {"Dense_0": {"kernel": normal(0, 3, 2), "bias": normal(1, 2)}, "frequencies": normal(2, 4)}
    with precision.using("bfloat16"):
        own = precision.operands(frozen)
    assert jax.tree.map(lambda x: x.dtype, own) == {
        "Dense_0": {"kernel": jnp.bfloat16, "bias": jnp.float32},
        "frequencies": jnp.float32,
    }
    for name in ("float32", "tf32", "auto"):
        with precision.using(name):
            assert precision.operands(frozen) is frozen
    with precision.using("bfloat16"):
        assert (precision.operands(None), precision.operands(())) == (None, ())


def test_hidden_activations_are_bfloat16_and_outputs_float32() -> None:
    network, x = networks.MLP(2, width=8), normal(0, 3, 5)
    with precision.using("bfloat16"):
        params = network.init(jax.random.key(0), x)
        output, state = network.apply(params, x, capture_intermediates=True)
    hidden = state["intermediates"]["Dense_0"]["__call__"][0]
    assert (hidden.dtype, output.dtype) == (jnp.bfloat16, jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("name", "tolerance"), [("auto", 0.0), ("tf32", 1e-3), ("bfloat16", 2e-2)])
def test_an_update_differs_from_float32_by_rounding_only(name: precision.Precision, tolerance: float) -> None:
    batch = Batch(normal(0, 16, 5), jnp.tanh(normal(1, 16, 3)), normal(2, 16), normal(3, 16, 5), jnp.ones(16))

    def loss(which: precision.Precision) -> float:
        with precision.using(which):
            settings = with_arrays(SETTINGS)
            state = behavior.init(jax.random.key(0), SPEC, settings)
            state, metrics = jax.jit(behavior.update)(state, batch, jax.random.key(1), settings)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.score.params))
        return float(metrics["loss"])

    reference, own = loss("float32"), loss(name)
    assert own == pytest.approx(reference, rel=tolerance)
    assert (own == reference) == (name == "auto")
