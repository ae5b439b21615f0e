"""Fitted Q evaluation (arXiv 1903.08738, algorithm 3; arXiv 2007.09055): what a policy is worth, by the dataset alone.

Q(s,a)  <-  r + discount * Qtarget(s', a'),  a' ~ pi(s'); nothing follows a terminal
V(pi)    =  mean of Q(s0, pi(s0)) over the first states s0 of the dataset's episodes

Le et al. solve a regression for every target; like Paine et al. this takes one step of Adam for each batch and lets the
target follow slowly. LayerNorm in Q keeps it from diverging where the policy leaves the data (arXiv 2302.02948).

`evaluation_of` makes a stage of it for any stage that acts, so that all policies of a run are evaluated as members of
one population. `BEHAVIOR` evaluates the data's own policy by its next actions, as SARSA does.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.population.member import call
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

_UNIT = 32767.0


@struct.dataclass
class Settings:
    """Settings of the evaluation; they are no method's, so that `select` alone has flags for them."""

    prefix: ClassVar[str] = "fqe"
    title: ClassVar[str] = "Fitted Q evaluation"

    updates: int = setting(20_000, "updates of Q", flag="fqe_steps", minimum=1)
    batch_size: int = setting(256, "batch size", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate")
    discount: float = setting(0.99, "discount per step", maximum=1.0)
    target_rate: float = setting(0.005, "Polyak rate of the target Q", maximum=1.0)
    width: int = setting(256, "width of Q", minimum=1)
    layers: int = setting(2, "hidden layers of Q", minimum=1, maximum=1000)
    layer_norm: bool = setting(True, "LayerNorm after each hidden layer of Q")

    @property
    def steps(self) -> int:
        """Updates of the stage."""
        return self.updates


@struct.dataclass
class DrawnSettings(Settings):
    """Settings where the policy's actions are drawn once for every transition, before Q learns."""

    prefix: ClassVar[str] = "fqe"

    draws: int = setting(200, "updates in which costly policies draw their actions, a block in each", minimum=1)

    @property
    def steps(self) -> int:
        """Updates of the stage: those that draw come first."""
        return self.draws + self.updates


@struct.dataclass
class ActionValue:
    """A trained Q."""

    params: Params
    network: networks.MLP = struct.field(pytree_node=False)

    def __call__(self, observations: Array, actions: Array) -> Array:
        """Values [B] of observations [B, observation_size] and actions [B, action_size]."""
        return networks.forward(self.network, self.params, observations, actions)[..., 0]


@struct.dataclass
class State:
    """Training state of one evaluation.

    Attributes:
      q: of the policy.
      target_q: parameters of the target.
      drawn: [N, action_size] int16 in 32767ths, the policy's action in the next state of each transition; N is 0
        where every batch draws its own.
    """

    q: Learner
    target_q: Params
    drawn: Array


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one evaluation."""
    network = networks.MLP(1, settings.width, settings.layers, layer_norm=settings.layer_norm)
    q = Learner.create(network, key, jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size)))
    return State(q, q.copy_params(), jnp.zeros((spec.transitions, spec.action_size), jnp.int16))


def q_targets(state: State, batch: Batch, next_actions: Array, settings: Settings) -> Array:
    """What Q regresses to, [B]."""
    next_q = state.q.apply(state.target_q, batch.next_observations, next_actions)[..., 0]
    return batch.rewards + settings.discount * batch.discounts * next_q


def q_loss(params: Params, q: Learner, batch: Batch, targets: Array, weights: Array) -> tuple[Array, Array]:
    """Mean squared error to `targets` [B] over transitions of `weights` [B], 0 or 1; also Q [B]."""
    q_values = q.apply(params, batch.observations, batch.actions)[..., 0]
    return jnp.sum(weights * (q_values - targets) ** 2) / jnp.maximum(jnp.sum(weights), 1.0), q_values


def learn(
    state: State, batch: Batch, next_actions: Array, settings: Settings, weights: Array | float = 1.0
) -> tuple[State, Metrics]:
    """One step of Q towards its own prediction at `next_actions` [B, action_size]."""
    targets = q_targets(state, batch, next_actions, settings)
    weights = jnp.broadcast_to(weights, targets.shape)
    gradient = jax.value_and_grad(q_loss, has_aux=True)
    (loss, q_values), grads = gradient(state.q.params, state.q, batch, targets, weights)
    q = state.q.apply_gradients(grads, settings.learning_rate)
    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    return State(q, target_q, state.drawn), {"loss": loss, "q": jnp.mean(q_values)}


def draw(
    state: State,
    key: Array,
    settings: DrawnSettings,
    policy: Any,
    act: Callable[..., Any],
    number: Array,
    data: Transitions,
) -> State:
    """Has the policy act in the next states of the block `number` of transitions."""
    size = len(state.drawn)
    block = -(-size // settings.draws)
    index = number * block + jnp.arange(block)
    actions = call(act, policy=policy, observations=data.take(index).next_observations, key=key)
    drawn = state.drawn.at[index].set(jnp.round(actions * _UNIT).astype(jnp.int16), mode="drop")
    return State(state.q, state.target_q, drawn)


def result_of(state: State) -> ActionValue:
    """The result of the stage."""
    return ActionValue(state.q.params, state.q.network)


METRICS = {"loss": "squared TD error", "q": "mean Q over the batch"}


@functools.cache
def evaluation_of(stage: Stage, once: bool = False) -> Stage:
    """The stage that evaluates the policy of another one.

    Args:
      stage: one that acts.
      once: draw the policy's action once for each transition instead of one for each row of every batch; for policies
        that take many passes of a network, and the same for those that draw nothing at random.
    """

    def update(state: State, batch: Batch, key: Array, settings: Settings, frozen: Any) -> tuple[State, Metrics]:
        """One step of Q, with actions of its own."""
        next_actions = call(stage.act, policy=frozen, observations=batch.next_observations, key=key)
        return learn(state, batch, next_actions, settings)

    def update_drawn(
        state: State, batch: Batch, key: Array, settings: DrawnSettings, frozen: Any, data: Transitions, step: Array
    ) -> tuple[State, Metrics]:
        """Draws a block of actions, or once all are drawn, one step of Q."""
        nothing = {name: jnp.zeros(()) for name in METRICS}

        def draw_block() -> tuple[State, Metrics]:
            return draw(state, key, settings, frozen, stage.act, step, data), nothing

        def learn_batch() -> tuple[State, Metrics]:
            next_actions = state.drawn[batch.index].astype(jnp.float32) / _UNIT
            return learn(state, batch, next_actions, settings)

        return jax.lax.cond(step < settings.draws, draw_block, learn_batch)

    def frozen(results: Mapping[str, Any], values: Mapping[str, Any], spec: Spec) -> Any:
        """The policy."""
        return stage.make_policy(values, spec, results[stage.name])

    return Stage(
        name=f"fqe_{stage.name}",
        algorithm=f"fqe_{stage.algorithm}",
        label=f"evaluation of {stage.label}",
        settings=DrawnSettings if once else Settings,
        init=init,
        update=update_drawn if once else update,
        result=result_of,
        policy=None,
        needs=(stage,),
        frozen=frozen,
        per_transition=once,
        metrics=METRICS,
    )


def update_behavior(state: State, batch: Batch, settings: Settings) -> tuple[State, Metrics]:
    """One step of the data's own Q; where a time limit ended an episode there is no next action to learn from."""
    assert batch.next_actions is not None
    assert batch.steps_left is not None
    known = (batch.steps_left > 0.0) | (batch.discounts == 0.0)
    return learn(state, batch, batch.next_actions, settings, known.astype(jnp.float32))


BEHAVIOR = Stage(
    name="fqe_data",
    algorithm="fqe_data",
    label="evaluation of the data",
    settings=Settings,
    init=init,
    update=update_behavior,
    result=result_of,
    policy=None,
    columns=("next_actions", "steps_left"),
    metrics=METRICS,
)
