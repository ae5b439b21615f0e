"""Scores of policies that need no environment, each a function of what a policy does in states of the dataset.

P is the number of policies of one dataset, n that of states. Only `value_at_starts` of a Q that was fitted to the
policy estimates what it is worth; the others are cheaper and say less. docs/selecting.md has what each was good for.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

Q = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Observations [n, observation_size] and actions [n, action_size] to values [n]."""

RESAMPLES = 2_000
LEAST_SHARE = 0.5
"""Of the largest effective sample size, below which a policy's fitted Q is not believed."""


class Interval(NamedTuple):
    """A mean and its 95% confidence interval, NaN of a single value."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> Interval:
    """The mean of values [n] and its percentile interval over resampled values."""
    if len(values) < 2 or not np.isfinite(values).all():
        return Interval(float(np.mean(values)), np.nan, np.nan)
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=100, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(np.mean(values)), float(found.low), float(found.high))


def value_at_starts(q: Q, starts: np.ndarray, actions: np.ndarray) -> Interval:
    """Mean of Q(s0, pi(s0)) over the first states of episodes (arXiv 2007.09055, section 3).

    With a Q that was fitted to the policy this is fitted Q evaluation. The interval is over episodes alone: it knows
    how much first states vary, not how wrong Q is.

    Args:
      q: action values.
      starts: [n, observation_size], first states of n episodes.
      actions: [n, action_size], what the policy does there.
    """
    return bootstrap_interval(np.asarray(q(starts, actions), np.float64))


def cloning_distance(actions: np.ndarray, data_actions: np.ndarray) -> float:
    """Mean squared distance of actions [n, action_size] to the dataset's own, over states and dimensions."""
    return float(np.mean((actions - data_actions) ** 2))


def bandwidth(data_actions: np.ndarray) -> float:
    """Scott's rule for a Gaussian kernel on actions [n, action_size]: their mean deviation times n^(-1/(d+4))."""
    n, dimensions = data_actions.shape
    return float(np.std(data_actions, axis=0).mean() * n ** (-1.0 / (dimensions + 4)))


def effective_sample_size(actions: np.ndarray, data_actions: np.ndarray, width: float) -> float:
    """How much of the dataset speaks of a policy, from 1/n to 1 (Kish's (sum w)^2 / (n sum w^2)).

    The weights are those of one step, w = exp(-|pi(s) - a|^2 / (2 width^2)): the importance weights of the policy,
    smeared by a Gaussian kernel (arXiv 1802.06037), up to the density of the data's actions.

    Args:
      actions: [n, action_size], what the policy does.
      data_actions: [n, action_size], what the data did in the same states.
      width: of the kernel, see `bandwidth`.
    """
    logs = -np.sum((actions - data_actions) ** 2, axis=-1, dtype=np.float64) / (2.0 * max(width, 1e-8) ** 2)
    weights = np.exp(logs - logs.max())
    return float(weights.sum() ** 2 / (len(weights) * np.sum(weights**2)))


def supported(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Values [P] of the policies that the dataset speaks of; NaN for the others.

    A Q that is fitted to a policy is a guess where the data never did what the policy does, and the highest of many
    guesses is the wrongest. So only policies with half of the largest effective sample size are taken at their value.

    Args:
      values: of the policies of one dataset.
      sizes: their effective sample sizes.
    """
    return np.where(sizes >= LEAST_SHARE * np.nanmax(sizes), values, np.nan)


def one_step_gain(q: Q, observations: np.ndarray, actions: np.ndarray, data_actions: np.ndarray) -> float:
    """Mean of Q(s, pi(s)) - Q(s, a) over states of the data, for the Q of the data's own policy (arXiv 2106.08909).

    What a policy gains that acts once and leaves the rest to the policy behind the data: no value of the policy, but
    one that needs no Q of its own.
    """
    return float(np.mean(q(observations, actions) - q(observations, data_actions)))
