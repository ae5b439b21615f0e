"""The reward of state marginal matching against its terms."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.exploration import smm
from jaxrl_srpo.exploration.densities import VAE, Histogram
from tests.exploration.plane import GRID, KEY, arriving_at, init, make_visits, observe, step


def test_the_reward_is_the_log_target_minus_the_log_density_of_the_state_arrived_at() -> None:
    def bowl(states: jax.Array) -> jax.Array:
        return -jnp.sum(states**2, axis=-1)

    seen = make_visits()
    targets: list[tuple[Any, Any]] = [
        (smm.uniform, 0.0),
        (smm.environment_reward, np.asarray(seen.rewards)),
        (bowl, -np.sum(np.asarray(seen.next_observations) ** 2, axis=-1)),
    ]
    for target, expected in targets:
        reward = smm.SMM(Histogram(GRID), target=target)
        state = observe(reward, init(reward), seen)
        log_density = Histogram(GRID).log_density(state.density, KEY, seen.next_observations, seen.skills)
        result = step(reward, state, seen, smm.Settings(target=2.0, entropy=3.0))
        np.testing.assert_allclose(result.rewards, 2.0 * expected - 3.0 * np.asarray(log_density), rtol=1e-5)
    before = smm.SMM(Histogram(GRID), at_next=False)
    counts = observe(before, init(before), seen).density
    np.testing.assert_array_equal(counts[0], GRID.counts(seen.observations))


def test_a_transition_is_worth_less_once_its_state_was_seen_more_often() -> None:
    reward, seen, settings = smm.SMM(Histogram(GRID)), make_visits(), smm.Settings()
    state = observe(reward, init(reward), make_visits(2_000, seed=1))
    rare = arriving_at(seen, jnp.full((32, 2), 3.5))
    worth = step(reward, state, rare, settings).rewards
    for _ in range(20):
        state = observe(reward, state, rare)
    later = step(reward, state, rare, settings).rewards
    # From one visit of 2,000 to 640 of 2,640.
    np.testing.assert_allclose(worth - later, math.log(2_000.0) + math.log(640.0 / 2_640.0), rtol=1e-4)


def test_a_vae_is_fitted_one_step_per_batch_before_it_is_read() -> None:
    density = VAE(2, width=16, code_size=4)
    reward, seen = smm.SMM(density), make_visits()
    state = init(reward)
    result = step(reward, state, seen, smm.Settings())
    key_fit, key_read = jax.random.split(KEY)
    fitted = density.fit(state.density, key_fit, seen.next_observations, seen.skills)
    log_density = density.log_density(fitted, key_read, seen.next_observations, seen.skills)
    np.testing.assert_allclose(result.rewards, -log_density, rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), result.state.density, fitted)


def test_the_discriminator_tells_skills_apart_and_its_sign_can_be_the_released_one() -> None:
    reward = smm.SMM(Histogram(GRID, skills=2), skills=2, width=16)
    seen = make_visits(64, 2)
    side = jnp.where(seen.skills == 0, -2.0, 2.0)[:, None] + 0.1 * seen.actions
    seen = arriving_at(seen, side)
    state = init(reward)
    first = step(reward, state, seen, smm.Settings())
    assert float(first.metrics["log_skill"]) == pytest.approx(-math.log(2.0), abs=0.3)
    for _ in range(60):
        result = step(reward, state, seen, smm.Settings(discriminator_rate=0.01))
        state = result.state
    assert float(result.metrics["log_skill"]) > -0.1
    chosen = jnp.take_along_axis(reward.log_skills(state, side), seen.skills[:, None], axis=-1)[:, 0]
    released = step(dataclasses.replace(reward, released_sign=True), state, seen, smm.Settings()).rewards
    np.testing.assert_allclose(step(reward, state, seen, smm.Settings()).rewards - released, 2.0 * chosen, atol=1e-5)
    without = step(reward, state, seen, smm.Settings(latent_entropy=0.0)).rewards
    np.testing.assert_allclose(step(reward, state, seen, smm.Settings()).rewards - without, math.log(2.0), rtol=1e-4)
