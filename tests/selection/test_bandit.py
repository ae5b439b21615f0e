"""The bandit against plain UCB1, and on arms whose means are known."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from jaxrl_srpo.selection.bandit import Bandit, spend

MEANS = np.linspace(0.1, 0.9, 9)


def bernoulli(seed: int) -> Callable[[Sequence[int]], np.ndarray]:
    random = np.random.default_rng(seed)
    return lambda arms: (random.random(len(arms)) < MEANS[list(arms)]).astype(np.float64)


def gaussian(seed: int) -> Callable[[Sequence[int]], np.ndarray]:
    random = np.random.default_rng(seed)
    return lambda arms: 1000.0 * MEANS[list(arms)] + 100.0 * random.normal(size=len(arms))


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("play_of", [bernoulli, gaussian])
def test_regret_falls(play_of: Callable[[int], Callable[[Sequence[int]], np.ndarray]], at_once: int) -> None:
    best = np.array([spend(Bandit(9, seed), 300, play_of(seed), at_once) for seed in range(10)])
    regret = (MEANS.max() - MEANS[best]).mean(0)
    assert regret[8] > regret[299]
    assert regret[299] < 0.06


def test_one_seed_gives_the_same_pulls() -> None:
    def pulls(seed: int) -> list[int]:
        bandit, arms = Bandit(9, seed), list[int]()
        play = bernoulli(0)

        def recorded(chosen: Sequence[int]) -> np.ndarray:
            arms.extend(chosen)
            return play(chosen)

        spend(bandit, 60, recorded, 4)
        return arms

    assert pulls(3) == pulls(3)
    assert pulls(3) != pulls(4)


def test_pulls_that_come_one_at_a_time_are_plain_ucb1() -> None:
    bandit, random = Bandit(5, order=range(5)), np.random.default_rng(0)
    returns: list[list[float]] = [[] for _ in range(5)]
    for pull in range(80):
        if pull < 5:
            expected = pull
        else:
            spread = np.std([one for own in returns for one in own])
            index = [np.mean(own) + spread * math.sqrt(2.0 * math.log(pull) / len(own)) for own in returns]
            expected = int(np.argmax(index))
        (arm,) = bandit.next(1)
        assert arm == expected, pull
        value = float(arm + 3.0 * random.normal())
        returns[arm].append(value)
        bandit.add(arm, value)
    assert bandit.best == int(np.argmax([np.mean(own) for own in returns]))
    assert bandit.pulls.tolist() == [len(own) for own in returns]


def test_a_round_begins_with_every_policy_once_and_counts_what_is_under_way() -> None:
    bandit = Bandit(3, order=[2, 0, 1])
    assert bandit.next(3) == [2, 0, 1]
    for arm, value in ((0, 1.0), (1, 1.0), (2, 0.9)):
        bandit.add(arm, value)
    # The bonus of what is under way shrinks, so that those of equal means have their turns.
    assert sorted(bandit.next(6)).count(0) == 3


def test_more_pulls_at_once_than_policies_wait_for_a_first_return() -> None:
    assert sorted(Bandit(2, order=[0, 1]).next(4)) == [0, 0, 1, 1]
    best = spend(Bandit(2, order=[0, 1]), 5, lambda arms: np.array(arms, np.float64), at_once=5)
    assert best[-1] == 1


def test_a_return_that_is_not_finite_counts_as_the_worst() -> None:
    bandit = Bandit(2, order=[0, 1])
    bandit.next(2)
    bandit.add(0, -5.0)
    bandit.add(1, math.nan)
    assert bandit.means.tolist() == [-5.0, -5.0]
