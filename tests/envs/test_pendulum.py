"""The pendulum in JAX against Gymnasium's."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.envs.pendulum import Pendulum, State


def test_it_moves_and_pays_as_gymnasiums() -> None:
    theirs, step = gymnasium.make("Pendulum-v1"), jax.jit(Pendulum().step)
    theirs.reset(seed=0)
    angle, speed = theirs.unwrapped.state  # type: ignore[attr-defined]
    state = State(jnp.float32(angle), jnp.float32(speed))
    for action in np.random.default_rng(0).uniform(-1.2, 1.2, (60, 1)).astype(np.float32):
        observation, reward, terminated, _, _ = theirs.step(2.0 * action)
        state, own_reward, own_terminated = step(state, jnp.asarray(action))
        np.testing.assert_allclose(Pendulum().observe(state), observation, atol=2e-4)
        np.testing.assert_allclose(own_reward, float(reward), atol=2e-3)
        assert bool(own_terminated) == terminated


def test_it_starts_at_any_angle_with_little_speed() -> None:
    states = jax.vmap(Pendulum().reset)(jax.random.split(jax.random.key(0), 1000))
    assert np.abs(states.speed).max() <= 1.0
    assert np.abs(states.angle).max() <= np.pi
    counts, _ = np.histogram(states.angle, bins=4, range=(-np.pi, np.pi))
    assert counts.min() > 200


def test_upright_and_still_costs_nothing() -> None:
    step = Pendulum().step(State(jnp.float32(0.0), jnp.float32(0.0)), jnp.zeros(1))
    assert float(step.reward) == 0.0
    np.testing.assert_array_equal(Pendulum().observe(step.state), [1.0, 0.0, 0.0])
