"""SRPO against its fixed point in closed form, and each of its switches.

The behavior is N(m(s), s^2 I). Its diffused noise prediction is sigma (a_t - alpha m) / (alpha^2 s^2 + sigma^2), whose
mean over the noise is sigma alpha (a - m) / (alpha^2 s^2 + sigma^2). With Q = -k/2 |a - c(s)|^2 the update therefore
stands still at a = (W m + beta k c) / (W + beta k), where W is the mean over t of
omega(t) sigma alpha / (alpha^2 s^2 + sigma^2).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import iql, srpo
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec
from tests import reference

STATES = 3
SPEC = Spec(observation_size=STATES, action_size=2)
MEANS = np.asarray([[0.3, -0.4], [-0.5, 0.1], [0.0, 0.5]], np.float32)
GOALS = np.asarray([[-0.6, 0.5], [0.4, 0.7], [0.6, -0.3]], np.float32)
SPREAD, CURVATURE = 0.3, 2.0
INIT = jax.jit(srpo.init, static_argnames="spec")
CRITIC_INIT = jax.jit(iql.init, static_argnames="spec")


def settings_of(**values: Any) -> Any:
    return with_arrays(srpo.Settings(**values))


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


def frozen_of(curvature: float = CURVATURE, initial_actor: Params | None = None) -> srpo.Frozen:
    behavior = Gaussian(jnp.asarray(MEANS), jnp.float32(SPREAD))
    return srpo.Frozen(behavior, Quadratic(jnp.asarray(GOALS), jnp.float32(curvature)), initial_actor)


def batch_of(size: int) -> Batch:
    observations = jnp.eye(STATES)[jnp.arange(size) % STATES]
    return Batch(observations, jnp.zeros((size, 2)), jnp.zeros(size), observations, jnp.ones(size))


@functools.partial(jax.jit, static_argnames="steps")
def train(key: Array, settings: srpo.Settings, frozen: srpo.Frozen, steps: int) -> tuple[srpo.State, Metrics]:
    """The state after `steps` updates and the metrics of the last."""
    batch = batch_of(settings.batch_size)

    def step(state: srpo.State, key: Array) -> tuple[srpo.State, Metrics]:
        return srpo.update(state, batch, key, settings, frozen)

    state, metrics = jax.lax.scan(step, srpo.init(key, SPEC, settings, frozen), jax.random.split(key, steps))
    return state, jax.tree.map(lambda x: x[-1], metrics)


def distance(state: srpo.State, expected: np.ndarray) -> np.ndarray:
    """How far the actor is from its fixed point, as a share of that point's distance to the behavior's mean."""
    error = np.linalg.norm(srpo.policy_of(state).act(jnp.eye(STATES)) - expected, axis=-1)
    return error / np.linalg.norm(expected - MEANS, axis=-1)


def mean_pull(weighting: str) -> float:
    """W, the mean over t by the midpoint rule."""
    times = 0.02 + 0.96 * (np.arange(20000) + 0.5) / 20000
    alpha, sigma = reference.marginal(times)
    omega = {"sigma2": sigma**2, "one": 1.0, "alpha_over_sigma": alpha / sigma}[weighting]
    return float(np.mean(omega * sigma * alpha / (alpha**2 * SPREAD**2 + sigma**2)))


@pytest.mark.parametrize("minus_noise", [True, False])
@pytest.mark.parametrize("weighting", ["sigma2", "one", "alpha_over_sigma"])
def test_fixed_point(weighting: srpo.Weighting, minus_noise: bool) -> None:
    # Noise that is not subtracted has to be averaged out.
    size = 510 if minus_noise else 2046
    pull, regularization = mean_pull(weighting), 0.5
    fast: Any = settings_of(
        batch_size=size,
        width=16,
        weighting=weighting,
        minus_noise=minus_noise,
        regularization=regularization,
        learning_rate=3e-3,
        steps=2000,
    )
    # Q's maximum draws half as strongly as the behavior's mean, equally, or twice.
    for ratio in (0.5, 2.0) if minus_noise else (1.0,):
        settings = fast.replace(beta=jnp.float32(ratio * regularization * pull / CURVATURE))
        state, _ = train(jax.random.key(0), settings, frozen_of(), 2000)
        assert np.all(distance(state, (MEANS + ratio * GOALS) / (1.0 + ratio)) < 0.02)


def test_narrower_time_range_moves_the_fixed_point() -> None:
    """One small fixed time is nearly the undiffused score, whose fixed point needs no mean over t."""
    settings = settings_of(
        batch_size=510,
        width=16,
        weighting="alpha_over_sigma",
        minus_noise=True,
        beta=2.0,
        learning_rate=3e-3,
        time_min=0.2,
        time_max=0.2,
        steps=2000,
    )
    alpha, sigma = reference.marginal(np.asarray(0.2))
    pull = alpha**2 / (alpha**2 * SPREAD**2 + sigma**2)
    state, _ = train(jax.random.key(0), settings, frozen_of(), 2000)
    assert np.all(distance(state, (pull * MEANS + 2.0 * CURVATURE * GOALS) / (pull + 2.0 * CURVATURE)) < 0.02)


def test_without_regularization_climbs_q() -> None:
    settings = settings_of(batch_size=63, width=16, beta=1.0, regularization=0.0, learning_rate=3e-3, steps=2000)
    state, metrics = train(jax.random.key(0), settings, frozen_of(), 2000)
    np.testing.assert_allclose(srpo.policy_of(state).act(jnp.eye(STATES)), GOALS, atol=5e-3)
    assert metrics["q_gradient_norm"] < 0.02 < metrics["regularizer_norm"]


def test_scale_of_q_drops_out_when_its_gradient_is_normalized() -> None:
    observations = jnp.asarray(batch_of(6).observations)
    actions = jax.random.uniform(jax.random.key(0), (6, 2), minval=-1.0, maxval=1.0)
    raw = -CURVATURE * (actions - observations @ GOALS)
    gradient: Any = functools.partial(srpo.q_action_gradient, observations=observations, actions=actions)
    np.testing.assert_allclose(gradient(frozen_of().critic, form="raw"), raw, rtol=1e-5)
    for curvature in (CURVATURE, 1e4):
        critic = frozen_of(curvature=curvature).critic
        per_sample = raw / np.sqrt(np.mean(np.square(raw), axis=-1, keepdims=True))
        np.testing.assert_allclose(gradient(critic, form="sample"), per_sample, rtol=1e-5)
        np.testing.assert_allclose(gradient(critic, form="batch"), raw / np.sqrt(np.mean(np.square(raw))), rtol=1e-5)


@pytest.mark.parametrize("form", ["raw", "sample", "batch"])
def test_flat_q_has_no_gradient(form: srpo.QGradient) -> None:
    critic = frozen_of(curvature=0.0).critic
    gradient = srpo.q_action_gradient(critic, jnp.eye(STATES), jnp.zeros((STATES, 2)), form)
    np.testing.assert_array_equal(gradient, np.zeros((STATES, 2)))


def test_one_forward_and_no_backward_pass_through_the_score_network() -> None:
    calls: list[Any] = []

    @jax.custom_jvp
    def predict(noisy_actions: Array) -> Array:
        calls.append(noisy_actions.shape)
        return 0.5 * noisy_actions

    @predict.defjvp
    def forbidden(primals: Any, tangents: Any) -> Any:
        raise AssertionError("a gradient flowed through the score network")

    @struct.dataclass
    class Guarded:
        def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
            return predict(noisy_actions)

    with pytest.raises(AssertionError, match="a gradient flowed"):
        jax.grad(lambda x: jnp.sum(predict(x)))(jnp.ones(2))
    calls.clear()
    frozen = srpo.Frozen(Guarded(), frozen_of().critic)
    settings = settings_of(batch_size=6, width=8)
    state = INIT(jax.random.key(0), SPEC, settings, frozen)
    jax.jit(srpo.update)(state, batch_of(6), jax.random.key(1), settings, frozen)
    assert calls == [(6, 2)]


def test_starts_from_a_given_actor() -> None:
    critic_settings: Any = with_arrays(iql.Settings(width=16, actor_layers=4))
    critic = CRITIC_INIT(jax.random.key(0), SPEC, critic_settings)
    frozen = frozen_of(initial_actor=critic.actor.params)
    state = INIT(jax.random.key(1), SPEC, settings_of(batch_size=6, width=16, own_layers=4, weight_average=0.5), frozen)
    observations = jnp.eye(STATES)
    expected = iql.policy_of(critic).act(observations)
    np.testing.assert_array_equal(srpo.policy_of(state).act(observations), expected)
    # The weights are averaged from there too.
    jax.tree.map(np.testing.assert_array_equal, state.average, critic.actor.params)


def test_weight_average() -> None:
    frozen = frozen_of()
    settings = settings_of(batch_size=6, width=8, weight_average=0.75, learning_rate=1e-2, steps=10)
    state = INIT(jax.random.key(0), SPEC, settings, frozen)
    average, update = state.actor.params, jax.jit(srpo.update)
    for i in range(3):
        state, _ = update(state, batch_of(6), jax.random.key(i), settings, frozen)
        average = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, average, state.actor.params)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, state.average, average)
    assert srpo.policy_of(state).params is state.average

    plain = INIT(jax.random.key(0), SPEC, settings.replace(weight_average=0.0), frozen)
    assert plain.average is None
    assert srpo.policy_of(plain).params is plain.actor.params


def test_times_that_leave_nothing_to_draw_from_are_refused() -> None:
    with pytest.raises(UserError, match=r"--time_min=0.9: must not be above --time_max=0.5"):
        srpo.Settings(time_min=0.9, time_max=0.5).check()
    srpo.Settings(time_min=0.5, time_max=0.5).check()


def test_an_actor_of_another_depth_cannot_start_as_iqls() -> None:
    with pytest.raises(UserError, match=r"--policy_layers=4: --policy_start=iql needs .* --actor_layers=2"):
        srpo.Settings(start="iql", own_layers=4, iql_layers=2).check()
    assert srpo.Settings(own_layers=4, iql_layers=2).layers == 4
    assert srpo.Settings(own_layers=0, iql_layers=2).layers == 2


def test_a_dataset_outside_the_published_table_gets_a_note() -> None:
    paper = srpo.METHOD.presets["paper"]
    assert paper.note("hopper-medium-v2", "locomotion") == ""
    assert paper.note("pen-human-v1", "adroit") == (
        "pen-human-v1: the paper has no beta for it; --beta chooses one, 0.05 otherwise"
    )
