"""Measures of choices on returns that are made up."""

import numpy as np
import pytest

from experiments.selection import measures

MEANS = np.array([0.0, 1.0, 2.0, 3.0, 4.0])


def test_the_rank_correlation_is_spearmans_and_its_interval_holds_it() -> None:
    found = measures.rank_correlation(MEANS**3, MEANS)
    assert found.value == pytest.approx(1.0)
    scores = np.array([0.0, 2.0, 1.0, 4.0, 3.0])
    found = measures.rank_correlation(scores, MEANS)
    assert found.value == pytest.approx(0.8)
    assert found.low < 0.8 <= found.high
    assert measures.rank_correlation(np.array([np.nan, 3.0, 2.0, 1.0, 0.0]), MEANS).value == pytest.approx(-1.0)


@pytest.mark.parametrize(("scores", "means"), [(MEANS, 0 * MEANS), (0 * MEANS, MEANS), (np.full(5, np.nan), MEANS)])
def test_what_does_not_vary_has_no_rank_correlation(scores: np.ndarray, means: np.ndarray) -> None:
    assert np.isnan(measures.rank_correlation(scores, means)).all()


def test_regret_is_what_the_best_of_the_chosen_lacks() -> None:
    scores = np.array([5.0, 4.0, 3.0, np.nan, np.nan])
    assert [measures.regret(scores, MEANS, k) for k in (1, 2, 3, 5)] == [4.0, 3.0, 2.0, 0.0]
    assert measures.better_half(scores) == [0, 1, 2]


def test_every_way_of_spending_finds_the_best_at_last() -> None:
    returns = MEANS[:, None] + np.random.default_rng(0).normal(0.0, 0.1, (5, 30))
    ways = measures.spendings(returns, {"fqe": MEANS}, episodes=40, at_once=4)
    assert list(ways) == ["uniform", "UCB, one at a time", "UCB, 4 at once", "UCB, better half by fqe"]
    for name, way in ways.items():
        curve = measures.regret_curve(way, MEANS, repeats=3)
        assert curve.shape == (3, 40)
        assert (curve[:, -1] == 0.0).all(), name
        assert way(1) == way(1)


def test_a_mean_has_a_normal_interval() -> None:
    found = measures.mean_interval(np.array([1.0, 3.0] * 50))
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(1.96 * np.std([1.0, 3.0] * 50, ddof=1) / 10)
    assert found.text() == "2.00 [1.80, 2.20]"
