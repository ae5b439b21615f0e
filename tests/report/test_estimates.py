"""Aggregates whose values are known."""

import numpy as np
import pytest

from jaxrl_srpo.report.estimates import Estimate, estimate, interquartile_mean, mean_of_means


def test_the_interquartile_mean_is_of_the_middle_half_of_all_runs() -> None:
    samples = [np.array([1.0, 2.0, 30.0, 40.0]), np.array([3.0, 4.0, 50.0, 60.0])]
    assert interquartile_mean(*samples) == pytest.approx((3 + 4 + 30 + 40) / 4)
    assert mean_of_means(*samples) == pytest.approx((73 / 4 + 117 / 4) / 2)


def test_an_interval_needs_two_seeds_of_every_dataset() -> None:
    lone = estimate(mean_of_means, [np.array([1.0, 3.0]), np.array([5.0])])
    assert lone.value == pytest.approx(3.5)
    assert np.isnan(lone.low)
    assert lone.text() == "3.5"
    found = estimate(mean_of_means, [np.array([1.0, 3.0])])
    # Of two seeds drawn twice, both are the lower one, or the higher one, in a quarter of the draws.
    assert found == Estimate(2.0, 1.0, 3.0)
    assert found.text() == "2.0 [1.0, 3.0]"
