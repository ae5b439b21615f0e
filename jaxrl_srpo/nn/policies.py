"""Trained networks that act: pytrees with one method, `act(observations, key)`."""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.types import Array, Params

MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0
# In float32 tanh rounds to 1 from about 9 on, where its inverse is infinite.
_INSIDE = 1.0 - 1e-6


def act(
    policy: "DeterministicPolicy | GaussianPolicy | TanhGaussianPolicy", observations: Array, key: Array | None = None
) -> Array:
    """Actions [B, action_size] in [-1, 1] of any policy below; see `types.Act`."""
    return policy.act(observations, key)


def repeated(observations: Array, count: int) -> Array:
    """Every row of [B, n] `count` times in a row: [B * count, n]."""
    return jnp.repeat(observations, count, axis=0)


def best(actions: Array, values: Array, count: int) -> Array:
    """Of every `count` successive rows of `actions` [B * count, n] the one of the largest value [B * count]: [B, n]."""
    return take_candidates(actions, jnp.argmax(values.reshape(-1, count), axis=1))


def take_candidates(candidates: Array, chosen: Array) -> Array:
    """Of candidates [B * n, action_size], n in a row for each observation, the `chosen` [B] ones, [B, action_size]."""
    own = candidates.reshape(chosen.shape[0], -1, candidates.shape[-1])
    return jnp.take_along_axis(own, chosen[:, None, None], axis=1)[:, 0]


@struct.dataclass
class DeterministicPolicy:
    """a = tanh(MLP(s)), the policy of IQL, SRPO and TD3+BC."""

    params: Params
    network: networks.Actor = struct.field(pytree_node=False)

    def act(self, observations: Array, key: Array | None = None) -> Array:
        """[B, observation_size] -> [B, action_size] in (-1, 1); nothing is random."""
        return networks.forward(self.network, self.params, observations)


class Gaussian(NamedTuple):
    """A diagonal Gaussian over actions: `mean` [B, action_size] and `log_std` [action_size]."""

    mean: Array
    log_std: Array

    def sample(self, key: Array, clip: bool = True) -> Array:
        """Actions [B, action_size], clipped to [-1, 1] if `clip`."""
        noise = jax.random.normal(key, self.mean.shape)
        actions = self.mean + jnp.exp(self.log_std)[None, :] * noise
        return jnp.clip(actions, -1.0, 1.0) if clip else actions

    def log_prob(self, actions: Array) -> Array:
        """Log-densities [B] of actions [B, action_size], without a tanh correction."""
        z = (actions - self.mean) * jnp.exp(-self.log_std)[None, :]
        return -jnp.sum(0.5 * z**2 + (self.log_std + 0.5 * jnp.log(2.0 * jnp.pi))[None, :], axis=-1)


@struct.dataclass
class GaussianPolicy:
    """A Gaussian whose deviation is the same in every state; it acts by its mean and explores by sampling."""

    params: Params
    network: networks.GaussianActor = struct.field(pytree_node=False)

    def distribution(self, observations: Array) -> Gaussian:
        """The Gaussian at observations [B, observation_size]."""
        return Gaussian(*self.network.apply({"params": self.params}, observations))

    def act(self, observations: Array, key: Array | None = None) -> Array:
        """[B, observation_size] -> mean actions [B, action_size] in [-1, 1]; nothing is random."""
        return jnp.clip(self.distribution(observations).mean, -1.0, 1.0)


@struct.dataclass
class TanhGaussian:
    """The distribution of a = tanh(u), u ~ N(mean, std^2) in each dimension.

    Attributes:
      mean: [B, action_size], before tanh.
      log_std: [B, action_size].
    """

    mean: Array
    log_std: Array

    def mode(self) -> Array:
        """[B, action_size], tanh of the mean."""
        return jnp.tanh(self.mean)

    def sample(self, key: Array) -> tuple[Array, Array]:
        """Actions [B, action_size] and their log-densities [B]; gradients pass through both."""
        noise = jax.random.normal(key, self.mean.shape)
        u = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(u), self._log_density(u, noise)

    def log_prob(self, actions: Array) -> Array:
        """Log-densities [B] of actions [B, action_size]; those at the bounds count as the nearest inside."""
        u = jnp.arctanh(jnp.clip(actions, -_INSIDE, _INSIDE))
        return self._log_density(u, (u - self.mean) * jnp.exp(-self.log_std))

    def _log_density(self, u: Array, noise: Array) -> Array:
        gaussian = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(u)^2) without the cancellation that makes it infinite for large u.
        log_slope = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return jnp.sum(gaussian - log_slope, axis=-1)


@struct.dataclass
class TanhGaussianPolicy:
    """SAC's policy: a squashed Gaussian whose mean and deviation depend on the observation."""

    params: Params
    network: networks.MLP = struct.field(pytree_node=False)

    @property
    def action_size(self) -> int:
        """Width of one action."""
        return self.network.output_size // 2

    def distribution(self, observations: Array) -> TanhGaussian:
        """Distribution of the actions at observations [B, observation_size]."""
        mean, log_std = jnp.split(networks.forward(self.network, self.params, observations), 2, axis=-1)
        return TanhGaussian(mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD))

    def act(self, observations: Array, key: Array | None = None) -> Array:
        """[B, observation_size] -> [B, action_size] in (-1, 1), the mode; nothing is random."""
        return self.distribution(observations).mode()


@struct.dataclass
class QFunction:
    """A trained ensemble of action values, satisfying `types.Critic`."""

    params: Params
    network: networks.TwinQ = struct.field(pytree_node=False)

    def q_values(self, observations: Array, actions: Array) -> Array:
        """[B, 2] action values of observations [B, observation_size] and actions [B, action_size]."""
        return networks.forward(self.network, self.params, observations, actions)


class Drawn(Protocol):
    """A policy that draws its actions."""

    def act(self, observations: Array, key: Array) -> Array:
        """[B, observation_size] -> actions [B, action_size] in [-1, 1], one each."""

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """The same by given noise."""


@struct.dataclass
class BestOf(Drawing):
    """Takes of several actions that a policy draws the one that a critic values most.

    Attributes:
      drawn: what draws them, a pytree.
      critic: what values them.
      candidates: their number.
      smaller: whether by the smaller of both Q; by the first otherwise.
    """

    drawn: Drawn
    critic: QFunction
    candidates: int = struct.field(pytree_node=False)
    smaller: bool = struct.field(pytree_node=False, default=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        states = repeated(observations, self.candidates)
        actions = self.drawn.act_with(states, noise)
        values = self.critic.q_values(states, actions)
        return best(actions, jnp.min(values, axis=-1) if self.smaller else values[:, 0], self.candidates)
