"""Soft Actor-Critic with automatic temperature (arXiv 1812.05905).

Q(s,a) <- r + discount * (min_i Qtarget_i(s', a') - alpha log pi(a'|s')), a' ~ pi   (eq. 5 and 6, clipped double Q)
pi(s)  <- minimises E[alpha log pi(a|s) - min_i Q_i(s, a)], a ~ pi                   (eq. 9)
alpha  <- minimises E[-alpha (log pi(a|s) + target entropy)]                         (eq. 18)

The order is critic, actor, temperature, target, each with what the ones before it have just become.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.iql import Learner
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

MIN_LOG_STD, MAX_LOG_STD = -20.0, 2.0
# In float32 tanh rounds to 1 from about 9 on, where its inverse is infinite.
_INSIDE = 1.0 - 1e-6


class Config(NamedTuple):
    """What changes shapes."""

    batch_size: int = 256
    width: int = 256
    layers: int = 2


@struct.dataclass
class Hyper:
    """Numbers that a sweep may vary; scalars of one member.

    Attributes:
      learning_rate: of the critic.
      actor_learning_rate: of the actor.
      temperature_learning_rate: of alpha; 0 keeps it at `temperature`.
      temperature: alpha at the start.
      target_entropy: per action dimension; the customary -|A| is -1.
      discount: per step.
      target_rate: of the target networks.
    """

    learning_rate: Array | float = 3e-4
    actor_learning_rate: Array | float = 3e-4
    temperature_learning_rate: Array | float = 3e-4
    temperature: Array | float = 1.0
    target_entropy: Array | float = -1.0
    discount: Array | float = 0.99
    target_rate: Array | float = 0.005


@struct.dataclass
class SquashedGaussian:
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
        """Actions [B, action_size] and their log-densities [B], which gradients pass through."""
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
class Policy:
    """A squashed Gaussian whose mean and spread depend on the observation."""

    params: Params
    action_size: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)
    layers: int = struct.field(pytree_node=False)

    def distribution(self, observations: Array) -> SquashedGaussian:
        """Of the actions for observations [B, observation_size]."""
        network = networks.MLP(2 * self.action_size, self.width, self.layers)
        mean, log_std = jnp.split(networks.forward(network, self.params, observations), 2, axis=-1)
        return SquashedGaussian(mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD))

    def act(self, observations: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in (-1, 1), without noise."""
        return self.distribution(observations).mode()


@struct.dataclass
class State:
    """Training state of one member; `log_temperature` is the logarithm of alpha."""

    q: Learner
    actor: Learner
    log_temperature: Learner
    target_q: Params
    spec: Spec = struct.field(pytree_node=False)
    config: Config = struct.field(pytree_node=False)

    @property
    def policy(self) -> Policy:
        """What acts."""
        return policy_of(self.actor.params, self.spec, self.config)


def policy_of(params: Params, spec: Spec, config: Config) -> Policy:
    """The policy with these parameters."""
    return Policy(params, spec.action_size, config.width, config.layers)


def init(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Any = None) -> State:
    """Fresh state of one member; nothing comes before it, so `frozen` is unused."""
    del frozen
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = networks.TwinQ(config.width, config.layers).init(key_q, observations, actions)["params"]
    network = networks.MLP(2 * spec.action_size, config.width, config.layers)
    actor = network.init(key_actor, observations)["params"]
    log_temperature = jnp.log(jnp.asarray(hyper.temperature, jnp.float32))
    return State(
        q=Learner(q, optimizers.init(q)),
        actor=Learner(actor, optimizers.init(actor)),
        log_temperature=Learner(log_temperature, optimizers.init(log_temperature)),
        target_q=jax.tree.map(jnp.copy, q),
        spec=spec,
        config=config,
    )


def update(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Any = None) -> tuple[State, Metrics]:
    """One step of both Q, of the actor, of the temperature and of the target."""
    del frozen
    key_next, key_actor = jax.random.split(key)
    temperature = jnp.exp(state.log_temperature.params)
    q, q_metrics = _update_q(state, batch, key_next, hyper, temperature)
    actor, actor_metrics = _update_actor(state, q.params, batch, key_actor, hyper, temperature)
    log_temperature, temperature_metrics = _update_temperature(state, actor_metrics["entropy"], hyper)
    target_q = optimizers.polyak(state.target_q, q.params, hyper.target_rate)
    metrics = q_metrics | actor_metrics | temperature_metrics
    metrics["loss"] = metrics["q_loss"] + metrics["actor_loss"] + metrics["temperature_loss"]
    return dataclasses.replace(state, q=q, actor=actor, log_temperature=log_temperature, target_q=target_q), metrics


def _q_values(params: Params, config: Config, observations: Array, actions: Array) -> Array:
    """[B, 2]."""
    return networks.forward(networks.TwinQ(config.width, config.layers), params, observations, actions)


def _update_q(state: State, batch: Batch, key: Array, hyper: Hyper, temperature: Array) -> tuple[Learner, Metrics]:
    next_actions, log_probs = state.policy.distribution(batch.next_observations).sample(key)
    next_q = _q_values(state.target_q, state.config, batch.next_observations, next_actions)
    next_values = jnp.min(next_q, axis=-1) - temperature * log_probs
    targets = batch.rewards + hyper.discount * batch.discounts * next_values

    def loss_fn(params: Params) -> tuple[Array, Array]:
        q_values = _q_values(params, state.config, batch.observations, batch.actions)
        return jnp.mean((q_values - targets[:, None]) ** 2), q_values

    (loss, q_values), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.q.params)
    q = Learner(*optimizers.adam(state.q.params, state.q.opt_state, grads, hyper.learning_rate))
    return q, {"q_loss": loss, "q": jnp.mean(q_values)}


def _update_actor(
    state: State, q_params: Params, batch: Batch, key: Array, hyper: Hyper, temperature: Array
) -> tuple[Learner, Metrics]:
    def loss_fn(params: Params) -> tuple[Array, Array]:
        policy = policy_of(params, state.spec, state.config)
        actions, log_probs = policy.distribution(batch.observations).sample(key)
        q_values = jnp.min(_q_values(q_params, state.config, batch.observations, actions), axis=-1)
        return jnp.mean(temperature * log_probs - q_values), -jnp.mean(log_probs)

    (loss, entropy), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.actor.params)
    actor = Learner(*optimizers.adam(state.actor.params, state.actor.opt_state, grads, hyper.actor_learning_rate))
    return actor, {"actor_loss": loss, "entropy": entropy}


def _update_temperature(state: State, entropy: Array, hyper: Hyper) -> tuple[Learner, Metrics]:
    target = hyper.target_entropy * state.spec.action_size

    def loss_fn(log_temperature: Array) -> Array:
        return jnp.exp(log_temperature) * (entropy - target)

    old = state.log_temperature
    loss, grads = jax.value_and_grad(loss_fn)(old.params)
    learner = Learner(*optimizers.adam(old.params, old.opt_state, grads, hyper.temperature_learning_rate))
    return learner, {"temperature_loss": loss, "temperature": jnp.exp(old.params)}


def explore(state: State, context: Array, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] drawn from the policy for observations [B, observation_size]; there is no context."""
    del context
    return state.policy.distribution(observations).sample(key)[0]


def act(policy: Policy, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] in (-1, 1), the mode of the policy."""
    del key
    return policy.act(observations)
