"""The few types that every method shares."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct

Array = jax.Array
Params = Any
Metrics = dict[str, Array]

Act = Callable[[Any, Array, Array | None], Array]
"""(policy, observations [B, observation_size], key) -> actions [B, action_size] in [-1, 1].

A deterministic policy needs no key: None will do.
"""


class Spec(NamedTuple):
    """Sizes of a problem. They change shapes, so members of one population share them.

    Attributes:
      observation_size: width of one observation.
      action_size: width of one action.
      transitions: of the dataset; 0 for a stage that keeps nothing for each of them, so that members of datasets of
        different sizes train together.
      columns: further columns of the transition table that a stage reads, see `data.table.COLUMNS`.
      episodes: of the dataset, whose ends are numbers of 0 in the column `steps_left`; 0 like `transitions`.
    """

    observation_size: int
    action_size: int
    transitions: int = 0
    columns: tuple[str, ...] = ()
    episodes: int = 0


@struct.dataclass
class Batch:
    """Transitions of one update of one member; B is the batch size.

    Attributes:
      observations: [B, observation_size].
      actions: [B, action_size], scaled to [-1, 1].
      rewards: [B], after the dataset's reward transform.
      next_observations: [B, observation_size].
      discounts: [B], 0 where the transition terminated and 1 elsewhere (time-outs bootstrap).
      index: [B] int32, numbers of the transitions within their dataset; None in a replay buffer.
      next_actions: [B, action_size], the action that the data take in `next_observations`; at the end of an episode,
        where there is none, the transition's own action. None unless the stage asks for this column.
      steps_left: [B], transitions of the episode that follow this one; None unless the stage asks for this column.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    discounts: Array
    index: Array | None = None
    next_actions: Array | None = None
    steps_left: Array | None = None


class ScoreModel(Protocol):
    """A behavior distribution known through its noise prediction eps(a_t | s, t)."""

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """[B, action_size] noise predicted in `noisy_actions` [B, action_size] at `times` [B]."""


class Critic(Protocol):
    """A critic that a policy climbs."""

    def q_values(self, observations: Array, actions: Array) -> Array:
        """[B, ensemble] action values."""
