"""From a dataset to the rows that members learn from."""

from collections.abc import Sequence

import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import transform_rewards
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from jaxrl_srpo.errors import UserError


def needs_order(columns: Sequence[str]) -> bool:
    """Whether a stage with these columns learns from the order of the rows, which weighting undoes."""
    return "steps_left" in columns


def pack_dataset(
    dataset: Dataset,
    *,
    reward_transform: str,
    trajectory_weighting: float = 0.0,
    normalize_observations: bool = False,
    columns: Sequence[str] = (),
) -> np.ndarray:
    """Rows [N, width] float32 as the networks see them; `table.pack` joins several.

    Args:
      dataset: N transitions in the environment's units.
      reward_transform: one of `rewards.TRANSFORMS`.
      trajectory_weighting: inverse temperature by which better episodes come more often; see `weighted_rows`.
      normalize_observations: whether observations get mean 0 and standard deviation 1 over the weighted rows.
      columns: names of `table.COLUMNS`, which follow the transitions in this order.

    Raises:
      UserError: there is no such transform, or a stage needs the order of the rows that weighting undoes.
      DatasetError: the transform does not fit the dataset.
    """
    if trajectory_weighting and needs_order(columns):
        raise UserError(
            f"--trajectory_weighting={trajectory_weighting:g}: {dataset.name} is learned from in the order of its "
            "episodes, which weighting undoes; leave it at 0"
        )
    rewards = transform_rewards(dataset, reward_transform)
    rows = weighted_rows(dataset, trajectory_weighting)
    packed = table.pack_rows(take_rows(dataset, rows), rewards[rows], normalize_observations)
    more = [table.pack_column(dataset, name)[rows] for name in columns]
    return np.concatenate([packed, *more], axis=1) if more else packed
