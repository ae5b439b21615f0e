"""Advantage Weighted Actor-Critic (arXiv 2006.09359): offline learning that goes on online without a change.

Q(s,a) <- r + discount * min_i Qtarget_i(s', a'),  a' ~ pi(. | s')       (TD(0), no entropy term)
A(s,a) =  min_i Q_i(s,a) - min_i Q_i(s,a~),        a~ ~ pi(. | s) or its mean
pi     <- weighted maximum likelihood on the buffer's actions, weight softmax(A / lambda) over the batch times its size,
          or exp(A / lambda) up to 100

As in the official code (rail-berkeley/rlkit) both gradients are taken before either step, and the target follows every
update. At lambda = inf all weights are 1 and the actor is behaviour cloning by plain likelihood. A dataset's action is
a point of an unsquashed Gaussian, so actions at the bounds have finite densities; sampled actions are clipped to
[-1, 1]. Unlike the official code, targets start as copies of the critics.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.iql import Learner
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

Weighting = Literal["softmax", "exp"]
Baseline = Literal["sample", "mean"]
Decay = Literal["l2", "decoupled"]

MAX_WEIGHT = 100.0


class Config(NamedTuple):
    """What changes shapes or the program; the defaults are those of the official MuJoCo example.

    Attributes:
      batch_size: B.
      actor_width: of the policy's hidden layers.
      actor_layers: of the policy.
      critic_width: of the hidden layers of both Q.
      critic_layers: of both Q.
      mean: "tanh" keeps the Gaussian's mean in (-1, 1), "linear" does not (CORL).
      log_std: a parameter per action dimension, "sigmoid" within (-6, 0) from -3 or "clip" to [-20, 2] from 0 (CORL).
      weighting: "softmax" over the batch times B, or "exp" up to `MAX_WEIGHT` (CORL).
      baseline: V(s) is min Q at one action drawn from the policy ("sample") or at its mean ("mean", official hand).
      decay: of the actor's weights, "l2" in the gradient before Adam (official) or "decoupled" as in AdamW.
      negative_q: keeps Q at or below 0, for rewards of -1 and 0 (official hand).
      bootstrap_terminals: bootstraps through terminations too (official hand).
      small_outputs: starts the output layers within 0.001 (actor) and 0.003 (Q), as the official code does.
    """

    batch_size: int = 128
    actor_width: int = 256
    actor_layers: int = 4
    critic_width: int = 256
    critic_layers: int = 2
    mean: networks.Mean = "tanh"
    log_std: networks.LogStd = "sigmoid"
    weighting: Weighting = "softmax"
    baseline: Baseline = "sample"
    decay: Decay = "l2"
    negative_q: bool = False
    bootstrap_terminals: bool = False
    small_outputs: bool = True


@struct.dataclass
class Hyper:
    """Numbers that a sweep may vary; scalars of one member. `advantage_clip` bounds the advantage from above."""

    lambda_: Array | float = 2.0
    advantage_clip: Array | float = float("inf")
    learning_rate: Array | float = 3e-4
    actor_learning_rate: Array | float = 3e-4
    weight_decay: Array | float = 1e-4
    discount: Array | float = 0.99
    target_rate: Array | float = 0.005
    reward_scale: Array | float = 1.0


class Gaussian(NamedTuple):
    """A diagonal Gaussian over actions: `mean` [B, action_size] and `log_std` [action_size]."""

    mean: Array
    log_std: Array

    def sample(self, key: Array) -> Array:
        """Actions [B, action_size], clipped to [-1, 1]."""
        noise = jax.random.normal(key, self.mean.shape)
        return jnp.clip(self.mean + jnp.exp(self.log_std)[None, :] * noise, -1.0, 1.0)

    def log_prob(self, actions: Array) -> Array:
        """Log-densities [B] of actions [B, action_size], without a tanh correction."""
        z = (actions - self.mean) * jnp.exp(-self.log_std)[None, :]
        return -jnp.sum(0.5 * z**2 + (self.log_std + 0.5 * jnp.log(2.0 * jnp.pi))[None, :], axis=-1)


@struct.dataclass
class Policy:
    """A Gaussian policy; it acts by its mean and explores by sampling."""

    params: Params
    action_size: int = struct.field(pytree_node=False)
    config: Config = struct.field(pytree_node=False)

    def distribution(self, observations: Array) -> Gaussian:
        """The Gaussian at observations [B, observation_size]."""
        return Gaussian(*_actor(self.config, self.action_size).apply({"params": self.params}, observations))

    def act(self, observations: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        return jnp.clip(self.distribution(observations).mean, -1.0, 1.0)


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    actor: Learner
    target_q: Params
    step: Array
    spec: Spec = struct.field(pytree_node=False)
    config: Config = struct.field(pytree_node=False)

    @property
    def policy(self) -> Policy:
        """What acts."""
        return Policy(self.actor.params, self.spec.action_size, self.config)


def _actor(config: Config, action_size: int) -> networks.GaussianActor:
    bound = 1e-3 if config.small_outputs else None
    return networks.GaussianActor(
        action_size, config.actor_width, config.actor_layers, config.mean, config.log_std, output_bound=bound
    )


def _critic(config: Config) -> networks.TwinQ:
    return networks.TwinQ(config.critic_width, config.critic_layers, 3e-3 if config.small_outputs else None)


def init(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Any = None) -> State:
    """Fresh state of one member; there is no earlier stage, so `frozen` is unused."""
    del hyper, frozen
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = _critic(config).init(key_q, observations, actions)["params"]
    actor = _actor(config, spec.action_size).init(key_actor, observations)["params"]
    return State(
        q=Learner(q, optimizers.init(q)),
        actor=Learner(actor, optimizers.init(actor)),
        target_q=jax.tree.map(jnp.copy, q),
        step=jnp.zeros((), jnp.int32),
        spec=spec,
        config=config,
    )


@struct.dataclass
class Start:
    """Parameters of a `networks.Actor` and of a `networks.TwinQ`, such as those of SRPO, to go on from."""

    actor: Params
    q: Params


def init_from(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Start) -> State:
    """A state with the mean of another method's actor and with its critic; deviation and optimisers are fresh."""
    state = init(key, spec, config, hyper)
    actor = state.actor.params | frozen.actor
    return dataclasses.replace(
        state,
        q=Learner(frozen.q, optimizers.init(frozen.q)),
        actor=Learner(actor, optimizers.init(actor)),
        target_q=jax.tree.map(jnp.copy, frozen.q),
    )


def q_values(config: Config, params: Params, observations: Array, actions: Array) -> Array:
    """[B, 2] action values."""
    values = networks.forward(_critic(config), params, observations, actions)
    return jnp.minimum(values, 0.0) if config.negative_q else values


def targets(state: State, batch: Batch, key: Array, hyper: Hyper) -> Array:
    """What both Q regress to, [B]: the smaller target Q at an action drawn from the policy at the next state."""
    next_actions = state.policy.distribution(batch.next_observations).sample(key)
    next_q = jnp.min(q_values(state.config, state.target_q, batch.next_observations, next_actions), axis=-1)
    discounts = jnp.ones_like(batch.discounts) if state.config.bootstrap_terminals else batch.discounts
    return hyper.reward_scale * batch.rewards + hyper.discount * discounts * next_q


def values(state: State, observations: Array, key: Array) -> Array:
    """V(s), [B]: the smaller Q at the policy's mean or at one action drawn from it."""
    policy = state.policy
    deterministic = state.config.baseline == "mean"
    actions = policy.act(observations) if deterministic else policy.distribution(observations).sample(key)
    return jnp.min(q_values(state.config, state.q.params, observations, actions), axis=-1)


def weights(advantages: Array, weighting: Weighting, hyper: Hyper) -> Array:
    """Weights of the likelihood, [B] for advantages [B]; the mean of the softmax form is 1."""
    exponents = jnp.minimum(advantages, hyper.advantage_clip) / hyper.lambda_
    if weighting == "softmax":
        return jax.nn.softmax(exponents) * exponents.shape[0]
    return jnp.minimum(jnp.exp(exponents), MAX_WEIGHT)


def effective_sample_size(weights: Array) -> Array:
    """(sum w)^2 / (B sum w^2): the share of the batch, 1/B to 1, that the weights [B] leave in effect."""
    return jnp.sum(weights) ** 2 / (weights.shape[0] * jnp.sum(weights**2))


def update(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Any = None) -> tuple[State, Metrics]:
    """One step of both Q, of the actor and of the target."""
    del frozen
    config = state.config
    key_next, key_value = jax.random.split(key)

    def q_loss(params: Params) -> tuple[Array, Array]:
        q = q_values(config, params, batch.observations, batch.actions)
        return jnp.mean((q - q_targets[:, None]) ** 2), q

    def actor_loss(params: Params) -> Array:
        policy = Policy(params, state.spec.action_size, config)
        return -jnp.mean(likelihood_weights * policy.distribution(batch.observations).log_prob(batch.actions))

    q_targets = targets(state, batch, key_next, hyper)
    (loss_q, q), q_grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params)
    v = values(state, batch.observations, key_value)
    advantages = jnp.min(q, axis=-1) - v
    likelihood_weights = weights(advantages, config.weighting, hyper)
    policy_loss, actor_grads = jax.value_and_grad(actor_loss)(state.actor.params)

    new_q = Learner(*optimizers.adam(state.q.params, state.q.opt_state, q_grads, hyper.learning_rate))
    target_q = optimizers.polyak(state.target_q, new_q.params, hyper.target_rate)
    actor = _step_actor(state.actor, actor_grads, config.decay, hyper)
    metrics = {
        "loss": loss_q + policy_loss,
        "q_loss": loss_q,
        "actor_loss": policy_loss,
        "value": jnp.mean(v),
        "q": jnp.mean(q),
        "advantage": jnp.mean(advantages),
        "advantage_std": jnp.std(advantages),
        "effective_sample_size": effective_sample_size(likelihood_weights),
        "max_weight": jnp.max(likelihood_weights),
        "policy_std": jnp.mean(jnp.exp(networks.bounded_log_std(state.actor.params["log_std"], config.log_std))),
    }
    return dataclasses.replace(state, q=new_q, actor=actor, target_q=target_q, step=state.step + 1), metrics


def clone(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Any = None) -> tuple[State, Metrics]:
    """One step of the actor alone with all weights 1: behaviour cloning by AWAC's own actor, the baseline."""
    del key, frozen

    def loss_fn(params: Params) -> Array:
        policy = Policy(params, state.spec.action_size, state.config)
        return -jnp.mean(policy.distribution(batch.observations).log_prob(batch.actions))

    loss, grads = jax.value_and_grad(loss_fn)(state.actor.params)
    actor = _step_actor(state.actor, grads, state.config.decay, hyper)
    return dataclasses.replace(state, actor=actor, step=state.step + 1), {"loss": loss, "actor_loss": loss}


def _step_actor(actor: Learner, grads: Params, decay: Decay, hyper: Hyper) -> Learner:
    """Adam with either form of weight decay, on all parameters as PyTorch's optimisers do."""
    if decay == "decoupled":
        step = optimizers.adam(
            actor.params, actor.opt_state, grads, hyper.actor_learning_rate, weight_decay=hyper.weight_decay
        )
    else:
        grads = jax.tree.map(lambda g, p: g + hyper.weight_decay * p, grads, actor.params)
        step = optimizers.adam(actor.params, actor.opt_state, grads, hyper.actor_learning_rate)
    return Learner(*step)


def act(policy: Policy, observations: Array) -> Array:
    """The policy's mean actions [B, action_size] in [-1, 1], for evaluation."""
    return policy.act(observations)


def explore(state: State, context: Array, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] in [-1, 1] drawn from the policy, for collecting data; there is no context."""
    del context
    return state.policy.distribution(observations).sample(key)
