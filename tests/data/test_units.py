"""Units there and back, against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.data.units import Units, measure_units, stack
from tests.data.arrays import random_dataset

BOUNDS = st.tuples(st.floats(-100.0, 100.0, width=32), st.floats(0.125, 100.0, width=32))


def test_by_default_nothing_changes() -> None:
    units, values = Units(), np.random.default_rng(0).uniform(-1.0, 1.0, (5, 3)).astype(np.float32)
    for convert in (units.normalize_observations, units.normalize_actions, units.scale_rewards):
        np.testing.assert_array_equal(convert(values), values)
    np.testing.assert_allclose(units.denormalize_actions(values), values, atol=1e-7)


def test_by_hand() -> None:
    low, high = np.array([-2.0, 0.0], np.float32), np.array([6.0, 1.0], np.float32)
    units = Units(1.0, 2.0, 10.0, -3.0, low, high)
    assert units.normalize_observations(np.array([1.0, 5.0], np.float32)).tolist() == [0.0, 2.0]
    assert units.scale_rewards(np.array([0.0, 0.5])).tolist() == [-3.0, 2.0]
    assert units.normalize_actions(np.stack([low, high, [2.0, 0.25]])).tolist() == [[-1, -1], [1, 1], [0, -0.5]]
    assert units.denormalize_actions(np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, -0.5]])).tolist() == [
        [-2.0, 0.0],
        [6.0, 1.0],
        [2.0, 0.25],
    ]


@given(BOUNDS, st.integers(0, 2**31))
def test_actions_go_there_and_back(bounds: tuple[float, float], seed: int) -> None:
    low, width = (np.full(2, bound, np.float32) for bound in bounds)
    units = Units(action_low=low, action_high=low + width)
    actions = np.random.default_rng(seed).uniform(low, low + width, (9, 2)).astype(np.float32)
    scaled = units.normalize_actions(actions)
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= 1.0 + 1e-3
    np.testing.assert_allclose(units.denormalize_actions(scaled), actions, rtol=1e-4, atol=1e-4)


def test_bounds_of_the_unit_box_change_no_bit() -> None:
    data = random_dataset(30)
    assert measure_units(data).normalize_actions(data.actions) is data.actions


def test_measured_observations_have_mean_zero_and_deviation_one() -> None:
    data = random_dataset(5000, seed=4, low=-2.0, high=2.0)
    units = measure_units(data, normalize_observations=True)
    normalized = units.normalize_observations(data.observations)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(0), 1.0, atol=1e-3)
    np.testing.assert_allclose(units.observation_std, data.observations.std(0) + 1e-3, rtol=1e-5)
    np.testing.assert_array_equal(units.action_high, [2.0, 2.0])


def test_without_normalization_observations_keep_their_bits() -> None:
    data = random_dataset(30)
    np.testing.assert_array_equal(measure_units(data).normalize_observations(data.observations), data.observations)


def test_dimensions_that_never_change_do_not_blow_up() -> None:
    data = random_dataset(30, observations=np.ones((30, 3), np.float32))
    normalized = measure_units(data, normalize_observations=True).normalize_observations(data.observations)
    np.testing.assert_array_equal(normalized, 0.0)


@pytest.mark.parametrize("repeat", [1, 3])
def test_stacked_units_treat_each_row_as_its_own_do(repeat: int) -> None:
    random = np.random.default_rng(0)
    first = Units(random.normal(size=2).astype(np.float32), random.uniform(1, 2, 2).astype(np.float32), 0.3, -1.0)
    units = [first, Units(action_low=-3.0, action_high=5.0)]
    both = stack(units, observation_size=2, action_size=1, repeat=repeat)
    observations, actions = random.normal(size=(2 * repeat, 2)), random.uniform(-1, 1, (2 * repeat, 1))
    observations, actions = observations.astype(np.float32), actions.astype(np.float32)
    rewards = random.normal(size=2 * repeat)
    for row in range(2 * repeat):
        own, at = units[row // repeat], slice(row, row + 1)
        np.testing.assert_array_equal(
            both.normalize_observations(observations)[at], own.normalize_observations(observations[at])
        )
        np.testing.assert_array_equal(both.denormalize_actions(actions)[at], own.denormalize_actions(actions[at]))
        np.testing.assert_array_equal(both.scale_rewards(rewards)[at], own.scale_rewards(rewards[at]))


def test_a_constant_action_is_scaled_to_0_and_back() -> None:
    units = Units(action_low=np.asarray([0.5, -2.0], np.float32), action_high=np.asarray([0.5, 2.0], np.float32))
    normalized = units.normalize_actions(np.asarray([[0.5, 1.0]], np.float32))
    assert normalized.tolist() == [[0.0, 0.5]]
    assert units.denormalize_actions(np.asarray([[0.7, 0.5]], np.float32)).tolist() == [[0.5, 1.0]]
