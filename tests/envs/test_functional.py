"""Many episodes of an environment in JAX: ends, time limits and fresh starts, counted by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.envs import functional
from jaxrl_srpo.envs.functional import RunningEpisodes, Step
from jaxrl_srpo.types import Array, Spec


@dataclasses.dataclass(frozen=True)
class Count:
    """Adds up its actions from 0, pays each, and terminates above 2."""

    max_episode_steps: int = 4

    @property
    def spec(self) -> Spec:
        return Spec(1, 1)

    def reset(self, key: Array) -> Array:
        return jnp.zeros(())

    def observe(self, state: Array) -> Array:
        return state[None]

    def step(self, state: Array, action: Array) -> Step:
        return Step(state + action[0], action[0], state + action[0] > 2.0)


def play(actions: np.ndarray) -> tuple[RunningEpisodes, list[functional.Outcome]]:
    """Constant actions [n] for five steps."""
    episodes, outcomes = functional.start(Count(), len(actions), jax.random.key(0)), []
    step = jax.jit(functional.step, static_argnums=0)
    for key in jax.random.split(jax.random.key(1), 5):
        episodes, outcome = step(Count(), episodes, jnp.asarray(actions, jnp.float32)[:, None], key)
        outcomes.append(outcome)
    return episodes, outcomes


def test_termination_and_time_limit_end_episodes_and_are_told_apart() -> None:
    episodes, outcomes = play(np.array([1.0, 0.5]))
    # Ones terminate at the third step, at 3; halves run into the limit of four, at 2.
    assert [outcome.terminated.tolist() for outcome in outcomes] == [[False] * 2] * 2 + [[True, False]] + [
        [False] * 2
    ] * 2
    assert [outcome.ended.tolist() for outcome in outcomes][2:4] == [[True, False], [False, True]]
    assert outcomes[2].returns.tolist() == [3.0, 1.5]
    assert (outcomes[3].lengths.tolist(), outcomes[3].returns.tolist()) == ([1, 4], [1.0, 2.0])
    np.testing.assert_array_equal(episodes.lengths, [2, 1])


def test_the_last_observation_is_the_episodes_own_and_the_next_one_is_fresh() -> None:
    _, outcomes = play(np.array([1.0]))
    assert outcomes[2].next_observations.tolist() == [[3.0]]
    assert outcomes[3].next_observations.tolist() == [[1.0]]


def test_observations_are_of_all_episodes() -> None:
    episodes, _ = play(np.array([1.0, 0.5, 0.0]))
    np.testing.assert_array_equal(functional.observe(Count(), episodes), [[2.0], [0.5], [0.0]])
