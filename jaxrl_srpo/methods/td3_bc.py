"""TD3+BC (arXiv 2106.06860): TD3 with a behavior-cloning term in the actor's loss.

Q(s,a) <- r + discount * min_i Qtarget_i(s', clip(pi_target(s') + clip(noise)))          (clipped double Q, smoothed)
pi     <- minimizes -lambda Q_1(s, pi(s)) + (pi(s) - a)^2,  lambda = alpha / mean |Q_1|   (eq. 5, mean over dimensions)

As in the released code the critics step first, and every `policy_delay` steps the actor and all targets follow.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Settings(ValueSettings):
    """Settings of TD3+BC; the defaults are those of the released code."""

    prefix: ClassVar[str] = "td3_bc"
    title: ClassVar[str] = "TD3+BC"

    steps: int = setting(1_000_000, "updates of TD3+BC", minimum=1, scaled=True)
    batch_size: int = setting(256, "batch size of TD3+BC", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of TD3+BC's critics", swept=True)
    actor_learning_rate: float = setting(3e-4, "Adam learning rate of TD3+BC's actor", swept=True)
    alpha: float = setting(2.5, "weight of Q against cloning: larger is greedier", swept=True)
    policy_noise: float = setting(0.2, "deviation of the noise on the target's actions", swept=True)
    noise_clip: float = setting(0.5, "largest noise on the target's actions", swept=True)
    policy_delay: int = setting(2, "critic updates per update of the actor and the targets", minimum=1)
    width: int = setting(256, "width of TD3+BC's networks", minimum=1)
    layers: int = setting(2, "hidden layers of TD3+BC's networks", minimum=1, maximum=1000)
    evaluation_interval: int = setting(
        5_000, "updates between evaluations of TD3+BC", minimum=1, scaled=True, protocol=True
    )


@struct.dataclass
class State:
    """Training state of one member; `actor_loss` and `q_scale` are those of the actor's last update."""

    q: Learner
    actor: Learner
    target_q: Params
    target_actor: Params
    actor_loss: Array
    q_scale: Array
    step: Array


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = Learner.create(networks.TwinQ(settings.width, settings.layers), key_q, observations, actions)
    network = networks.Actor(spec.action_size, settings.width, settings.layers)
    actor = Learner.create(network, key_actor, observations)
    nothing = jnp.zeros(())
    return State(q, actor, q.copy_params(), actor.copy_params(), nothing, nothing, jnp.zeros((), jnp.int32))


def q_targets(state: State, batch: Batch, key: Array, settings: Settings) -> Array:
    """What both Q regress to, [B]: the smaller target Q at a smoothed action of the target actor."""
    noise = settings.policy_noise * jax.random.normal(key, batch.actions.shape)
    noise = jnp.clip(noise, -settings.noise_clip, settings.noise_clip)
    next_actions = jnp.clip(state.actor.apply(state.target_actor, batch.next_observations) + noise, -1.0, 1.0)
    next_q = jnp.min(state.q.apply(state.target_q, batch.next_observations, next_actions), axis=-1)
    return batch.rewards + settings.discount * batch.discounts * next_q


def q_loss(params: Params, q: Learner, batch: Batch, targets: Array) -> tuple[Array, Array]:
    """Squared error to `targets` [B], summed over both Q; also Q [B, 2]."""
    q_values = q.apply(params, batch.observations, batch.actions)
    return jnp.sum(jnp.mean((q_values - targets[:, None]) ** 2, axis=0)), q_values


def actor_loss(params: Params, actor: Learner, q: Learner, batch: Batch, alpha: Array) -> tuple[Array, Array]:
    """-lambda Q_1 plus the mean squared distance to the dataset's actions (eq. 5); also mean |Q_1| []."""
    actions = actor.apply(params, batch.observations)
    first_q = q(batch.observations, actions)[:, 0]
    scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(first_q)))
    return -alpha / scale * jnp.mean(first_q) + jnp.mean((actions - batch.actions) ** 2), scale


def update_actor(state: State, q: Learner, batch: Batch, settings: Settings) -> State:
    """One step of the actor, after which all targets follow."""
    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    (loss, scale), grads = gradient(state.actor.params, state.actor, q, batch, settings.alpha)
    actor = state.actor.apply_gradients(grads, settings.actor_learning_rate)
    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    target_actor = optimizers.polyak(state.target_actor, actor.params, settings.target_rate)
    return State(q, actor, target_q, target_actor, loss, scale, state.step)


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, and on every `policy_delay`-th step one of the actor and of all targets."""
    targets = q_targets(state, batch, key, settings)
    (loss_q, q_values), grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)

    state = state.replace(q=q, step=state.step + 1)  # type: ignore[attr-defined]
    acts = state.step % settings.policy_delay == 0
    state = jax.lax.cond(acts, lambda: update_actor(state, q, batch, settings), lambda: state)
    metrics = {
        "loss": loss_q + state.actor_loss,
        "q_loss": loss_q,
        "actor_loss": state.actor_loss,
        "q": jnp.mean(q_values),
        "q_scale": state.q_scale,
    }
    return state, metrics


def policy_of(state: State) -> DeterministicPolicy:
    """The result of the stage."""
    return DeterministicPolicy(state.actor.params, state.actor.network)


STAGE = Stage(
    name="td3_bc",
    algorithm="td3_bc",
    label="TD3+BC",
    settings=Settings,
    init=init,
    update=update,
    result=policy_of,
    metrics={
        "loss": "sum of the losses",
        "q_loss": "squared TD error, summed over both Q",
        "actor_loss": "-lambda Q_1 plus the squared distance to the dataset's actions, when the actor last stepped",
        "q": "mean of both Q over the batch",
        "q_scale": "mean |Q_1| at the actor's actions, by which alpha is divided",
    },
)


def _quick(dataset: str, family: str) -> dict[str, Any]:
    budget = {"td3_bc_steps": 20_000, "td3_bc_evaluation_interval": 2_500}
    return presets.quick(family) | budget | {"reward_transform": default_transform(family)}


def _paper(dataset: str, family: str) -> dict[str, Any]:
    # On antmaze the author left observations alone (sfujim/TD3_BC, issue 2).
    return {"normalize_observations": family != "antmaze", "reward_transform": "none", "episodes": 10}


def _corl(dataset: str, family: str) -> dict[str, Any]:
    maze = presets.is_maze(family)
    rewards = {"reward_transform": default_transform(family) if maze else "none"}
    return {"normalize_observations": True, "episodes": 100 if maze else 10} | rewards


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    return presets.ogbench(dataset) | {
        "td3_bc_width": 512,
        "td3_bc_layers": 4,
        "td3_bc_evaluation_interval": 100_000,
    }


METHOD = Method(
    name="td3_bc",
    title="TD3+BC",
    source="arXiv 2106.06860 and sfujim/TD3_BC",
    stages=(STAGE,),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "paper": Preset("arXiv 2106.06860 and sfujim/TD3_BC", _paper),
        "corl": Preset("configs/offline/td3_bc of corl-team/CORL, commit eeeeef2", _corl),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; no LayerNorm", _ogbench),
    },
)
