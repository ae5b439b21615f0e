"""Support actions: M actions of the behavior model in every state of the dataset, drawn once and stored.

QGPO and SfBC weigh the same actions of a state again and again, as values change; the behavior does not.

An episode of L transitions visits L + 1 states: the next state of a transition is the state of the one that follows,
but for the last. So each of N transitions and E episodes has one place in the table, and a next state the place after
that of its transition's state. An action takes two bytes a dimension: 96 MB for a million transitions, 16 actions and
3 dimensions.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.methods import behavior
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import diffusion, samplers
from jaxrl_srpo.nn.noise import Keyed, Noise
from jaxrl_srpo.nn.schedules import VP
from jaxrl_srpo.types import Array, Metrics, ScoreModel, Spec

_UNIT = 32767.0

Solver = Literal["multistep", "singlestep2", "singlestep3"]


@struct.dataclass
class Settings:
    """Settings of the support actions; the defaults are those of QGPO and SfBC, but for the solver.

    solver: "multistep" is DPM-Solver++(2M), even in the signal-to-noise ratio, as SRPO has it. QGPO's released code has
      "singlestep2", DPM-Solver++ of order 2 at even times, and SfBC's "singlestep3", DPM-Solver of order 3; with 15
      steps these draw about half the deviation of a narrow behavior.
    """

    prefix: ClassVar[str] = "support"
    title: ClassVar[str] = "Support actions"
    batch_size: ClassVar[int] = 1
    # It is not evaluated, but a checkpoint may fall there.
    evaluation_interval: ClassVar[int] = 50

    steps: int = setting(500, "updates in which the support actions are drawn, a block of states in each", minimum=1)
    actions: int = setting(16, "support actions of each state", minimum=1)
    sampler_steps: int = setting(15, "solver steps of the support actions", minimum=1)
    solver: Solver = setting(
        "multistep", "solver of the support actions and of QGPO's and SfBC's policies", choices=get_args(Solver)
    )


# The recipe for small budgets.
QUICK = {"support_steps": 200, "support_actions": 8, "support_sampler_steps": 7}


@struct.dataclass
class Support:
    """The actions; all of them, or while the stage is under way those of the places so far.

    Attributes:
      actions: [N + E, M, action_size] int16, in 32767ths.
      places: [N] int32, place of each transition's state; that of its next state is the next.
    """

    actions: Array
    places: Array

    def of_states(self, index: Array) -> Array:
        """Actions [B, M, action_size] of the states of the transitions `index` [B]."""
        return self.actions[self.places[index]].astype(jnp.float32) / _UNIT

    def of_next_states(self, index: Array) -> Array:
        """Actions [B, M, action_size] of the next states of the transitions `index` [B]."""
        return self.actions[self.places[index] + 1].astype(jnp.float32) / _UNIT


def init(spec: Spec, settings: Settings) -> Support:
    """A table without actions."""
    shape = (spec.transitions + spec.episodes, settings.actions, spec.action_size)
    return Support(jnp.zeros(shape, jnp.int16), jnp.zeros(spec.transitions, jnp.int32))


def places_of(data: Transitions, size: int) -> Array:
    """Places [size] of the states of all transitions: their numbers and those of their episodes."""
    steps_left = data.take(jnp.arange(size)).steps_left
    assert steps_left is not None
    ends = (steps_left == 0.0).astype(jnp.int32)
    return jnp.arange(size) + jnp.cumsum(ends) - ends


class Sampler(NamedTuple):
    """How actions are drawn from a score model; see `Settings`."""

    action_size: int
    steps: int
    solver: Solver

    def sample(self, model: ScoreModel, noise: Noise, observations: Array) -> Array:
        """Actions [B, action_size] in [-1, 1], one for each of `observations` [B, observation_size]."""
        if self.solver == "multistep":
            return diffusion.sample(model, noise, observations, self.action_size, self.steps)
        predicted = samplers.noise_of(model, observations)
        start = noise.normal((observations.shape[0], self.action_size))
        if self.solver == "singlestep2":
            actions = samplers.dpm_solver(VP, samplers.data_of(predicted, VP), start, self.steps, 2, "data")
        else:
            actions = samplers.dpm_solver(VP, predicted, start, self.steps, 3, "noise")
        return jnp.clip(actions, -1.0, 1.0)

    def draw(self, model: ScoreModel, noise: Noise, observations: Array, count: int) -> Array:
        """Likewise `count` actions for each, [B, count, action_size]."""
        repeated = jnp.repeat(observations, count, axis=0)
        return self.sample(model, noise, repeated).reshape(-1, count, self.action_size)


def beside(observations: Array, actions: Array) -> Array:
    """`observations` [B, observation_size] repeated for each of `actions` [B, M, action_size]."""
    return jnp.broadcast_to(observations[:, None], (*actions.shape[:2], observations.shape[-1]))


def soft_value(q_values: Array, alpha: Array | float) -> Array:
    """The state value [B] of Q [B, M] at the support actions: their mean, weighted by softmax of alpha Q."""
    return jnp.sum(jax.nn.softmax(alpha * q_values, axis=-1) * q_values, axis=-1)


def update(
    state: Support, key: Array, settings: Settings, frozen: ScoreModel, data: Transitions, step: Array
) -> tuple[Support, Metrics]:
    """Draws the actions of the next block of places."""
    count, action_size = state.actions.shape[1:]
    places = jax.lax.cond(step == 0, lambda: places_of(data, len(state.places)), lambda: state.places)
    block = -(-len(state.actions) // settings.steps)
    place = step * block + jnp.arange(block)
    index = jnp.searchsorted(places, place, side="right") - 1
    transitions = data.take(index)
    begins = places[index] == place
    observations = jnp.where(begins[:, None], transitions.observations, transitions.next_observations)

    sampler = Sampler(action_size, settings.sampler_steps, settings.solver)
    drawn = sampler.draw(frozen, Keyed(key), observations, count)
    actions = state.actions.at[place].set(jnp.round(drawn * _UNIT).astype(jnp.int16), mode="drop")
    distances = jnp.min(jnp.sum((drawn - transitions.actions[:, None]) ** 2, axis=-1), axis=-1)
    taken = (begins & (place < len(state.actions))).astype(jnp.float32)
    loss = jnp.sum(taken * distances) / jnp.maximum(jnp.sum(taken), 1.0)
    return Support(actions, places), {"loss": loss}


STAGE = Stage(
    name="support",
    algorithm="support",
    label="support actions",
    settings=Settings,
    init=init,
    update=update,
    policy=None,
    needs=(behavior.STAGE,),
    frozen=lambda results: results["behavior"],
    learns_values=False,
    columns=("steps_left",),
    per_transition=True,
    metrics={"loss": "squared distance of the dataset's action to the nearest support action of its state"},
)


@struct.dataclass
class Frozen:
    """What stages on support actions get: what these were drawn from, and themselves."""

    behavior: ScoreModel
    support: Support


def frozen(results: Mapping[str, Any]) -> Frozen:
    """The same, of the results of both stages."""
    return Frozen(results["behavior"], results["support"])
