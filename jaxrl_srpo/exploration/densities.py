"""Models of the density of visited states, q(s) or q(s | z) for skills z, behind one small contract.

A density learns in two ways, and each model uses the one it needs: `observe` is given every newly visited state once,
`fit` takes one step on a batch drawn from everything visited so far. `log_density` is in nats, up to a constant where a
model says so. All are pure functions of one member's state; the objects themselves are hashable and static.

Skills are conditions: q(s | z) of State Marginal Matching's mixtures. The released code appends the one-hot skill to
what its VAE reconstructs, so that the error of those bits is part of the reward; here only the state is.
"""

import math
from typing import Any, NamedTuple, Protocol, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.scipy.special import digamma

from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Params


class Density(Protocol):
    """The contract; B is a batch size, `skills` are int32 [B], 0 where there are none."""

    def init(self, key: Array) -> Any:
        """A fresh state."""

    def observe(self, state: Any, observations: Array, skills: Array) -> Any:
        """The state after `observations` [B, observation_size], newly visited, were seen."""

    def fit(self, state: Any, key: Array, observations: Array, skills: Array) -> Any:
        """The state after one step on `observations` [B, observation_size] out of all that were visited."""

    def log_density(self, state: Any, key: Array, observations: Array, skills: Array) -> Array:
        """The logarithm of q(s | z) in nats, [B]."""


class Sliced(NamedTuple):
    """A density of some coordinates of the observation, such as where an object is.

    Attributes:
      density: of the coordinates.
      axes: which they are.
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


class Histogram(NamedTuple):
    """Counts on a grid: of all time, or fading so that old visits are forgotten.

    As in the released code, a bin that was never visited counts as visited once.

    Attributes:
      grid: the bins.
      skills: number of histograms, one per skill.
      memory: visits that the counts remember: a visit is forgotten by a factor of e after as many others of its skill.
        None counts for all time, which fictitious play needs; fading counts track the latest policies instead.
    """

    grid: Grid
    skills: int = 1
    memory: float | None = None

    def init(self, key: Array) -> Array:
        """Counts [skills, bins], none."""
        del key
        return jnp.zeros((self.skills, self.grid.size))

    def observe(self, state: Array, observations: Array, skills: Array) -> Array:
        """Counts with the visits added."""
        counts = jnp.zeros_like(state).at[skills, self.grid.bins(observations)].add(1.0)
        if self.memory is None:
            return state + counts
        return state * jnp.exp(-jnp.sum(counts, axis=-1, keepdims=True) / self.memory) + counts

    def fit(self, state: Array, key: Array, observations: Array, skills: Array) -> Array:
        """Counting is all a histogram learns by."""
        del key, observations, skills
        return state

    def log_density(self, state: Array, key: Array, observations: Array, skills: Array) -> Array:
        """Log of share over volume of a bin, [B]."""
        del key
        totals = jnp.maximum(jnp.sum(state, axis=-1), 1.0)
        counts = jnp.maximum(state[skills, self.grid.bins(observations)], 1.0)
        return jnp.log(counts / totals[skills]) - len(self.grid.shape) * math.log(self.grid.width)


@struct.dataclass
class VAEState:
    """Parameters and optimiser state of a VAE, and how wide its decoder's Gaussian is."""

    params: Params
    opt_state: optax.OptState


class Reconstruction(NamedTuple):
    """A VAE's pass; `mean`, `log_variance` [B, code_size] of the code, `decoded` [B, observation_size]."""

    mean: Array
    log_variance: Array
    decoded: Array


class VAE(NamedTuple):
    """A variational autoencoder trained by Adam on beta KL + squared error averaged over all elements.

    That loss is -beta ELBO, up to a constant, of a decoder N(decoded, beta d / 2) in d dimensions, which is how `elbo`
    can be a proper lower bound on log q in nats without another model. The released log-density, the default, is minus
    the squared error summed over dimensions, of one sampled code: no KL, no constant, another scale.

    Attributes:
      observation_size: d.
      skills: number of skills; above 1 encoder and decoder see the skill.
      elbo: whether `log_density` is the evidence lower bound instead of the released one.
      beta: weight of the KL; the released 0.5 lets the code collapse in the star, 0.05 does not.
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

    def init(self, key: Array) -> VAEState:
        """Fresh networks."""
        observations, condition = jnp.zeros((1, self.observation_size)), jnp.zeros((1, self._condition_size))
        noise = jnp.zeros((1, self.code_size))
        params = self._network.init(key, observations, condition, noise)["params"]
        return VAEState(params, optimizers.init(params))

    def observe(self, state: VAEState, observations: Array, skills: Array) -> VAEState:
        """A VAE learns from batches only."""
        del observations, skills
        return state

    def fit(self, state: VAEState, key: Array, observations: Array, skills: Array) -> VAEState:
        """One step of Adam."""

        def loss(params: Params) -> Array:
            code = self._pass(params, key, observations, skills)
            error = jnp.mean((code.decoded - observations) ** 2)
            return self.beta * jnp.mean(_kl_to_standard_normal(code)) + error

        grads = jax.grad(loss)(state.params)
        return VAEState(*optimizers.adam(state.params, state.opt_state, grads, self.learning_rate))

    def log_density(self, state: VAEState, key: Array, observations: Array, skills: Array) -> Array:
        """The released score or the ELBO, [B], by one sampled code per observation."""
        code = self._pass(state.params, key, observations, skills)
        error = jnp.sum((code.decoded - observations) ** 2, axis=-1)
        if not self.elbo:
            return -error
        d, variance = self.observation_size, self.beta * self.observation_size / 2.0
        log_likelihood = -error / (2.0 * variance) - 0.5 * d * math.log(2.0 * math.pi * variance)
        return log_likelihood - _kl_to_standard_normal(code)

    def _pass(self, params: Params, key: Array, observations: Array, skills: Array) -> Reconstruction:
        noise = jax.random.normal(key, (observations.shape[0], self.code_size))
        condition = jax.nn.one_hot(skills, self._condition_size)
        return cast(Reconstruction, self._network.apply({"params": params}, observations, condition, noise))

    @property
    def _condition_size(self) -> int:
        return self.skills if self.skills > 1 else 0

    @property
    def _network(self) -> "_Autoencoder":
        return _Autoencoder(self.observation_size, self.width, self.code_size)


class NearestNeighbours(NamedTuple):
    """The particle estimator of Kozachenko and Leonenko: log q(s) = psi(k) - psi(N + 1) - log(V_d r_k(s)^d).

    r_k(s) is the distance of s from its k-th nearest of N particles, V_d the volume of the unit ball, psi the digamma
    function, which makes the estimate unbiased where q is flat. The particles are the batch of the last `fit`. A state
    that is itself a particle is not its own neighbour.

    Attributes:
      observation_size: d.
      particles: N, the size of the batches that `fit` will be given.
      skills: number of skills; neighbours are of the same skill.
      k: which neighbour.
      smallest: floor of r_k, for states that repeat exactly, as against a wall.
    """

    observation_size: int
    particles: int
    skills: int = 1
    k: int = 5
    smallest: float = 1e-3

    def init(self, key: Array) -> "Particles":
        """No particles yet: all at infinity."""
        del key
        nowhere = jnp.full((self.particles, self.observation_size), jnp.inf)
        return Particles(nowhere, jnp.zeros((self.particles,), jnp.int32))

    def observe(self, state: "Particles", observations: Array, skills: Array) -> "Particles":
        """Particles come from batches only."""
        del observations, skills
        return state

    def fit(self, state: "Particles", key: Array, observations: Array, skills: Array) -> "Particles":
        """The batch replaces the particles."""
        del state, key
        return Particles(observations, skills)

    def log_density(self, state: "Particles", key: Array, observations: Array, skills: Array) -> Array:
        """Log of the estimate, [B]; -inf where a skill has fewer than k + 1 particles."""
        del key
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


@struct.dataclass
class Particles:
    """Particles [N, observation_size] and their skills, int32 [N]."""

    observations: Array
    skills: Array


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


def _kl_to_standard_normal(code: Reconstruction) -> Array:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the code, [B]."""
    return 0.5 * jnp.sum(code.mean**2 + jnp.exp(code.log_variance) - 1.0 - code.log_variance, axis=-1)
