"""Environments in pure JAX, so that a whole population learns online inside one compiled program.

An environment is a frozen dataclass of static numbers with pure functions of one episode; `start` and `step` play many
episodes of it at once and begin a new one wherever one ends.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.types import Array, Spec


class Step(NamedTuple):
    """The result of one step of one environment: next state, reward [], and whether it terminated, [] bool."""

    state: Any
    reward: Array
    terminated: Array


class Environment(Protocol):
    """One environment; its state is a pytree of arrays. A random one keeps a key in its state."""

    @property
    def spec(self) -> Spec:
        """Sizes of observation and action."""

    @property
    def max_episode_steps(self) -> int:
        """Length at which `functional.step` cuts an episode off, which is no termination."""

    def reset(self, key: Array) -> Any:
        """The first state of an episode."""

    def observe(self, state: Any) -> Array:
        """[observation_size] float32."""

    def step(self, state: Any, action: Array) -> Step:
        """One step with an action [action_size] in [-1, 1]."""


@struct.dataclass
class RunningEpisodes:
    """Episodes under way in n environments.

    Attributes:
      states: leaves [n, ...].
      lengths: [n] int32, steps so far.
      returns: [n] float32, rewards so far.
    """

    states: Any
    lengths: Array
    returns: Array


class Outcome(NamedTuple):
    """The result of one step of n environments.

    Attributes:
      next_observations: [n, observation_size]; of an episode that ended, its last.
      rewards: [n].
      terminated: [n] bool.
      ended: [n] bool, by termination or by the time limit.
      lengths: [n] int32, steps so far, this one included.
      returns: [n], rewards so far, this one included.
    """

    next_observations: Array
    rewards: Array
    terminated: Array
    ended: Array
    lengths: Array
    returns: Array


def start(environment: Environment, count: int, key: Array) -> RunningEpisodes:
    """`count` fresh episodes."""
    states = jax.vmap(environment.reset)(jax.random.split(key, count))
    return RunningEpisodes(states, jnp.zeros((count,), jnp.int32), jnp.zeros((count,)))


def observe(environment: Environment, episodes: RunningEpisodes) -> Array:
    """Observations [n, observation_size]."""
    return jax.vmap(environment.observe)(episodes.states)


def step(
    environment: Environment, episodes: RunningEpisodes, actions: Array, key: Array
) -> tuple[RunningEpisodes, Outcome]:
    """One step with actions [n, action_size]; episodes that end are followed by fresh ones."""
    states, rewards, terminated = jax.vmap(environment.step)(episodes.states, actions)
    lengths, returns = episodes.lengths + 1, episodes.returns + rewards
    ended = terminated | (lengths >= environment.max_episode_steps)
    outcome = Outcome(jax.vmap(environment.observe)(states), rewards, terminated, ended, lengths, returns)
    fresh = start(environment, len(ended), key)

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, fresh, RunningEpisodes(states, lengths, returns)), outcome
