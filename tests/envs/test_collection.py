"""Whole episodes as they are stored: of policies that play, and of replay buffers that are cut."""

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.collection import Task, Transitions, cut, find_ends, find_task, mean_return, play
from jaxrl_srpo.errors import UserError

PENDULUM = EnvironmentSpec("Pendulum-v1", max_episode_steps=5)
LIMIT = 4
TASK = Task(EnvironmentSpec("x"), np.full(1, -3.0, np.float32), np.full(1, 1.0, np.float32), np.dtype("float64"), LIMIT)


def test_what_it_takes_to_play() -> None:
    task = find_task(PENDULUM)
    assert (task.action_low.tolist(), task.action_high.tolist(), task.max_episode_steps) == ([-2.0], [2.0], 5)
    assert task.observation_type == np.float32


def test_environments_that_cannot_be_played_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"CartPole-v1 has actions Discrete\(2\); expected a box with one axis"):
        find_task(EnvironmentSpec("CartPole-v1"))
    endless = gymnasium.envs.registration.EnvSpec("EndlessPendulum-v0", "gymnasium.envs.classic_control:PendulumEnv")
    monkeypatch.setitem(gymnasium.registry, endless.id, endless)
    with pytest.raises(UserError, match="EndlessPendulum-v0 has no time limit; give one as max_episode_steps"):
        find_task(EnvironmentSpec(endless.id))


def test_each_environment_plays_whole_episodes_until_it_has_enough_steps() -> None:
    seen = []

    def act(observations: np.ndarray, number: int) -> np.ndarray:
        seen.append(number)
        return np.full((len(observations), 1), 0.25 * (number % 5), np.float32)

    episodes = play(find_task(PENDULUM), act, environments=3, steps=6, entropy=(1, 2))
    assert seen == list(range(10))
    assert len(episodes) == 3 * 2
    starts = np.stack([episode.observations[0] for episode in episodes])
    assert len(np.unique(starts, axis=0)) == 6
    for episode in episodes:
        assert (episode.observations.shape, episode.rewards.dtype) == ((6, 3), np.float64)
        # An action of 1 is a torque of 2.
        np.testing.assert_array_equal(episode.actions[:, 0], [0.0, 0.5, 1.0, 1.5, 2.0])
        assert episode.truncations.tolist() == [False] * 4 + [True]
        assert not episode.terminations.any()
    again = play(find_task(PENDULUM), act, environments=3, steps=6, entropy=(1, 2))
    np.testing.assert_array_equal([one.rewards for one in again], [one.rewards for one in episodes])


def test_the_mean_return_is_undiscounted() -> None:
    episodes = play(find_task(PENDULUM), lambda observations, _: np.zeros((len(observations), 1)), 2, 1, (0,))
    assert mean_return(episodes) == np.mean([episode.rewards.sum() for episode in episodes])
    assert len(episodes) == 2


@given(lengths=st.lists(st.integers(1, LIMIT), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_a_buffer_is_cut_where_its_episodes_ended(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    chains = [random.normal(size=(length + 1, 2)).astype(np.float32) for length in lengths]
    terminations = np.zeros(sum(lengths), bool)
    last = np.cumsum(lengths) - 1
    # What neither terminates nor is as long as the limit was under way when the buffer ended: only the last one.
    terminations[last[:-1]] = np.array(lengths[:-1]) < LIMIT
    transitions = Transitions(
        observations=np.concatenate([chain[:-1] for chain in chains]),
        actions=random.uniform(-1.0, 1.0, (sum(lengths), 1)).astype(np.float32),
        rewards=random.normal(size=sum(lengths)),
        next_observations=np.concatenate([chain[1:] for chain in chains]),
        terminations=terminations,
    )
    np.testing.assert_array_equal(find_ends(transitions), last)
    episodes = cut(TASK, transitions, last)
    assert [len(episode.rewards) for episode in episodes] == lengths
    for episode, chain in zip(episodes, chains, strict=True):
        np.testing.assert_array_equal(episode.observations, chain)
        assert episode.truncations[-1] == (len(chain) - 1 == LIMIT)
    np.testing.assert_allclose(
        np.concatenate([episode.actions for episode in episodes]), 2.0 * transitions.actions - 1.0, atol=1e-6
    )


def test_fields_are_those_of_an_episode_buffer() -> None:
    (episode,) = play(find_task(PENDULUM), lambda observations, _: np.zeros((len(observations), 1)), 1, 1, (0,))
    assert set(episode.fields()) == {"observations", "actions", "rewards", "terminations", "truncations"}
