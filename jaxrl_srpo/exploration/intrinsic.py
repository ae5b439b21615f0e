"""Exploration by SAC on an intrinsic reward, which replaces the reward of every batch as it is drawn.

State marginal matching and its baselines differ only in that reward, behind the contract `Intrinsic`. It is computed
afresh for each batch: models change while they learn, so a reward stored in the buffer would be out of date. Policies
may be conditioned on a skill, drawn uniformly at the start of each episode and appended to the observation as one-hot.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods import sac
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.population.member import Function, call
from jaxrl_srpo.types import Array, Batch, Metrics, Spec


@struct.dataclass
class Visits:
    """Transitions as intrinsic rewards see them; B is the batch size.

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
    """Rewards of a batch.

    Attributes:
      state: the models, one step further.
      rewards: [B].
      metrics: scalars.
    """

    state: Any
    rewards: Array
    metrics: Metrics


class Intrinsic:
    """An intrinsic reward. Its functions are pure functions of one member and declare the arguments that they take.

    The object itself is static: hashable, and equal only to its like, as frozen dataclasses are.

    Attributes:
      init: key, spec -> fresh state of the models; `spec` has the environment's sizes.
      reward: state, visits, key, settings -> `Reward` of a batch drawn from the buffer.
      observe: state, visits -> state after new transitions, each seen once; None if the models learn from batches only.
    """

    init: Function
    reward: Function
    observe: Function | None = None


@struct.dataclass
class Settings:
    """Settings of an agent that explores.

    Attributes:
      sac: of the learner.
      intrinsic: of the intrinsic reward; every number is a leaf.
    """

    sac: sac.Settings
    intrinsic: Any

    @property
    def batch_size(self) -> int:
        """Transitions of an update."""
        return self.sac.batch_size


@struct.dataclass
class State:
    """Training state of one member: the learner's, and the models' of the intrinsic reward."""

    sac: sac.State
    intrinsic: Any


def agent(name: str, intrinsic: Intrinsic, skills: int = 1) -> Agent:
    """An agent that explores by an intrinsic reward.

    Args:
      name: what tables call it.
      intrinsic: the reward.
      skills: number of skills; above 1, observations end in the one-hot skill.
    """
    return Agent(
        name=name,
        init=functools.partial(_init, intrinsic, skills),
        update=functools.partial(_update, intrinsic, skills),
        explore=_explore,
        policy=_policy_of,
        context=functools.partial(_draw_skill, skills),
        context_size=skill_size(skills),
        observe=functools.partial(_observe, intrinsic.observe, skills) if intrinsic.observe else None,
    )


def skill_size(skills: int) -> int:
    """How many numbers a skill appends to an observation; a single skill appends none."""
    return skills if skills > 1 else 0


def sample(policy: TanhGaussianPolicy, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] drawn from the policy, as exploration is evaluated; `observations` end in the skill."""
    return policy.distribution(observations).sample(key)[0]


def visits_of(batch: Batch, skills: int) -> Visits:
    """A batch with the skills apart from the observations."""
    size = batch.observations.shape[-1] - skill_size(skills)
    one_hot = batch.observations[:, size:]
    index = jnp.argmax(one_hot, axis=-1).astype(jnp.int32) if skills > 1 else jnp.zeros(len(one_hot), jnp.int32)
    return Visits(batch.observations[:, :size], batch.actions, batch.rewards, batch.next_observations[:, :size], index)


def _init(intrinsic: Intrinsic, skills: int, key: Array, spec: Spec, settings: Settings) -> State:
    key_sac, key_intrinsic = jax.random.split(key)
    own = Spec(spec.observation_size - skill_size(skills), spec.action_size)
    return State(sac.init(key_sac, spec, settings.sac), call(intrinsic.init, key=key_intrinsic, spec=own))


def _update(
    intrinsic: Intrinsic, skills: int, state: State, batch: Batch, key: Array, settings: Settings
) -> tuple[State, Metrics]:
    key_sac, key_reward = jax.random.split(key)
    visits = visits_of(batch, skills)
    reward: Reward = call(
        intrinsic.reward, state=state.intrinsic, visits=visits, key=key_reward, settings=settings.intrinsic
    )
    batch = dataclasses.replace(batch, rewards=reward.rewards)
    learner, metrics = sac.update(state.sac, batch, key_sac, settings.sac)
    return State(learner, reward.state), metrics | reward.metrics | {"reward": jnp.mean(reward.rewards)}


def _observe(observe: Function, skills: int, state: State, batch: Batch) -> State:
    return State(state.sac, call(observe, state=state.intrinsic, visits=visits_of(batch, skills)))


def _explore(state: State, context: Array, observations: Array, key: Array) -> Array:
    return sample(_policy_of(state), jnp.concatenate([observations, context], axis=-1), key)


def _policy_of(state: State) -> TanhGaussianPolicy:
    return sac.policy_of(state.sac)


def _draw_skill(skills: int, key: Array) -> Array:
    return jax.nn.one_hot(jax.random.randint(key, (), 0, skills), skill_size(skills))
