"""One iteration of learning online, as pure functions of one member, which `online` vectorizes.

1. act: one policy call; uniformly random actions for the first `random_steps`.
2. learn: `update_to_data` updates per environment step on batches of the buffer as it is before this step, so that
a host may step environments while the device learns. None for the first `warmup_steps`.
3. step: one step of every environment; an episode that ends is followed by the next.
4. record: the transitions go into the buffers. A time-out keeps its discount of 1 and its last observation.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.envs import functional
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.population import replay as replay_lib
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.population.member import Carry, Members, Totals, call, empty_totals, init_member, run_updates
from jaxrl_srpo.population.replay import Replay
from jaxrl_srpo.types import Array, Batch, Spec

# What a member's key is folded with; 0 is the start of its state.
_REPLAY, _UPDATE, _ACT, _ENVIRONMENT = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Loop:
    """How experience is gathered and used; numbers are per member.

    Attributes:
      environments: stepped together.
      update_to_data: updates per environment step.
      capacity: of the buffer, in transitions.
      warmup_steps: environment steps before the first update.
      random_steps: environment steps with uniformly random actions.
    """

    environments: int = 1
    update_to_data: float = 1.0
    capacity: int = 1_000_000
    warmup_steps: int = 1000
    random_steps: int = 1000

    @property
    def updates(self) -> int:
        """Updates per iteration."""
        return round(self.update_to_data * self.environments)

    @property
    def first_learning(self) -> int:
        """The first iteration with updates."""
        return -(-self.warmup_steps // self.environments)

    def check(self, dataset_sizes: Sequence[int]) -> None:
        """Refuses numbers that do not go together.

        Raises:
          UserError: naming the number.
        """
        updates = self.update_to_data * self.environments
        if self.environments < 1 or updates < 1 or not math.isclose(updates, round(updates)):
            raise UserError(
                f"update_to_data={self.update_to_data:g} with environments={self.environments}: their product is the "
                "number of updates per step of all environments; it must be a whole number from 1 on"
            )
        if max(dataset_sizes) > self.capacity or self.environments > self.capacity:
            needed = max(self.environments, *dataset_sizes)
            raise UserError(f"capacity={self.capacity}: the buffer starts with {needed} transitions; give more")
        if min(dataset_sizes) == 0 and self.warmup_steps < 1:
            raise UserError("warmup_steps=0: there is nothing to learn from before the first step; give at least 1")


@struct.dataclass
class Arrival:
    """Where the last step of n environments led.

    Attributes:
      observations: [n, observation_size] to act on now.
      starts: [n] bool, whether they begin an episode.
      next_observations: [n, observation_size] that the last actions led to; of an episode that ended, its last.
      rewards: [n].
      discounts: [n], 0 where it terminated.
    """

    observations: Array
    starts: Array
    next_observations: Array
    rewards: Array
    discounts: Array


def arrival_of(packed: Array) -> Arrival:
    """The arrival out of rows [n, 2 * observation_size + 3], which a host places faster than its five parts.

    Columns are observations, next observations, starts, rewards and discounts.
    """
    size = (packed.shape[-1] - 3) // 2
    observations, next_observations, rest = jnp.split(packed, (size, 2 * size), axis=-1)
    starts, rewards, discounts = jnp.moveaxis(rest, -1, 0)
    return Arrival(observations, starts > 0.0, next_observations, rewards, discounts)


@struct.dataclass
class Experience:
    """A member's buffer and the episodes under way; `contexts` [n, context_size] are theirs."""

    replay: Replay
    contexts: Array
    arrival: Arrival


@struct.dataclass
class EpisodeTotals:
    """Of the episodes that ended in a chunk: their number, and the sums of their returns and lengths."""

    count: Array
    returns: Array
    lengths: Array


@dataclasses.dataclass(frozen=True)
class Problem:
    """What all members of a run share.

    Attributes:
      agent: the method.
      spec: sizes of the environment.
      loop: how experience is gathered and used.
    """

    agent: Agent
    spec: Spec
    loop: Loop

    @property
    def agent_spec(self) -> Spec:
        """Sizes that the agent sees: observations have the context appended."""
        return Spec(self.spec.observation_size + self.agent.context_size, self.spec.action_size)


def _key(members: Members, purpose: int, iteration: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(members.keys, purpose), iteration)


def first_carry(problem: Problem, members: Members, frozen: Any) -> Carry:
    """A fresh agent of one member."""
    return init_member(problem.agent.init, problem.agent_spec, members, frozen)


def first_replay(problem: Problem, members: Members, rows: Array) -> Replay:
    """The buffer of one member, which starts as its slice of `rows` [N, width]."""
    return replay_lib.from_dataset(rows, members.where, problem.loop.capacity)


def no_totals(problem: Problem, carry: Carry, members: Members, frozen: Any) -> Totals:
    """Totals of a chunk before its first update."""
    return empty_totals(problem.agent.update, problem.agent_spec, carry.state, members.settings, frozen)


def act(
    problem: Problem, carry: Carry, members: Members, contexts: Array, arrival: Arrival, iteration: Array
) -> tuple[Array, Array]:
    """The contexts of the episodes under way and actions [n, action_size] of one member."""
    agent, loop = problem.agent, problem.loop
    key_context, key_explore, key_random = jax.random.split(_key(members, _ACT, iteration), 3)
    fresh = jax.vmap(agent.context)(jax.random.split(key_context, loop.environments))
    contexts = jnp.where(arrival.starts[:, None], fresh, contexts)
    actions = call(
        agent.explore,
        state=carry.state,
        context=contexts,
        observations=arrival.observations,
        key=key_explore,
        settings=members.settings,
    )
    random = jax.random.uniform(key_random, actions.shape, minval=-1.0, maxval=1.0)
    return contexts, jnp.where(iteration * loop.environments < loop.random_steps, random, actions)


def draw(problem: Problem, replay: Replay, members: Members, iteration: Array) -> Array:
    """The rows [updates, B, width] that one member learns from in an iteration."""
    updates, batch_size = problem.loop.updates, members.settings.batch_size
    rows = replay_lib.sample(replay, updates * batch_size, _key(members, _REPLAY, iteration))
    return rows.reshape(updates, batch_size, -1)


def learn(
    problem: Problem, carry: Carry, totals: Totals, rows: Array, members: Members, frozen: Any, iteration: Array
) -> tuple[Carry, Totals]:
    """The updates of one iteration of one member on `rows` [updates, B, width]; none before the warm-up is over."""
    first = (iteration - problem.loop.first_learning) * problem.loop.updates
    key = _key(members, _UPDATE, iteration)

    def batch_of(number: Array) -> tuple[Batch, Array]:
        i = number - first
        return table.unpack(rows[i], problem.agent_spec), jax.random.fold_in(key, i)

    count = jnp.where(first < 0, 0, problem.loop.updates)
    return run_updates(problem.agent.update, carry, totals, batch_of, first, count, members.settings, frozen)


def transitions(contexts: Array, actions: Array, before: Arrival, after: Arrival) -> Batch:
    """What the last step added to the experience, observations with the context appended."""
    observations = jnp.concatenate([before.observations, contexts], axis=-1)
    next_observations = jnp.concatenate([after.next_observations, contexts], axis=-1)
    return Batch(observations, actions, after.rewards, next_observations, after.discounts)


def record(replay: Replay, contexts: Array, actions: Array, before: Arrival, after: Arrival) -> Replay:
    """The buffer with the last step of n environments added."""
    return replay_lib.add(replay, replay_lib.pack(transitions(contexts, actions, before, after)))


def observe(problem: Problem, carry: Carry, contexts: Array, actions: Array, before: Arrival, after: Arrival) -> Carry:
    """What the agent makes of the last step; a member that diverged no longer changes."""
    if problem.agent.observe is None:
        return carry
    batch = transitions(contexts, actions, before, after)
    state = call(problem.agent.observe, state=carry.state, batch=batch)
    keep = functools.partial(jnp.where, carry.diverged_at < 0)
    return dataclasses.replace(carry, state=jax.tree.map(keep, state, carry.state))


def first_episodes(
    environment: functional.Environment, loop: Loop, members: Members
) -> tuple[functional.RunningEpisodes, Arrival]:
    """The first episodes of one member's environments, and where they begin."""
    key = jax.random.fold_in(members.keys, _ENVIRONMENT)
    episodes = functional.start(environment, loop.environments, key)
    observations = functional.observe(environment, episodes)
    zeros = jnp.zeros((loop.environments,))
    return episodes, Arrival(observations, jnp.ones(zeros.shape, bool), jnp.zeros_like(observations), zeros, zeros)


def step(
    environment: functional.Environment, episodes: functional.RunningEpisodes, actions: Array, key: Array
) -> tuple[functional.RunningEpisodes, Arrival, EpisodeTotals]:
    """One step of one member's environments, and what ended in it."""
    episodes, outcome = functional.step(environment, episodes, actions, key)
    arrival = Arrival(
        functional.observe(environment, episodes),
        outcome.ended,
        outcome.next_observations,
        outcome.rewards,
        1.0 - outcome.terminated.astype(jnp.float32),
    )
    finished = EpisodeTotals(
        jnp.sum(outcome.ended, dtype=jnp.int32),
        jnp.sum(jnp.where(outcome.ended, outcome.returns, 0.0)),
        jnp.sum(jnp.where(outcome.ended, outcome.lengths, 0), dtype=jnp.int32),
    )
    return episodes, arrival, finished


@struct.dataclass
class OnDevice:
    """All of one member of a `FunctionalRun`."""

    carry: Carry
    experience: Experience
    episodes: functional.RunningEpisodes


def play(
    problem: Problem,
    environment: functional.Environment,
    current: OnDevice,
    members: Members,
    frozen: Any,
    start: Array,
    iterations: Array,
) -> tuple[OnDevice, Totals, EpisodeTotals]:
    """Iterations of one member from `start` on, environments included."""

    def iterate(i: Array, carried: tuple[OnDevice, Totals, EpisodeTotals]) -> tuple[OnDevice, Totals, EpisodeTotals]:
        now, totals, ended = carried
        iteration, own = start + i, now.experience
        contexts, actions = act(problem, now.carry, members, own.contexts, own.arrival, iteration)
        rows = draw(problem, own.replay, members, iteration)
        carry, totals = learn(problem, now.carry, totals, rows, members, frozen, iteration)
        key = _key(members, _ENVIRONMENT, iteration + 1)
        episodes, arrival, finished = step(environment, now.episodes, actions, key)
        carry = observe(problem, carry, contexts, actions, own.arrival, arrival)
        replay = record(own.replay, contexts, actions, own.arrival, arrival)
        ended = jax.tree.map(jnp.add, ended, finished)
        return OnDevice(carry, Experience(replay, contexts, arrival), episodes), totals, ended

    none = EpisodeTotals(jnp.int32(0), jnp.float32(0.0), jnp.int32(0))
    totals = no_totals(problem, current.carry, members, frozen)
    return jax.lax.fori_loop(0, iterations, iterate, (current, totals, none))
