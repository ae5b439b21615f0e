"""Facts of a dataset that a run directory keeps: enough to evaluate and load policies without the data."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_srpo.data import ogbench_tasks
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns, WrapperSpec
from jaxrl_srpo.data.rewards import reward_scale_and_shift
from jaxrl_srpo.data.units import Units, measure_units
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.typed import build, require


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """A dataset's entry in `sweep.json`; numbers and lists only, so that it survives JSON.

    Attributes:
      name: what tables call it.
      source: where it was read from.
      transitions: their number.
      episodes: number of complete episodes.
      fingerprint: of the transitions; see `Dataset`.
      family: see `Dataset`.
      observation_size: width of one observation.
      action_size: width of one action.
      action_low: [action_size] lower bounds of the actions.
      action_high: [action_size] upper bounds.
      observation_mean: [observation_size], 0 where observations are not normalized.
      observation_std: [observation_size], 1 where observations are not normalized.
      reward_transform: name of the reward transform.
      metric: that of `ReferenceReturns`, `success_rate` or `return`.
      data_mean: mean over the dataset's episodes, in `metric`.
      data_std: standard deviation over the dataset's episodes, in `metric`.
      return_mean: mean undiscounted return of the episodes.
      environment: where policies are evaluated, see `EnvironmentSpec.to_json`; None if unknown.
      reference: `random` and `expert` returns; None if there are none.
      data_success_rate: share of successful episodes; None where it is no goal task.
      given: the name or absolute path by which any worker loads the data; None if it was not loaded by name.
      reward_scale: factor of rewards that come later, as the transform says.
      reward_shift: added after scaling.
      observation_keys: entries of dictionary observations that make a vector; empty if they were vectors.
      longest_episode: steps of the longest episode; 0 where an earlier version did not keep it.
      inputs_fingerprint: see `Dataset`.
      kept_episodes: number of episodes that transitions were kept of; 0 where an earlier version did not keep it.
    """

    name: str
    source: str
    transitions: int
    episodes: int
    fingerprint: str
    family: str
    observation_size: int
    action_size: int
    action_low: list[float]
    action_high: list[float]
    observation_mean: list[float]
    observation_std: list[float]
    reward_transform: str
    metric: str
    data_mean: float
    data_std: float
    return_mean: float
    environment: dict[str, Any] | None
    reference: dict[str, Any] | None
    data_success_rate: float | None = None
    given: str | None = None
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    observation_keys: list[str] = dataclasses.field(default_factory=list)
    longest_episode: int = 0
    inputs_fingerprint: str = ""
    kept_episodes: int = 0

    @property
    def units(self) -> Units:
        """The units in which policies see the environment and learners are paid."""
        return Units(
            np.asarray(self.observation_mean, np.float32),
            np.asarray(self.observation_std, np.float32),
            self.reward_scale,
            self.reward_shift,
            np.asarray(self.action_low, np.float32),
            np.asarray(self.action_high, np.float32),
        )

    @property
    def environment_spec(self) -> EnvironmentSpec | None:
        """Where its policies are evaluated; None if unknown."""
        return None if self.environment is None else EnvironmentSpec.from_json(self.environment)

    @property
    def reference_returns(self) -> ReferenceReturns | None:
        """Reference returns; None if there are none."""
        return None if self.reference is None else ReferenceReturns(**self.reference)


def facts_from_json(value: Any, where: str) -> DatasetFacts:
    """The facts that a JSON object holds.

    Args:
      value: what `dataclasses.asdict` gives of facts.
      where: what messages call its place.

    Raises:
      UserError: it holds something else.
    """
    facts = build(DatasetFacts, value, where)
    if facts.environment is not None:
        require_environment(facts.environment, f"{where}: 'environment'")
    if facts.reference is not None:
        build(ReferenceReturns, facts.reference, f"{where}: 'reference'")
    sizes = {"observation": facts.observation_size, "action": facts.action_size}
    for name, lists in _LISTS.items():
        if not 1 <= sizes[name] <= _LARGEST_SIZE or any(len(getattr(facts, one)) != sizes[name] for one in lists):
            raise UserError(f"{where}: its {name} sizes do not agree; restore the file or train again")
    return facts


def require_environment(value: Mapping[str, Any], where: str) -> None:
    """Looks whether a JSON object is one of `EnvironmentSpec.to_json`."""
    require(value.get("observation_keys", []), list[str], f"{where}: 'observation_keys'")
    require(value.get("wrappers", []), list[Any], f"{where}: 'wrappers'")
    for wrapper in value.get("wrappers", []):
        build(WrapperSpec, wrapper, f"{where}: 'wrappers'")
    build(EnvironmentSpec, {k: v for k, v in value.items() if k not in ("observation_keys", "wrappers")}, where)


_LISTS = {
    "observation": ("observation_mean", "observation_std"),
    "action": ("action_low", "action_high"),
}
_LARGEST_SIZE = 10**6


def dataset_facts(
    dataset: Dataset,
    *,
    reward_transform: str,
    trajectory_weighting: float = 0.0,
    normalize_observations: bool = False,
    given: str | None = None,
) -> DatasetFacts:
    """The facts of a dataset for members that learn from `packing.pack_dataset` of the same arguments.

    Args:
      dataset: the dataset, read and validated.
      reward_transform: one of `rewards.TRANSFORMS`.
      trajectory_weighting: see `packing.pack_dataset`.
      normalize_observations: see `packing.pack_dataset`.
      given: the name or path that the command named; a path is made absolute.
    """
    returns = dataset.episode_returns
    weighted = take_rows(dataset, weighted_rows(dataset, trajectory_weighting))
    units = measure_units(weighted, normalize_observations=normalize_observations)
    scale, shift = reward_scale_and_shift(dataset, reward_transform)
    goal_task = dataset.environment is not None and dataset.environment.goal_task
    successes = _successes(dataset) if goal_task else None
    if dataset.reference is not None:
        metric, values = dataset.reference.metric, dataset.reference.normalize(returns)
    elif successes is not None:
        metric, values = "success_rate", successes
    else:
        metric, values = "return", returns
    return DatasetFacts(
        name=dataset.name,
        source=dataset.source,
        transitions=dataset.size,
        episodes=len(returns),
        fingerprint=dataset.fingerprint,
        family=dataset.family,
        observation_size=dataset.observation_size,
        action_size=dataset.action_size,
        action_low=dataset.action_low.tolist(),
        action_high=dataset.action_high.tolist(),
        observation_mean=np.asarray(units.observation_mean).tolist(),
        observation_std=np.asarray(units.observation_std).tolist(),
        reward_transform=reward_transform,
        reward_scale=scale,
        reward_shift=shift,
        metric=metric,
        data_mean=float(np.mean(values)),
        data_std=float(np.std(values)),
        return_mean=float(np.mean(returns)),
        environment=None if dataset.environment is None else dataset.environment.to_json(),
        reference=None if dataset.reference is None else dataclasses.asdict(dataset.reference),
        data_success_rate=None if successes is None else float(np.mean(successes)),
        observation_keys=list(dataset.observation_keys),
        longest_episode=int(dataset.episode_lengths.max(initial=0)),
        given=os.path.abspath(given) if given is not None and _is_path(given) else given,
        inputs_fingerprint=dataset.inputs_fingerprint,
        kept_episodes=dataset.episodes,
    )


def _is_path(given: str) -> bool:
    """Whether a name is one of a file, that of a task of OGBench in some folder included."""
    return os.path.isfile(given) or ("/" in given and ogbench_tasks.parse(os.path.basename(given)) is not None)


def _successes(dataset: Dataset) -> np.ndarray:
    """[E] float64, 1 for the episodes that reached the goal."""
    if dataset.family != "ogbench":
        return (dataset.episode_returns > 0).astype(np.float64)
    # Rewards of 0 and below; a terminal row is a state that solves the task.
    starts = np.append(0, np.flatnonzero(dataset.episode_ends)[:-1] + 1)
    return np.logical_or.reduceat(dataset.terminals, starts).astype(np.float64)
