"""Learning online: every member of a population explores environments of its own and learns from a buffer of its own.

Both runs below do iteration after iteration of `iteration`, for all members together. `FunctionalRun` has environments
in pure JAX and makes a whole chunk of iterations one compiled program; `GymnasiumRun` steps Gymnasium environments on
the host.

A checkpoint holds agents, buffers and environments, and a run that is restored goes on bit for bit as if it had never
stopped, on the same backend: in `FunctionalRun` because all of it is on the device; in `GymnasiumRun` because the
episodes under way are played again from their seeds with the actions that were kept, so it is bitwise as far as the
environment gives the same episode for the same seed and actions, as MuJoCo's do on one machine and version. What is not
kept are the means of metrics and of returns of a chunk that a kill cut off; the chunk itself is repeated.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.units import Units
from jaxrl_srpo.envs import functional
from jaxrl_srpo.envs.episodes import MemberEnvironments
from jaxrl_srpo.population import interaction
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.population.interaction import Arrival, EpisodeTotals, Experience, Loop, OnDevice, Problem
from jaxrl_srpo.population.member import Carry, Members, Totals
from jaxrl_srpo.population.replay import Replay
from jaxrl_srpo.population.vectorize import PlacedMembers, Strategy
from jaxrl_srpo.types import Array, Metrics, Spec


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
        vectorize = self._population.vectorize
        begin = vectorize(functools.partial(interaction.first_carry, problem), members="member", frozen="group")
        self._carry = begin(members=self._members, frozen=self._frozen)
        start = vectorize(
            functools.partial(interaction.first_replay, problem), members="member", rows="shared", strategy="vmap"
        )
        self._replay = start(members=self._members, rows=self._population.place_table(rows))
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
    def action_size(self) -> int:
        """Of the environment."""
        return self._problem.spec.action_size

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
      loop: how experience is gathered and used.
      **arguments: the others of `OnlineRun`.
    """

    def __init__(self, environment: functional.Environment, agent: Agent, loop: Loop, **arguments: Any) -> None:
        problem = Problem(agent, environment.spec, loop)
        super().__init__(problem, **arguments)
        vectorize = self._population.vectorize
        begin = vectorize(functools.partial(interaction.first_episodes, environment, loop), members="member")
        self._episodes, self._arrival = begin(members=self._members)
        self._play = vectorize(
            functools.partial(interaction.play, problem, environment),
            current="member",
            members="member",
            frozen="group",
            start="shared",
            iterations="shared",
            donate="current",
        )

    def run(self, iterations: int) -> Progress:
        """Some iterations of every member."""
        experience = Experience(self._replay, self._contexts, self._arrival)
        current, totals, ended = self._play(
            current=OnDevice(self._carry, experience, self._episodes),
            members=self._members,
            frozen=self._frozen,
            start=jnp.int32(self.iteration),
            iterations=jnp.int32(iterations),
        )
        self._take(current)
        self.iteration += iterations
        return self._progress(totals, self._population.unpad(ended))

    def checkpoint(self) -> dict[str, Any]:
        """What `restore` needs, a pytree of arrays on the host."""
        experience = Experience(self._replay, self._contexts, self._arrival)
        everything = self._population.unpad(OnDevice(self._carry, experience, self._episodes))
        return {"iteration": np.int32(self.iteration), "members": everything}

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to a checkpoint."""
        self.iteration = int(saved["iteration"])
        self._take(self._population.place(saved["members"]))

    def _take(self, current: OnDevice) -> None:
        self._carry, self._episodes = current.carry, current.episodes
        experience = current.experience
        self._replay, self._contexts, self._arrival = experience.replay, experience.contexts, experience.arrival


class GymnasiumRun(OnlineRun):
    """Members in Gymnasium environments, which the host steps while the device learns.

    Args:
      specs: the environment of each member.
      agent: the method.
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
        try:
            spec = Spec(self._environments.observation_size, self._environments.action_size)
            problem = Problem(agent, spec, loop)
            super().__init__(problem, members=members, **arguments)
            self._compile(problem)
            self._arrival = self._population.place(self._begin())
        except BaseException:
            self._environments.close()
            raise

    def run(self, iterations: int) -> Progress:
        """Some iterations of every member."""
        totals = self._no_totals(carry=self._carry, members=self._members, frozen=self._frozen)
        ended = [np.zeros(self._shape) for _ in range(3)]
        for iteration in range(self.iteration, self.iteration + iterations):
            number = np.int32(iteration)
            before = self._arrival
            self._contexts, actions = self._act(
                carry=self._carry, members=self._members, contexts=self._contexts, arrival=before, iteration=number
            )
            if iteration >= self._problem.loop.first_learning:
                self._carry, totals = self._learn(
                    self._carry, totals, self._replay, self._members, self._frozen, number
                )
            self._arrival = self._step(actions, ended)
            happened = {"contexts": self._contexts, "actions": actions, "before": before, "after": self._arrival}
            if self._problem.agent.observe is not None:
                self._carry = self._observe(carry=self._carry, **happened)
            self._replay = self._record(replay=self._replay, **happened)
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

    def checkpoint_shapes(self) -> dict[str, Any]:
        """Shapes and types of a checkpoint; nothing is copied from the devices."""
        placed = (self._carry, Experience(self._replay, self._contexts, self._arrival))
        return {
            "iteration": np.int32(self.iteration),
            "members": self._population.shapes(placed),
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
        vectorize = self._population.vectorize
        draw = vectorize(
            functools.partial(interaction.draw, problem),
            replay="member",
            members="member",
            iteration="shared",
            strategy="vmap",
        )
        update = vectorize(
            functools.partial(interaction.learn, problem),
            carry="member",
            totals="member",
            rows="member",
            members="member",
            frozen="group",
            iteration="shared",
        )

        def learn(
            carry: Carry, totals: Totals, replay: Replay, members: Members, frozen: Any, iteration: Array
        ) -> tuple[Carry, Totals]:
            rows = draw(replay=replay, members=members, iteration=iteration)
            learned: tuple[Carry, Totals] = update(
                carry=carry, totals=totals, rows=rows, members=members, frozen=frozen, iteration=iteration
            )
            return learned

        self._learn = jax.jit(learn, donate_argnums=(0, 1))
        self._act = vectorize(
            functools.partial(interaction.act, problem),
            carry="member",
            members="member",
            contexts="member",
            arrival="member",
            iteration="shared",
        )
        self._arrive = vectorize(interaction.arrival_of, packed="member", strategy="vmap")
        self._record = vectorize(
            interaction.record,
            replay="member",
            contexts="member",
            actions="member",
            before="member",
            after="member",
            donate="replay",
            strategy="vmap",
        )
        self._observe = vectorize(
            functools.partial(interaction.observe, problem),
            carry="member",
            contexts="member",
            actions="member",
            before="member",
            after="member",
            donate="carry",
        )
        self._no_totals = vectorize(
            functools.partial(interaction.no_totals, problem), carry="member", members="member", frozen="group"
        )

    def _begin(self) -> Arrival:
        """Begins all first episodes."""
        observations = self._environments.reset()
        zeros = np.zeros(observations.shape[:-1], np.float32)
        return self._place(observations, np.zeros_like(observations), np.ones_like(zeros), zeros, zeros)

    def _step(self, actions: Array, ended: Sequence[np.ndarray]) -> Arrival:
        """Steps all environments, adds the episodes that ended up, and places what came."""
        chosen: np.ndarray = self._population.unpad(actions)
        outcome = self._environments.step(chosen.reshape(-1, *chosen.shape[2:]))
        if outcome.ended.any():
            for total, values in zip(ended, (outcome.ended, outcome.returns, outcome.lengths), strict=True):
                total += self._by_group(np.sum(values * outcome.ended, axis=1))
        discounts = 1.0 - outcome.terminated
        return self._place(outcome.observations, outcome.next_observations, outcome.ended, outcome.rewards, discounts)

    def _place(self, *columns: np.ndarray) -> Arrival:
        """The columns of `interaction.arrival_of`, [members, n] or [members, n, observation_size], on the devices."""
        wide = [x if x.ndim == 3 else x[..., None] for x in columns]
        packed = np.concatenate(wide, axis=-1, dtype=np.float32, casting="unsafe")
        arrival: Arrival = self._arrive(packed=self._population.place(self._by_group(packed)))
        return arrival

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        """[groups x members, ...] -> [groups, members, ...]."""
        return values.reshape(*self._shape, *values.shape[1:])
