"""Whole episodes of policies and of replay buffers, as Minari stores them."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.units import Units
from jaxrl_srpo.envs.episodes import MemberEnvironments
from jaxrl_srpo.envs.make import make_unflattened
from jaxrl_srpo.errors import UserError

StepPolicy = Callable[[np.ndarray, int], np.ndarray]
"""Observations [n, observation_size] float32 and the number of the step to actions [n, action_size] in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment with vector observations, and the facts that playing it needs.

    Attributes:
      environment: its spec.
      action_low, action_high: [action_size] float32 bounds of its actions.
      observation_type: number type of its observations.
      max_episode_steps: its time limit.
    """

    environment: EnvironmentSpec
    action_low: np.ndarray
    action_high: np.ndarray
    observation_type: np.dtype
    max_episode_steps: int

    @property
    def units(self) -> Units:
        """Policies act in [-1, 1]; observations and rewards are the environment's own."""
        return Units(action_low=self.action_low, action_high=self.action_high)


class Transitions(NamedTuple):
    """T transitions in the order in which they were played.

    Attributes:
      observations: [T, observation_size] float32.
      actions: [T, action_size] in [-1, 1].
      rewards: [T].
      next_observations: [T, observation_size].
      terminations: [T] bool.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminations: np.ndarray


@dataclasses.dataclass(frozen=True)
class RecordedEpisode:
    """The fields of Minari's `EpisodeBuffer` for T steps.

    Attributes:
      observations: [T + 1, observation_size].
      actions: [T, action_size] float32, in the environment's units.
      rewards: [T] float64.
      terminations: [T] bool.
      truncations: [T] bool; the last is set where the time limit ended the episode. An episode that was under way when
        its buffer ended has neither flag.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray

    def fields(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))


def find_task(environment: EnvironmentSpec) -> Task:
    """An environment as a `Task`.

    Raises:
      UserError: it cannot be made, has no time limit, or its observations or actions are not vectors.
    """
    made = make_unflattened(environment)
    observations, actions, limit = made.observation_space, made.action_space, made.spec and made.spec.max_episode_steps
    made.close()
    for what, space in (("observations", observations), ("actions", actions)):
        if space.shape is None or len(space.shape) != 1:
            raise UserError(f"environment {environment.id} has {what} {space}; expected a box with one axis")
    if not limit:
        raise UserError(f"environment {environment.id} has no time limit; give one as max_episode_steps")
    assert observations.dtype is not None
    bounds: Any = actions
    return Task(environment, bounds.low, bounds.high, np.dtype(observations.dtype), limit)


def play(task: Task, act: StepPolicy, environments: int, steps: int, entropy: Sequence[int]) -> list[RecordedEpisode]:
    """Plays whole episodes, in each environment until they have `steps` steps.

    Which episodes are kept does not depend on how long those of other environments take, so that short ones are not
    preferred.

    Args:
      task: where.
      act: acts in all environments.
      environments: n, stepped together.
      steps: least number per environment; 1 gives one episode of each.
      entropy: seeds the starts.
    """
    simulator = MemberEnvironments([task.environment], [Units()], [entropy], environments)
    observations, played = simulator.reset()[0], np.zeros(environments, np.int64)
    history: list[Transitions] = []
    ends: list[np.ndarray] = []
    while played.min() < steps:
        actions = np.asarray(act(observations, len(history)))
        outcome = simulator.step(actions[None])
        came = (outcome.rewards[0], outcome.next_observations[0], outcome.terminated[0])
        history.append(Transitions(observations, actions, *came))
        ends.append(outcome.ended[0])
        observations, played[outcome.ended[0]] = outcome.observations[0], len(history)
    simulator.close()
    columns, ended = Transitions(*map(np.stack, zip(*history, strict=True))), np.stack(ends)
    return [episode for i in range(environments) for episode in _first(task, columns, ended, i, steps)]


def _first(task: Task, columns: Transitions, ended: np.ndarray, environment: int, steps: int) -> list[RecordedEpisode]:
    """The first episodes of one environment that have `steps` steps together; columns are [T, n, ...]."""
    ends = np.flatnonzero(ended[:, environment])
    own = Transitions(*(column[:, environment] for column in columns))
    return cut(task, own, ends[: np.searchsorted(ends + 1, steps) + 1])


def cut(task: Task, transitions: Transitions, ends: np.ndarray) -> list[RecordedEpisode]:
    """The episodes whose last transitions are at `ends`, ascending."""
    bounds = itertools.pairwise([0, *(ends + 1).tolist()])
    return [_episode(task, transitions, start, stop) for start, stop in bounds]


def find_ends(transitions: Transitions) -> np.ndarray:
    """Where the episodes of a replay buffer end: by termination, by a new start, or with the buffer."""
    ended = transitions.terminations.copy()
    ended[:-1] |= (transitions.next_observations[:-1] != transitions.observations[1:]).any(axis=1)
    ended[-1] = True
    return np.flatnonzero(ended)


def mean_return(episodes: Sequence[RecordedEpisode]) -> float:
    """Mean undiscounted return."""
    return float(np.mean([episode.rewards.sum() for episode in episodes]))


def _episode(task: Task, transitions: Transitions, start: int, stop: int) -> RecordedEpisode:
    observations = np.concatenate(
        [transitions.observations[start:stop], transitions.next_observations[stop - 1 : stop]]
    )
    terminations = transitions.terminations[start:stop]
    truncations = np.zeros(stop - start, bool)
    truncations[-1] = not terminations[-1] and stop - start == task.max_episode_steps
    return RecordedEpisode(
        observations.astype(task.observation_type),
        task.units.denormalize_actions(transitions.actions[start:stop]).astype(np.float32),
        transitions.rewards[start:stop].astype(np.float64),
        terminations,
        truncations,
    )
