"""Aggregates over the seeds of several datasets, with their uncertainty.

They follow Agarwal et al. (arXiv 2108.13264): the interquartile mean over all runs of a group of datasets, and 95%
percentile intervals of a bootstrap stratified by dataset. SciPy's bootstrap of several samples, each resampled on its
own, is exactly that.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 5_000


class Estimate(NamedTuple):
    """A number and its 95% confidence interval, NaN where a dataset has a single seed."""

    value: float
    low: float
    high: float

    def text(self) -> str:
        """The number and, where there is one, its interval."""
        spread = "" if np.isnan(self.low) else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.value:.1f}{spread}"


def interquartile_mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of the runs of all datasets, without the lowest and the highest quarter."""
    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def mean_of_means(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Over runs, every dataset counting alike."""
    return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)


def estimate(statistic: Any, samples: Sequence[np.ndarray]) -> Estimate:
    """The statistic and its interval, by a bootstrap that resamples the seeds of every dataset on its own.

    Args:
      statistic: `interquartile_mean` or `mean_of_means`.
      samples: the scores of the seeds [seeds] of each dataset.
    """
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Estimate(value, np.nan, np.nan)
    found = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=np.random.default_rng(0)
    )
    interval = found.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))
