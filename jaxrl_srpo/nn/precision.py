"""Precision of matrix products: float32, TF32 or bfloat16, by one setting.

Parameters, optimizer state, targets, losses and the outputs of networks are float32 whatever the precision. In
bfloat16 the hidden activations are stored in it too, for on accelerators their traffic through memory costs as much as
the products.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxrl_srpo.types import Array

Precision = Literal["auto", "float32", "tf32", "bfloat16"]

# What JAX calls "bfloat16" only allows it, and GPUs then take TF32; the name of the algorithm insists.
_MATMUL = {"auto": None, "float32": "float32", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}
# What Flax calls the matrix of a dense layer.
_KERNEL = jax.tree_util.DictKey("kernel")
# Elements of one member's hidden layer from which on bytes count more than launches, docs/performance.md.
_LARGE = 2**20


def using(precision: Precision) -> AbstractContextManager[Any]:
    """What is traced inside multiplies matrices in this precision; "auto" is JAX's default for the device.

    A CPU multiplies in float32 and rounds the operands as the precision asks, so that its effect can be seen there too.
    """
    return jax.default_matmul_precision(cast(str, _MATMUL[precision]))


def hidden_dtype() -> jnp.dtype:
    """Type of the hidden activations of networks that are being traced."""
    return jnp.dtype(jnp.bfloat16 if _current() == _MATMUL["bfloat16"] else jnp.float32)


def operands(frozen: Any) -> Any:
    """Frozen parameters as their products read them: in bfloat16 the kernels are rounded once, not at every product.

    The barrier keeps XLA from moving the rounding back into the loop that reads them.
    """
    if _current() != _MATMUL["bfloat16"]:
        return frozen

    def rounded(path: tuple[Any, ...], x: Array) -> Array:
        return x.astype(jnp.bfloat16) if path[-1:] == (_KERNEL,) else x

    return jax.lax.optimization_barrier(jax.tree_util.tree_map_with_path(rounded, frozen))


def affine(
    x: Array, kernel: Array, bias: Array, dtype: Any, activation: Callable[[Array], Array] | None = None
) -> Array:
    """activation(x kernel + bias), [..., I] by [I, O] and [O], in the precision of what is being traced.

    The result is of `dtype`.
    """
    activation = activation or _unchanged
    x, kernel, bias = (operand.astype(dtype) for operand in (x, kernel, bias))
    bias = jnp.expand_dims(bias, range(x.ndim - 1))
    if _current() == _MATMUL["bfloat16"]:
        return _rounded_affine(_bfloat16, activation, x, kernel, bias)
    if _current() == _MATMUL["tf32"] and jax.default_backend() == "cpu":
        return _rounded_affine(_tf32, activation, x, kernel, bias)
    return activation(jnp.matmul(x, kernel) + bias)


def _unchanged(x: Array) -> Array:
    return x


def _bfloat16(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _tf32(x: Array) -> Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)


_Function = Callable[[Array], Array]


# Without a derivative of its own the backward pass would multiply a float32 cotangent by a bfloat16 operand, for which
# accelerators have no fast product.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rounded_affine(rounded: _Function, activation: _Function, x: Array, kernel: Array, bias: Array) -> Array:
    """activation(x kernel + bias) with rounded factors, summed in float32."""
    return _forward(rounded, activation, x, kernel, bias)[0]


class _Residuals(NamedTuple):
    """What the backward pass reads; the activation's derivative is made again from the product."""

    x: Array
    kernel: Array
    bias: Array
    product: Array


def _forward(
    rounded: _Function, activation: _Function, x: Array, kernel: Array, bias: Array
) -> tuple[Array, _Residuals]:
    product = _multiply("...i,io->...o", rounded(x), rounded(kernel), x.dtype)
    return activation(product + bias), _Residuals(x, kernel, bias, product)


def _backward(
    rounded: _Function, activation: _Function, residuals: _Residuals, cotangent: Array
) -> tuple[Array, Array, Array]:
    x, kernel, bias, product = residuals
    # XLA may store the activation's derivative in float32 in the forward pass instead of making it again, and makes and
    # sums a cotangent in one kernel, which takes longer than two. Where there is much to move, barriers forbid both.
    barrier = jax.lax.optimization_barrier if product.size >= _LARGE else _unchanged
    _, pull = jax.vjp(activation, barrier(product) + bias)
    cotangent = barrier(pull(cotangent)[0])
    rounded_cotangent = rounded(cotangent)
    rows = tuple(range(cotangent.ndim - 1))
    return (
        _multiply("...o,io->...i", rounded_cotangent, rounded(kernel), x.dtype),
        _multiply("...i,...o->io", rounded(x), rounded_cotangent, kernel.dtype),
        jnp.sum(cotangent, axis=rows, keepdims=True, dtype=jnp.float32).astype(bias.dtype),
    )


_rounded_affine.defvjp(_forward, _backward)


def _multiply(subscripts: str, left: Array, right: Array, dtype: jnp.dtype) -> Array:
    return jnp.einsum(subscripts, left, right, precision=jax.lax.Precision.DEFAULT, preferred_element_type=dtype)


def _current() -> str | None:
    return cast(Any, jax.config).jax_default_matmul_precision
