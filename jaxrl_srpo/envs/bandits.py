"""Behavior distributions over two-dimensional actions: bandits whose policies can be looked at.

Each is a pure function `(key, n) -> samples [n, 2]` in float32 within [-1, 1]. They are the toy densities customary for
generative models (for instance Grathwohl et al., arXiv 1810.01367), rescaled to the action box.
"""

import math
from collections.abc import Callable
from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxrl_srpo.types import Array

Distribution = Callable[[Array, int], Array]


def two_moons(key: Array, n: int) -> Array:
    """Two interleaved half circles of radius 0.56 with Gaussian noise of 0.04."""
    key_moon, key_angle, key_noise = jax.random.split(key, 3)
    lower = jax.random.bernoulli(key_moon, shape=(n,))
    angles = jax.random.uniform(key_angle, (n,), maxval=math.pi)
    upper_points = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    lower_points = jnp.stack([1.0 - jnp.cos(angles), 0.5 - jnp.sin(angles)], axis=-1)
    points = jnp.where(lower[:, None], lower_points, upper_points) - jnp.asarray([[0.5, 0.25]])
    return _noisy(key_noise, 0.56 * points, 0.04)


def eight_gaussians(key: Array, n: int) -> Array:
    """Eight Gaussians of standard deviation 0.07 in equal shares on a circle of radius 0.75."""
    key_mode, key_noise = jax.random.split(key)
    angles = (math.pi / 4.0) * jax.random.randint(key_mode, (n,), 0, 8).astype(jnp.float32)
    return _noisy(key_noise, 0.75 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1), 0.07)


def checkerboard(key: Array, n: int) -> Array:
    """Uniform on the eight dark squares of side 0.45 of a four by four board within [-0.9, 0.9]."""
    key_row, key_column, key_place = jax.random.split(key, 3)
    rows = jax.random.randint(key_row, (n,), 0, 4)
    columns = 2 * jax.random.randint(key_column, (n,), 0, 2) + rows % 2
    corners = jnp.stack([columns, rows], axis=-1).astype(jnp.float32) - 2.0
    return 0.45 * (corners + jax.random.uniform(key_place, (n, 2)))


def swiss_roll(key: Array, n: int) -> Array:
    """An Archimedean spiral of one and a half turns, radius 0.3 to 0.9, with Gaussian noise of 0.03."""
    key_angle, key_noise = jax.random.split(key)
    angles = 1.5 * math.pi * (1.0 + 2.0 * jax.random.uniform(key_angle, (n,)))
    points = angles[:, None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return _noisy(key_noise, (0.9 / (4.5 * math.pi)) * points, 0.03)


def rings(key: Array, n: int) -> Array:
    """Two circles of radius 0.4 and 0.85 with Gaussian noise of 0.035, as dense on one as on the other."""
    key_ring, key_angle, key_noise = jax.random.split(key, 3)
    # Shares go by the circumference.
    outer = jax.random.bernoulli(key_ring, 0.85 / (0.4 + 0.85), (n, 1))
    angles = jax.random.uniform(key_angle, (n,), maxval=2.0 * math.pi)
    points = jnp.where(outer, 0.85, 0.4) * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return _noisy(key_noise, points, 0.035)


DISTRIBUTIONS: MappingProxyType[str, Distribution] = MappingProxyType(
    {
        "two_moons": two_moons,
        "eight_gaussians": eight_gaussians,
        "checkerboard": checkerboard,
        "swiss_roll": swiss_roll,
        "rings": rings,
    }
)


def _noisy(key: Array, points: Array, scale: float) -> Array:
    """Points [n, 2] with isotropic Gaussian noise of standard deviation `scale`, clipped to the action box."""
    return jnp.clip(points + scale * jax.random.normal(key, points.shape), -1.0, 1.0)
