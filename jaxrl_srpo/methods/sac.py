"""Soft Actor-Critic with automatic temperature (arXiv 1812.05905).

Q(s,a) <- r + discount * (min_i Qtarget_i(s', a') - alpha log pi(a'|s')), a' ~ pi   (eq. 5 and 6, clipped double Q)
pi(s)  <- minimizes E[alpha log pi(a|s) - min_i Q_i(s, a)], a ~ pi                   (eq. 9)
alpha  <- minimizes E[-alpha (log pi(a|s) + target entropy)]                         (eq. 18)

The order is critic, actor, temperature, target, each with what the ones before it have just become.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import OfflineSettings, OnlineSettings, ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Settings(ValueSettings):
    """Settings of SAC; the customary target entropy of -|A| is -1 per action dimension."""

    prefix: ClassVar[str] = "sac"
    title: ClassVar[str] = "SAC"

    batch_size: int = setting(256, "batch size of SAC on the dataset", minimum=1)
    width: int = setting(256, "width of SAC's networks", minimum=1)
    layers: int = setting(2, "hidden layers of SAC's networks", minimum=1, maximum=1000)
    learning_rate: float = setting(3e-4, "Adam learning rate of SAC", swept=True)
    temperature: float = setting(1.0, "SAC's temperature at the start", swept=True, added=True, above=0.0)
    learn_temperature: bool = setting(True, "let SAC's temperature follow its target entropy", added=True)
    target_entropy: float = setting(
        -1.0, "entropy that the temperature aims at, per action dimension", swept=True, added=True, minimum=-1e6
    )


@struct.dataclass
class State:
    """Training state of one member; the parameter of `log_temperature` is the logarithm of alpha."""

    q: Learner
    actor: Learner
    log_temperature: Learner
    target_q: Params


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = Learner.create(networks.TwinQ(settings.width, settings.layers), key_q, observations, actions)
    actor = Learner.create(actor_network(spec, settings), key_actor, observations)
    log_temperature = jnp.log(jnp.asarray(settings.temperature, jnp.float32))
    return State(q, actor, Learner.of(log_temperature), q.copy_params())


def actor_network(spec: Spec, settings: Settings) -> networks.MLP:
    """Mean and log standard deviation of the policy in one output."""
    return networks.MLP(2 * spec.action_size, settings.width, settings.layers)


def policy_of(result: State) -> TanhGaussianPolicy:
    """The policy of a state; it acts by its mode."""
    return TanhGaussianPolicy(result.actor.params, result.actor.network)


def q_loss(params: Params, q: Learner, batch: Batch, targets: Array) -> tuple[Array, Array]:
    """Squared error of both Q to `targets` [B], mean over both; also Q [B, 2]."""
    q_values = q.apply(params, batch.observations, batch.actions)
    return jnp.mean((q_values - targets[:, None]) ** 2), q_values


def actor_loss(
    params: Params, actor: Learner, q: Learner, batch: Batch, key: Array, temperature: Array
) -> tuple[Array, Array]:
    """E[alpha log pi - min Q] with actions of the policy (eq. 9); also the policy's entropy []."""
    actions, log_probs = TanhGaussianPolicy(params, actor.network).distribution(batch.observations).sample(key)
    q_values = jnp.min(q(batch.observations, actions), axis=-1)
    return jnp.mean(temperature * log_probs - q_values), -jnp.mean(log_probs)


def temperature_loss(log_temperature: Array, entropy: Array, target: Array) -> Array:
    """Alpha (entropy - target entropy) (eq. 18)."""
    return jnp.exp(log_temperature) * (entropy - target)


def q_targets(state: State, batch: Batch, key: Array, settings: Settings, temperature: Array) -> Array:
    """What both Q regress to, [B]: the soft value of the next state (eq. 5 and 6)."""
    next_actions, log_probs = policy_of(state).distribution(batch.next_observations).sample(key)
    next_q = state.q.apply(state.target_q, batch.next_observations, next_actions)
    next_values = jnp.min(next_q, axis=-1) - temperature * log_probs
    return batch.rewards + settings.discount * batch.discounts * next_values


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, of the actor, of the temperature and of the target."""
    key_next, key_actor = jax.random.split(key)
    temperature = jnp.exp(state.log_temperature.params)

    targets = q_targets(state, batch, key_next, settings, temperature)
    (loss_q, q_values), grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)

    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    (loss_actor, entropy), grads = gradient(state.actor.params, state.actor, q, batch, key_actor, temperature)
    actor = state.actor.apply_gradients(grads, settings.learning_rate)

    target_entropy = settings.target_entropy * batch.actions.shape[-1]
    old = state.log_temperature
    loss_temperature, grads = jax.value_and_grad(temperature_loss)(old.params, entropy, target_entropy)
    new = old.apply_gradients(grads, settings.learning_rate) if settings.learn_temperature else old

    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    metrics = {
        "loss": loss_q + loss_actor + loss_temperature,
        "q_loss": loss_q,
        "q": jnp.mean(q_values),
        "actor_loss": loss_actor,
        "entropy": entropy,
        "temperature_loss": loss_temperature,
        "temperature": temperature,
    }
    return State(q, actor, new, target_q), metrics


def explore(state: State, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] drawn from the policy."""
    return policy_of(state).distribution(observations).sample(key)[0]


def continue_from(frozen: State) -> State:
    """Goes on from the whole state of an earlier stage, moments of Adam included."""
    return frozen


AGENT = Agent(name="sac", init=init, update=update, explore=explore, policy=policy_of)
"""SAC for environments without a dataset, as exploration uses it."""

METRICS = {
    "loss": "sum of the losses",
    "q_loss": "squared soft TD error, mean over both Q",
    "q": "mean of both Q over the batch",
    "actor_loss": "alpha log pi - min Q at the policy's actions",
    "entropy": "entropy of the policy",
    "temperature_loss": "alpha times the entropy's distance to its target",
    "temperature": "alpha",
}


@struct.dataclass
class Offline(Settings, OfflineSettings):
    """Settings of SAC on a dataset."""


OFFLINE = Stage(
    name="sac_offline",
    algorithm="sac_offline",
    label="SAC offline",
    settings=Offline,
    init=init,
    update=update,
    policy=policy_of,
    stream=5,
    version=2,
    metrics=METRICS,
)


@struct.dataclass
class Online(Settings, OnlineSettings):
    """Settings of SAC that goes on online."""


def _online_batches(settings: Online) -> Online:
    return settings.replace(batch_size=settings.online_batch_size)  # type: ignore[attr-defined]


ONLINE = Stage(
    name="sac_online",
    algorithm="sac_online",
    label="SAC offline, online",
    settings=Online,
    init=continue_from,
    update=update,
    policy=policy_of,
    needs=(OFFLINE,),
    frozen=lambda results: results["sac_offline"],
    adapt=_online_batches,
    explore=explore,
    follows=OFFLINE,
    stream=9,
    version=2,
    metrics=METRICS,
)


@struct.dataclass
class FromScratch(Online):
    """Settings of SAC without a dataset."""

    prefix: ClassVar[str] = "sac"
    title: ClassVar[str] = "SAC"

    random_steps: int = setting(
        1_000, "environment steps before SAC from scratch acts and learns", minimum=1, scaled=True
    )


FROM_SCRATCH = Stage(
    name="sac",
    algorithm="sac",
    label="SAC from scratch",
    settings=FromScratch,
    init=init,
    update=update,
    policy=policy_of,
    adapt=_online_batches,
    explore=explore,
    warmup_steps="sac_random_steps",
    uses_data=False,
    stream=10,
    version=2,
    metrics=METRICS,
)


def _quick(dataset: str, family: str) -> dict[str, Any]:
    return presets.quick(family) | {"reward_transform": default_transform(family)}


_PRESETS = {
    "quick": Preset("small budgets for CPUs", _quick),
    "paper": Preset("arXiv 1812.05905", lambda dataset, family: {"reward_transform": default_transform(family)}),
}

METHOD = Method(
    name="sac",
    title="SAC",
    source="arXiv 1812.05905",
    stages=(),
    online=FROM_SCRATCH,
    presets=_PRESETS,
)

METHOD_OFFLINE = Method(
    name="sac-offline",
    title="SAC",
    source="arXiv 1812.05905, on a dataset without any regularizer",
    stages=(OFFLINE,),
    online=ONLINE,
    presets=_PRESETS,
)
