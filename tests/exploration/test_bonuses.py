"""Bonuses: prediction errors fall with training, counts are exact."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.exploration import bonuses
from jaxrl_srpo.exploration.densities import VAE, Histogram
from jaxrl_srpo.exploration.intrinsic import Intrinsic
from tests.exploration.plane import GRID, KEY, arriving_at, init, make_visits, observe, step


@pytest.mark.parametrize(
    "reward",
    [bonuses.ForwardError(16), bonuses.InverseError(16), bonuses.ICM(16, 8), bonuses.RND(16, 8)],
    ids=lambda reward: type(reward).__name__,
)
def test_prediction_errors_fall_where_they_are_trained_and_not_elsewhere(reward: Intrinsic) -> None:
    settings = bonuses.Settings(bonus=2.0, environment=3.0, learning_rate=3e-3)
    seen, state = make_visits(), init(reward)
    far = make_visits(seed=5)
    far = arriving_at(far, 10.0 + 5.0 * far.next_observations)
    first = step(reward, state, seen, settings)
    np.testing.assert_allclose(jnp.mean(first.rewards), 3.0 * 0.5 + 2.0 * first.metrics["bonus"], rtol=1e-5)
    for _ in range(150):
        result = step(reward, state, seen, settings)
        state = result.state
    elsewhere = step(reward, state, far, settings).metrics["bonus"]
    assert float(result.metrics["bonus"]) < 0.8 * float(first.metrics["bonus"])
    assert float(elsewhere) > 2.0 * float(result.metrics["bonus"])


def test_icm_lets_both_of_its_losses_shape_the_features() -> None:
    reward, seen = bonuses.ICM(16, 8), make_visits()
    state = init(reward)
    after = step(reward, state, seen, bonuses.Settings()).state
    moved = jax.tree.map(lambda old, new: bool(jnp.any(old != new)), state.params, after.params)
    assert {name: all(jax.tree.leaves(moved[name])) for name in moved} == dict.fromkeys(state.params, True)


def test_counts_give_the_inverse_square_root_of_visits() -> None:
    reward = bonuses.Count(Histogram(GRID))
    seen = make_visits(4)
    places = jnp.asarray([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [2.5, 2.5]])
    seen = arriving_at(seen, places)
    state = observe(reward, init(reward), seen)
    rewards = step(reward, state, seen, bonuses.Settings(bonus=10.0)).rewards
    np.testing.assert_allclose(rewards, [10.0 / math.sqrt(3.0)] * 3 + [10.0], rtol=1e-6)


def test_pseudo_counts_follow_what_a_step_adds_to_the_density() -> None:
    density = VAE(2, width=16, code_size=4)
    reward, seen = bonuses.PseudoCount(density), make_visits()
    state = init(reward)
    result = step(reward, state, seen, bonuses.Settings())
    key_fit, key_read = jax.random.split(KEY)
    fitted = density.fit(state.density, key_fit, seen.next_observations, seen.skills)
    before, after = (
        np.asarray(density.log_density(each, key_read, seen.next_observations, seen.skills))
        for each in (state.density, fitted)
    )
    gain = np.maximum(after - before, 0.0)
    with np.errstate(divide="ignore"):
        visits_so_far = 1.0 / np.expm1(gain)
    np.testing.assert_allclose(result.rewards, visits_so_far**-0.5, rtol=1e-3, atol=1e-4)
    assert float(result.state.steps) == 1.0


def test_running_moments_are_those_of_all_rows_together() -> None:
    rows = np.random.default_rng(0).normal(3.0, 2.0, (60, 2)).astype(np.float32)
    moments = bonuses.Moments(jnp.zeros(2), jnp.zeros(2), jnp.zeros(()))
    for block in np.split(rows, [10, 15, 40]):
        moments = moments.add(jnp.asarray(block))
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-4)
