"""A bandit over policies: which of them to play next, and which is the best so far.

The protocol is that of Unifloral (arXiv 2504.11453, section 4): a pull is one episode of one policy, UCB says of which,
and at any time the policy of the highest mean is the one chosen. Several pulls may be under way at once: each of them
counts at once, and its return when it is there, so that a round does not pull one policy only (as GP-BUCB does,
arXiv 1206.6402).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

PULLS_AT_ONCE = 8


class Bandit:
    """UCB1 (Auer et al. 2002) for returns of unknown scale.

    A policy's index is its mean return plus scale * sqrt(exploration * log(t) / n) after n of t pulls. The scale is the
    standard deviation of all returns so far: of policies of equal worth that of their episodes, and more where the
    policies differ.

    Args:
      arms: number of policies.
      seed: decides between policies of equal index.
      exploration: 2 in UCB1, whose returns lie between 0 and 1; the deviation of returns is a smaller scale.
      order: policies in the order of their first pulls; by the seed by default.
    """

    def __init__(self, arms: int, seed: int = 0, exploration: float = 2.0, order: Sequence[int] | None = None) -> None:
        self._random = np.random.default_rng(seed)
        self._order = list(self._random.permutation(arms) if order is None else order)
        self._exploration = exploration
        self._returns: list[list[float]] = [[] for _ in range(arms)]
        self._started = np.zeros(arms, np.int64)

    @property
    def pulls(self) -> np.ndarray:
        """Pulls of each policy that have their return, [arms]."""
        return np.array([len(own) for own in self._returns])

    @property
    def means(self) -> np.ndarray:
        """Mean return of each policy, [arms]; NaN before its first."""
        return np.array([np.mean(own) if own else np.nan for own in self._returns])

    @property
    def best(self) -> int:
        """The policy of the highest mean so far; the earlier one of equal means.

        Raises:
          ValueError: there is no return yet.
        """
        return int(np.nanargmax(self.means))

    def next(self, count: int) -> list[int]:
        """The policies of the next `count` pulls, which are under way from now on."""
        return [self._start() for _ in range(count)]

    def add(self, arm: int, value: float) -> None:
        """Takes the return of a pull; one that is not finite, of a policy that failed, counts as the worst so far."""
        known = [one for own in self._returns for one in own]
        self._returns[arm].append(value if math.isfinite(value) else min(known, default=0.0))

    def _start(self) -> int:
        arm = next((arm for arm in self._order if self._started[arm] == 0), None)
        if arm is None:
            arm = self._highest()
        self._started[arm] += 1
        return arm

    def _highest(self) -> int:
        """The policy of the highest index; those without a return wait for it, unless all do."""
        returns = [one for own in self._returns for one in own]
        spread = float(np.std(returns)) if returns else 0.0
        bonus = np.sqrt(self._exploration * math.log(self._started.sum()) / self._started)
        index = np.where(np.isnan(self.means), -np.inf, self.means + spread * bonus) if returns else bonus
        return int(self._random.choice(np.flatnonzero(index == index.max())))


def spend(
    bandit: Bandit, episodes: int, play: Callable[[Sequence[int]], np.ndarray], at_once: int = PULLS_AT_ONCE
) -> list[int]:
    """Spends episodes round by round.

    Args:
      bandit: what chooses.
      episodes: to spend in all.
      play: gives the returns [n] of an episode each of n policies, a policy perhaps several times.
      at_once: most pulls of a round; 1 is plain UCB.

    Returns:
      The policy that was the best after each episode, [episodes].
    """
    best: list[int] = []
    while len(best) < episodes:
        arms = bandit.next(min(at_once, episodes - len(best)))
        for arm, value in zip(arms, play(arms), strict=True):
            bandit.add(arm, float(value))
            best.append(bandit.best)
    return best
