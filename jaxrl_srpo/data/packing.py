"""From a dataset to the rows that members learn from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import transform_rewards
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from jaxrl_srpo.errors import UserError


def needs_order(columns: Sequence[str]) -> bool:
    """Whether a stage with these columns learns from the order of the rows, which weighting undoes."""
    return "steps_left" in columns


class PackedDataset(NamedTuple):
    """A dataset as the networks see it.

    Attributes:
      rows: [N, 2 observation_size + action_size + 2] float32.
      further: columns by name, each [N, width] float32.
    """

    rows: np.ndarray
    further: Mapping[str, np.ndarray]

    def with_columns(self, names: Sequence[str]) -> np.ndarray:
        """Rows with further columns in this order; the rows themselves where there are none."""
        return np.concatenate([self.rows, *(self.further[name] for name in names)], axis=1) if names else self.rows


def pack_dataset(
    dataset: Dataset,
    *,
    reward_transform: str,
    trajectory_weighting: float = 0.0,
    normalize_observations: bool = False,
) -> np.ndarray:
    """Rows [N, 2 observation_size + action_size + 2] float32 as the networks see them; `table.pack` joins several.

    Args:
      dataset: N transitions in the environment's units.
      reward_transform: one of `rewards.TRANSFORMS`.
      trajectory_weighting: inverse temperature by which better episodes come more often; see `weighted_rows`.
      normalize_observations: whether observations get mean 0 and standard deviation 1 over the weighted rows.

    Raises:
      UserError: there is no such transform.
      DatasetError: the transform does not fit the dataset.
    """
    rewards = transform_rewards(dataset, reward_transform)
    rows = weighted_rows(dataset, trajectory_weighting)
    return table.pack_rows(take_rows(dataset, rows), rewards[rows], normalize_observations)


def pack_with_columns(
    dataset: Dataset,
    columns: Iterable[str],
    *,
    reward_transform: str,
    trajectory_weighting: float = 0.0,
    normalize_observations: bool = False,
) -> PackedDataset:
    """The rows of `pack_dataset`, and further columns of the same transitions.

    Args:
      dataset: as in `pack_dataset`, like the others.
      columns: names of `table.COLUMNS`.
      reward_transform: see `pack_dataset`.
      trajectory_weighting: see `pack_dataset`.
      normalize_observations: see `pack_dataset`.

    Raises:
      UserError: also where a stage needs the order of the rows that weighting undoes.
      DatasetError: as `pack_dataset`.
    """
    names = tuple(columns)
    if trajectory_weighting and needs_order(names):
        raise UserError(
            f"--trajectory_weighting={trajectory_weighting:g}: {dataset.name} is learned from in the order of its "
            "episodes, which weighting undoes; leave it at 0"
        )
    packed = pack_dataset(
        dataset,
        reward_transform=reward_transform,
        trajectory_weighting=trajectory_weighting,
        normalize_observations=normalize_observations,
    )
    rows = weighted_rows(dataset, trajectory_weighting) if names else None
    return PackedDataset(packed, {name: table.pack_column(dataset, name)[rows] for name in names})
