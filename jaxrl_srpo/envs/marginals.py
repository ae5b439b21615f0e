"""Distributions of visited states on a grid: histograms, entropy, coverage and divergence from a target.

Every figure comes with its bins, for an entropy means nothing without them: `Grid` says where they are, and which of
them can be reached at all. Entropies and divergences are in nats.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.types import Array


class Grid(NamedTuple):
    """Equal cubic bins over some coordinates of the observation; hashable, so that programs may close over it.

    Attributes:
      low: lower corner, one number per axis.
      width: side of a bin, in the units of the observation.
      shape: bins along each axis.
      axes: coordinates of the observation that the grid covers.
    """

    low: tuple[float, ...]
    width: float
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of bins."""
        return math.prod(self.shape)

    def bins(self, observations: Array) -> Array:
        """[..., observation_size] -> int32 [...], row-major; what lies outside counts to the nearest bin."""
        points = observations[..., jnp.asarray(self.axes)]
        low = jnp.asarray(self.low).reshape((1,) * (points.ndim - 1) + (-1,))
        last = jnp.asarray(self.shape, jnp.int32).reshape(low.shape) - 1
        index = jnp.clip(jnp.floor((points - low) / self.width).astype(jnp.int32), 0, last)
        return jnp.ravel_multi_index(tuple(jnp.moveaxis(index, -1, 0)), self.shape, mode="clip").astype(jnp.int32)

    def counts(self, observations: Array) -> Array:
        """How many of the observations [..., observation_size] lie in each bin, float32 [size]."""
        return jnp.zeros(self.size).at[self.bins(observations).reshape(-1)].add(1.0)

    def centers(self) -> np.ndarray:
        """Middles of all bins [size, axes]."""
        edges = [low + self.width * (0.5 + np.arange(n)) for low, n in zip(self.low, self.shape, strict=True)]
        return np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(self.size, -1).astype(np.float32)


def entropy(counts: Array) -> Array:
    """Plug-in entropy in nats of the share of each bin; `counts` [..., bins] -> [...].

    It is biased low by about (occupied bins - 1) / (2 observations), and at most the logarithm of the bins reached.
    """
    return jnp.sum(jax.scipy.special.entr(shares(counts)), axis=-1)


def coverage(counts: Array, reachable: Array) -> Array:
    """Share of the reachable bins, bool [bins], that were visited at all; `counts` [..., bins] -> [...]."""
    visited = (counts > 0.0) & jnp.expand_dims(reachable, tuple(range(counts.ndim - 1)))
    return jnp.sum(visited, axis=-1).astype(jnp.float32) / jnp.sum(reachable).astype(jnp.float32)


def divergence(counts: Array, log_target: Array, reachable: Array) -> Array:
    """KL(visited || target) in nats, the target normalized over the reachable bins; `counts` [..., bins] -> [...].

    Visits to bins held unreachable are left out. The released code's figure of this name is only right for a uniform
    target: it adds the log-density where it must subtract it.

    Args:
      counts: [..., bins].
      log_target: [bins], up to an additive constant.
      reachable: bool [bins].
    """
    lead = tuple(range(counts.ndim - 1))
    log_target = jax.nn.log_softmax(jnp.where(reachable, log_target, -jnp.inf))
    log_target = jnp.expand_dims(jnp.where(reachable, log_target, 0.0), lead)
    visited = shares(jnp.where(jnp.expand_dims(reachable, lead), counts, 0.0))
    return -entropy(visited) - jnp.sum(visited * log_target, axis=-1)


def shares(counts: Array) -> Array:
    """Counts [..., bins] as probabilities; zero where nothing was counted."""
    return counts / jnp.maximum(jnp.sum(counts, axis=-1, keepdims=True), 1e-12)
