"""Density models against distributions whose density is known."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.exploration.densities import VAE, Density, Histogram, NearestNeighbors, Sliced

GRID = Grid((-4.0, -4.0), 0.5, (16, 16), (0, 1))
KEY = jax.random.key(3)


@functools.partial(jax.jit, static_argnames="density")
def _log_density(density: Density, state: Any, points: jax.Array, skills: jax.Array) -> jax.Array:
    return density.log_density(state, KEY, points, skills)


@functools.partial(jax.jit, static_argnames="density")
def init(density: Density) -> Any:
    return density.init(KEY)


def no_skills(n: int) -> np.ndarray:
    return np.zeros(n, np.int32)


def observe(density: Density, points: jax.Array) -> Any:
    return density.observe(density.init(KEY), points, jnp.asarray(no_skills(len(points))))


def log_density(density: Density, state: Any, points: Any, skills: np.ndarray | None = None) -> np.ndarray:
    points = jnp.asarray(points, jnp.float32)
    return np.asarray(_log_density(density, state, points, no_skills(len(points)) if skills is None else skills))


def log_normal(points: np.ndarray) -> np.ndarray:
    return -0.5 * np.sum(points**2, axis=-1) - math.log(2.0 * math.pi)


def test_a_histogram_has_the_density_of_a_gaussian() -> None:
    state = observe(Histogram(GRID), jax.random.normal(KEY, (400_000, 2)))
    middles = np.asarray([[0.25, 0.25], [-0.75, 0.25], [1.25, -1.25]])
    np.testing.assert_allclose(log_density(Histogram(GRID), state, middles), log_normal(middles), atol=0.05)


def test_an_unvisited_bin_counts_as_visited_once() -> None:
    state = observe(Histogram(GRID), jnp.zeros((10, 2)))
    once = observe(Histogram(GRID), jnp.concatenate([jnp.zeros((9, 2)), jnp.ones((1, 2))]))
    expected = math.log(1.0 / 10.0) - 2.0 * math.log(0.5)
    for counted in (state, once):
        np.testing.assert_allclose(log_density(Histogram(GRID), counted, jnp.ones((1, 2))), expected, rtol=1e-6)
    empty = Histogram(GRID).init(KEY)
    np.testing.assert_allclose(log_density(Histogram(GRID), empty, jnp.ones((1, 2))), math.log(4.0), rtol=1e-6)


def test_fading_counts_remember_as_many_visits_as_their_memory_and_forget_the_rest() -> None:
    density = Histogram(GRID, memory=100.0)
    state = density.init(KEY)
    for place in [-1.0] * 100 + [1.0] * 40:
        state = density.observe(state, jnp.full((10, 2), place), jnp.zeros((10,), jnp.int32))
    total = float(jnp.sum(state))
    # A geometric series: 10 visits at a time, each block kept by exp(-1/10).
    assert total == pytest.approx(10.0 / (1.0 - math.exp(-0.1)), rel=1e-4)
    assert float(state[0, GRID.bins(jnp.full((2,), -1.0))]) / total == pytest.approx(math.exp(-4.0), rel=1e-3)


def test_skills_have_histograms_of_their_own() -> None:
    density = Histogram(GRID, skills=3, memory=50.0)
    points, skills = jnp.asarray([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), jnp.asarray([0, 2, 2], jnp.int32)
    state = density.observe(density.init(KEY), points, skills)
    assert np.asarray(state.sum(-1)).tolist() == [1, 0, 2]
    # What one skill does lets no other forget.
    later = density.observe(state, jnp.ones((30, 2)), jnp.full((30,), 2, jnp.int32))
    np.testing.assert_array_equal(later[:2], state[:2])
    assert float(later[2].sum()) < 32.0


def test_nearest_neighbors_have_the_density_of_a_gaussian() -> None:
    density = Sliced(NearestNeighbors(2, particles=8_000, k=30), (0, 2))
    points = np.random.default_rng(3).normal(size=(8_000, 3)).astype(np.float32)
    # The coordinate that distances ignore is far away.
    points[:, 1] *= 1e3
    state = density.fit(density.init(KEY), KEY, jnp.asarray(points), jnp.asarray(no_skills(8_000)))
    some = points[:400]
    estimate = log_density(density, state, some)
    error = estimate - log_normal(some[:, [0, 2]])
    assert abs(error.mean()) < 0.05
    assert error.std() < 0.3
    # The entropy of a standard normal in two dimensions is log(2 pi e).
    assert -estimate.mean() == pytest.approx(math.log(2.0 * math.pi * math.e), abs=0.15)


def test_a_particle_is_not_its_own_neighbor() -> None:
    density = NearestNeighbors(1, particles=4, k=1, skills=2)
    particles, skills = jnp.asarray([[0.0], [1.0], [3.0], [0.5]]), jnp.asarray([0, 0, 0, 1], jnp.int32)
    state = density.fit(density.init(KEY), KEY, particles, skills)
    # psi(1) - psi(n + 1) is minus the harmonic number of the n others: 2 for the particle at 0, 3 for 0.25. The nearest
    # are 1 and 0.25 away, in a ball of twice that length; the particle of the other skill does not count.
    expected = [-(1.0 + 1.0 / 2.0) - math.log(2.0), -(1.0 + 1.0 / 2.0 + 1.0 / 3.0) - math.log(0.5)]
    np.testing.assert_allclose(log_density(density, state, [[0.0], [0.25]]), expected, rtol=1e-4)


def trained(density: VAE, points: np.ndarray, skills: np.ndarray, steps: int) -> Any:
    """The VAE's state after `steps` steps on batches of 128."""

    def step(i: jax.Array, state: Any) -> Any:
        key_batch, key_fit = jax.random.split(jax.random.fold_in(KEY, i))
        chosen = jax.random.randint(key_batch, (128,), 0, len(points))
        return density.fit(state, key_fit, jnp.asarray(points)[chosen], jnp.asarray(skills)[chosen])

    return jax.jit(lambda state: jax.lax.fori_loop(0, steps, step, state))(init(density))


def test_the_elbo_is_a_tight_lower_bound_of_a_gaussians_log_density() -> None:
    density = VAE(2, elbo=True, beta=0.25, learning_rate=3e-3, width=32, code_size=4)
    points = (np.random.default_rng(0).normal(size=(10_000, 2)) * [2.0, 1.0]).astype(np.float32)
    state = trained(density, points, no_skills(10_000), 1_000)
    bound = float(log_density(density, state, points[:4_000]).mean())
    truth = -math.log(2.0 * math.pi * math.e) - math.log(2.0)
    assert truth - 0.15 < bound < truth + 0.02
    # Rare states get a lower bound than common ones; a code is sampled, hence the mean.
    places = np.repeat([[0.0, 0.0], [5.0, 0.0], [0.0, 2.5]], 200, axis=0)
    common, *rare = log_density(density, state, places).reshape(3, 200).mean(-1)
    assert max(rare) < common - 1.0


def test_the_released_log_density_is_minus_the_summed_squared_error() -> None:
    density = VAE(3, width=16, code_size=4)
    state = init(density)
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    code = jax.jit(density.reconstruct)(state.params, state, KEY, points, no_skills(5))
    expected = -np.sum((np.asarray(code.decoded) - points) ** 2, axis=-1)
    np.testing.assert_allclose(log_density(density, state, points), expected, rtol=1e-5)
    # The ELBO is the same error over twice the variance beta d / 2 = 0.75, a constant, and the KL.
    error, bound = -expected, log_density(dataclasses.replace(density, elbo=True), state, points)
    mean, variance = np.asarray(code.mean), np.exp(np.asarray(code.log_variance))
    kl = 0.5 * np.sum(mean**2 + variance - 1.0 - np.log(variance), axis=-1)
    np.testing.assert_allclose(bound, -error / 1.5 - 1.5 * math.log(2.0 * math.pi * 0.75) - kl, rtol=1e-5)


def test_a_vae_conditioned_on_skills_tells_them_apart() -> None:
    density = VAE(1, skills=2, elbo=True, beta=0.1, learning_rate=1e-2, width=32, code_size=2)
    skills = np.arange(2_000, dtype=np.int32) % 2
    noise = np.random.default_rng(0).normal(scale=0.3, size=(2_000, 1))
    points = (np.where(skills == 0, -2.0, 2.0)[:, None] + noise).astype(np.float32)
    state = trained(density, points, skills, 400)
    own, other = log_density(density, state, points, skills), log_density(density, state, points, 1 - skills)
    assert np.mean(own > other) > 0.99
