"""Gymnasium environments that run episode after episode, for members that learn online."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.units import Units, stack
from jaxrl_srpo.envs.batched import make_simulator
from jaxrl_srpo.envs.simulator import VectorSimulator, rows_by_spec
from jaxrl_srpo.errors import UserError


class Outcome(NamedTuple):
    """The result of a step of all M x n environments, in the learners' units.

    Attributes:
      observations: [M, n, observation_size] float32 to act on now.
      next_observations: [M, n, observation_size] float32; of an episode that ended, its last.
      rewards: [M, n] float32.
      terminated: [M, n] bool.
      ended: [M, n] bool, by termination or by the time limit; `observations` begin the next episode there.
      lengths: [M, n] int64, steps so far, this one included.
      returns: [M, n] float64, the environment's own rewards so far, this one included.
    """

    observations: np.ndarray
    next_observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    ended: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray


class MemberEnvironments:
    """n environments of each of M members, all stepped together.

    The start of an episode depends only on the member's entropy and the indices of environment and episode. `restore`
    replays the actions of the episodes under way from their starts, which puts every environment back where it was.

    Args:
      specs: one per member; they may differ in all but their sizes.
      units: one per member, of observations and rewards; the bounds of actions are the environments' own.
      entropy: one sequence of integers per member, which seeds its starts.
      count: n.
      workers: threads that step; see `envs.batched.make_simulator`.

    Raises:
      UserError: an environment cannot be made, has no time limit or no bounds of actions, or the sizes differ.
    """

    def __init__(
        self,
        specs: Sequence[EnvironmentSpec],
        units: Sequence[Units],
        entropy: Sequence[Sequence[int]],
        count: int,
        workers: int | None = None,
    ) -> None:
        self._entropy, self._shape = [list(map(int, one)) for one in entropy], (len(specs), count)
        self._groups: list[tuple[np.ndarray, VectorSimulator]] = []
        try:
            for spec, rows in rows_by_spec(specs, count):
                self._groups.append((rows, make_simulator(spec, len(rows), workers)))
                _check(spec, self._groups[-1][1], self._groups[0][1])
        except UserError:
            self.close()
            raise
        first = self._groups[0][1]
        self.observation_size, self.action_size = first.observation_size, first.action_size
        size = len(specs) * count
        limits = [simulator.max_episode_steps or 0 for _, simulator in self._groups]
        low, high = (np.zeros((size, self.action_size), np.float32) for _ in range(2))
        for rows, simulator in self._groups:
            low[rows], high[rows] = simulator.action_low, simulator.action_high
        stacked = stack(units, self.observation_size, self.action_size, count)
        self._units = dataclasses.replace(stacked, action_low=low, action_high=high)
        self._episodes, self._lengths = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._returns = np.zeros(size)
        self._actions = np.zeros((max(limits), size, self.action_size), np.float32)

    def reset(self) -> np.ndarray:
        """Begins episode 0 everywhere; returns observations [M, n, observation_size]."""
        self._episodes[:] = 0
        return self._reshape(self._units.normalize_observations(self._begin(np.arange(len(self._episodes)))))

    def step(self, actions: np.ndarray) -> Outcome:
        """One step with actions [M, n, action_size] in [-1, 1]; an episode that ends is followed by the next."""
        size = len(self._episodes)
        rows = np.arange(size)
        actions = self._units.denormalize_actions(actions.reshape(size, -1))
        self._actions[self._lengths, rows] = actions
        next_observations, rewards, terminated, truncated = self._advance(rows, actions)
        self._lengths += 1
        self._returns += rewards
        ended = terminated | truncated
        lengths, returns = self._lengths.copy(), self._returns.copy()
        observations = next_observations
        if ended.any():
            observations = next_observations.copy()
            self._episodes[ended] += 1
            observations[ended] = self._begin(np.flatnonzero(ended))
        return Outcome(
            observations=self._reshape(self._units.normalize_observations(observations)),
            next_observations=self._reshape(self._units.normalize_observations(next_observations)),
            rewards=self._reshape(self._units.scale_rewards(rewards)),
            terminated=self._reshape(terminated),
            ended=self._reshape(ended),
            lengths=self._reshape(lengths),
            returns=self._reshape(returns),
        )

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs."""
        return {
            "episodes": self._episodes.copy(),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "actions": self._actions.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Plays the episodes of a `state` again up to where they were."""
        lengths = np.asarray(state["lengths"])
        self._episodes[:], self._actions[:] = state["episodes"], state["actions"]
        self._begin(np.arange(len(lengths)))
        for step in range(int(lengths.max(initial=0))):
            rows = np.flatnonzero(lengths > step)
            self._advance(rows, self._actions[step, rows])
        self._lengths[:], self._returns[:] = lengths, state["returns"]

    def close(self) -> None:
        """Closes all environments."""
        for _, simulator in self._groups:
            simulator.close()

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        """Begins the current episode of some environments [k]; returns observations [k, observation_size]."""
        self._lengths[rows], self._returns[rows] = 0, 0.0
        observations = np.empty((len(rows), self.observation_size), np.float32)
        for own, simulator in self._groups:
            places, among = _find(rows, own)
            if len(places):
                seeds = [self._seed(row) for row in rows[places]]
                observations[places] = simulator.reset(seeds, among).observations
        return observations

    def _advance(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Steps some environments [k]; returns observations, rewards, terminated and truncated."""
        observations, rewards = np.empty((len(rows), self.observation_size), np.float32), np.empty(len(rows))
        terminated, truncated = np.empty(len(rows), bool), np.empty(len(rows), bool)
        for own, simulator in self._groups:
            places, among = _find(rows, own)
            if len(places):
                step = simulator.step(among, actions[places])
                observations[places], rewards[places] = step.observations, step.rewards
                terminated[places], truncated[places] = step.terminated, step.truncated
        return observations, rewards, terminated, truncated

    def _seed(self, row: int) -> int:
        member, environment = divmod(int(row), self._shape[1])
        entropy = [*self._entropy[member], environment, int(self._episodes[row])]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _reshape(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(*self._shape, *values.shape[1:])


def _find(rows: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `rows` are among the sorted `own`, and their places there."""
    among = np.minimum(np.searchsorted(own, rows), len(own) - 1)
    places = np.flatnonzero(own[among] == rows)
    return places, among[places]


def _check(spec: EnvironmentSpec, simulator: VectorSimulator, first: VectorSimulator) -> None:
    if simulator.max_episode_steps is None:
        raise UserError(f"environment {spec.id} has no time limit; give one as max_episode_steps")
    if not (np.isfinite(simulator.action_low).all() and np.isfinite(simulator.action_high).all()):
        raise UserError(f"environment {spec.id} has actions without bounds; learning online needs bounds")
    sizes = [(one.observation_size, one.action_size) for one in (simulator, first)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"environment {spec.id} has observations and actions of widths {sizes[0]}, another member's of {sizes[1]}; "
            "members that learn together need equal widths"
        )
