"""A method of one's own in one file: Critic Regularized Regression (CRR, arXiv 2006.15134) with a deterministic actor.

    Q(s,a) <- r + discount * Qtarget(s', pi_target(s'))
    pi     <- clones the actions that the critic prefers to its own: those with Q(s, a) > Q(s, pi(s))     ("binary")

From this folder, with everything that the package's own methods have (sweeps, resume, evaluation, table, curves, help):

    jaxrl-srpo train --algorithm=own_method:METHOD --datasets=pointmaze/umaze --crr_margin=0,0.1 --out=runs/crr
    jaxrl-srpo evaluate runs/crr --algorithm=own_method:METHOD

or `jaxrl_srpo.train("pointmaze/umaze", out="runs/crr", algorithm=METHOD)` in a program.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Settings(ValueSettings):
    """Every field is a flag, `--crr_steps` for instance; swept ones take several values in one sweep."""

    prefix: ClassVar[str] = "crr"
    title: ClassVar[str] = "CRR"

    steps: int = setting(10_000, "updates of CRR", minimum=1, scaled=True)
    batch_size: int = setting(256, "batch size of CRR", minimum=1)
    learning_rate: float = setting(1e-3, "Adam learning rate of CRR", swept=True)
    margin: float = setting(0.0, "advantage above which an action is cloned", swept=True)
    width: int = setting(256, "width of CRR's networks", minimum=1)
    evaluation_interval: int = setting(
        2_500, "updates between evaluations of CRR", minimum=1, scaled=True, protocol=True
    )


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    actor: Learner
    target_q: Params
    target_actor: Params


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = Learner.create(networks.TwinQ(settings.width), key_q, observations, actions)
    actor = Learner.create(networks.Actor(spec.action_size, settings.width), key_actor, observations)
    return State(q, actor, q.copy_params(), actor.copy_params())


def q_loss(params: Params, state: State, batch: Batch, settings: Settings) -> Array:
    """Squared TD error, mean over both Q."""
    next_actions = state.actor.apply(state.target_actor, batch.next_observations)
    next_q = jnp.min(state.q.apply(state.target_q, batch.next_observations, next_actions), axis=-1)
    targets = batch.rewards + settings.discount * batch.discounts * next_q
    return jnp.mean((state.q.apply(params, batch.observations, batch.actions) - targets[:, None]) ** 2)


def actor_loss(params: Params, state: State, batch: Batch, settings: Settings) -> tuple[Array, Array]:
    """Squared distance to the actions that the critic prefers to the actor's; also their share of the batch."""
    actions = state.actor.apply(params, batch.observations)
    own = jnp.min(state.q(batch.observations, jax.lax.stop_gradient(actions)), axis=-1)
    advantages = jnp.min(state.q(batch.observations, batch.actions), axis=-1) - own
    weights = (advantages > settings.margin).astype(jnp.float32)
    return jnp.mean(weights * jnp.sum((actions - batch.actions) ** 2, axis=-1)), jnp.mean(weights)


def update(state: State, batch: Batch, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, of the actor and of the targets."""
    loss_q, grads = jax.value_and_grad(q_loss)(state.q.params, state, batch, settings)
    q = state.q.apply_gradients(grads, settings.learning_rate)
    (loss_actor, cloned), grads = jax.value_and_grad(actor_loss, has_aux=True)(
        state.actor.params, state, batch, settings
    )
    actor = state.actor.apply_gradients(grads, settings.learning_rate)
    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    target_actor = optimizers.polyak(state.target_actor, actor.params, settings.target_rate)
    metrics = {"loss": loss_q + loss_actor, "q_loss": loss_q, "actor_loss": loss_actor, "cloned": cloned}
    return State(q, actor, target_q, target_actor), metrics


def policy_of(state: State) -> DeterministicPolicy:
    """What is kept and acts."""
    return DeterministicPolicy(state.actor.params, state.actor.network)


STAGE = Stage(
    name="crr",
    algorithm="crr",
    label="CRR",
    settings=Settings,
    init=init,
    update=update,
    result=policy_of,
    metrics={
        "loss": "sum of the losses",
        "q_loss": "squared TD error, mean over both Q",
        "actor_loss": "squared distance of the actor's actions to those that are cloned",
        "cloned": "share of the batch's actions that are cloned",
    },
)

METHOD = Method(
    name="crr",
    source="arXiv 2006.15134, with a deterministic actor",
    stages=(STAGE,),
    presets={
        "quick": Preset(
            "small budgets for CPUs",
            lambda dataset, family: (
                {"log_interval": 500, "episodes": 10, "reward_transform": "d4rl-antmaze"}
                if family in ("antmaze", "pointmaze")
                else {"log_interval": 500, "episodes": 10, "normalize_observations": True}
            ),
        )
    },
)
