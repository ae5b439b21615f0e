"""Learning online: every member of a population explores environments of its own and learns from a buffer of its own.

One iteration, for all members together:
  1. act: one policy call; uniformly random actions for the first `random_steps`.
  2. learn: `update_to_data` updates per environment step on batches of the buffer as it is before this step, so that
     a host may step environments while the device learns. None for the first `warmup_steps`.
  3. step: one step of every environment; an episode that ends is followed by the next.
  4. record: the transitions go into the buffers. A time-out keeps its discount of 1 and its last observation.

Both runs below do exactly this. `FunctionalRun` has environments in pure JAX and makes a whole chunk of iterations one
compiled program; `GymnasiumRun` steps Gymnasium environments on the host.

A checkpoint holds agents, buffers and environments, and a run that is restored goes on bit for bit as if it had never
stopped, on the same backend: in `FunctionalRun` because all of it is on the device; in `GymnasiumRun` because the
episodes under way are played again from their seeds with the actions that were kept, so it is bitwise as far as the
environment gives the same episode for the same seed and actions, as MuJoCo's do on one machine and version. What is not
kept are the means of metrics and of returns of a chunk that a kill cut off; the chunk itself is repeated.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo import replay as replay_lib
from jaxrl_srpo.agent import Agent
from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import functional
from jaxrl_srpo.envs.episodes import MemberEnvironments, Units
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.population import (
    Argument,
    Carry,
    Members,
    PlacedMembers,
    Strategy,
    Totals,
    empty_totals,
    guarded_update,
    init_member,
)
from jaxrl_srpo.replay import Replay
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

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
class Progress:
    """What a chunk gave; all arrays are [groups, members].

    Attributes:
      metrics: means over the good updates; NaN where there was none.
      episodes: how many ended.
      returns: their mean return, in the environment's own rewards; NaN where none ended.
      lengths: their mean length.
      diverged_at: update at which a member stopped being finite; -1 while all is well.
    """

    metrics: Metrics
    episodes: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    diverged_at: np.ndarray


@dataclasses.dataclass(frozen=True)
class Problem:
    """What all members of a run share.

    Attributes:
      agent: the method.
      spec: sizes of the environment.
      config: the agent's `Config`, with a `batch_size`.
      loop: how experience is gathered and used.
    """

    agent: Agent
    spec: Spec
    config: Any
    loop: Loop

    @property
    def agent_spec(self) -> Spec:
        """Sizes that the agent sees: observations have the context appended."""
        return Spec(self.spec.observation_size + self.agent.context_size, self.spec.action_size)


def _key(members: Members, purpose: int, iteration: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(members.keys, purpose), iteration)


def _first_carry(problem: Problem, members: Members, frozen: Any) -> Carry:
    return init_member(problem.agent.init, problem.agent_spec, problem.config, members, frozen)


def _first_replay(problem: Problem, members: Members, rows: Array) -> Replay:
    return replay_lib.from_dataset(rows, members.where, problem.loop.capacity)


def _no_totals(problem: Problem, carry: Carry, members: Members, frozen: Any) -> Totals:
    agent, spec, batch_size = problem.agent, problem.agent_spec, problem.config.batch_size
    return empty_totals(agent.update, spec, batch_size, carry.state, members.hyper, frozen)


def _act(
    problem: Problem, carry: Carry, members: Members, contexts: Array, arrival: Arrival, iteration: Array
) -> tuple[Array, Array]:
    """The contexts of the episodes under way and actions [n, action_size] of one member."""
    agent, loop = problem.agent, problem.loop
    key_context, key_explore, key_random = jax.random.split(_key(members, _ACT, iteration), 3)
    fresh = jax.vmap(agent.context, (None, 0))(carry.state, jax.random.split(key_context, loop.environments))
    contexts = jnp.where(arrival.starts[:, None], fresh, contexts)
    actions = agent.explore(carry.state, contexts, arrival.observations, key_explore)
    random = jax.random.uniform(key_random, actions.shape, minval=-1.0, maxval=1.0)
    return contexts, jnp.where(iteration * loop.environments < loop.random_steps, random, actions)


def _draw(problem: Problem, replay: Replay, members: Members, iteration: Array) -> Array:
    """The rows [updates, B, width] that one member learns from in an iteration."""
    updates, batch_size = problem.loop.updates, problem.config.batch_size
    rows = replay_lib.sample(replay, updates * batch_size, _key(members, _REPLAY, iteration))
    return rows.reshape(updates, batch_size, -1)


def _learn(
    problem: Problem, carry: Carry, totals: Totals, rows: Array, members: Members, frozen: Any, iteration: Array
) -> tuple[Carry, Totals]:
    """The updates of one iteration of one member on `rows` [updates, B, width]; none before the warm-up is over."""
    first = (iteration - problem.loop.first_learning) * problem.loop.updates
    key = _key(members, _UPDATE, iteration)

    def update(i: Array, carried: tuple[Carry, Totals]) -> tuple[Carry, Totals]:
        batch = table.unpack(rows[i], problem.agent_spec)
        own = jax.random.fold_in(key, i)
        return guarded_update(problem.agent.update, *carried, batch, own, members.hyper, frozen, first + i)

    return jax.lax.fori_loop(0, jnp.where(first < 0, 0, problem.loop.updates), update, (carry, totals))


def _transitions(contexts: Array, actions: Array, before: Arrival, after: Arrival) -> Batch:
    """What the last step added to the experience, observations with the context appended."""
    observations = jnp.concatenate([before.observations, contexts], axis=-1)
    next_observations = jnp.concatenate([after.next_observations, contexts], axis=-1)
    return Batch(observations, actions, after.rewards, next_observations, after.discounts)


def _record(replay: Replay, contexts: Array, actions: Array, before: Arrival, after: Arrival) -> Replay:
    return replay_lib.add(replay, replay_lib.pack(_transitions(contexts, actions, before, after)))


def _observe(problem: Problem, carry: Carry, contexts: Array, actions: Array, before: Arrival, after: Arrival) -> Carry:
    """What the agent makes of the last step; a member that diverged no longer changes."""
    if problem.agent.observe is None:
        return carry
    state = problem.agent.observe(carry.state, _transitions(contexts, actions, before, after))
    keep = functools.partial(jnp.where, carry.diverged_at < 0)
    return dataclasses.replace(carry, state=jax.tree.map(keep, state, carry.state))


def _first_episodes(
    environment: functional.Environment, loop: Loop, members: Members
) -> tuple[functional.Episodes, Arrival]:
    key = jax.random.fold_in(members.keys, _ENVIRONMENT)
    episodes = functional.start(environment, loop.environments, key)
    observations = functional.observe(environment, episodes)
    zeros = jnp.zeros((loop.environments,))
    return episodes, Arrival(observations, jnp.ones(zeros.shape, bool), jnp.zeros_like(observations), zeros, zeros)


def _step(
    environment: functional.Environment, episodes: functional.Episodes, actions: Array, key: Array
) -> tuple[functional.Episodes, Arrival, EpisodeTotals]:
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
class _OnDevice:
    """All of one member of a `FunctionalRun`."""

    carry: Carry
    experience: Experience
    episodes: functional.Episodes


def _play(
    problem: Problem,
    environment: functional.Environment,
    current: _OnDevice,
    members: Members,
    frozen: Any,
    start: Array,
    iterations: Array,
) -> tuple[_OnDevice, Totals, EpisodeTotals]:
    """Iterations of one member from `start` on, environments included."""

    def iterate(i: Array, carried: tuple[_OnDevice, Totals, EpisodeTotals]) -> tuple[_OnDevice, Totals, EpisodeTotals]:
        now, totals, ended = carried
        iteration, own = start + i, now.experience
        contexts, actions = _act(problem, now.carry, members, own.contexts, own.arrival, iteration)
        rows = _draw(problem, own.replay, members, iteration)
        carry, totals = _learn(problem, now.carry, totals, rows, members, frozen, iteration)
        key = _key(members, _ENVIRONMENT, iteration + 1)
        episodes, arrival, finished = _step(environment, now.episodes, actions, key)
        carry = _observe(problem, carry, contexts, actions, own.arrival, arrival)
        replay = _record(own.replay, contexts, actions, own.arrival, arrival)
        ended = jax.tree.map(jnp.add, ended, finished)
        return _OnDevice(carry, Experience(replay, contexts, arrival), episodes), totals, ended

    none = EpisodeTotals(jnp.int32(0), jnp.float32(0.0), jnp.int32(0))
    totals = _no_totals(problem, current.carry, members, frozen)
    return jax.lax.fori_loop(0, iterations, iterate, (current, totals, none))


class OnlineRun:
    """What both kinds of run share: the members on their devices, and where they are.

    Args:
      problem: what all members share.
      members: keys, slices of `rows` that the buffers start as, and hyperparameters; [groups, members per group].
      frozen: earlier results that agents start from, leaves [groups, ...].
      rows: an offline table [N, width] in the agent's sizes; None lets every buffer start empty.
      strategy: see `population.PlacedMembers`.
      devices: devices to spread over; all by default.

    Attributes:
      iteration: iterations done.
    """

    def __init__(
        self,
        problem: Problem,
        members: Members,
        frozen: Any,
        rows: np.ndarray | None = None,
        strategy: Strategy = "auto",
        devices: list[jax.Device] | None = None,
    ) -> None:
        groups, size = members.keys.shape
        if rows is None:
            nothing = jnp.zeros((groups, size), jnp.int32)
            members = dataclasses.replace(members, where=table.Slice(nothing, nothing))
            rows = np.zeros((1, table.row_width(problem.agent_spec)), np.float32)
        problem.loop.check(np.asarray(members.where.size).reshape(-1).tolist())
        self._problem, self._shape, self.iteration = problem, (groups, size), 0
        self._population = PlacedMembers((groups, size), strategy, devices)
        self._members, self._frozen = self._population.place(members), self._population.place_frozen(frozen)
        lift = self._population.lift
        self._carry = lift(functools.partial(_first_carry, problem), ("member", "group"))(self._members, self._frozen)
        start = lift(functools.partial(_first_replay, problem), ("member", "shared"), strategy="vmap")
        self._replay = start(self._members, self._population.place_table(rows))
        self._contexts = self._population.place(
            np.zeros((groups, size, problem.loop.environments, problem.agent.context_size), np.float32)
        )

    @property
    def states(self) -> Any:
        """The agents' states on the host, leaves [groups, members, ...]."""
        return self._population.unpad(self._carry.state)

    @property
    def policies(self) -> Any:
        """What acts after learning, leaves [groups x members, ...] on the host."""
        policies = self._problem.agent.policy(self.states)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), policies)

    @property
    def replay(self) -> Replay:
        """The buffers on the host, leaves [groups, members, ...]."""
        return self._population.unpad(self._replay)

    @property
    def steps(self) -> int:
        """Environment steps of each member so far."""
        return self.iteration * self._problem.loop.environments

    def _progress(self, totals: Totals, ended: EpisodeTotals) -> Progress:
        """Placed totals of updates, and totals of episodes on the host, as means."""
        count = np.maximum(ended.count, 1)
        none = np.where(np.asarray(ended.count) > 0, 1.0, np.nan)
        return Progress(
            self._population.unpad(totals).means(),
            np.asarray(ended.count),
            none * ended.returns / count,
            none * ended.lengths / count,
            self._population.unpad(self._carry.diverged_at),
        )


class FunctionalRun(OnlineRun):
    """Members in environments in pure JAX: a chunk of iterations is one compiled call.

    Args:
      environment: the same for all members.
      agent: the method.
      config: its `Config`.
      loop: how experience is gathered and used.
      **arguments: the others of `OnlineRun`.
    """

    def __init__(
        self, environment: functional.Environment, agent: Agent, config: Any, loop: Loop, **arguments: Any
    ) -> None:
        problem = Problem(agent, environment.spec, config, loop)
        super().__init__(problem, **arguments)
        lift = self._population.lift
        begin = lift(functools.partial(_first_episodes, environment, loop), ("member",))
        self._episodes, self._arrival = begin(self._members)
        play = functools.partial(_play, problem, environment)
        self._play = lift(play, ("member", "member", "group", "shared", "shared"), donate=(0,))

    def run(self, iterations: int) -> Progress:
        """Some iterations of every member."""
        experience = Experience(self._replay, self._contexts, self._arrival)
        current, totals, ended = self._play(
            _OnDevice(self._carry, experience, self._episodes),
            self._members,
            self._frozen,
            jnp.int32(self.iteration),
            jnp.int32(iterations),
        )
        self._take(current)
        self.iteration += iterations
        return self._progress(totals, self._population.unpad(ended))

    def checkpoint(self) -> dict[str, Any]:
        """What `restore` needs, a pytree of arrays on the host."""
        experience = Experience(self._replay, self._contexts, self._arrival)
        everything = self._population.unpad(_OnDevice(self._carry, experience, self._episodes))
        return {"iteration": np.int32(self.iteration), "members": everything}

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to a checkpoint."""
        self.iteration = int(saved["iteration"])
        self._take(self._population.place(saved["members"]))

    def _take(self, current: _OnDevice) -> None:
        self._carry, self._episodes = current.carry, current.episodes
        experience = current.experience
        self._replay, self._contexts, self._arrival = experience.replay, experience.contexts, experience.arrival


class GymnasiumRun(OnlineRun):
    """Members in Gymnasium environments, which the host steps while the device learns.

    Args:
      specs: the environment of each member.
      agent: the method.
      config: its `Config`.
      loop: how experience is gathered and used.
      units: how each member sees its environment; as it is by default.
      workers: threads that step; see `envs.batched.make_simulator`.
      **arguments: the others of `OnlineRun`.

    Raises:
      UserError: an environment cannot be made or is not suitable, see `envs.episodes.MemberEnvironments`.
    """

    def __init__(
        self,
        specs: Sequence[EnvironmentSpec],
        agent: Agent,
        config: Any,
        loop: Loop,
        *,
        members: Members,
        units: Sequence[Units] | None = None,
        workers: int | None = None,
        **arguments: Any,
    ) -> None:
        entropy = np.asarray(jax.random.key_data(members.keys)).reshape(len(specs), -1).tolist()
        units = units or [Units()] * len(specs)
        self._environments = MemberEnvironments(specs, units, entropy, loop.environments, workers)
        spec = Spec(self._environments.observation_size, self._environments.action_size)
        problem = Problem(agent, spec, config, loop)
        super().__init__(problem, members=members, **arguments)
        self._compile(problem)
        self._arrival = self._population.place(self._begin())

    def run(self, iterations: int) -> Progress:
        """Some iterations of every member."""
        totals = self._no_totals(self._carry, self._members, self._frozen)
        ended = [np.zeros(self._shape) for _ in range(3)]
        for iteration in range(self.iteration, self.iteration + iterations):
            number = np.int32(iteration)
            before = self._arrival
            self._contexts, actions = self._act(self._carry, self._members, self._contexts, before, number)
            if iteration >= self._problem.loop.first_learning:
                learned = (self._carry, totals, self._replay, self._members, self._frozen, number)
                self._carry, totals = self._learn(*learned)
            self._arrival = self._step(actions, ended)
            happened = (self._contexts, actions, before, self._arrival)
            if self._problem.agent.observe is not None:
                self._carry = self._observe(self._carry, *happened)
            self._replay = self._record(self._replay, *happened)
        self.iteration += iterations
        return self._progress(totals, EpisodeTotals(*map(jnp.asarray, ended)))

    def checkpoint(self) -> dict[str, Any]:
        """What `restore` needs, a pytree of arrays on the host."""
        placed = (self._carry, Experience(self._replay, self._contexts, self._arrival))
        return {
            "iteration": np.int32(self.iteration),
            "members": self._population.unpad(placed),
            "environments": self._environments.state(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to a checkpoint; plays the episodes under way again."""
        self.iteration = int(saved["iteration"])
        self._carry, experience = self._population.place(saved["members"])
        self._replay, self._contexts, self._arrival = experience.replay, experience.contexts, experience.arrival
        self._environments.restore(saved["environments"])

    def close(self) -> None:
        """Closes the environments."""
        self._environments.close()

    def _compile(self, problem: Problem) -> None:
        lift = self._population.lift
        draw = lift(functools.partial(_draw, problem), ("member", "member", "shared"), strategy="vmap")
        kinds: tuple[Argument, ...] = ("member", "member", "member", "member", "group", "shared")
        update = lift(functools.partial(_learn, problem), kinds)

        def learn(
            carry: Carry, totals: Totals, replay: Replay, members: Members, frozen: Any, iteration: Array
        ) -> tuple[Carry, Totals]:
            return update(carry, totals, draw(replay, members, iteration), members, frozen, iteration)

        self._learn = jax.jit(learn, donate_argnums=(0, 1))
        self._act = lift(functools.partial(_act, problem), ("member",) * 4 + ("shared",))
        self._record = lift(_record, ("member",) * 5, donate=(0,), strategy="vmap")
        self._observe = lift(functools.partial(_observe, problem), ("member",) * 5, donate=(0,))
        self._no_totals = lift(functools.partial(_no_totals, problem), ("member", "member", "group"))

    def _begin(self) -> Arrival:
        """Begins all first episodes."""
        observations = self._by_group(self._environments.reset())
        zeros = np.zeros(observations.shape[:-1], np.float32)
        # Arrays on the host, until they are placed.
        fresh: tuple[Any, ...] = (observations, np.ones(zeros.shape, bool), np.zeros_like(observations), zeros, zeros)
        return Arrival(*fresh)

    def _step(self, actions: Array, ended: Sequence[np.ndarray]) -> Arrival:
        """Steps all environments, adds the episodes that ended up, and places what came."""
        chosen: np.ndarray = self._population.unpad(actions)
        outcome = self._environments.step(chosen.reshape(-1, *chosen.shape[2:]))
        if outcome.ended.any():
            for total, values in zip(ended, (outcome.ended, outcome.returns, outcome.lengths), strict=True):
                total += self._by_group(np.sum(values * outcome.ended, axis=1))
        discounts = 1.0 - outcome.terminated.astype(np.float32)
        arrived = (outcome.observations, outcome.ended, outcome.next_observations, outcome.rewards, discounts)
        by_group: tuple[Any, ...] = tuple(self._by_group(x) for x in arrived)
        return self._population.place(Arrival(*by_group))

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        """[groups x members, ...] -> [groups, members, ...]."""
        return values.reshape(*self._shape, *values.shape[1:])
