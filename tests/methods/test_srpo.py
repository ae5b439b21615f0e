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

from jaxrl_srpo.methods import iql, srpo
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference

STATES = 3
SPEC = Spec(observation_size=STATES, action_size=2)
MEANS = np.asarray([[0.3, -0.4], [-0.5, 0.1], [0.0, 0.5]], np.float32)
GOALS = np.asarray([[-0.6, 0.5], [0.4, 0.7], [0.6, -0.3]], np.float32)
SPREAD, CURVATURE = 0.3, 2.0
INIT = jax.jit(srpo.init, static_argnames=("spec", "config"))
CRITIC_INIT = jax.jit(iql.init, static_argnames=("spec", "config"))


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


def mean_pull(weighting):
    """W, the mean over t by the midpoint rule."""
    times = 0.02 + 0.96 * (np.arange(20000) + 0.5) / 20000
    alpha, sigma = reference.marginal(times)
    omega = {"sigma2": sigma**2, "one": 1.0, "alpha_over_sigma": alpha / sigma}[weighting]
    return np.mean(omega * sigma * alpha / (alpha**2 * SPREAD**2 + sigma**2))


@pytest.mark.parametrize("minus_noise", [True, False])
@pytest.mark.parametrize("weighting", ["sigma2", "one", "alpha_over_sigma"])
def test_fixed_point(weighting, minus_noise):
    # Noise that is not subtracted has to be averaged out.
    size = 510 if minus_noise else 2046
    config = srpo.Config(batch_size=size, width=16, weighting=weighting, minus_noise=minus_noise)
    pull, regularization = mean_pull(weighting), 0.5
    # Q's maximum draws half as strongly as the behaviour's mean, equally, or twice.
    for ratio in (0.5, 2.0) if minus_noise else (1.0,):
        beta = ratio * regularization * pull / CURVATURE
        expected = (MEANS + ratio * GOALS) / (1.0 + ratio)
        hyper = srpo.Hyper(beta=beta, regularization=regularization, learning_rate=3e-3, total_steps=2000.0)
        state, _ = train(jax.random.key(0), config, hyper, frozen_of(), 2000)
        error = np.linalg.norm(state.policy.act(jnp.eye(STATES)) - expected, axis=-1)
        assert np.all(error < 0.02 * np.linalg.norm(expected - MEANS, axis=-1))


def test_narrower_time_range_moves_the_fixed_point():
    """One small fixed time is nearly the undiffused score, whose fixed point needs no mean over t."""
    config = srpo.Config(batch_size=510, width=16, weighting="alpha_over_sigma", minus_noise=True)
    hyper = srpo.Hyper(beta=2.0, learning_rate=3e-3, time_min=0.2, time_max=0.2, total_steps=2000.0)
    alpha, sigma = reference.marginal(np.asarray(0.2))
    pull = alpha**2 / (alpha**2 * SPREAD**2 + sigma**2)
    expected = (pull * MEANS + 2.0 * CURVATURE * GOALS) / (pull + 2.0 * CURVATURE)
    state, _ = train(jax.random.key(0), config, hyper, frozen_of(), 2000)
    error = np.linalg.norm(state.policy.act(jnp.eye(STATES)) - expected, axis=-1)
    assert np.all(error < 0.02 * np.linalg.norm(expected - MEANS, axis=-1))


def test_without_regularization_climbs_q():
    config = srpo.Config(batch_size=63, width=16)
    hyper = srpo.Hyper(beta=1.0, regularization=0.0, learning_rate=3e-3, total_steps=2000.0)
    state, metrics = train(jax.random.key(0), config, hyper, frozen_of(), 2000)
    np.testing.assert_allclose(state.policy.act(jnp.eye(STATES)), GOALS, atol=5e-3)
    assert metrics["q_gradient_norm"] < 0.02 < metrics["regularizer_norm"]


def test_scale_of_q_drops_out_when_its_gradient_is_normalised():
    observations = jnp.asarray(batch_of(6).observations)
    actions = jax.random.uniform(jax.random.key(0), (6, 2), minval=-1.0, maxval=1.0)
    raw = -CURVATURE * (actions - observations @ GOALS)
    gradient = functools.partial(srpo.q_action_gradient, observations=observations, actions=actions)
    np.testing.assert_allclose(gradient(frozen_of().critic, form="raw"), raw, rtol=1e-5)
    for curvature in (CURVATURE, 1e4):
        critic = frozen_of(curvature=curvature).critic
        per_sample = raw / np.sqrt(np.mean(np.square(raw), axis=-1, keepdims=True))
        np.testing.assert_allclose(gradient(critic, form="sample"), per_sample, rtol=1e-5)
        np.testing.assert_allclose(gradient(critic, form="batch"), raw / np.sqrt(np.mean(np.square(raw))), rtol=1e-5)


@pytest.mark.parametrize("form", ["raw", "sample", "batch"])
def test_flat_q_has_no_gradient(form):
    critic = frozen_of(curvature=0.0).critic
    gradient = srpo.q_action_gradient(critic, jnp.eye(STATES), jnp.zeros((STATES, 2)), form)
    np.testing.assert_array_equal(gradient, np.zeros((STATES, 2)))


def test_one_forward_and_no_backward_pass_through_the_score_network():
    calls = []

    @jax.custom_jvp
    def predict(noisy_actions):
        calls.append(noisy_actions.shape)
        return 0.5 * noisy_actions

    @predict.defjvp
    def forbidden(primals, tangents):
        raise AssertionError("a gradient flowed through the score network")

    @struct.dataclass
    class Guarded:
        def noise_prediction(self, noisy_actions, times, observations):
            return predict(noisy_actions)

    with pytest.raises(AssertionError, match="a gradient flowed"):
        jax.grad(lambda x: jnp.sum(predict(x)))(jnp.ones(2))
    calls.clear()
    frozen = srpo.Frozen(Guarded(), frozen_of().critic)
    config = srpo.Config(batch_size=6, width=8)
    state = INIT(jax.random.key(0), SPEC, config, srpo.Hyper(), frozen)
    jax.jit(srpo.update)(state, batch_of(6), jax.random.key(1), srpo.Hyper(), frozen)
    assert calls == [(6, 2)]


def test_starts_from_a_given_actor():
    config = srpo.Config(batch_size=6, width=16, layers=4, weight_average=0.5)
    critic_state = CRITIC_INIT(jax.random.key(0), SPEC, iql.Config(actor_width=16, actor_layers=4), iql.Hyper())
    frozen = frozen_of(initial_actor=critic_state.policy.params)
    state = INIT(jax.random.key(1), SPEC, config, srpo.Hyper(), frozen)
    observations = jnp.eye(STATES)
    np.testing.assert_array_equal(state.policy.act(observations), critic_state.policy.act(observations))
    np.testing.assert_array_equal(srpo.act(state.policy, observations), state.policy.act(observations))


def test_weight_average():
    hyper, frozen = srpo.Hyper(learning_rate=1e-2, total_steps=10.0), frozen_of()
    config = srpo.Config(batch_size=6, width=8, weight_average=0.75)
    state = INIT(jax.random.key(0), SPEC, config, hyper, frozen)
    average, update = state.params, jax.jit(srpo.update)
    for i in range(3):
        state, _ = update(state, batch_of(6), jax.random.key(i), hyper, frozen)
        average = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, average, state.params)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, state.average, average)
    assert state.policy.params is state.average

    plain = INIT(jax.random.key(0), SPEC, config._replace(weight_average=0.0), hyper, frozen)
    assert plain.average is None
    assert plain.policy.params is plain.params
