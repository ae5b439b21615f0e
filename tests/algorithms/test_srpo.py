"""SRPO against its fixed point in closed form, and each of its switches.

The behaviour is N(m(s), s^2 I). Its diffused noise prediction is sigma (a_t - alpha m) / (alpha^2 s^2 + sigma^2), whose
mean over the noise is sigma alpha (a - m) / (alpha^2 s^2 + sigma^2). With Q = -k/2 |a - c(s)|^2 the update therefore
stands still at a = (W m + beta k c) / (W + beta k), where W is the mean over t of
omega(t) sigma alpha / (alpha^2 s^2 + sigma^2).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import reference
from jaxrl_srpo import diffusion
from jaxrl_srpo.algorithms import iql, srpo
from jaxrl_srpo.types import Array, Batch, Spec

STATES = 3
SPEC = Spec(observation_size=STATES, action_size=2)
MEANS = np.asarray([[0.3, -0.4], [-0.5, 0.1], [0.0, 0.5]], np.float32)
GOALS = np.asarray([[-0.6, 0.5], [0.4, 0.7], [0.6, -0.3]], np.float32)
SPREAD, CURVATURE = 0.3, 2.0


@struct.dataclass
class Gaussian:
    """N(m(s), spread^2 I) with the state given as one-hot."""

    means: Array
    spread: Array

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        alpha, sigma = (x[:, None] for x in diffusion.marginal(times))
        return sigma * (noisy_actions - alpha * (observations @ self.means)) / ((alpha * self.spread) ** 2 + sigma**2)


@struct.dataclass
class Quadratic:
    """Two Qs whose mean is -curvature / 2 |a - c(s)|^2 plus a constant."""

    goals: Array
    curvature: Array

    def q_values(self, observations: Array, actions: Array) -> Array:
        q = -0.5 * self.curvature * jnp.sum((actions - observations @ self.goals) ** 2, axis=-1)
        return jnp.stack([0.5 * q - 1.0, 1.5 * q + 3.0], axis=-1)


def frozen_of(means=MEANS, spread=SPREAD, goals=GOALS, curvature=CURVATURE, initial_actor=None):
    behavior = Gaussian(jnp.asarray(means), jnp.float32(spread))
    return srpo.Frozen(behavior, Quadratic(jnp.asarray(goals), jnp.float32(curvature)), initial_actor)


def batch_of(size):
    observations = jnp.eye(STATES)[jnp.arange(size) % STATES]
    return Batch(observations, jnp.zeros((size, 2)), jnp.zeros(size), observations, jnp.ones(size))


@functools.partial(jax.jit, static_argnames=("config", "steps"))
def train(key, config, hyper, frozen, steps):
    """Metrics' last value and the state after `steps` updates."""
    batch = batch_of(config.batch_size)

    def step(state, key):
        return srpo.update(state, batch, key, hyper, frozen)

    state, metrics = jax.lax.scan(step, srpo.init(key, SPEC, config, hyper, frozen), jax.random.split(key, steps))
    return state, jax.tree.map(lambda x: x[-1], metrics)


def fixed_point(weighting, beta, regularization=1.0):
    """Actions [STATES, 2]; the mean over t by the midpoint rule."""
    times = 0.02 + 0.96 * (np.arange(20000) + 0.5) / 20000
    alpha, sigma = reference.marginal(times)
    omega = {"sigma2": sigma**2, "one": 1.0, "alpha_over_sigma": alpha / sigma}[weighting]
    pull = regularization * np.mean(omega * sigma * alpha / (alpha**2 * SPREAD**2 + sigma**2))
    return (pull * MEANS + beta * CURVATURE * GOALS) / (pull + beta * CURVATURE)


@pytest.mark.parametrize("minus_noise", [True, False])
@pytest.mark.parametrize("weighting", ["sigma2", "one", "alpha_over_sigma"])
def test_fixed_point(weighting, minus_noise):
    # The noise that stays without the subtraction is averaged out by larger batches.
    config = srpo.Config(
        batch_size=256 if minus_noise else 1024, width=32, weighting=weighting, minus_noise=minus_noise
    )
    for beta in (0.1, 1.0):
        expected = fixed_point(weighting, beta)
        hyper = srpo.Hyper(beta=beta, learning_rate=5e-3, total_steps=2000.0)
        state, _ = train(jax.random.key(0), config, hyper, frozen_of(), 2000)
        error = np.linalg.norm(state.policy.act(jnp.eye(STATES)) - expected, axis=-1)
        # Within 2 % of the way that Q moves the policy from the behaviour's mean, and of the action.
        print(weighting, minus_noise, beta, error / np.linalg.norm(expected - MEANS, axis=-1), error/np.linalg.norm(expected, axis=-1))
