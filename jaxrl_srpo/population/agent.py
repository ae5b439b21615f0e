"""What a method must offer to learn online: pure functions of one member, as a `Stage` does for offline learning."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp

from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.offline import Init, Update
from jaxrl_srpo.population.vectorize import Act
from jaxrl_srpo.types import Array, Batch


class Explore(Protocol):
    """`explore` of an agent."""

    def __call__(self, state: Any, context: Array, observations: Array, key: Array) -> Array:
        """Actions [n, action_size] in [-1, 1] for observations [n, observation_size] under contexts [n, context_size].

        The observations are the environment's, without the context.
        """


def no_context(state: Any, key: Array) -> Array:
    """The empty context [0]."""
    del state, key
    return jnp.zeros((0,))


@dataclasses.dataclass(frozen=True)
class Agent:
    """A method that learns from its own experience.

    A context, for instance a skill, is drawn at the start of each episode and stays to its end. The replay buffer holds
    observations with the context appended, so `init`, `update` and `observe` see
    `Spec(environment's observation_size + context_size, action_size)`.

    Attributes:
      name: what tables call it.
      init: fresh state; `frozen` may hold an offline result to start from.
      update: one update on a batch of the buffer, whose rewards it may replace by its own.
      explore: actions while learning.
      policy: what acts after learning, from a state; a pytree.
      act: gives (policy, observations [B, observation_size], key) -> actions [B, action_size] in [-1, 1].
      context: gives (state, key) -> [context_size] for one episode.
      context_size: width of the context.
      observe: gives (state, batch) -> state for the transitions of each step as they come in, for agents that count
        what they visit; None for the others.
    """

    name: str
    init: Init
    update: Update
    explore: Explore
    policy: Callable[[Any], Any]
    act: Act
    context: Callable[[Any, Array], Array] = no_context
    context_size: int = 0
    observe: Callable[[Any, Batch], Any] | None = None


SAC = Agent(
    name="sac",
    init=sac.init,
    update=sac.update,
    explore=sac.explore,
    policy=lambda state: state.policy,
    act=sac.act,
)
