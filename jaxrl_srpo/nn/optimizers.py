"""Adam with its numbers as arrays, so that a sweep over them never recompiles."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl_srpo.types import Array, Params

# PyTorch's defaults.
_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8


class Step(NamedTuple):
    """Parameters and optimizer state after one step."""

    params: Params
    opt_state: optax.OptState


def init(params: Params) -> optax.OptState:
    """Adam's moments, zero."""
    return optax.scale_by_adam().init(params)


def adam(
    params: Params,
    opt_state: optax.OptState,
    grads: Params,
    learning_rate: Array | float,
    weight_decay: Array | float = 0.0,
) -> Step:
    """One step of AdamW (arXiv 1711.05101) with PyTorch's defaults; of Adam where `weight_decay` is 0.

    Optax computes the bias correction 1 - 0.999^t in float32, where it loses up to 5 digits to cancellation; expm1
    keeps them.
    """
    count = opt_state.count + 1
    mu = jax.tree.map(lambda m, g: _DECAY * m + (1.0 - _DECAY) * g, opt_state.mu, grads)
    nu = jax.tree.map(lambda v, g: _SQUARE_DECAY * v + (1.0 - _SQUARE_DECAY) * g**2, opt_state.nu, grads)
    first, second = _bias_correction(_DECAY, count), _bias_correction(_SQUARE_DECAY, count)

    def step(p: Array, m: Array, v: Array) -> Array:
        update = (m / first) / (jnp.sqrt(v / second) + _EPSILON)
        stepped: Array = p - learning_rate * (update + weight_decay * p)
        return stepped

    return Step(jax.tree.map(step, params, mu, nu), opt_state._replace(count=count, mu=mu, nu=nu))


def _bias_correction(decay: float, count: Array) -> Array:
    """1 - decay^count, exact to float32's last digits from the first step on."""
    return -jnp.expm1(count.astype(jnp.float32) * math.log(decay))


def clip_norm(grads: Params, limit: Array | float) -> Params:
    """Gradients scaled so that their common norm is at most `limit`; left alone where that is 0. As PyTorch does it."""
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    scale = jnp.where(limit > 0.0, jnp.minimum(1.0, limit / (norm + 1e-6)), 1.0)
    return jax.tree.map(lambda g: scale * g, grads)


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
