"""Adam with its numbers as arrays, so that a sweep over them never recompiles."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_srpo.types import Array, Params

_ADAM = optax.scale_by_adam()


class Step(NamedTuple):
    """Parameters and optimizer state after one step."""

    params: Params
    opt_state: optax.OptState


def init(params: Params) -> optax.OptState:
    """Adam's moments, zero."""
    return _ADAM.init(params)


def adam(
    params: Params,
    opt_state: optax.OptState,
    grads: Params,
    learning_rate: Array | float,
    weight_decay: Array | float = 0.0,
) -> Step:
    """One step of AdamW (arXiv 1711.05101) with PyTorch's defaults; of Adam where `weight_decay` is 0."""
    # Optax raises a float to an integer power, which strict dtype promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = _ADAM.update(grads, opt_state)
    params = jax.tree.map(lambda p, u: p - learning_rate * (u + weight_decay * p), params, updates)
    return Step(params, opt_state)


def cosine(step: Array, total_steps: Array | float) -> Array:
    """Factor of a cosine schedule from 1 at step 0 to 0 at `total_steps` (arXiv 1608.03983, one cycle)."""
    progress = jnp.minimum(step.astype(jnp.float32) / total_steps, 1.0)
    return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def polyak(target: Params, params: Params, rate: Array | float) -> Params:
    """Target + rate (params - target), the moving average of target networks and of weight averaging."""
    return jax.tree.map(lambda t, p: t + rate * (p - t), target, params)


def moving_average(average: Params | None, params: Params, decay: float) -> Params | None:
    """An exponential moving average of weights; None stays None."""
    return None if average is None else polyak(average, params, 1.0 - decay)
