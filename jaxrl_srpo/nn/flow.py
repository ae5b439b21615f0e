"""Flow matching (Lipman et al., arXiv 2210.02747): straight paths from noise to actions, and Euler's steps along them.

Time runs from 0, Gaussian noise z, to 1, an action a: x_t = (1 - t) z + t a, of velocity a - z.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_srpo.types import Array

Velocity = Callable[[Array, Array, Array], Array]
"""(observations [B, observation_size], x_t [B, action_size], times [B, 1]) -> velocities [B, action_size]."""


class Point(NamedTuple):
    """Points x_t [B, action_size] of paths, and the velocities [B, action_size] there."""

    x: Array
    velocity: Array


def straight_path(noise: Array, actions: Array, times: Array) -> Point:
    """The path from `noise` to `actions`, both [B, action_size], at `times` [B, 1]."""
    return Point((1.0 - times) * noise + times * actions, actions - noise)


def euler(velocity: Velocity, observations: Array, noise: Array, steps: int) -> Array:
    """Actions [B, action_size] in [-1, 1] that a flow makes of `noise` [B, action_size] in equal Euler steps."""

    def step(x: Array, i: Array) -> tuple[Array, None]:
        times = jnp.broadcast_to(i / steps, (x.shape[0], 1))
        return x + velocity(observations, x, times) / steps, None

    actions, _ = jax.lax.scan(step, noise, jnp.arange(steps))
    return jnp.clip(actions, -1.0, 1.0)
