"""Implicit Q-Learning (arXiv 2110.06169): the critic of SRPO, and the deterministic IQL actor trained beside it.

V(s)  <- expectile tau of min_i Qtarget_i(s, a) over dataset actions       (eq. 5)
Q(s,a) <- r + discount * V(s')                                            (eq. 6)
pi(s) <- weighted regression, weight exp(temperature (Q - V)) up to 100    (eq. 7, squared error)

The order of the updates is that of the published SRPO code: V(s') is taken before the step of V, the actor's weight
after the step of V and of the target network.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import behavior, presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import OnlineSettings, ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy, QFunction
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

MAX_WEIGHT = 100.0


@struct.dataclass
class Settings(ValueSettings):
    """Settings of Q, V and the IQL actor; the defaults are those of the published locomotion runs."""

    prefix: ClassVar[str] = "critic"
    title: ClassVar[str] = "IQL"

    steps: int = setting(1_500_000, "updates of the critic stage", minimum=1, scaled=True, leaf=True)
    batch_size: int = setting(256, "batch size of the critic stage", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of Q and V", swept=True)
    expectile: float = setting(0.7, "expectile tau of V", flag="expectile", swept=True, below=1.0)
    temperature: float = setting(
        3.0, "inverse temperature of the IQL actor's weights", flag="awr_temperature", swept=True
    )
    actor_learning_rate: float = setting(
        3e-4, "Adam learning rate of the IQL actor", flag="iql_actor_learning_rate", swept=True
    )
    width: int = setting(256, "width of Q, V, the IQL actor and the SRPO actor", minimum=1)
    actor_layers: int = setting(
        2,
        "hidden layers of the IQL actor, and of the SRPO actor unless it has its own",
        flag="actor_layers",
        minimum=1,
        maximum=1000,
    )
    layers: int = setting(2, "hidden layers of Q and V", flag="critic_layers", minimum=1, maximum=1000, added=True)
    layer_norm: bool = setting(False, "LayerNorm after each hidden layer of Q and V", added=True)
    seeds: int = setting(
        0, "critics of a dataset that its seeds share, by turns; 0: each seed has its own", protocol=True
    )
    evaluation_interval: int = setting(
        50_000, "updates between evaluations of the IQL actor", minimum=1, scaled=True, protocol=True
    )


# The recipe for small budgets; docs/quick.md gives the measurement behind each value.
QUICK = {"critic_steps": 20_000, "awr_temperature": 0.3, "critic_evaluation_interval": 10_000}
QUICK_MAZE = {
    "critic_steps": 14_000,
    "iql_actor_learning_rate": 1e-3,
    "awr_temperature": 3.0,
    "critic_evaluation_interval": 3_500,
}
OGBENCH = {
    "critic_steps": 1_000_000,
    "critic_width": 512,
    "critic_layers": 4,
    "critic_layer_norm": True,
    "actor_layers": 4,
    "expectile": 0.9,
    "critic_evaluation_interval": 100_000,
}
MAZE = {"expectile": 0.9, "awr_temperature": 10.0}


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    value: Learner
    actor: Learner
    target_q: Params
    step: Array


@struct.dataclass
class Trained:
    """What is kept of a finished critic stage.

    Attributes:
      critic: the target Q, which SRPO climbs.
      value: parameters of V.
      policy: the IQL actor.
    """

    critic: QFunction
    value: Params
    policy: DeterministicPolicy


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_value, key_actor = jax.random.split(key, 3)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    actor = networks.Actor(spec.action_size, settings.width, settings.actor_layers)
    twin_q = networks.TwinQ(settings.width, settings.layers, layer_norm=settings.layer_norm)
    value = networks.Value(settings.width, settings.layers, settings.layer_norm)
    q = Learner.create(twin_q, key_q, observations, actions)
    return State(
        q=q,
        value=Learner.create(value, key_value, observations),
        actor=Learner.create(actor, key_actor, observations),
        target_q=q.copy_params(),
        step=jnp.zeros((), jnp.int32),
    )


def init_from(key: Array, spec: Spec, settings: Settings, frozen: Trained) -> State:
    """A state with the networks of a finished stage; optimizers and the cosine of the actor's rate start afresh."""
    state = init(key, spec, settings)
    q = Learner.of(frozen.critic.params, state.q.network)
    return State(
        q=q,
        value=Learner.of(frozen.value, state.value.network),
        actor=Learner.of(frozen.policy.params, state.actor.network),
        target_q=q.copy_params(),
        step=state.step,
    )


def expectile_loss(difference: Array, expectile: Array | float) -> Array:
    """Mean of |tau - 1(u < 0)| u^2 over u [B]."""
    weight = jnp.where(difference < 0.0, 1.0 - expectile, expectile)
    return jnp.mean(weight * difference**2)


def value_loss(
    params: Params, value: Learner, batch: Batch, target_values: Array, expectile: Array | float
) -> tuple[Array, Array]:
    """Expectile regression of V to `target_values` [B] (eq. 5); also V [B]."""
    values = value.apply(params, batch.observations)
    return expectile_loss(target_values - values, expectile), values


def q_loss(params: Params, q: Learner, batch: Batch, targets: Array) -> tuple[Array, Array]:
    """Squared error of both Q to `targets` [B] (eq. 6), mean over both; also Q [B, 2]."""
    q_values = q.apply(params, batch.observations, batch.actions)
    return jnp.mean((q_values - targets[:, None]) ** 2), q_values


def actor_loss(params: Params, actor: Learner, batch: Batch, weights: Array) -> Array:
    """Regression to the dataset's actions, weighted by `weights` [B] (eq. 7)."""
    actions = actor.apply(params, batch.observations)
    return jnp.mean(weights * jnp.sum((actions - batch.actions) ** 2, axis=-1))


def min_q(q: Learner, params: Params, batch: Batch) -> Array:
    """The smaller Q [B] at the dataset's actions."""
    return jnp.min(q.apply(params, batch.observations, batch.actions), axis=-1)


def update(state: State, batch: Batch, settings: Settings) -> tuple[State, Metrics]:
    """One step of V, of both Q, of the target and of the actor. Nothing here is random."""
    target_values = min_q(state.q, state.target_q, batch)
    targets = batch.rewards + settings.discount * batch.discounts * state.value(batch.next_observations)

    gradient = jax.value_and_grad(value_loss, has_aux=True)
    (loss_value, values), grads = gradient(state.value.params, state.value, batch, target_values, settings.expectile)
    value = state.value.apply_gradients(grads, settings.learning_rate)
    (loss_q, q_values), grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)
    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)

    advantages = min_q(q, target_q, batch) - value(batch.observations)
    weights = jnp.minimum(jnp.exp(settings.temperature * advantages), MAX_WEIGHT)
    loss_actor, grads = jax.value_and_grad(actor_loss)(state.actor.params, state.actor, batch, weights)
    actor_rate = settings.actor_learning_rate * optimizers.cosine(state.step, settings.steps)
    actor = state.actor.apply_gradients(grads, actor_rate)

    metrics = {
        "loss": loss_value + loss_q + loss_actor,
        "value_loss": loss_value,
        "q_loss": loss_q,
        "actor_loss": loss_actor,
        "value": jnp.mean(values),
        "q": jnp.mean(q_values),
    }
    return State(q, value, actor, target_q, state.step + 1), metrics


def policy_of(result: State | Trained) -> DeterministicPolicy:
    """The IQL actor of a state under way or of a finished stage."""
    if isinstance(result, Trained):
        return result.policy
    return DeterministicPolicy(result.actor.params, result.actor.network)


def result_of(state: State) -> Trained:
    """What is kept of a finished stage."""
    return Trained(QFunction(state.target_q, state.q.network), state.value.params, policy_of(state))


def explore(state: State, observations: Array, key: Array, settings: "Online") -> Array:
    """Actions [B, action_size] in [-1, 1]: the actor's with Gaussian noise."""
    actions = policy_of(state).act(observations)
    return jnp.clip(actions + settings.exploration_noise * jax.random.normal(key, actions.shape), -1.0, 1.0)


METRICS = {
    "loss": "sum of the losses",
    "value_loss": "expectile loss of V",
    "q_loss": "squared TD error, mean over both Q",
    "actor_loss": "weighted squared distance of the actor's actions to the dataset's",
    "value": "mean V over the batch",
    "q": "mean of both Q over the batch",
}

STAGE = Stage(
    name="critic",
    algorithm="iql",
    label="IQL actor",
    title="critic",
    settings=Settings,
    init=init,
    update=update,
    result=result_of,
    policy=policy_of,
    cloning=behavior.STAGE,
    stream=1,
    version=2,
    metrics=METRICS,
)


@struct.dataclass
class Online(Settings, OnlineSettings):
    """Settings of IQL that goes on online."""


ONLINE = Stage(
    name="iql_online",
    algorithm="iql_online",
    label="IQL, online",
    settings=Online,
    init=init_from,
    update=update,
    result=result_of,
    policy=policy_of,
    needs=(STAGE,),
    frozen=lambda results: results["critic"],
    # The actor's rate no longer falls.
    adapt=lambda settings: settings.replace(batch_size=settings.online_batch_size, steps=math.inf),
    explore=explore,
    follows=STAGE,
    stream=7,
    version=2,
    metrics=METRICS,
)


def _quick(dataset: str, family: str) -> dict[str, Any]:
    own = MAZE | QUICK | QUICK_MAZE if presets.is_maze(family) else QUICK
    return presets.quick(family) | own | {"reward_transform": default_transform(family)}


def _paper(dataset: str, family: str) -> dict[str, Any]:
    own = MAZE if presets.is_maze(family) else {}
    return own | {"reward_transform": default_transform(family)}


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    return presets.ogbench(dataset) | OGBENCH | {"awr_temperature": presets.ogbench_temperature(dataset)}


METHOD = Method(
    name="iql",
    title="IQL",
    source="arXiv 2110.06169, as the critic stage of thu-ml/SRPO trains it",
    stages=(STAGE,),
    online=ONLINE,
    presets={
        "quick": Preset("small budgets for CPUs, docs/quick.md", _quick),
        "paper": Preset("arXiv 2310.07297 and thu-ml/SRPO, commit b3b916a", _paper),
        "ogbench": Preset(presets.OGBENCH_SOURCE, _ogbench),
    },
)
