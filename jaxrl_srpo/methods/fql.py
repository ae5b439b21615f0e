"""Flow Q-learning (arXiv 2502.02538), and IFQL, the flow twin of IDQL, from the same source.

FQL: a flow v clones the behavior, and an actor mu(s, z) of one step stays close to what the flow makes of the same
noise while it climbs Q.

v       <- |v(s, x_t, t) - (a - z)|^2,  x_t = (1 - t) z + t a, t ~ U(0, 1)                      (flow matching)
Q(s,a)  <- r + discount * aggregate_i Qtarget_i(s', mu(s', z)),  aggregate: mean or min
mu(s,z) <- alpha |mu(s, z) - flow(s, z)|^2 - mean_i Q_i(s, mu(s, z)),  flow by 10 Euler steps   (distillation and Q)

IFQL: the flow alone, and the critic of IQL; of 32 actions of the flow it takes that of the largest min_i Q_i.

As in the released code one update moves all networks at once: every loss is that of the networks before it, the
target Q follows the critic before it, means go over batch and action dimensions, and mu's actions are clipped to
[-1, 1] before Q but not before they are compared with the flow's.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import idql, iql, presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, borrowed, setting
from jaxrl_srpo.nn import flow, networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.nn.policies import BestOf
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Settings(ValueSettings):
    """Settings of FQL; the defaults are those of the released code."""

    prefix: ClassVar[str] = "fql"
    title: ClassVar[str] = "FQL"

    steps: int = setting(1_000_000, "updates of FQL", minimum=1, scaled=True)
    batch_size: int = setting(256, "batch size of FQL", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of all networks of FQL", swept=True)
    alpha: float = setting(10.0, "weight of distillation against Q: smaller is greedier", swept=True)
    normalize_q: bool = setting(
        False, "divide FQL's Q term by the mean size of Q, so that alpha means the same everywhere"
    )
    aggregation: str = setting("mean", "what FQL's targets make of both target Q", choices=("mean", "min"))
    euler_steps: int = setting(10, "Euler steps of FQL's flow", minimum=1)
    width: int = setting(512, "width of FQL's networks", minimum=1)
    layers: int = setting(4, "hidden layers of FQL's networks", minimum=1, maximum=1000)
    layer_norm: bool = setting(True, "LayerNorm after each hidden layer of FQL's Q")
    evaluation_interval: int = setting(
        100_000, "updates between evaluations of FQL", minimum=1, scaled=True, protocol=True
    )


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    flow: Learner
    actor: Learner
    target_q: Params


@struct.dataclass
class OneStepPolicy(Drawing):
    """FQL's actor: an action of one forward pass of noise."""

    params: Params
    network: networks.MLP = struct.field(pytree_node=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        drawn = noise.normal((observations.shape[0], self.network.output_size))
        return jnp.clip(networks.forward(self.network, self.params, observations, drawn), -1.0, 1.0)


def vector_field(spec: Spec, width: int, layers: int) -> networks.MLP:
    """The network of a flow or of a one-step actor."""
    return networks.MLP(spec.action_size, width, layers, nn.gelu, initialization="glorot")


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_flow, key_actor = jax.random.split(key, 3)
    observations, actions, times = (jnp.zeros((1, size)) for size in (spec.observation_size, spec.action_size, 1))
    twin_q = networks.TwinQ(
        settings.width, settings.layers, initialization="glorot", layer_norm=settings.layer_norm, activation=nn.gelu
    )
    field = vector_field(spec, settings.width, settings.layers)
    q = Learner.create(twin_q, key_q, observations, actions)
    return State(
        q=q,
        flow=Learner.create(field, key_flow, observations, actions, times),
        actor=Learner.create(field, key_actor, observations, actions),
        target_q=q.copy_params(),
    )


def q_targets(state: State, batch: Batch, key: Array, settings: Settings) -> Array:
    """What both Q regress to, [B]: both target Q at an action of the actor, averaged or the smaller."""
    next_actions = policy_of(state).act(batch.next_observations, key)
    next_q = state.q.apply(state.target_q, batch.next_observations, next_actions)
    aggregated = jnp.min(next_q, axis=-1) if settings.aggregation == "min" else jnp.mean(next_q, axis=-1)
    return batch.rewards + settings.discount * batch.discounts * aggregated


def flow_loss(params: Params, field: Learner, batch: Batch, noise: Array, times: Array) -> Array:
    """Squared error of the velocity on straight paths from `noise` [B, action_size] at `times` [B, 1]."""
    point = flow.straight_path(noise, batch.actions, times)
    return jnp.mean((field.apply(params, batch.observations, point.x, times) - point.velocity) ** 2)


def update_flow(field: Learner, batch: Batch, key: Array, learning_rate: Array | float) -> tuple[Learner, Array]:
    """One step of flow matching; also its loss."""
    key_noise, key_times = jax.random.split(key)
    noise = jax.random.normal(key_noise, batch.actions.shape)
    times = jax.random.uniform(key_times, (batch.actions.shape[0], 1))
    loss, grads = jax.value_and_grad(flow_loss)(field.params, field, batch, noise, times)
    return field.apply_gradients(grads, learning_rate), loss


def actor_loss(
    params: Params, state: State, batch: Batch, noise: Array, settings: Settings
) -> tuple[Array, dict[str, Array]]:
    """Alpha times the distance to the flow's actions of the same `noise` [B, action_size], minus both Q's mean."""
    goals = flow.euler(state.flow, batch.observations, noise, settings.euler_steps)
    actions = state.actor.apply(params, batch.observations, noise)
    distillation = jnp.mean((actions - goals) ** 2)
    q_values = jnp.mean(state.q(batch.observations, jnp.clip(actions, -1.0, 1.0)), axis=-1)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(q_values))) if settings.normalize_q else 1.0
    loss = settings.alpha * distillation - jnp.mean(q_values) / scale
    return loss, {"distillation_loss": distillation, "actor_q": jnp.mean(q_values)}


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, of the flow, of the actor and of the target Q, all from the networks before it."""
    key_next, key_flow, key_noise = jax.random.split(key, 3)
    targets = q_targets(state, batch, key_next, settings)
    (loss_q, q_values), grads = jax.value_and_grad(iql.q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)

    field, loss_flow = update_flow(state.flow, batch, key_flow, settings.learning_rate)

    noise = jax.random.normal(key_noise, batch.actions.shape)
    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    (loss_actor, parts), grads = gradient(state.actor.params, state, batch, noise, settings)
    actor = state.actor.apply_gradients(grads, settings.learning_rate)

    target_q = optimizers.polyak(state.target_q, state.q.params, settings.target_rate)
    metrics = {
        "loss": loss_q + loss_flow + loss_actor,
        "q_loss": loss_q,
        "flow_loss": loss_flow,
        **parts,
        "q": jnp.mean(q_values),
    }
    return State(q, field, actor, target_q), metrics


def policy_of(state: State) -> OneStepPolicy:
    """The result of the stage."""
    return OneStepPolicy(state.actor.params, state.actor.network)


STAGE = Stage(
    name="fql",
    algorithm="fql",
    label="FQL",
    settings=Settings,
    init=init,
    update=update,
    result=policy_of,
    metrics={
        "loss": "sum of the losses",
        "q_loss": "squared TD error, mean over both Q",
        "flow_loss": "squared error of the flow's velocity, mean over action dimensions",
        "distillation_loss": "squared distance of the actor's actions to the flow's, mean over action dimensions",
        "actor_q": "mean of both Q at the actor's actions",
        "q": "mean of both Q over the batch",
    },
)


@struct.dataclass
class FlowSettings:
    """Settings of a flow that clones alone."""

    prefix: ClassVar[str] = "flow"
    title: ClassVar[str] = "IFQL's flow"

    steps: int = setting(1_000_000, "updates of the flow stage", minimum=1, scaled=True)
    batch_size: int = setting(256, "batch size of the flow stage", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of the flow", swept=True)
    width: int = setting(512, "width of the flow", minimum=1)
    layers: int = setting(4, "hidden layers of the flow", minimum=1, maximum=1000)
    euler_steps: int = setting(10, "Euler steps of the flow", minimum=1, protocol=True)


@struct.dataclass
class Flow:
    """A trained flow."""

    params: Params
    network: networks.MLP = struct.field(pytree_node=False)

    def velocity(self, observations: Array, x: Array, times: Array) -> Array:
        """v(s, x_t, t) [B, action_size]."""
        return networks.forward(self.network, self.params, observations, x, times)


@struct.dataclass
class FlowPolicy(Drawing):
    """Behavior cloning by a flow in `steps` Euler steps."""

    flow: Flow
    steps: int = struct.field(pytree_node=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        drawn = noise.normal((observations.shape[0], self.flow.network.output_size))
        return flow.euler(self.flow.velocity, observations, drawn, self.steps)


def init_flow(key: Array, spec: Spec, settings: FlowSettings) -> Learner:
    """A fresh flow of one member."""
    inputs = (jnp.zeros((1, size)) for size in (spec.observation_size, spec.action_size, 1))
    return Learner.create(vector_field(spec, settings.width, settings.layers), key, *inputs)


def clone(state: Learner, batch: Batch, key: Array, settings: FlowSettings) -> tuple[Learner, Metrics]:
    """One step of flow matching."""
    field, loss = update_flow(state, batch, key, settings.learning_rate)
    return field, {"loss": loss}


FLOW = Stage(
    name="flow",
    algorithm="flow",
    label="flow cloning",
    settings=FlowSettings,
    init=init_flow,
    update=clone,
    result=lambda state: Flow(state.params, state.network),
    policy=lambda result, settings: FlowPolicy(result, settings.euler_steps),
    learns_values=False,
    metrics={"loss": "squared error of the flow's velocity, mean over action dimensions"},
)


@struct.dataclass
class ChoiceSettings:
    """How IFQL chooses; it does not change what is learned."""

    prefix: ClassVar[str] = "ifql"
    title: ClassVar[str] = "IFQL"

    candidates: int = setting(32, "actions of the flow that IFQL chooses from", minimum=1, protocol=True)
    euler_steps: int = borrowed(FlowSettings, "euler_steps")


def policy_of_ifql(result: idql.Combined, settings: ChoiceSettings) -> BestOf:
    """The best of actions of the flow."""
    drawn = FlowPolicy(result.behavior, settings.euler_steps)
    return BestOf(drawn, result.critic, settings.candidates, smaller=True)


IFQL = Stage(
    name="ifql",
    algorithm="ifql",
    label="IFQL",
    settings=ChoiceSettings,
    init=idql.init,
    policy=policy_of_ifql,
    needs=(FLOW, iql.STAGE),
    frozen=lambda results: idql.Combined(results["flow"], results["critic"].critic),
    learns_values=False,
    cloning=FLOW,
)

SOURCE = "arXiv 2502.02538 and seohongpark/fql, commit 719d044"

# The README of the released code; its data are those of D4RL, v2 of antmaze and v1 of adroit.
PAPER_ALPHA = {
    "antmaze-umaze": 10.0,
    "antmaze-umaze-diverse": 10.0,
    "antmaze-medium-play": 10.0,
    "antmaze-medium-diverse": 10.0,
    "antmaze-large-play": 3.0,
    "antmaze-large-diverse": 3.0,
    "pen-human": 10_000.0,
    "pen-cloned": 10_000.0,
    "pen-expert": 3_000.0,
    "door-human": 30_000.0,
    "door-cloned": 30_000.0,
    "door-expert": 30_000.0,
    "hammer-human": 30_000.0,
    "hammer-cloned": 10_000.0,
    "hammer-expert": 30_000.0,
    "relocate-human": 10_000.0,
    "relocate-cloned": 30_000.0,
    "relocate-expert": 30_000.0,
}
OGBENCH_ALPHA = {
    "antmaze": 10.0,
    "humanoidmaze": 30.0,
    "antsoccer": 10.0,
    "cube": 300.0,
    "scene": 300.0,
    "puzzle": 1_000.0,
}
# What the README recommends for new tasks: a normalized Q, and alpha of 0.03 to 10.
_NEW = {"fql_normalize_q": True, "fql_alpha": 1.0}


def _quick(dataset: str, family: str) -> dict[str, Any]:
    own: dict[str, Any] = {"fql_steps": 10_000, "fql_learning_rate": 1e-3, "fql_width": 256, "fql_layers": 2}
    own |= {"fql_evaluation_interval": 2_500} | _NEW
    return presets.quick(family) | own | {"reward_transform": default_transform(family)}


def _unversioned(dataset: str) -> str:
    return dataset.rpartition("-v")[0] or dataset


def _paper(dataset: str, family: str) -> dict[str, Any]:
    name = _unversioned(dataset)
    own: dict[str, Any] = {"fql_alpha": PAPER_ALPHA[name]} if name in PAPER_ALPHA else _NEW
    own |= {"fql_steps": 500_000, "fql_aggregation": "min" if family == "adroit" else "mean"}
    return own | _d4rl(family)


def _d4rl(family: str) -> dict[str, Any]:
    return {"reward_transform": default_transform(family) if presets.is_maze(family) else "none", "episodes": 50}


def _paper_note(dataset: str, family: str) -> str:
    if _unversioned(dataset) in PAPER_ALPHA:
        return ""
    return f"{dataset}: the paper has no alpha for it; --fql_alpha chooses one, 1 with normalized Q otherwise"


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    alpha = next((value for start, value in OGBENCH_ALPHA.items() if dataset.startswith(start)), 10.0)
    smaller = dataset.startswith(("antmaze-large", "antmaze-giant"))
    return presets.ogbench(dataset) | {"fql_alpha": alpha, "fql_aggregation": "min" if smaller else "mean"}


METHOD = Method(
    name="fql",
    title="FQL",
    source=SOURCE,
    stages=(STAGE,),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "paper": Preset(f"{SOURCE}, D4RL", _paper, _paper_note),
        "ogbench": Preset(f"{SOURCE}, OGBench", _ogbench),
    },
)


# The source has no stage of the critic alone; both are trained as long as there.
_CRITIC = iql.OGBENCH | {"critic_steps": 500_000}


def _ifql_quick(dataset: str, family: str) -> dict[str, Any]:
    # A critic of few updates misjudges some action of 32.
    own: dict[str, Any] = {"ifql_candidates": 4}
    own |= {"flow_steps": 10_000, "flow_learning_rate": 1e-3, "flow_width": 256, "flow_layers": 2}
    return {**iql.METHOD.presets["quick"].values(dataset, family), **own}


def _ifql_paper(dataset: str, family: str) -> dict[str, Any]:
    return _CRITIC | {"flow_steps": 500_000} | _d4rl(family)


METHOD_IFQL = Method(
    name="ifql",
    title="IFQL",
    source=f"{SOURCE}, agents/ifql.py",
    stages=(FLOW, iql.STAGE, IFQL),
    presets={
        "quick": Preset("small budgets for CPUs", _ifql_quick),
        "paper": Preset(f"{SOURCE}, D4RL; IQL with ReLU", _ifql_paper),
        "ogbench": Preset(f"{SOURCE}, OGBench; IQL with ReLU", iql.METHOD.presets["ogbench"].values),
    },
)
