"""What a method must offer to learn online: pure functions of one member."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxrl_srpo.nn import policies
from jaxrl_srpo.population.member import Function
from jaxrl_srpo.types import Act, Array


def no_context(key: Array) -> Array:
    """The empty context [0]."""
    return jnp.zeros((0,))


@dataclasses.dataclass(frozen=True)
class Agent:
    """A method that learns from its own experience. Its functions declare the arguments that they take.

    A context, for instance a skill, is drawn at the start of each episode and stays to its end. The replay buffer holds
    observations with the context appended, so `init`, `update` and `observe` see
    `Spec(environment's observation_size + context_size, action_size)`.

    Attributes:
      name: what tables call it.
      init: key, spec, settings, frozen -> fresh state; `frozen` may hold an offline result to start from.
      update: state, batch, key, settings, frozen -> (state, metrics) on a batch of the buffer, whose rewards it may
        replace by its own.
      explore: state, context [n, context_size], observations [n, observation_size] without the context, key, settings
        -> actions [n, action_size] in [-1, 1] while it learns.
      policy: state -> what acts after learning; a pytree.
      act: policy, observations, key -> actions, see `types.Act`.
      context: key -> [context_size] for one episode.
      context_size: width of the context.
      observe: state, batch -> state, for the transitions of each step as they come in, where an agent counts what it
        visits; None elsewhere.
    """

    name: str
    init: Function
    update: Function
    explore: Function
    policy: Callable[[Any], Any]
    act: Act = policies.act
    context: Function = no_context
    context_size: int = 0
    observe: Function | None = None
