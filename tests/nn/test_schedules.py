"""Noise schedules against the formulas of their papers, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.nn.schedules import DISCRETE_KINDS, VP, Continuous, Discrete, DiscreteKind, betas


def test_the_continuous_schedule_keeps_unit_variance_and_its_numbers() -> None:
    alpha, sigma = VP.marginal(jnp.asarray([0.0, 0.5, 1.0]))
    exact = np.exp([0.0, -1.26875, -5.025])
    np.testing.assert_allclose(alpha, exact, rtol=1e-5)
    np.testing.assert_allclose(sigma, np.sqrt(1.0 - exact**2), rtol=1e-5)
    # A rate that does not change takes t beta / 2 of log alpha.
    np.testing.assert_allclose(Continuous(beta_min=2.0, beta_max=2.0).log_alpha(jnp.float32(0.5)), -0.5, rtol=1e-6)


def test_five_steps_of_vp_reach_the_known_signal() -> None:
    """The sum of the exponents telescopes: abar_T = exp(-0.1 - 9.9 / 2), with b_max 10 and not 20."""
    schedule = Discrete("vp", 5)
    assert (schedule.start, schedule.end) == (5.0, 1.0)
    np.testing.assert_array_equal(schedule.times(), [5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    alpha, sigma = schedule.marginal(jnp.asarray([0.0, 5.0]))
    np.testing.assert_allclose(alpha, [1.0, np.exp(-0.5 * 5.05)], rtol=1e-6)
    np.testing.assert_allclose(sigma, [0.0, np.sqrt(1.0 - np.exp(-5.05))], rtol=1e-6)
    np.testing.assert_allclose(betas("vp", 5)[0], 1.0 - np.exp(-0.02 - 0.5 * 9.9 / 25.0), rtol=1e-12)


def test_cosine_is_diffusers() -> None:
    """As written there: a cosine on T + 1 points from 0 to n = T + 1, whose ratio to n - 1 ... is i / T after all."""
    steps = 20
    points = np.linspace(0, steps + 1, steps + 1)
    signal = np.cos(((points / (steps + 1)) + 0.008) / 1.008 * np.pi * 0.5) ** 2
    signal = signal / signal[0]
    expected = np.clip(1.0 - signal[1:] / signal[:-1], 0.0, 0.999)
    np.testing.assert_allclose(betas("cosine", steps), expected, rtol=1e-12)
    assert betas("cosine", steps)[-1] == 0.999


def test_linear_is_ddpms_at_a_thousand_steps() -> None:
    np.testing.assert_allclose(betas("linear", 1000), np.linspace(1e-4, 0.02, 1000), rtol=1e-12)
    np.testing.assert_allclose(betas("linear", 100)[[0, -1]], [1e-3, 0.2], rtol=1e-12)


@pytest.mark.parametrize("kind", DISCRETE_KINDS)
def test_discrete_marginals_are_products_and_linear_between(kind: DiscreteKind) -> None:
    schedule = Discrete(kind, 40)
    exact = np.concatenate([[1.0], np.cumprod(1.0 - betas(kind, 40))])
    alpha, sigma = schedule.marginal(jnp.arange(41.0))
    np.testing.assert_allclose(alpha, np.sqrt(exact), rtol=1e-5)
    np.testing.assert_allclose(sigma, np.sqrt(1.0 - exact), rtol=1e-5)
    between = np.log(exact[3]) * 0.75 + np.log(exact[4]) * 0.25
    np.testing.assert_allclose(schedule.log_alpha(jnp.float32(3.25)), 0.5 * between, rtol=1e-6)


def test_diffuse_mixes_by_the_time_of_each_row() -> None:
    x, noise, times = jnp.asarray([[1.0], [1.0]]), jnp.asarray([[2.0], [2.0]]), jnp.asarray([0.0, 5.0])
    alpha, sigma = Discrete("vp", 5).marginal(times)
    np.testing.assert_allclose(Discrete("vp", 5).diffuse(x, noise, times), (alpha + 2.0 * sigma)[:, None], rtol=1e-6)


def test_schedules_are_values() -> None:
    assert Discrete("vp", 5) == Discrete("vp", 5)
    assert len({Discrete("vp", 5), Discrete("vp", 5), Discrete("vp", 6), Discrete("cosine", 5), VP}) == 4
