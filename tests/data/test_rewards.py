"""Reward transforms against numbers worked out by hand and against a loop."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import (
    TRANSFORMS,
    default_transform,
    return_range,
    reward_scale_and_shift,
    transform_rewards,
)
from jaxrl_srpo.errors import DatasetError, UserError


def loop_range(rewards: np.ndarray, terminals: np.ndarray, limit: int) -> tuple[float, float]:
    """The published loop: a running sum ends at a terminal or at `limit` steps."""
    returns, total, length = [], 0.0, 0
    for reward, terminal in zip(rewards, terminals, strict=True):
        total += float(reward)
        length += 1
        if terminal or length == limit:
            returns.append(total)
            total, length = 0.0, 0
    returns = returns or [total]
    return min(returns), max(returns)


def dataset(rewards: Any, terminals: Any) -> Dataset:
    rows = len(rewards)
    return Dataset(
        "x",
        "x.hdf5",
        np.zeros((rows, 1), np.float32),
        np.zeros((rows, 1), np.float32),
        np.asarray(rewards, np.float32),
        np.zeros((rows, 1), np.float32),
        np.asarray(terminals, bool),
        episode_ends=np.asarray(terminals, bool),
        episode_returns=np.zeros(1),
        episode_lengths=np.ones(1, np.int64),
        timeouts=0,
        action_low=-np.ones(1, np.float32),
        action_high=np.ones(1, np.float32),
        fingerprint="",
    )


def test_no_range_is_taken_of_episodes_that_go_on_after_terminals() -> None:
    data = dataclasses.replace(dataset([-1, 0, -1, 0], [0, 1, 0, 1]), episode_ends=np.array([0, 0, 0, 1], bool))
    for measure in (transform_rewards, reward_scale_and_shift):
        with pytest.raises(DatasetError, match=r"^x: reward transform d4rl-locomotion counts episodes by their termin"):
            measure(data, "d4rl-locomotion")
    assert reward_scale_and_shift(data, "none") == (1.0, 0.0)


def test_locomotion_by_hand() -> None:
    # Returns 3 and 7 (the last step is unfinished): the range is 4, so 1000 / 4 = 250 per unit.
    data = dataset([1, 2, 3, 4, 9], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(transform_rewards(data, "d4rl-locomotion"), [250, 500, 750, 1000, 2250])
    assert transform_rewards(data, "d4rl-locomotion").dtype == np.float32


def test_antmaze_and_none_by_hand() -> None:
    data = dataset([0, 1, 0], [0, 1, 0])
    np.testing.assert_array_equal(transform_rewards(data, "d4rl-antmaze"), [-1, 0, -1])
    np.testing.assert_array_equal(transform_rewards(data, "none"), [0, 1, 0])
    assert transform_rewards(data, "d4rl-antmaze").dtype == np.float32


def test_those_of_other_methods_by_hand() -> None:
    data = dataset([0, 1, 0], [0, 1, 0])
    np.testing.assert_array_equal(transform_rewards(data, "cql-antmaze"), [-2, 2, -2])
    np.testing.assert_array_equal(transform_rewards(data, "x100"), [0, 100, 0])
    # Mean 2; squared distances 1, 1, 4 and 4 over 4 - 1.
    standardized = transform_rewards(dataset([1, 3, 0, 4], [0, 1, 0, 0]), "standardize")
    np.testing.assert_allclose(standardized, np.array([-1, 1, -2, 2]) / np.sqrt(10 / 3), rtol=1e-6)
    assert standardized.dtype == np.float32


@pytest.mark.parametrize("rewards", [[2, 2, 2], [2]])
def test_equal_rewards_cannot_be_standardized(rewards: list[float]) -> None:
    for apply in (transform_rewards, reward_scale_and_shift):
        with pytest.raises(DatasetError, match=r"^x: reward transform standardize .* all are 2; choose none$"):
            apply(dataset(rewards, [0] * len(rewards)), "standardize")


def test_windows_of_a_thousand_drift_over_episodes_of_999() -> None:
    # Three episodes of 999 kept steps, worth 1, 2 and 3 a step: the first window takes one step of the second episode,
    # the second window two steps of the third, and the third window is never finished.
    rewards = np.repeat([1.0, 2.0, 3.0], 999)
    low, high = return_range(rewards, np.zeros(2997, bool))
    assert (low, high) == (999 * 1 + 1 * 2, 998 * 2 + 2 * 3)


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 80),
    rate=st.sampled_from([0, 0.05, 0.5]),
    limit=st.integers(1, 9),
)
def test_range_equals_the_published_loop(seed: int, rows: int, rate: float, limit: int) -> None:
    random = np.random.default_rng(seed)
    rewards = random.integers(-9, 9, rows).astype(np.float32)
    terminals = random.random(rows) < rate
    assert return_range(rewards, terminals, limit) == loop_range(rewards, terminals, limit)


def test_equal_returns_cannot_be_scaled() -> None:
    equal = dataset([1, 1, 1], [1, 1, 1])
    for apply in (transform_rewards, reward_scale_and_shift):
        with pytest.raises(DatasetError, match="every episode returns 1; choose d4rl-antmaze or none"):
            apply(equal, "d4rl-locomotion")


def test_returns_whose_range_float32_does_not_hold_cannot_scale() -> None:
    wide = dataset([3e38, -3e38, 3e38, -3e38], [1, 1, 1, 1])
    for apply in (transform_rewards, reward_scale_and_shift):
        with pytest.raises(DatasetError, match=r"returns are -3e\+38 to 3e\+38; choose d4rl-antmaze or none"):
            apply(wide, "d4rl-locomotion")


def test_rewards_that_become_infinite_are_refused() -> None:
    """The last, unfinished episode does not count for the range."""
    late = dataset([1, 2, 3e38], [1, 1, 0])
    for apply in (transform_rewards, reward_scale_and_shift):
        with pytest.raises(
            DatasetError, match="makes 1 rewards larger than float32 holds; choose d4rl-antmaze or none"
        ):
            apply(late, "d4rl-locomotion")
        with pytest.raises(DatasetError, match="transform x100 makes 1 rewards larger than float32 holds"):
            apply(late, "x100")


def test_unknown_transform() -> None:
    with pytest.raises(UserError, match="unknown reward transform 'log'; choose one of d4rl-locomotion"):
        transform_rewards(dataset([1], [0]), "log")


def test_untransformed_rewards_stay_as_they_are() -> None:
    data = dataset([1, 2, 4], [0, 1, 1])
    before = data.rewards.copy()
    transform_rewards(data, "d4rl-locomotion")
    np.testing.assert_array_equal(data.rewards, before)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("locomotion", "d4rl-locomotion"),
        ("antmaze", "d4rl-antmaze"),
        ("pointmaze", "d4rl-antmaze"),
        ("adroit", "none"),
        ("kitchen", "none"),
        ("other", "none"),
    ],
)
def test_default_by_family(family: str, name: str) -> None:
    assert default_transform(family) == name


@pytest.mark.parametrize("name", TRANSFORMS)
def test_rewards_that_come_later_are_transformed_alike(name: str) -> None:
    data = dataset([1.0, -2.0, 0.5, 4.0, 3.0], [False, True, False, False, True])
    scale, shift = reward_scale_and_shift(data, name)
    np.testing.assert_allclose(scale * data.rewards + shift, transform_rewards(data, name), rtol=1e-6)
