"""Samples of the bandits: inside the action box, on their shapes, pure functions of the key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.envs import bandits

N = 4_000


def draw(name: str, seed: int = 0) -> np.ndarray:
    return np.asarray(bandits.DISTRIBUTIONS[name](jax.random.key(seed), N))


@pytest.mark.parametrize("name", list(bandits.DISTRIBUTIONS))
def test_samples_are_float32_inside_the_action_box(name: str) -> None:
    samples = draw(name)
    assert samples.shape == (N, 2)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 1.0
    # They use most of the box, but hardly touch its border, where clipping would pile them up.
    assert np.all(samples.max(axis=0) - samples.min(axis=0) > 1.0)
    assert np.mean(np.abs(samples) == 1.0) < 0.003


@pytest.mark.parametrize("name", list(bandits.DISTRIBUTIONS))
def test_samples_depend_on_the_key_alone(name: str) -> None:
    jitted = jax.jit(bandits.DISTRIBUTIONS[name], static_argnums=1)(jax.random.key(0), N)
    np.testing.assert_allclose(draw(name), jitted, atol=1e-6)
    assert not np.array_equal(draw(name), draw(name, seed=1))


def test_eight_gaussians_has_eight_equal_modes() -> None:
    samples = draw("eight_gaussians")
    mode = np.round(np.arctan2(samples[:, 1], samples[:, 0]) / (np.pi / 4)).astype(int) % 8
    counts = np.bincount(mode, minlength=8)
    assert np.all(np.abs(counts - N / 8) < 5 * np.sqrt(N / 8))
    for k in range(8):
        center = 0.75 * np.array([np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)])
        np.testing.assert_allclose(samples[mode == k].mean(axis=0), center, atol=0.02)
        np.testing.assert_allclose(samples[mode == k].std(axis=0), 0.07, rtol=0.15)


def test_checkerboard_fills_dark_squares_only() -> None:
    squares = np.floor(draw("checkerboard") / 0.45).astype(int)
    assert np.all((squares.sum(axis=1)) % 2 == 0)
    assert len(np.unique(squares, axis=0)) == 8


def test_rings_are_equally_dense() -> None:
    radii = np.hypot(*draw("rings").T)
    outer = radii > 0.625
    np.testing.assert_allclose(radii, np.where(outer, 0.85, 0.4), atol=5 * 0.035)
    np.testing.assert_allclose(outer.mean(), 0.85 / 1.25, atol=0.03)


def test_swiss_roll_lies_on_its_spiral() -> None:
    samples = draw("swiss_roll")
    angles = 1.5 * np.pi * (1.0 + 2.0 * np.linspace(0.0, 1.0, 2_000))
    spiral = 0.9 * (angles / angles[-1])[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    distance = np.linalg.norm(samples[:, None] - spiral[None], axis=-1).min(axis=1)
    assert distance.max() < 5 * 0.03
    assert distance.mean() > 0.5 * 0.03


def test_two_moons_are_point_symmetric() -> None:
    samples = draw("two_moons")
    np.testing.assert_allclose(samples.mean(axis=0), 0.0, atol=0.03)
    # Distance to the nearer of the two half circles.
    circles = np.stack([np.hypot(*(samples - c).T) - 0.56 for c in ([-0.28, -0.14], [0.28, 0.14])])
    assert np.abs(circles).min(axis=0).max() < 5 * 0.04


def test_all_are_pure_jax() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    for sample in bandits.DISTRIBUTIONS.values():
        assert jax.vmap(lambda key, sample=sample: sample(key, 5))(keys).shape == (3, 5, 2)
    assert jnp.float32 == jnp.asarray(draw("rings")).dtype
