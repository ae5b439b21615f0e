"""IQL on probe problems whose values and policies are known in closed form."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import iql
from jaxrl_srpo.methods.settings import Values, with_arrays
from jaxrl_srpo.nn import optimizers
from jaxrl_srpo.types import Array, Batch, Spec

FAST: Any = with_arrays(
    iql.Settings(width=32, learning_rate=3e-3, actor_learning_rate=3e-3, target_rate=0.05, steps=1500, discount=0.9)
)
STATES = np.eye(3, dtype=np.float32)
UPDATE = jax.jit(iql.update)
INIT = jax.jit(iql.init, static_argnames="spec")


@functools.partial(jax.jit, static_argnames="steps")
def train(batch: Batch, settings: iql.Settings, steps: int) -> iql.State:
    """`steps` updates on the same batch, which is the whole problem."""

    # At a constant rate Adam kicks settled values by up to 0.1, at moments that depend on how the compiler rounds.
    def update(count: Array, state: iql.State) -> iql.State:
        rate = settings.learning_rate * optimizers.cosine(count, steps)
        return iql.update(state, batch, settings.replace(learning_rate=rate))[0]  # type: ignore[attr-defined]

    state = INIT(jax.random.key(0), Spec(batch.observations.shape[1], batch.actions.shape[1]), settings)
    return jax.lax.fori_loop(0, steps, update, state)


def q_of(state: iql.State, batch: Batch) -> Array:
    return iql.result_of(state).critic.q_values(batch.observations, batch.actions)


def chain(rewards: list[float], next_states: list[int], discounts: list[float], copies: int = 8) -> Batch:
    """One transition from each of the three one-hot states, `copies` times with different actions."""
    index = jnp.tile(jnp.arange(3), copies)
    return Batch(
        observations=STATES[index],
        actions=jnp.linspace(-1.0, 1.0, 3 * copies)[:, None],
        rewards=jnp.asarray(rewards, jnp.float32)[index],
        next_observations=STATES[jnp.asarray(next_states)[index]],
        discounts=jnp.asarray(discounts, jnp.float32)[index],
    )


# State 0 earns 1 and terminates. State 1 earns nothing and leads to state 0: one step, discounted. State 2 earns 0.2
# for ever (its episodes are only ever timed out): 0.2 / (1 - 0.9) = 2.
PROBES: dict[str, tuple[list[float], list[int], list[float], list[float]]] = {
    "terminal, two-step, constant": ([1.0, 0.0, 0.2], [0, 0, 2], [0.0, 1.0, 1.0], [1.0, 0.9, 2.0]),
    # The same transition, once as a termination and once as a time-out, which bootstraps: 1 and 0.1 / (1 - 0.9).
    "terminals and time-outs": ([0.1, 0.1, 0.0], [0, 1, 1], [0.0, 1.0, 0.0], [0.1, 1.0, 0.0]),
}


@pytest.mark.parametrize("name", PROBES)
def test_values(name: str) -> None:
    rewards, next_states, discounts, expected = PROBES[name]
    batch = chain(rewards, next_states, discounts)
    state = train(batch, FAST, 1500)
    np.testing.assert_allclose(state.value(jnp.asarray(STATES)), expected, atol=0.03)
    np.testing.assert_allclose(q_of(state, batch), np.tile(expected, 8)[:, None] * np.ones(2), atol=0.05)


@pytest.fixture(scope="module")
def bandit() -> Batch:
    """One state, 64 actions spread over [-1, 1], reward a, then the end."""
    actions = (jnp.arange(64.0) + 0.5) / 32.0 - 1.0
    ones = jnp.ones((64, 1))
    return Batch(ones, actions[:, None], actions, ones, jnp.zeros(64))


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_action_dependent_reward(bandit: Batch, expectile: float) -> None:
    temperature = 3.0
    state = train(bandit, FAST.replace(expectile=expectile, temperature=temperature), 1500)
    rewards = np.asarray(bandit.rewards)
    np.testing.assert_allclose(q_of(state, bandit), rewards[:, None] * np.ones(2), atol=0.05)

    # The expectile e of a uniform distribution on [-1, 1] solves tau (1 - e)^2 = (1 - tau) (1 + e)^2.
    up, down = np.sqrt(expectile), np.sqrt(1.0 - expectile)
    value = (up - down) / (up + down)
    np.testing.assert_allclose(state.value(bandit.observations[:1]), [value], atol=0.03)

    # The actor regresses to the mean action under exp(temperature * advantage): that of a tilted uniform.
    preferred = 1.0 / np.tanh(temperature) - 1.0 / temperature
    np.testing.assert_allclose(iql.policy_of(state).act(bandit.observations[:1]), [[preferred]], atol=0.03)


def test_expectile_loss_by_hand() -> None:
    u = jnp.asarray([-2.0, 0.0, 1.0, 3.0])
    np.testing.assert_allclose(iql.expectile_loss(u, 0.7), (0.3 * 4.0 + 0.7 * 1.0 + 0.7 * 9.0) / 4.0, rtol=1e-6)
    np.testing.assert_allclose(iql.expectile_loss(u, 0.5), 0.5 * 14.0 / 4.0, rtol=1e-6)


def test_weights_stop_at_100(bandit: Batch) -> None:
    state = train(bandit, FAST, 1500)
    # Now nothing learns, and the temperature sends each weight to 0 or past the ceiling.
    _, metrics = UPDATE(state, bandit, FAST.replace(learning_rate=0.0, temperature=1e9, target_rate=0.0))
    q = jnp.min(q_of(state, bandit), axis=-1)
    weights = jnp.where(q > state.value(bandit.observations), 100.0, 0.0)
    error = jnp.sum((iql.policy_of(state).act(bandit.observations) - bandit.actions) ** 2, axis=-1)
    assert 0 < jnp.sum(weights > 0.0) < 64
    np.testing.assert_allclose(metrics["actor_loss"], jnp.mean(weights * error), rtol=1e-5)


def test_target_moves_once_per_update(bandit: Batch) -> None:
    settings = FAST.replace(learning_rate=0.0, target_rate=0.1)
    state: Any = INIT(jax.random.key(2), Spec(1, 1), settings)
    q = state.q.params
    state = state.replace(target_q=jax.tree.map(jnp.zeros_like, q))
    for count in range(1, 4):
        state, _ = UPDATE(state, bandit, settings)
        expected = jax.tree.map(lambda x, count=count: x * (1.0 - 0.9**count), q)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.target_q, expected)
    assert int(state.step) == 3


def test_fresh_target_equals_q() -> None:
    state = INIT(jax.random.key(3), Spec(4, 2), FAST)
    jax.tree.map(np.testing.assert_array_equal, state.target_q, state.q.params)


def test_actor_rate_falls_to_zero(bandit: Batch) -> None:
    fresh: Any = INIT(jax.random.key(4), Spec(1, 1), FAST)
    state = fresh.replace(step=jnp.int32(1500))
    after, _ = UPDATE(state, bandit, FAST)
    jax.tree.map(np.testing.assert_array_equal, after.actor.params, state.actor.params)
    assert not np.array_equal(*(jax.tree.leaves(s.q.params)[0] for s in (state, after)))


def test_online_it_goes_on_from_finished_networks_at_a_rate_that_stays(bandit: Batch) -> None:
    earlier = INIT(jax.random.key(5), Spec(1, 1), FAST)
    values = Values({"critic_width": 32, "critic_steps": 1500, "online_batch_size": 64})
    settings: Any = with_arrays(iql.ONLINE.read(values))
    assert (settings.batch_size, float(settings.steps)) == (64, float("inf"))
    state: Any = iql.init_from(jax.random.key(6), Spec(1, 1), settings, iql.result_of(earlier))
    found = (state.q.params, state.target_q, state.value.params, state.actor.params)
    expected = (earlier.q.params, earlier.q.params, earlier.value.params, earlier.actor.params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    after, _ = UPDATE(state.replace(step=jnp.int32(1500)), bandit, settings)
    assert not np.array_equal(*(jax.tree.leaves(s.actor.params)[0] for s in (state, after)))


def test_exploring_adds_noise_within_the_bounds() -> None:
    state = INIT(jax.random.key(7), Spec(1, 1), FAST)
    observations = jnp.zeros((2000, 1))
    actions = iql.explore(state, observations, jax.random.key(0), iql.Online(exploration_noise=0.1))
    np.testing.assert_allclose(jnp.std(actions), 0.1, atol=0.005)
    np.testing.assert_allclose(jnp.mean(actions), iql.policy_of(state).act(observations[:1])[0, 0], atol=0.01)
    wide = iql.explore(state, observations, jax.random.key(0), iql.Online(exploration_noise=5.0))
    assert float(jnp.max(jnp.abs(wide))) == 1.0


def test_a_result_acts_as_its_state() -> None:
    state = INIT(jax.random.key(8), Spec(1, 1), FAST)
    assert iql.policy_of(iql.result_of(state)).params is iql.policy_of(state).params
