"""Datasets in memory: validated transitions, and the facts about their source."""

import dataclasses
import importlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class WrapperSpec:
    """A Gymnasium wrapper under which data were recorded.

    Attributes:
      name: of a class of `gymnasium.wrappers`; `package.module:Class` for any other, which is never imported.
      kwargs: keyword arguments, JSON-serializable; None where the recording does not tell them.
    """

    name: str
    kwargs: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class EnvironmentSpec:
    """A Gymnasium environment by name, without importing Gymnasium.

    Attributes:
      id: Gymnasium id, for instance `Hopper-v4`.
      kwargs: keyword arguments of `gymnasium.make`, JSON-serializable.
      max_episode_steps: time limit in steps; None leaves the environment's own.
      goal_task: whether an episode counts as a success when it terminates or reports `info["success"]`.
      wrappers: around the environment, innermost first.
      observation_keys: entries of its dictionary observations that make a vector, see `data.observations`; empty where
        it has vectors, or where the environment itself decides.
    """

    id: str
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    max_episode_steps: int | None = None
    goal_task: bool = False
    wrappers: tuple[WrapperSpec, ...] = ()
    observation_keys: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object."""
        # Addresses of results are made of it, so that what came later is left out where there is none of it.
        values = dataclasses.asdict(self)
        later = {name: list(values.pop(name)) for name in ("wrappers", "observation_keys")}
        return values | {name: value for name, value in later.items() if value}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "EnvironmentSpec":
        """The inverse of `to_json`."""
        wrappers = tuple(WrapperSpec(**wrapper) for wrapper in value.get("wrappers", ()))
        keys = tuple(value.get("observation_keys", ()))
        return cls(**{**value, "wrappers": wrappers, "observation_keys": keys})


@dataclasses.dataclass(frozen=True)
class ReferenceReturns:
    """Returns of a random and of an expert policy; D4RL's score is 100 (R - random) / (expert - random).

    Attributes:
      random: return that scores 0.
      expert: return that scores 100.
      other_version: whether they are of another version of the environment than policies are evaluated in.
    """

    random: float
    expert: float
    other_version: bool = False

    @property
    def metric(self) -> str:
        """What scores by them are called in tables and files."""
        return "normalized_score_other_version" if self.other_version else "normalized_score"

    def normalize(self, returns: np.ndarray) -> np.ndarray:
        """D4RL-normalized scores, 0 for random and 100 for expert, of undiscounted returns of any shape."""
        return 100.0 * (np.asarray(returns) - self.random) / (self.expert - self.random)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Transitions (s, a, r, s', terminal) of N steps, in the order of the file.

    Attributes:
      name: what tables call it, for instance `hopper-medium-v2`, `pointmaze/umaze` or a file's stem.
      source: where it was read from (a path or a Minari id, or that it was arrays), for messages.
      observations: [N, observation_size] float32.
      actions: [N, action_size] float32, in the environment's units.
      rewards: [N] float32, untransformed.
      next_observations: [N, observation_size] float32.
      terminals: [N] bool, rows whose s' is not bootstrapped from: true terminations, and in OGBench states that solve
        the task, though the episode goes on there.
      episode_ends: [N] bool, the last transition kept of each episode.
      episode_returns: [E] float64, undiscounted, over all steps of the file (dropped ones included).
      episode_lengths: [E] int64, likewise.
      timeouts: number of episodes of the file that ended by a time limit.
      action_low: [action_size] float32, lower bound of the actions.
      action_high: [action_size] float32, upper bound.
      fingerprint: SHA-256 in hex of the transitions' bytes; equal fingerprints mean equal training data.
      family: `locomotion`, `antmaze`, `pointmaze`, `adroit`, `kitchen`, `ogbench` or `other`; presets and rewards go by
        it.
      environment: where policies learned from it are evaluated; None if unknown.
      reference: D4RL's or Minari's reference returns; None if there are none.
      observation_keys: entries of dictionary observations, in the order of the vectors; empty if they were vectors.
      warnings: what is doubtful in it, a line each.
      inputs_fingerprint: SHA-256 in hex of all but rewards and terminals; datasets of equal ones share the results of
        stages that read neither. Empty for a dataset of its own.
    """

    name: str
    source: str
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray
    episode_ends: np.ndarray
    episode_returns: np.ndarray
    episode_lengths: np.ndarray
    timeouts: int
    action_low: np.ndarray
    action_high: np.ndarray
    fingerprint: str
    family: str = "other"
    environment: EnvironmentSpec | None = None
    reference: ReferenceReturns | None = None
    observation_keys: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    inputs_fingerprint: str = ""

    @classmethod
    def from_arrays(
        cls,
        *,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        terminals: ArrayLike,
        timeouts: ArrayLike | None = None,
        next_observations: ArrayLike | None = None,
        action_low: ArrayLike | None = None,
        action_high: ArrayLike | None = None,
        name: str = "arrays",
        env: str | None = None,
        env_time_limit: int | None = None,
        allow_invalid: bool = False,
        drop_reset_rows: bool = False,
    ) -> "Dataset":
        """A dataset of arrays with one row per step, checked and read as an HDF5 file of the same columns.

        Rows are in the order of time, one episode after another. Rows that a time limit ends and the last row become no
        transitions, as in D4RL, and the arrays are copied. docs/data.md has conversions of replay buffers.

        Args:
          observations: [N, n] real numbers.
          actions: [N, m] floats, in the environment's units.
          rewards: [N].
          terminals: [N], 1 where the environment terminated.
          timeouts: [N], 1 where an episode ended otherwise; None where a termination ends each.
          next_observations: [N, n]; None takes the next row's observation.
          action_low: lower bounds of the actions, a number or [m]; both bounds or none.
          action_high: upper bounds likewise.
          name: what tables call it.
          env: Gymnasium id of the environment in which policies are evaluated.
          env_time_limit: time limit of `env` in steps, by which episodes end where there are no `timeouts`.
          allow_invalid: log what validation finds instead of raising.
          drop_reset_rows: leave out rows that are resets of a vector environment and no transitions.

        Raises:
          DatasetError: one line with the field and the row that are not as they must be.
        """
        # What makes datasets imports this module, which therefore imports it late.
        arrays = importlib.import_module("jaxrl_srpo.data.arrays")
        made: Dataset = arrays.dataset_from_arrays(
            observations=observations,
            actions=actions,
            rewards=rewards,
            terminals=terminals,
            timeouts=timeouts,
            next_observations=next_observations,
            action_low=action_low,
            action_high=action_high,
            name=name,
            env=env,
            env_time_limit=env_time_limit,
            allow_invalid=allow_invalid,
            drop_reset_rows=drop_reset_rows,
        )
        return made

    @property
    def size(self) -> int:
        """Number of transitions N."""
        return len(self.observations)

    @property
    def episodes(self) -> int:
        """Number of episodes that transitions were kept of, incomplete ones included."""
        return int(self.episode_ends.sum())

    @property
    def observation_size(self) -> int:
        """Width of one observation."""
        return self.observations.shape[1]

    @property
    def action_size(self) -> int:
        """Width of one action."""
        return self.actions.shape[1]

    @property
    def goes_on_after_terminals(self) -> bool:
        """Whether some terminal rows end no episode, so that episodes must not be counted by them."""
        return bool((self.terminals & ~self.episode_ends).any())
