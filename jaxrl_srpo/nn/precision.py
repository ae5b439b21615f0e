"""Precision of matrix products: float32, TF32 or bfloat16, by one setting.

Parameters, optimizer state, targets, losses and the outputs of networks are float32 whatever the precision. In
bfloat16 the hidden activations are stored in it too, for on accelerators their traffic through memory costs as much as
the products.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from jaxrl_srpo.types import Array

Precision = Literal["auto", "float32", "tf32", "bfloat16"]

# What JAX calls "bfloat16" only allows it, and GPUs then take TF32; the name of the algorithm insists.
_MATMUL = {"auto": None, "float32": "float32", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}


def using(precision: Precision) -> AbstractContextManager[Any]:
    """What is traced inside multiplies matrices in this precision; "auto" is JAX's default for the device.

    A CPU multiplies in float32 and rounds the operands as the precision asks, so that its effect can be seen there too.
    """
    return jax.default_matmul_precision(cast(str, _MATMUL[precision]))


def hidden_dtype() -> jnp.dtype:
    """Type of the hidden activations of networks that are being traced."""
    return jnp.dtype(jnp.bfloat16 if _current() == _MATMUL["bfloat16"] else jnp.float32)


def dot_general(lhs: Array, rhs: Array, dimension_numbers: Any, **kwargs: Any) -> Array:
    """The product of a dense layer, [..., I] by [I, O], in the precision of what is being traced.

    The signature is that of `jax.lax.dot_general`, for which it stands in `flax.linen.Dense`; the result has the type
    of the operands.
    """
    if _current() == _MATMUL["bfloat16"]:
        return _rounded_product(_bfloat16, lhs, rhs)
    if _current() == _MATMUL["tf32"] and jax.default_backend() == "cpu":
        return _rounded_product(_tf32, lhs, rhs)
    return jax.lax.dot_general(lhs, rhs, dimension_numbers, **kwargs)


def _bfloat16(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _tf32(x: Array) -> Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)


# Without a derivative of its own the backward pass would multiply a float32 cotangent by a bfloat16 operand, for which
# accelerators have no fast product.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded_product(rounded: Callable[[Array], Array], lhs: Array, rhs: Array) -> Array:
    """[..., I] by [I, O] with rounded operands, summed in float32."""
    return _multiply("...i,io->...o", rounded(lhs), rounded(rhs), lhs.dtype)


def _forward(rounded: Callable[[Array], Array], lhs: Array, rhs: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded_product(rounded, lhs, rhs), (lhs, rhs)


def _backward(
    rounded: Callable[[Array], Array], operands: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    lhs, rhs = operands
    rounded_cotangent = rounded(cotangent)
    return (
        _multiply("...o,io->...i", rounded_cotangent, rounded(rhs), lhs.dtype),
        _multiply("...i,...o->io", rounded(lhs), rounded_cotangent, rhs.dtype),
    )


_rounded_product.defvjp(_forward, _backward)


def _multiply(subscripts: str, left: Array, right: Array, dtype: jnp.dtype) -> Array:
    return jnp.einsum(subscripts, left, right, precision=jax.lax.Precision.DEFAULT, preferred_element_type=dtype)


def _current() -> str | None:
    return cast(Any, jax.config).jax_default_matmul_precision
