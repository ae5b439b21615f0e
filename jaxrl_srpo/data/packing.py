"""From a dataset to the rows that members learn from."""

import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import transform_rewards
from jaxrl_srpo.data.weighting import take_rows, weighted_rows


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
