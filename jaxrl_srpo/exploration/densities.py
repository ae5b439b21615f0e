"""Models of the density of visited states, q(s) or q(s | z) for skills z, behind one small contract.

A density learns in two ways, and each model uses the one it needs: `observe` gets every newly visited state once, `fit`
takes one step on a batch drawn from everything visited so far. `log_density` is in nats, up to a constant where a model
says so. All are pure functions of one member's state; the objects themselves are hashable and static.

Skills are conditions: q(s | z) of state marginal matching's mixtures. The VAE of the released code reconstructs the
one-hot skill as well, so its error enters the reward; here the VAE reconstructs the state alone.
"""

import abc
import dataclasses
import math
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import digamma

from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.types import Array, Params


class Density(abc.ABC):
    """The contract; B is a batch size, `skills` are int32 [B], 0 where there are none."""

    @abc.abstractmethod
    def init(self, key: Array) -> Any:
        """A fresh state."""

    def observe(self, state: Any, observations: Array, skills: Array) -> Any:
        """The state after newly visited `observations` [B, observation_size]; by default they teach nothing."""
        return state

    def fit(self, state: Any, key: Array, observations: Array, skills: Array) -> Any:
        """The state after one step on `observations` [B, observation_size] out of all visits; unchanged by default."""
        return state

    @abc.abstractmethod
    def log_density(self, state: Any, key: Array, observations: Array, skills: Array) -> Array:
        """The logarithm of q(s | z) in nats, [B]."""


@dataclasses.dataclass(frozen=True)
class Sliced(Density):
    """A density of some coordinates of the observation, such as an object's position.

    Attributes:
      density: the density of the coordinates.
      axes: their indices.
    """

    density: Density
    axes: tuple[int, ...]

    def init(self, key: Array) -> Any:
        """See `Density`."""
        return self.density.init(key)

    def observe(self, state: Any, observations: Array, skills: Array) -> Any:
        """See `Density`."""
        return self.density.observe(state, self._slice(observations), skills)

    def fit(self, state: Any, key: Array, observations: Array, skills: Array) -> Any:
        """See `Density`."""
        return self.density.fit(state, key, self._slice(observations), skills)

    def log_density(self, state: Any, key: Array, observations: Array, skills: Array) -> Array:
        """See `Density`."""
        return self.density.log_density(state, key, self._slice(observations), skills)

    def _slice(self, observations: Array) -> Array:
        return observations[:, jnp.asarray(self.axes)]


@dataclasses.dataclass(frozen=True)
class Histogram(Density):
    """Counts on a grid: of all visits, or fading so that old visits are forgotten.

    As in the released code, a bin that was never visited counts as visited once.

    Attributes:
      grid: the bins.
      skills: number of histograms, one per skill.
      memory: number of visits of a skill after which an earlier visit counts 1/e. None counts all visits alike, which
        fictitious play needs; fading counts track the latest policies instead.
    """

    grid: Grid
    skills: int = 1
    memory: float | None = None

    def init(self, key: Array) -> Array:
        """Counts [skills, bins], all zero."""
        return jnp.zeros((self.skills, self.grid.size))

    def observe(self, state: Array, observations: Array, skills: Array) -> Array:
        """Counts with the visits added."""
        counts = jnp.zeros_like(state).at[skills, self.grid.bins(observations)].add(1.0)
        if self.memory is None:
            return state + counts
        return state * jnp.exp(-jnp.sum(counts, axis=-1, keepdims=True) / self.memory) + counts

    def log_density(self, state: Array, key: Array, observations: Array, skills: Array) -> Array:
        """Logarithm of a bin's share of the visits over its volume, [B]."""
        totals = jnp.maximum(jnp.sum(state, axis=-1), 1.0)
        counts = jnp.maximum(state[skills, self.grid.bins(observations)], 1.0)
        return jnp.log(counts / totals[skills]) - len(self.grid.shape) * math.log(self.grid.width)


class Reconstruction(NamedTuple):
    """A VAE's pass; `mean`, `log_variance` [B, code_size] of the code, `decoded` [B, observation_size]."""

    mean: Array
    log_variance: Array
    decoded: Array


class _Autoencoder(nn.Module):
    """Two hidden layers on either side of a Gaussian code."""

    observation_size: int
    width: int
    code_size: int

    @nn.compact
    def __call__(self, observations: Array, condition: Array, noise: Array) -> Reconstruction:
        """[B, observation_size], [B, condition_size], [B, code_size] -> [B, observation_size] by a sampled code."""
        encoder = networks.MLP(2 * self.code_size, self.width)
        mean, log_variance = jnp.split(encoder(jnp.concatenate([observations, condition], axis=-1)), 2, axis=-1)
        code = mean + jnp.exp(0.5 * log_variance) * noise
        decoder = networks.MLP(self.observation_size, self.width)
        return Reconstruction(mean, log_variance, decoder(jnp.concatenate([code, condition], axis=-1)))


@dataclasses.dataclass(frozen=True)
class VAE(Density):
    """A variational autoencoder trained by Adam on beta KL + squared error averaged over all elements.

    That loss is -beta ELBO, up to a constant, of a decoder N(decoded, beta d / 2) in d dimensions, so `elbo` gives a
    proper lower bound on log q in nats without another model. The released log-density, the default, is minus the
    squared error of one sampled code, summed over dimensions: no KL, no constant, another scale.

    Attributes:
      observation_size: d.
      skills: number of skills; above 1 encoder and decoder see the skill.
      elbo: whether `log_density` is the evidence lower bound instead of the released score.
      beta: weight of the KL; with the released 0.5 the code collapses in the star, with 0.05 it does not.
      learning_rate: of Adam.
      width: of the two hidden layers of encoder and decoder.
      code_size: dimensions of the code.
    """

    observation_size: int
    skills: int = 1
    elbo: bool = False
    beta: float = 0.5
    learning_rate: float = 1e-2
    width: int = 150
    code_size: int = 128

    def init(self, key: Array) -> Learner:
        """Fresh networks."""
        observations, condition = jnp.zeros((1, self.observation_size)), jnp.zeros((1, self._condition_size))
        network = _Autoencoder(self.observation_size, self.width, self.code_size)
        return Learner.create(network, key, observations, condition, jnp.zeros((1, self.code_size)))

    def fit(self, state: Learner, key: Array, observations: Array, skills: Array) -> Learner:
        """One step of Adam."""
        grads = jax.grad(self.loss)(state.params, state, key, observations, skills)
        return state.apply_gradients(grads, self.learning_rate)

    def loss(self, params: Params, state: Learner, key: Array, observations: Array, skills: Array) -> Array:
        """Beta KL + squared error, by one sampled code per observation."""
        code = self.reconstruct(params, state, key, observations, skills)
        error = jnp.mean((code.decoded - observations) ** 2)
        return self.beta * jnp.mean(_kl_to_standard_normal(code)) + error

    def log_density(self, state: Learner, key: Array, observations: Array, skills: Array) -> Array:
        """The released score or the ELBO, [B], by one sampled code per observation."""
        code = self.reconstruct(state.params, state, key, observations, skills)
        error = jnp.sum((code.decoded - observations) ** 2, axis=-1)
        if not self.elbo:
            return -error
        d, variance = self.observation_size, self.beta * self.observation_size / 2.0
        log_likelihood = -error / (2.0 * variance) - 0.5 * d * math.log(2.0 * math.pi * variance)
        return log_likelihood - _kl_to_standard_normal(code)

    def reconstruct(
        self, params: Params, state: Learner, key: Array, observations: Array, skills: Array
    ) -> Reconstruction:
        """The pass of observations [B, observation_size] through a code that `key` samples."""
        noise = jax.random.normal(key, (observations.shape[0], self.code_size))
        condition = jax.nn.one_hot(skills, self._condition_size)
        return cast(Reconstruction, state.apply(params, observations, condition, noise))

    @property
    def _condition_size(self) -> int:
        return self.skills if self.skills > 1 else 0


@struct.dataclass
class Particles:
    """Particles [N, observation_size] and their skills, int32 [N]."""

    observations: Array
    skills: Array


@dataclasses.dataclass(frozen=True)
class NearestNeighbors(Density):
    """The particle estimator of Kozachenko and Leonenko: log q(s) = psi(k) - psi(N + 1) - log(V_d r_k(s)^d).

    r_k(s) is the distance of s from its k-th nearest of N particles, V_d the volume of the unit ball, psi the digamma
    function, which makes the estimate unbiased where q is flat. The particles are the batch of the last `fit`. A state
    that is itself a particle is not its own neighbor.

    Attributes:
      observation_size: d.
      particles: N, the size of the batches that `fit` gets.
      skills: number of skills; neighbors have the same skill.
      k: which neighbor.
      smallest: floor of r_k, for states that repeat exactly, such as those against a wall.
    """

    observation_size: int
    particles: int
    skills: int = 1
    k: int = 5
    smallest: float = 1e-3

    def init(self, key: Array) -> Particles:
        """No particles yet: all at infinity."""
        nowhere = jnp.full((self.particles, self.observation_size), jnp.inf)
        return Particles(nowhere, jnp.zeros((self.particles,), jnp.int32))

    def fit(self, state: Particles, key: Array, observations: Array, skills: Array) -> Particles:
        """The batch, which replaces the particles."""
        return Particles(observations, skills)

    def log_density(self, state: Particles, key: Array, observations: Array, skills: Array) -> Array:
        """Logarithm of the estimate, [B]; -inf where a skill has fewer than k + 1 particles."""
        squares = jnp.sum((observations[:, None] - state.observations[None]) ** 2, axis=-1)
        same = skills[:, None] == state.skills[None]
        nearest = -jax.lax.top_k(-jnp.where(same, squares, jnp.inf), self.k + 1)[0]
        itself = (nearest[:, 0] == 0.0).astype(jnp.int32)
        square = jnp.take_along_axis(nearest, itself[:, None] + self.k - 1, axis=-1)[:, 0]
        radius = jnp.maximum(jnp.sqrt(square), self.smallest)
        others = (jnp.sum(same, axis=-1) - itself).astype(jnp.float32)
        d = self.observation_size
        log_ball = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1.0) + d * jnp.log(radius)
        return digamma(jnp.float32(self.k)) - digamma(others + 1.0) - log_ball


def _kl_to_standard_normal(code: Reconstruction) -> Array:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the code, [B]."""
    return 0.5 * jnp.sum(code.mean**2 + jnp.exp(code.log_variance) - 1.0 - code.log_variance, axis=-1)
