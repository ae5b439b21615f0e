"""Finding a goal with stored policies and no further training, as state marginal matching is tested (arXiv 1906.05274).

One policy of a mixture plays each episode under one skill. The prior over skills was uniform while they were learned;
at test time it follows their successes, as in the released code:
  p(z) ~ (1 + successes of z) / (1 + episodes of z)
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_srpo.envs import functional
from jaxrl_srpo.exploration import intrinsic
from jaxrl_srpo.exploration.policy_mixture import PolicyMixture
from jaxrl_srpo.types import Array


class Search(NamedTuple):
    """The result of a search, one entry per episode.

    Attributes:
      found: [episodes] bool, whether the goal was reached.
      steps: [episodes] int32, steps spent in the goal.
      skills: [episodes] int32, the skill that acted.
      probabilities: [episodes, n] of the skills, before the episode.
    """

    found: Array
    steps: Array
    skills: Array
    probabilities: Array

    def first(self) -> Array:
        """The number, from 1, of the first episode that reached the goal; the number of all plus 1 where none did."""
        return jnp.where(self.found.any(), jnp.argmax(self.found) + 1, len(self.found) + 1)


class Tally(NamedTuple):
    """Successes and episodes of each skill so far, [n] each."""

    successes: Array
    episodes: Array

    def log_prior(self) -> Array:
        """Log p(z) [n]."""
        return jax.nn.log_softmax(jnp.log1p(self.successes) - jnp.log1p(self.episodes))


def search(
    environment: functional.Environment,
    mixture: PolicyMixture,
    reached: Callable[[Array], Array],
    episodes: int,
    key: Array,
    adapt: bool = True,
) -> Search:
    """Episodes of a mixture in search of a goal; a pure function of one mixture.

    Args:
      environment: where to search; every episode runs to the time limit.
      mixture: the policies.
      reached: observations [..., observation_size] -> whether they are in the goal, bool [...].
      episodes: how many to play.
      key: determines everything random.
      adapt: whether the prior over skills follows their successes; it stays uniform otherwise.
    """

    def play(tally: Tally, key: Array) -> tuple[Tally, Search]:
        key_policy, key_skill, key_episode = jax.random.split(key, 3)
        log_prior = tally.log_prior() if adapt else jnp.full(mixture.skills, -math.log(mixture.skills))
        skill = jax.random.categorical(key_skill, log_prior).astype(jnp.int32)
        index = jax.random.categorical(key_policy, mixture.log_weights)
        steps = jnp.sum(reached(episode(environment, mixture, index, skill, key_episode)), dtype=jnp.int32)
        chosen = jax.nn.one_hot(skill, mixture.skills)
        found = steps > 0
        tally = Tally(tally.successes + jnp.where(found, chosen, 0.0), tally.episodes + chosen)
        return tally, Search(found, steps, skill, jnp.exp(log_prior))

    nothing = jnp.zeros(mixture.skills)
    return jax.lax.scan(play, Tally(nothing, nothing), jax.random.split(key, episodes))[1]


def episode(
    environment: functional.Environment, mixture: PolicyMixture, index: Array, skill: Array, key: Array
) -> Array:
    """Observations [steps, observation_size] after each step of one policy under one skill; actions are sampled."""
    policy = mixture.policy(index)
    one_hot = jax.nn.one_hot(skill, intrinsic.skill_size(mixture.skills))
    key_reset, key_act = jax.random.split(key)

    def step(state: Array, key: Array) -> tuple[Array, Array]:
        inputs = jnp.concatenate([environment.observe(state), one_hot])
        state = environment.step(state, intrinsic.sample(policy, inputs[None], key)[0]).state
        return state, environment.observe(state)

    keys = jax.random.split(key_act, environment.max_episode_steps)
    return jax.lax.scan(step, environment.reset(key_reset), keys)[1]
