"""Exploration by SAC on an intrinsic reward, which replaces the reward of every batch as it is drawn.

State marginal matching and its baselines differ only in that reward, behind the contract `Intrinsic`. It is computed
afresh for each batch: models change while they learn, so a reward kept in the buffer would be out of date. Policies may
be conditioned on a skill, drawn uniformly at the start of each episode and appended to the observation as one-hot.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.types import Array, Batch, Metrics, Spec


@struct.dataclass
class Visits:
    """Transitions as intrinsic rewards see them.

    Attributes:
      observations: [B, observation_size], without the skill.
      actions: [B, action_size].
      rewards: [B], of the environment.
      next_observations: [B, observation_size], without the skill.
      skills: [B] int32, 0 where there are none.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    skills: Array


class Reward(NamedTuple):
    """Rewards [B] and the state of the model that gave them; metrics are scalars."""

    state: Any
    rewards: Array
    metrics: Metrics


class Intrinsic(Protocol):
    """An intrinsic reward; pure functions of one member, hashable and static itself."""

    def init(self, key: Array, spec: Spec) -> Any:
        """A fresh state, for the environment's sizes."""

    def observe(self, state: Any, visits: Visits) -> Any:
        """The state after new transitions, each seen once."""

    def reward(self, state: Any, visits: Visits, key: Array, hyper: Any) -> Reward:
        """Rewards of a batch of the buffer, with the models one step further."""


@struct.dataclass
class Hyper:
    """Numbers that a sweep may vary: of SAC, and those of the intrinsic reward."""

    sac: sac.Hyper
    intrinsic: Any


@struct.dataclass
class State:
    """Training state of one member."""

    sac: sac.State
    intrinsic: Any


def agent(name: str, intrinsic: Intrinsic, skills: int = 1) -> Agent:
    """An agent that explores by this reward; above 1, `skills` appends as many numbers to the observation."""
    return Agent(
        name=name,
        init=functools.partial(_init, intrinsic, skills),
        update=functools.partial(_update, intrinsic, skills),
        explore=_explore,
        policy=lambda state: state.sac.policy,
        act=sac.act,
        context=functools.partial(_skill, skills),
        context_size=skill_size(skills),
        observe=functools.partial(_observe, intrinsic, skills),
    )


def skill_size(skills: int) -> int:
    """How many numbers a skill appends to an observation; a single skill appends none."""
    return skills if skills > 1 else 0


def sample(policy: sac.Policy, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] drawn from the policy, as exploration is evaluated; `observations` end in the skill."""
    return policy.distribution(observations).sample(key)[0]


def _init(
    intrinsic: Intrinsic, skills: int, key: Array, spec: Spec, config: sac.Config, hyper: Hyper, frozen: Any = None
) -> State:
    key_sac, key_intrinsic = jax.random.split(key)
    own = Spec(spec.observation_size - skill_size(skills), spec.action_size)
    return State(sac.init(key_sac, spec, config, hyper.sac, frozen), intrinsic.init(key_intrinsic, own))


def _update(
    intrinsic: Intrinsic, skills: int, state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Any = None
) -> tuple[State, Metrics]:
    key_sac, key_reward = jax.random.split(key)
    reward = intrinsic.reward(state.intrinsic, visits_of(batch, skills), key_reward, hyper.intrinsic)
    batch = dataclasses.replace(batch, rewards=reward.rewards)
    learner, metrics = sac.update(state.sac, batch, key_sac, hyper.sac, frozen)
    return State(learner, reward.state), metrics | reward.metrics | {"reward": jnp.mean(reward.rewards)}


def _observe(intrinsic: Intrinsic, skills: int, state: State, batch: Batch) -> State:
    return State(state.sac, intrinsic.observe(state.intrinsic, visits_of(batch, skills)))


def _explore(state: State, context: Array, observations: Array, key: Array) -> Array:
    return sample(state.sac.policy, jnp.concatenate([observations, context], axis=-1), key)


def _skill(skills: int, state: State, key: Array) -> Array:
    del state
    return jax.nn.one_hot(jax.random.randint(key, (), 0, skills), skill_size(skills))


def visits_of(batch: Batch, skills: int) -> Visits:
    """A batch with its skills apart."""
    size = batch.observations.shape[-1] - skill_size(skills)
    one_hot = batch.observations[:, size:]
    index = jnp.argmax(one_hot, axis=-1).astype(jnp.int32) if skills > 1 else jnp.zeros(len(one_hot), jnp.int32)
    return Visits(batch.observations[:, :size], batch.actions, batch.rewards, batch.next_observations[:, :size], index)
