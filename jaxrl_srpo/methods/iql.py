"""Implicit Q-Learning (arXiv 2110.06169): the critic of SRPO, and the deterministic IQL actor trained beside it.

V(s)  <- expectile tau of min_i Qtarget_i(s, a) over dataset actions       (eq. 5)
Q(s,a) <- r + discount * V(s')                                            (eq. 6)
pi(s) <- weighted regression, weight exp(temperature (Q - V)) up to 100    (eq. 7, squared error)

The order of the updates is that of the published SRPO code: V(s') is taken before the step of V, the actor's weight
after the step of V and of the target network.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

MAX_WEIGHT = 100.0


class Config(NamedTuple):
    """What changes shapes or the program; `actor_layers` is 2 in locomotion and 4 in mazes."""

    batch_size: int = 256
    width: int = 256
    actor_width: int = 256
    actor_layers: int = 2


@struct.dataclass
class Hyper:
    """Numbers that a sweep may vary; scalars of one member. The actor's rate falls as a cosine over `total_steps`."""

    learning_rate: Array | float = 3e-4
    actor_learning_rate: Array | float = 3e-4
    expectile: Array | float = 0.7
    discount: Array | float = 0.99
    temperature: Array | float = 3.0
    target_rate: Array | float = 0.005
    total_steps: Array | float = 1.5e6


class Learner(NamedTuple):
    """Parameters and optimiser state of one network."""

    params: Params
    opt_state: optax.OptState


@struct.dataclass
class Model:
    """The trained critic, satisfying `types.Critic`: the target Q networks."""

    params: Params
    config: Config = struct.field(pytree_node=False)

    def q_values(self, observations: Array, actions: Array) -> Array:
        """[B, 2] target action values."""
        return networks.forward(networks.TwinQ(self.config.width), self.params, observations, actions)


@struct.dataclass
class Policy:
    """A deterministic policy, of IQL and of SRPO alike."""

    params: Params
    action_size: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)
    layers: int = struct.field(pytree_node=False)

    def act(self, observations: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in (-1, 1)."""
        return networks.forward(networks.Actor(self.action_size, self.width, self.layers), self.params, observations)


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    value: Learner
    actor: Learner
    target_q: Params
    step: Array
    spec: Spec = struct.field(pytree_node=False)
    config: Config = struct.field(pytree_node=False)

    @property
    def critic(self) -> Model:
        """The result of the stage that SRPO climbs."""
        return Model(self.target_q, self.config)

    @property
    def policy(self) -> Policy:
        """The IQL baseline."""
        config = self.config
        return Policy(self.actor.params, self.spec.action_size, config.actor_width, config.actor_layers)


def init(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Any = None) -> State:
    """Fresh state of one member; the critic has no earlier stage, so `frozen` is unused."""
    del hyper, frozen
    key_q, key_value, key_actor = jax.random.split(key, 3)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = networks.TwinQ(config.width).init(key_q, observations, actions)["params"]
    value = networks.Value(config.width).init(key_value, observations)["params"]
    network = networks.Actor(spec.action_size, config.actor_width, config.actor_layers)
    actor = network.init(key_actor, observations)["params"]
    return State(
        q=Learner(q, optimizers.init(q)),
        value=Learner(value, optimizers.init(value)),
        actor=Learner(actor, optimizers.init(actor)),
        target_q=jax.tree.map(jnp.copy, q),
        step=jnp.zeros((), jnp.int32),
        spec=spec,
        config=config,
    )


@struct.dataclass
class Start:
    """Parameters of Q, V and actor to go on from."""

    q: Params
    value: Params
    actor: Params


def init_from(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Start) -> State:
    """A state with the networks of an earlier stage; the optimisers and the cosine of the actor's rate are fresh."""
    state = init(key, spec, config, hyper)
    return dataclasses.replace(
        state,
        q=Learner(frozen.q, optimizers.init(frozen.q)),
        value=Learner(frozen.value, optimizers.init(frozen.value)),
        actor=Learner(frozen.actor, optimizers.init(frozen.actor)),
        target_q=jax.tree.map(jnp.copy, frozen.q),
    )


def expectile_loss(difference: Array, expectile: Array | float) -> Array:
    """Mean of |tau - 1(u < 0)| u^2 over u [B]."""
    weight = jnp.where(difference < 0.0, 1.0 - expectile, expectile)
    return jnp.mean(weight * difference**2)


def update(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Any = None) -> tuple[State, Metrics]:
    """One step of V, of both Q, of the target and of the actor. Nothing here is random."""
    del key, frozen
    config = state.config
    q_network, value_network = networks.TwinQ(config.width), networks.Value(config.width)
    actor_network = networks.Actor(state.spec.action_size, config.actor_width, config.actor_layers)

    def v(params: Params, observations: Array) -> Array:
        return networks.forward(value_network, params, observations)

    def min_target_q(params: Params) -> Array:
        return jnp.min(networks.forward(q_network, params, batch.observations, batch.actions), axis=-1)

    def value_loss(params: Params) -> tuple[Array, Array]:
        values = v(params, batch.observations)
        return expectile_loss(target_values - values, hyper.expectile), values

    def q_loss(params: Params) -> tuple[Array, Array]:
        q_values = networks.forward(q_network, params, batch.observations, batch.actions)
        return jnp.mean((q_values - targets[:, None]) ** 2), q_values

    def actor_loss(params: Params) -> Array:
        actions = networks.forward(actor_network, params, batch.observations)
        return jnp.mean(weights * jnp.sum((actions - batch.actions) ** 2, axis=-1))

    target_values = min_target_q(state.target_q)
    targets = batch.rewards + hyper.discount * batch.discounts * v(state.value.params, batch.next_observations)

    (v_loss, values), grads = jax.value_and_grad(value_loss, has_aux=True)(state.value.params)
    value = Learner(*optimizers.adam(state.value.params, state.value.opt_state, grads, hyper.learning_rate))
    (loss_q, q_values), grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params)
    q = Learner(*optimizers.adam(state.q.params, state.q.opt_state, grads, hyper.learning_rate))
    target_q = optimizers.polyak(state.target_q, q.params, hyper.target_rate)

    advantages = min_target_q(target_q) - v(value.params, batch.observations)
    weights = jnp.minimum(jnp.exp(hyper.temperature * advantages), MAX_WEIGHT)
    policy_loss, grads = jax.value_and_grad(actor_loss)(state.actor.params)
    actor_rate = hyper.actor_learning_rate * optimizers.cosine(state.step, hyper.total_steps)
    actor = Learner(*optimizers.adam(state.actor.params, state.actor.opt_state, grads, actor_rate))

    state = dataclasses.replace(state, q=q, value=value, actor=actor, target_q=target_q, step=state.step + 1)
    metrics = {
        "loss": v_loss + loss_q + policy_loss,
        "value_loss": v_loss,
        "q_loss": loss_q,
        "actor_loss": policy_loss,
        "value": jnp.mean(values),
        "q": jnp.mean(q_values),
    }
    return state, metrics


def act(policy: Policy, observations: Array) -> Array:
    """Actions [B, action_size] in (-1, 1) of the IQL actor."""
    return policy.act(observations)


def explore(state: State, context: Array, observations: Array, key: Array, deviation: float) -> Array:
    """Actions [B, action_size] in [-1, 1]: the actor's with Gaussian noise; there is no context."""
    del context
    actions = state.policy.act(observations)
    return jnp.clip(actions + deviation * jax.random.normal(key, actions.shape), -1.0, 1.0)
