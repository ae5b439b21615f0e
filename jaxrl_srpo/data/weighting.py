"""Trajectory weighting: a dataset resampled so that its better episodes are seen more often (arXiv 2306.13085)."""

import dataclasses

import numpy as np

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.errors import DatasetError


def weighted_rows(dataset: Dataset, inverse_temperature: float) -> np.ndarray:
    """Rows that resample a dataset by its episodes' returns, as many as it has.

    A transition is weighted by exp(inverse_temperature * g), where g is the return of its episode, 0 for the worst and
    1 for the best ("RW" of the paper, whose alpha is 1 / inverse_temperature). Shares are rounded to whole copies of a
    transition at evenly spaced points of their sum, so nothing here is random.

    Args:
      dataset: N transitions; only rewards and ends of episodes are read.
      inverse_temperature: 0 gives every row once, the larger the more the best episodes prevail. The paper's is 10.

    Returns:
      [N] int64, rows of the dataset in ascending order, repeated or left out.

    Raises:
      DatasetError: a return is not finite.
    """
    if inverse_temperature == 0.0:
        return np.arange(dataset.size)
    lengths = np.diff(np.flatnonzero(dataset.episode_ends), prepend=-1)
    starts = np.cumsum(lengths) - lengths
    returns = np.add.reduceat(dataset.rewards.astype(np.float64), starts)
    if not np.isfinite(returns).all():
        raise DatasetError(f"{dataset.name}: trajectory weighting needs finite returns; {returns.min()} is among them")
    spread = np.ptp(returns)
    ranks = (returns - returns.min()) / spread if spread > 0.0 else np.zeros_like(returns)
    weights = np.repeat(np.exp(inverse_temperature * (ranks - 1.0)), lengths)
    upper = np.cumsum(weights)
    middles = (np.arange(dataset.size) + 0.5) * (upper[-1] / dataset.size)
    return np.searchsorted(upper, middles)


def take_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """A dataset of the transitions `rows` [M]; the `episode_...` fields and the fingerprint stay those of the whole."""
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    return dataclasses.replace(dataset, **{name: getattr(dataset, name)[rows] for name in names})
