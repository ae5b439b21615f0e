"""Batch-Constrained Q-learning (arXiv 1812.02900): the best of the behavior's actions, each moved a little.

Actions are drawn from an autoencoder of the behavior (`methods.vae`) and moved by an actor xi, at most by phi:
a_j = clip(a~_j + phi tanh(xi(s, a~_j))),  a~_j ~ behavior(s).

Q(s,a) <- r + discount * max_j [ lambda min_i Qtarget_i(s', a_j) + (1 - lambda) max_i Qtarget_i(s', a_j) ]   (eq. 13)
xi     <- maximizes Q_1(s, a~ + xi(s, a~))                                                                   (eq. 12)
acting: argmax_j Q_1(s, a_j) over 100 actions
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import presets, td3_bc, vae
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers, policies
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.nn.policies import BestOf, Drawn, QFunction
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Settings(ValueSettings):
    """Settings of BCQ; the defaults are those of the released code."""

    prefix: ClassVar[str] = "bcq"
    title: ClassVar[str] = "BCQ"

    steps: int = setting(1_000_000, "updates of BCQ", minimum=1, scaled=True)
    batch_size: int = setting(100, "batch size of BCQ", minimum=1)
    learning_rate: float = setting(1e-3, "Adam learning rate of BCQ's critics", swept=True)
    actor_learning_rate: float = setting(1e-3, "Adam learning rate of BCQ's perturbing actor", swept=True)
    phi: float = setting(0.05, "largest perturbation of an action, Phi", swept=True)
    min_weight: float = setting(
        0.75, "weight lambda of the smaller target Q; the larger has the rest", swept=True, maximum=1.0
    )
    target_candidates: int = setting(10, "actions that BCQ's targets are the best of", minimum=1)
    candidates: int = setting(100, "actions that BCQ chooses from when it acts", minimum=1, protocol=True)
    width: int = setting(400, "width of BCQ's networks", minimum=1)
    last_width: int = setting(300, "width of their last hidden layer; 0: as the others")
    layers: int = setting(2, "hidden layers of BCQ's networks", minimum=1, maximum=1000)
    layer_norm: bool = setting(False, "LayerNorm after each hidden layer of BCQ's critics")
    evaluation_interval: int = setting(
        5_000, "updates between evaluations of BCQ", minimum=1, scaled=True, protocol=True
    )


@struct.dataclass
class Perturbed(Drawing):
    """The behavior, each action moved by an actor, at most by `phi` in each dimension.

    Attributes:
      behavior: what actions are drawn from.
      actor: parameters of xi.
      phi: largest perturbation, [].
      network: of xi.
    """

    behavior: vae.Decoder
    actor: Params
    phi: Array
    network: networks.MLP = struct.field(pytree_node=False)

    def perturb(self, observations: Array, actions: Array) -> Array:
        """[B, observation_size], [B, action_size] -> [B, action_size] in [-1, 1]."""
        moved = self.phi * jnp.tanh(networks.forward(self.network, self.actor, observations, actions))
        return jnp.clip(actions + moved, -1.0, 1.0)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> actions [B, action_size] in [-1, 1], one each."""
        return self.perturb(observations, self.behavior.act_with(observations, noise))


@struct.dataclass
class State:
    """Training state of one member; `behavior` is finished, and `phi` is the setting that its policy needs."""

    q: Learner
    actor: Learner
    target_q: Params
    target_actor: Params
    behavior: vae.Decoder
    phi: Array

    def perturbed(self, actor: Params) -> Perturbed:
        """The actions of an actor with these parameters."""
        return Perturbed(self.behavior, actor, self.phi, self.actor.network)


@struct.dataclass
class Trained:
    """What is kept of a finished stage: what draws actions, and the critics that choose among them."""

    drawn: Drawn
    critic: QFunction


def init(key: Array, spec: Spec, settings: Settings, frozen: vae.Decoder) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = (jnp.zeros((1, size)) for size in (spec.observation_size, spec.action_size))
    sizes: dict[str, Any] = {"width": settings.width, "layers": settings.layers, "last_width": settings.last_width}
    q = Learner.create(networks.TwinQ(**sizes, layer_norm=settings.layer_norm), key_q, observations, actions)
    actor = Learner.create(networks.MLP(spec.action_size, **sizes), key_actor, observations, actions)
    return State(q, actor, q.copy_params(), actor.copy_params(), frozen, jnp.asarray(settings.phi))


def best_target(q_values: Array, min_weight: Array | float, candidates: int) -> Array:
    """Of every `candidates` successive actions [B * candidates, 2] the best lambda min Q + (1 - lambda) max Q: [B]."""
    mixed = min_weight * jnp.min(q_values, axis=-1) + (1.0 - min_weight) * jnp.max(q_values, axis=-1)
    return jnp.max(mixed.reshape(-1, candidates), axis=1)


def q_targets(state: State, batch: Batch, key: Array, settings: Settings) -> Array:
    """What both Q regress to, [B] (eq. 13)."""
    states = policies.repeated(batch.next_observations, settings.target_candidates)
    actions = state.perturbed(state.target_actor).act(states, key)
    q_values = state.q.apply(state.target_q, states, actions)
    best = best_target(q_values, settings.min_weight, settings.target_candidates)
    return batch.rewards + settings.discount * batch.discounts * best


def actor_loss(params: Params, state: State, q: Learner, observations: Array, actions: Array) -> Array:
    """-Q_1 at the perturbed `actions` [B, action_size] (eq. 12)."""
    return -jnp.mean(q(observations, state.perturbed(params).perturb(observations, actions))[:, 0])


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, of the actor and of all targets."""
    key_next, key_actions = jax.random.split(key)
    targets = q_targets(state, batch, key_next, settings)
    (loss_q, q_values), grads = jax.value_and_grad(td3_bc.q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)

    actions = state.behavior.act(batch.observations, key_actions)
    loss_actor, grads = jax.value_and_grad(actor_loss)(state.actor.params, state, q, batch.observations, actions)
    actor = state.actor.apply_gradients(grads, settings.actor_learning_rate)

    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    target_actor = optimizers.polyak(state.target_actor, actor.params, settings.target_rate)
    metrics = {"loss": loss_q + loss_actor, "q_loss": loss_q, "actor_q": -loss_actor, "q": jnp.mean(q_values)}
    return State(q, actor, target_q, target_actor, state.behavior, state.phi), metrics


def result_of(state: State) -> Trained:
    """What is kept of a finished stage."""
    return Trained(state.perturbed(state.actor.params), QFunction(state.q.params, state.q.network))


def policy_of(result: Trained, settings: Any) -> BestOf:
    """Of several actions that of the largest Q_1."""
    return BestOf(result.drawn, result.critic, settings.candidates)


STAGE = Stage(
    name="bcq",
    algorithm="bcq",
    label="BCQ",
    settings=Settings,
    init=init,
    update=update,
    result=result_of,
    policy=policy_of,
    needs=(vae.STAGE,),
    frozen=lambda results: results["vae"],
    cloning=vae.STAGE,
    metrics={
        "loss": "sum of the losses",
        "q_loss": "squared TD error, summed over both Q",
        "actor_q": "mean Q_1 at perturbed actions of the behavior",
        "q": "mean of both Q over the batch",
    },
)


def _quick(dataset: str, family: str) -> dict[str, Any]:
    budget = {"bcq_steps": 10_000, "bcq_evaluation_interval": 2_500, "bcq_width": 256, "bcq_last_width": 0}
    return presets.quick(family) | vae.QUICK | budget | {"reward_transform": default_transform(family)}


def _paper(dataset: str, family: str) -> dict[str, Any]:
    return {"reward_transform": "none", "episodes": 10}


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    sizes = {"bcq_width": 512, "bcq_last_width": 0, "bcq_layers": 4, "bcq_layer_norm": True, "bcq_batch_size": 256}
    rates = {"bcq_learning_rate": 3e-4, "bcq_actor_learning_rate": 3e-4, "bcq_evaluation_interval": 100_000}
    return presets.ogbench(dataset) | vae.OGBENCH | sizes | rates


METHOD = Method(
    name="bcq",
    title="BCQ",
    source="arXiv 1812.02900 and sfujim/BCQ, commit 4876f7e",
    stages=(vae.STAGE, STAGE),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "paper": Preset(
            "sfujim/BCQ, commit 4876f7e; rail-berkeley/d4rl_evaluations, commit c93b9d2, has the same", _paper
        ),
        "ogbench": Preset(presets.OGBENCH_SOURCE, _ogbench),
    },
)
