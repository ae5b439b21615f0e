"""How good a choice is: rank correlation, regret, and bandits that are played again on kept returns."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxrl_srpo.selection.bandit import Bandit, spend

RESAMPLES = 2_000


class Interval(NamedTuple):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """The figure with its interval."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def rank_correlation(scores: np.ndarray, means: np.ndarray, seed: int = 0) -> Interval:
    """Spearman's correlation of scores [P] with true means [P], its interval by resampling policies.

    Policies without a score are left out; NaN where those left all have one score or one mean.
    """
    known = np.isfinite(scores)
    if known.sum() < 2 or min(np.ptp(scores[known]), np.ptp(means[known])) == 0:
        return Interval(np.nan, np.nan, np.nan)
    scores, means, random = scores[known], means[known], np.random.default_rng(seed)
    drawn = random.integers(len(scores), size=(RESAMPLES, len(scores)))
    ranks = [(stats.rankdata(scores[rows]), stats.rankdata(means[rows])) for rows in drawn]
    # A sample of one policy alone has no correlation.
    found = [np.corrcoef(*pair)[0, 1] for pair in ranks if min(map(np.ptp, pair)) > 0]
    value = float(stats.spearmanr(scores, means).statistic)
    return Interval(value, float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975)))


def regret(scores: np.ndarray, means: np.ndarray, k: int) -> float:
    """The best true mean, minus the best among the k policies of the highest scores; those without one come last."""
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    return float(means.max() - means[order[:k]].max())


def uniform(order: Sequence[int], returns: np.ndarray, episodes: int, random: np.random.Generator) -> list[int]:
    """The policy of the highest mean after each episode, where all are played in turn."""
    sums, counts, best = np.zeros(len(returns)), np.zeros(len(returns)), []
    for pull in range(episodes):
        arm = order[pull % len(order)]
        sums[arm] += random.choice(returns[arm])
        counts[arm] += 1
        played = np.flatnonzero(counts)
        best.append(int(played[np.argmax(sums[played] / counts[played])]))
    return best


def bandit(
    arms: Sequence[int], returns: np.ndarray, episodes: int, seed: int, at_once: int, ordered: bool = False
) -> list[int]:
    """The same where UCB decides among `arms` of `returns` [P, E]; their first pulls keep the order if `ordered`."""
    random = np.random.default_rng(seed)

    def play(pulled: Sequence[int]) -> np.ndarray:
        return np.array([random.choice(returns[arms[one]]) for one in pulled])

    chooser = Bandit(len(arms), seed, order=range(len(arms)) if ordered else None)
    return [arms[one] for one in spend(chooser, episodes, play, at_once)]


def better_half(scores: np.ndarray) -> list[int]:
    """The policies of the higher scores, the best first; those without one come last."""
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    return [int(arm) for arm in order[: -(-len(order) // 2)]]


Spending = Callable[[int], list[int]]
"""A seed to the policy chosen after each episode."""


def spendings(returns: np.ndarray, scores: dict[str, np.ndarray], episodes: int, at_once: int) -> dict[str, Spending]:
    """The ways of spending episodes, by what tables call them."""
    everyone = list(range(len(returns)))

    def in_turn(seed: int) -> list[int]:
        random = np.random.default_rng(seed)
        return uniform(random.permutation(len(returns)).tolist(), returns, episodes, random)

    def by_ucb(seed: int, together: int) -> list[int]:
        return bandit(everyone, returns, episodes, seed, together)

    def by_half(seed: int, half: list[int]) -> list[int]:
        return bandit(half, returns, episodes, seed, at_once, ordered=True)

    found: dict[str, Spending] = {
        "uniform": in_turn,
        "UCB, one at a time": functools.partial(by_ucb, together=1),
        f"UCB, {at_once} at once": functools.partial(by_ucb, together=at_once),
    }
    for name, own in scores.items():
        found[f"UCB, better half by {name}"] = functools.partial(by_half, half=better_half(own))
    return found


def regret_curve(spending: Spending, means: np.ndarray, repeats: int) -> np.ndarray:
    """Regret [repeats, episodes] of the policy chosen after each episode."""
    return np.array([means.max() - means[spending(seed)] for seed in range(repeats)])


def mean_interval(values: np.ndarray) -> Interval:
    """The mean of values [n] and its normal 95% interval."""
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return Interval(mean, mean - half, mean + half)
