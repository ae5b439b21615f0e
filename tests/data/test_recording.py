"""Slips of recording are told apart from sound files, of vector environments played here too."""

import pathlib

import gymnasium
import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import recording
from jaxrl_srpo.data.recording import Recording

LENGTH, EPISODES = 20, 6


def sound(episodes: int = EPISODES, seed: int = 0, width: int = 3) -> Recording:
    """Walks that start elsewhere in every episode."""
    random = np.random.default_rng(seed)
    steps = random.normal(0.0, 0.1, (episodes, LENGTH + 1, width))
    steps[:, 0] = 5.0 * random.normal(size=(episodes, width))
    walks = steps.cumsum(axis=1).astype(np.float32)
    ends = np.tile(np.arange(LENGTH) == LENGTH - 1, episodes)
    rewards = random.normal(size=episodes * LENGTH).astype(np.float32)
    return Recording(walks[:, :-1].reshape(-1, width), rewards, ends, walks[:, 1:].reshape(-1, width))


def with_resets(reward: float = 0.0) -> Recording:
    """The same, with a row after each end that leads from the episode's last state to the next one's first."""
    rows = sound()
    assert rows.next_observations is not None
    stops = np.flatnonzero(rows.ends)[:-1] + 1
    return Recording(
        np.insert(rows.observations, stops, rows.next_observations[stops - 1], axis=0),
        np.insert(rows.rewards, stops, reward),
        np.insert(rows.ends, stops, False),
        np.insert(rows.next_observations, stops, rows.observations[stops], axis=0),
    )


def write_with_resets(path: pathlib.Path, given: bool = True) -> pathlib.Path:
    """A file of these rows, with next_observations if `given`."""
    rows = with_resets()
    with h5py.File(path, "w") as file:
        file["observations"], file["rewards"], file["terminals"] = rows.observations, rows.rewards, rows.ends
        file["actions"] = np.zeros((len(rows.ends), 2), np.float32)
        file["timeouts"] = np.zeros_like(rows.ends)
        if given:
            file["next_observations"] = rows.next_observations
    return path


def without_next(rows: Recording) -> Recording:
    return Recording(rows.observations, rows.rewards, rows.ends)


def take_turns(rows: Recording, count: int) -> Recording:
    """Rows of `count` recordings of equal length, as a vector environment gives them."""

    def turns(values: np.ndarray) -> np.ndarray:
        return values.reshape(count, -1, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)

    assert rows.next_observations is not None
    return Recording(*(turns(x) for x in (rows.observations, rows.rewards, rows.ends, rows.next_observations)))


def test_time_limits_are_counted_from_the_start_of_each_episode() -> None:
    terminals = np.zeros(12, bool)
    terminals[[2, 6]] = True
    np.testing.assert_array_equal(np.flatnonzero(recording.time_limits(terminals, 4)), [6, 10])
    np.testing.assert_array_equal(np.flatnonzero(recording.time_limits(np.zeros(9, bool), 3)), [2, 5, 8])
    assert not recording.time_limits(terminals, 100).any()


@pytest.mark.parametrize(
    ("lengths", "by_time", "limit", "environment", "message"),
    [
        ([100] * 20, 0, None, None, "20 of the 20 episodes that end with terminals = 1 have 100 steps, as where"),
        ([100] * 20, 0, 1000, "Hopper", "20 of the 20 episodes"),
        (
            [1000, 1000],
            3,
            1000,
            "Hopper",
            "2 of the 2 episodes that end with terminals = 1 have 1000 steps, the time limit",
        ),
        ([17, 1000, 20, 1000], 0, 1000, None, "2 of the 4 episodes"),
        ([17], 3, 200, "Pendulum", "Pendulum never terminates, but 1 episodes end with terminals = 1"),
        ([5, 9], 3, None, "HalfCheetah", "HalfCheetah never terminates, but 2 episodes"),
        ([], 3, 200, "Pendulum", ""),
        ([17, 18, 20], 0, None, None, ""),
        ([17], 0, None, None, ""),
        ([1] * 50, 0, None, None, ""),
        ([17, 17], 5, None, None, ""),
        ([17, 1000, 20], 0, 1000, None, ""),
        ([17, 1000, 20, 1000], 900, 1000, None, ""),
        ([17, 20], 0, None, "InvertedPendulum", ""),
    ],
)
def test_time_limits_among_terminations_are_told_of(
    lengths: list[int], by_time: int, limit: int | None, environment: str | None, message: str
) -> None:
    said = recording.merged_ends(np.asarray(lengths, np.int64), by_time, limit, environment)
    assert said.startswith(message) if message else said == ""
    assert not said or "write time limits to `timeouts` instead" in said


@pytest.mark.parametrize("reward", [0.0, -1.0])
def test_rows_of_resets_are_found(reward: float) -> None:
    rows = with_resets(reward)
    expected = np.flatnonzero(rows.ends)[:-1] + 1
    np.testing.assert_array_equal(recording.reset_rows(rows), expected)
    np.testing.assert_array_equal(recording.reset_rows(without_next(rows)), expected)


def test_a_run_that_was_cut_does_not_hide_them() -> None:
    """Two recordings in one file: the first one's last row is an end that no reset follows."""
    one, other = with_resets(), with_resets()
    ends = np.append(one.ends, other.ends)
    assert one.next_observations is not None
    assert other.next_observations is not None
    both = Recording(
        np.append(one.observations, other.observations + 3.0, axis=0),
        np.append(one.rewards, other.rewards),
        ends,
        np.append(one.next_observations, other.next_observations + 3.0, axis=0),
    )
    assert len(recording.reset_rows(both)) == 2 * (EPISODES - 1)


def test_sound_files_have_none() -> None:
    rows = sound()
    assert not len(recording.rows_after_ends(rows))
    assert not len(recording.reset_rows(without_next(rows)))
    # next_observations that are the next row, also over an episode's end, where rewards are all alike.
    shifted = Recording(
        rows.observations, np.ones_like(rows.rewards), rows.ends, np.roll(rows.observations, -1, axis=0)
    )
    assert not len(recording.reset_rows(shifted))
    assert not len(recording.reset_rows(without_next(shifted)))


def test_sparse_rewards_do_not_hide_resets_where_the_states_show_them() -> None:
    rows = with_resets()
    sparse = Recording(rows.observations, np.zeros_like(rows.rewards), rows.ends, rows.next_observations)
    assert len(recording.reset_rows(sparse)) == EPISODES - 1
    # Without next_observations it cannot be told for sure, but a person may say that they are there.
    assert not len(recording.reset_rows(without_next(sparse)))
    assert len(recording.rows_after_ends(without_next(sparse))) == EPISODES - 1


def test_a_vector_environment_of_gymnasium_records_them() -> None:
    environment = gymnasium.make_vec(
        "MountainCarContinuous-v0", num_envs=1, vectorization_mode="sync", max_episode_steps=9
    )
    random = np.random.default_rng(0)
    observation, _ = environment.reset(seed=0)
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for _ in range(60):
        following, reward, terminated, truncated, _ = environment.step(random.uniform(-1, 1, (1, 1)).astype(np.float32))
        for column, value in zip(columns, (observation, reward, terminated | truncated, following), strict=True):
            column.append(np.asarray(value)[0])
        observation = following
    environment.close()
    rows = Recording(*(np.asarray(column) for column in columns))
    np.testing.assert_array_equal(recording.reset_rows(rows), [9, 19, 29, 39, 49, 59])
    assert recording.interleaved(rows.observations, rows.next_observations, rows.ends) is None


@pytest.mark.parametrize("count", [2, 3, 6])
def test_environments_that_take_turns_are_counted(count: int) -> None:
    rows = take_turns(sound(), count)
    assert recording.interleaved(rows.observations, rows.next_observations, rows.ends) == count
    # All reach the time limit at once.
    expected = count if count < 6 else None
    assert recording.interleaved(rows.observations, None, rows.ends) == expected


def test_one_environment_after_another_takes_no_turns() -> None:
    rows = sound()
    for ends in (rows.ends, np.ones_like(rows.ends), np.zeros_like(rows.ends)):
        assert recording.interleaved(rows.observations, rows.next_observations, ends) is None
        assert recording.interleaved(rows.observations, None, ends) is None
    constant = np.zeros_like(rows.observations)
    assert recording.interleaved(constant, constant, rows.ends) is None
