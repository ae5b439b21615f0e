"""Loops and calls go, numbers stay, and what depends on no input is computed once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.export.unrolled import unrolled
from jaxrl_srpo.types import Array

SHAPE = jax.ShapeDtypeStruct((4, 2), jnp.float32)
X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


def names(function: Any) -> list[str]:
    return [equation.primitive.name for equation in unrolled(function, SHAPE).jaxpr.eqns]


def run(function: Any) -> np.ndarray:
    program = unrolled(function, SHAPE)
    (result,) = jax.core.eval_jaxpr(program.jaxpr, program.consts, X)
    return np.asarray(result)


def loop(x: Array, reverse: bool = False) -> Array:
    times = jnp.linspace(1.0, 0.1, 4)

    def step(carry: Array, i: Array) -> tuple[Array, None]:
        return jax.jit(jnp.tanh)(carry) * jnp.expm1(times[i]) + times[i], None

    return jax.lax.scan(step, x, jnp.arange(3), reverse=reverse)[0]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_becomes_its_steps(reverse: bool) -> None:
    np.testing.assert_allclose(run(lambda x: loop(x, reverse)), loop(jnp.asarray(X), reverse), rtol=1e-6)
    assert names(loop) == ["tanh", "mul", "add"] * 3


def test_sequences_of_the_batch_are_taken_step_by_step() -> None:
    def walk(x: Array) -> Array:
        return jax.lax.scan(lambda carry, row: (carry + 2.0 * row, None), jnp.zeros(2), x)[0]

    np.testing.assert_allclose(run(walk), 2.0 * X.sum(axis=0), rtol=1e-6)


def test_calls_and_gradients_are_inlined() -> None:
    def slope(x: Array) -> Array:
        return jax.grad(lambda x: jnp.sum(jax.nn.silu(x) ** 2))(x)

    np.testing.assert_allclose(run(slope), slope(jnp.asarray(X)), rtol=1e-5)
    assert not {"jit", "pjit", "custom_jvp_call"} & set(names(slope))


def test_batches_of_any_size() -> None:
    (batch,) = jax.export.symbolic_shape("batch")
    program = unrolled(
        lambda x: x + jnp.broadcast_to(jnp.sqrt(2.0), x.shape[:1])[:, None],
        jax.ShapeDtypeStruct((batch, 2), jnp.float32),
    )
    assert "sqrt" not in [equation.primitive.name for equation in program.jaxpr.eqns]
