"""Scores on arrays whose answers are known."""

import numpy as np
import pytest

from jaxrl_srpo.selection import scores

RANDOM = np.random.default_rng(0)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        found = scores.bootstrap_interval(np.random.default_rng(seed).normal(2.0, 1.0, 50), seed)
        assert found.low < found.mean < found.high
        covered += found.low < 2.0 < found.high
    assert 50 <= covered <= 60


def test_a_single_value_and_one_that_is_not_finite_have_no_interval() -> None:
    assert np.isnan(scores.bootstrap_interval(np.array([1.0])).low)
    assert np.isnan(scores.bootstrap_interval(np.array([1.0, np.nan, 2.0])).high)


def test_the_value_is_that_at_the_first_states() -> None:
    starts, actions = np.array([[1.0], [3.0]]), np.array([[0.5], [0.5]])
    found = scores.value_at_starts(lambda s, a: s[:, 0] * a[:, 0], starts, actions)
    assert found.mean == 1.0
    assert (found.low, found.high) == (0.5, 1.5)


def test_the_cloning_distance_is_a_mean_over_states_and_dimensions() -> None:
    assert scores.cloning_distance(np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 1.0]])) == 0.5


def test_the_effective_sample_size_is_all_of_the_data_for_its_own_actions_and_little_for_others() -> None:
    data = RANDOM.normal(0.0, 0.3, (500, 2))
    width = scores.bandwidth(data)
    assert width == pytest.approx(data.std(0).mean() * 500 ** (-1 / 6))
    assert scores.effective_sample_size(data, data, width) == pytest.approx(1.0)
    near, far = (scores.effective_sample_size(np.full((500, 2), at), data, width) for at in (0.0, 1.0))
    assert 1.0 > near > far >= 1.0 / 500
    # So far off that all weights vanish in float64, but for their ratios.
    assert scores.effective_sample_size(np.full((500, 2), 1e4), data, width) == pytest.approx(1 / 500, rel=0.5)


def test_a_value_is_believed_where_the_data_speak_of_the_policy() -> None:
    found = scores.supported(np.array([5.0, 1.0, 2.0]), np.array([0.1, 0.4, 0.2]))
    np.testing.assert_array_equal(found, [np.nan, 1.0, 2.0])


def test_the_gain_of_one_step_is_against_the_datas_own_actions() -> None:
    states, actions, data = np.ones((3, 1)), np.full((3, 1), 0.5), np.array([[0.0], [0.1], [0.2]])
    gain = scores.one_step_gain(lambda s, a: (s * a)[:, 0], states, actions, data)
    assert gain == pytest.approx(0.4)
    assert scores.one_step_gain(lambda s, a: (s * a)[:, 0], states, data, data) == 0.0
