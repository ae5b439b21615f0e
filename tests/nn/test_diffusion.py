"""Schedule, score, sampler and log-density against formulas, then a trained model on two known distributions."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.methods import behavior
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.types import Array, Batch, ScoreModel, Spec

SPEC = Spec(observation_size=1, action_size=2)


@struct.dataclass
class Mixture:
    """Isotropic Gaussians in the plane, diffused in closed form: weights [K], means [K, 2], one spread."""

    weights: Array
    means: Array
    spread: Array

    def noisy_log_density(self, action: Array, time: Array) -> Array:
        """log of the density of a_t [2] at a time."""
        alpha, sigma = diffusion.marginal(time)
        variance = (alpha * self.spread) ** 2 + sigma**2
        distance = jnp.sum((action[None] - alpha * self.means) ** 2, axis=-1)
        parts = jnp.log(self.weights) - 0.5 * distance / variance - jnp.log(2.0 * jnp.pi * variance)
        return jax.scipy.special.logsumexp(parts)

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        gradient = jax.vmap(jax.grad(self.noisy_log_density))(noisy_actions, times)
        return -diffusion.marginal(times).sigma[:, None] * gradient

    def log_density(self, actions: Array) -> Array:
        """The density that the probability-flow ODE integrates back to, a hair wider than the data's own."""
        return jax.vmap(self.noisy_log_density, (0, None))(actions, jnp.float32(diffusion.TIME_MIN))

    def draw(self, key: Array, count: int) -> Array:
        key_mode, key_noise = jax.random.split(key)
        mode = jax.random.choice(key_mode, len(self.weights), (count,), p=self.weights)
        return self.means[mode] + self.spread * jax.random.normal(key_noise, (count, 2))


def mixture(weights: list[float], means: list[list[float]], spread: float) -> Mixture:
    return Mixture(jnp.asarray(weights), jnp.asarray(means), jnp.float32(spread))


# The Gaussian has two equal parts, so that both distributions run through the same compiled programs.
TARGETS = {
    "gaussian": mixture([0.5, 0.5], [[0.2, -0.3], [0.2, -0.3]], 0.2),
    "two modes": mixture([0.3, 0.7], [[-0.5, 0.3], [0.5, -0.2]], 0.12),
}


def test_schedule() -> None:
    alpha, sigma = diffusion.marginal(jnp.asarray([0.0, 0.5, 1.0]))
    # log alpha = -19.9 t^2 / 4 - 0.1 t / 2: 0, -1.26875, -5.025.
    exact = np.exp([0.0, -1.26875, -5.025])
    np.testing.assert_allclose(alpha, exact, rtol=1e-5)
    np.testing.assert_allclose(sigma, np.sqrt(1.0 - exact**2), rtol=1e-5)


def test_signal_and_noise_keep_unit_variance() -> None:
    times = jnp.linspace(0.0, 1.0, 1001)
    alpha, sigma = diffusion.marginal(times)
    np.testing.assert_allclose(alpha**2 + sigma**2, np.ones(1001), atol=1e-6)
    # Small sigmas keep their relative accuracy.
    small = np.geomspace(1e-6, 1e-2, 50)
    exact = np.sqrt(-np.expm1(2.0 * (-0.25 * small**2 * 19.9 - 0.05 * small)))
    np.testing.assert_allclose(diffusion.marginal(jnp.asarray(small, jnp.float32)).sigma, exact, rtol=1e-5)


def test_time_of_log_snr_inverts_the_schedule() -> None:
    times = jnp.linspace(1e-3, 1.0, 500)
    alpha, sigma = diffusion.marginal(times)
    np.testing.assert_allclose(diffusion.time_of_log_snr(jnp.log(alpha / sigma)), times, rtol=1e-4, atol=1e-6)


def test_diffused_actions_have_the_marginal_moments() -> None:
    actions, times = jnp.full((20000, 2), 0.8), jnp.full(20000, 0.3)
    noisy = diffusion.diffuse(actions, jax.random.normal(jax.random.key(0), actions.shape), times)
    alpha, sigma = diffusion.marginal(times[0])
    np.testing.assert_allclose(noisy.mean(0), np.full(2, 0.8 * alpha), atol=0.02)
    np.testing.assert_allclose(noisy.std(0), np.full(2, sigma), atol=0.02)


@functools.partial(jax.jit, static_argnames="count")
def draw_samples(model: ScoreModel, key: Array, count: int) -> Array:
    return diffusion.sample(model, Keyed(key), jnp.zeros((count, 1)), 2)


@functools.partial(jax.jit, static_argnames=("count", "steps"))
def draw_ancestral_samples(model: ScoreModel, key: Array, count: int, steps: int) -> Array:
    return diffusion.sample_ddpm(model, Keyed(key), jnp.zeros((count, 1)), 2, steps)


@jax.jit
def log_density(model: ScoreModel, actions: Array) -> Array:
    return diffusion.log_density(model, actions, jnp.zeros((len(actions), 1)), steps=100)


@jax.jit
def score(model: ScoreModel, actions: Array, times: Array) -> Array:
    return diffusion.score(model, actions, times, jnp.zeros((len(actions), 1)))


def assert_samples(actions: Any, target: Mixture, tolerance: float) -> None:
    """Share, mean and spread of each mode."""
    actions = np.asarray(actions)
    assert np.abs(actions).max() <= 1.0
    centres = np.asarray(target.means)
    nearest = np.argmin(np.linalg.norm(actions[:, None] - centres, axis=-1), axis=1)
    means, first = np.unique(centres, axis=0, return_index=True)
    for mean, mode in zip(means, first, strict=True):
        same = np.all(centres == mean, axis=1)
        assert abs(np.mean(nearest == mode) - np.asarray(target.weights)[same].sum()) < tolerance
        np.testing.assert_allclose(actions[nearest == mode].mean(0), mean, atol=tolerance)
        np.testing.assert_allclose(actions[nearest == mode].std(0), np.full(2, target.spread), atol=tolerance)


@pytest.mark.parametrize("name", TARGETS)
def test_analytic_model(name: str) -> None:
    """The solvers alone: the score is exact, so what is left is their own error."""
    target = TARGETS[name]
    actions = target.draw(jax.random.key(1), 64)
    np.testing.assert_allclose(log_density(target, actions), target.log_density(actions), atol=1e-2)
    assert_samples(draw_samples(target, jax.random.key(2), 4000), target, 0.03)


@pytest.mark.parametrize("name", TARGETS)
def test_ancestral_samples_of_the_analytic_model(name: str) -> None:
    assert_samples(draw_ancestral_samples(TARGETS[name], jax.random.key(2), 4000, 100), TARGETS[name], 0.03)


def gaussian_chain(mean: float, spread: float, steps: int) -> tuple[float, float]:
    """Mean and deviation that ancestral sampling of N(mean, spread^2) ends with: every step is affine in a_t."""
    times = np.linspace(1.0, 0.0, steps + 1)
    alpha = np.exp(-0.25 * 19.9 * times**2 - 0.05 * times)
    # Start from N(0, 1), the coefficients of Ho et al. (arXiv 2006.11239), eq. 7, in terms of their alpha and beta.
    first, second = 0.0, 1.0
    for now, after in itertools.pairwise(alpha):
        beta = 1.0 - (now / after) ** 2
        of_data = after * beta / (1.0 - now**2)
        of_noisy = (now / after) * (1.0 - after**2) / (1.0 - now**2)
        slope = now * spread**2 / (now**2 * spread**2 + 1.0 - now**2)
        offset = mean - slope * now * mean
        first = of_data * (offset + slope * first) + of_noisy * first
        second = (of_data * slope + of_noisy) ** 2 * second + beta * (1.0 - after**2) / (1.0 - now**2)
    return first, np.sqrt(second)


@pytest.mark.parametrize("steps", [1, 5, 15])
def test_few_ancestral_steps_err_as_the_formula_says(steps: int) -> None:
    actions = np.asarray(draw_ancestral_samples(TARGETS["gaussian"], jax.random.key(3), 20000, steps))
    expected = [gaussian_chain(mean, 0.2, steps) for mean in (0.2, -0.3)]
    np.testing.assert_allclose(actions.mean(0), [mean for mean, _ in expected], atol=0.006)
    np.testing.assert_allclose(actions.std(0), [deviation for _, deviation in expected], atol=0.004)


class Trained(NamedTuple):
    model: behavior.Model
    target: Mixture


@functools.partial(jax.jit, static_argnames=("steps", "batch_size"))
def train(key: Array, target: Mixture, steps: int, batch_size: int = 256) -> Any:
    settings = with_arrays(
        behavior.Settings(
            width=64,
            hidden=128,
            blocks=2,
            dropout_rate=0.0,
            cosine=True,
            learning_rate=2e-3,
            weight_decay=0.0,
            steps=steps,
        )
    )
    nothing = jnp.zeros((batch_size, 1))

    def step(i: int, state: Any) -> Any:
        key_batch, key_update = jax.random.split(jax.random.fold_in(key, i))
        actions = target.draw(key_batch, batch_size)
        batch = Batch(nothing, actions, nothing[:, 0], nothing, nothing[:, 0])
        return behavior.update(state, batch, key_update, settings)[0]

    return behavior.model_of(jax.lax.fori_loop(0, steps, step, behavior.init(key, SPEC, settings)))


@pytest.fixture(scope="module", params=TARGETS)
def trained(request: pytest.FixtureRequest) -> Trained:
    target = TARGETS[request.param]
    return Trained(train(jax.random.key(0), target, 1500), target)


@pytest.mark.parametrize("time", [0.1, 0.3, 0.6, 0.9])
def test_trained_score(trained: Trained, time: float) -> None:
    """Root mean square error, over the diffused distribution, as a share of the score's own size."""
    times = jnp.full(2000, time)
    key_action, key_noise = jax.random.split(jax.random.key(3))
    noise = jax.random.normal(key_noise, (2000, 2))
    actions = diffusion.diffuse(trained.target.draw(key_action, 2000), noise, times)
    exact = score(trained.target, actions, times)
    error = score(trained.model, actions, times) - exact
    assert jnp.sqrt(jnp.mean(error**2) / jnp.mean(exact**2)) < 0.08


def test_trained_log_density(trained: Trained) -> None:
    actions = trained.target.draw(jax.random.key(4), 128)
    error = log_density(trained.model, actions) - trained.target.log_density(actions)
    # In nats; the densities themselves range over several.
    assert jnp.abs(jnp.mean(error)) < 0.05
    assert jnp.mean(jnp.abs(error)) < 0.15


def test_trained_samples(trained: Trained) -> None:
    samples = behavior.DiffusionPolicy(trained.model, 2, 15).act(jnp.zeros((4000, 1)), jax.random.key(5))
    assert_samples(samples, trained.target, 0.05)
