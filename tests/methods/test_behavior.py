"""The diffusion model of behavior: its result, its policy and its switches; what it learns is tested with diffusion."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import behavior
from jaxrl_srpo.methods.settings import Values, with_arrays
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.types import Batch, Spec

SPEC = Spec(3, 2)
TINY: Any = with_arrays(behavior.Settings(batch_size=8, width=8, hidden=16, blocks=1, learning_rate=1e-2, steps=10))
INIT = jax.jit(behavior.init, static_argnames="spec")
UPDATE = jax.jit(behavior.update)


@pytest.fixture(scope="module")
def batch() -> Batch:
    observations = jax.random.normal(jax.random.key(0), (8, 3))
    return Batch(observations, jnp.tanh(observations[:, :2]), jnp.zeros(8), observations, jnp.ones(8))


def test_the_average_lags_behind_and_is_the_result(batch: Batch) -> None:
    settings = TINY.replace(weight_average=0.75)
    state = INIT(jax.random.key(1), SPEC, settings)
    after, _ = UPDATE(state, batch, jax.random.key(2), settings)
    expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, state.score.params, after.score.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), after.average, expected)
    assert behavior.model_of(after).params is after.average
    plain = INIT(jax.random.key(1), SPEC, TINY)
    assert behavior.model_of(plain).params is plain.score.params


def test_the_rate_falls_to_zero_only_where_it_is_asked_to(batch: Batch) -> None:
    for cosine in (True, False):
        settings = TINY.replace(cosine=cosine)
        fresh: Any = INIT(jax.random.key(1), SPEC, settings)
        state = fresh.replace(step=jnp.int32(10))
        after, _ = UPDATE(state, batch, jax.random.key(2), settings)
        leaves = zip(jax.tree.leaves(after.score.params), jax.tree.leaves(state.score.params), strict=True)
        assert all(np.array_equal(new, old) for new, old in leaves) is cosine


def test_the_loss_is_the_squared_error_of_the_noise(batch: Batch) -> None:
    settings = TINY.replace(dropout_rate=0.0)
    state = INIT(jax.random.key(1), SPEC, settings)
    times, noise = jnp.linspace(0.1, 0.9, 8), jax.random.normal(jax.random.key(3), (8, 2))
    loss = behavior.score_loss(state.score.params, state, batch, times, noise, jax.random.key(4))
    noisy = diffusion.diffuse(batch.actions, noise, times)
    predicted = behavior.model_of(state).noise_prediction(noisy, times, batch.observations)
    np.testing.assert_allclose(loss, np.mean(np.sum((predicted - noise) ** 2, axis=-1)), rtol=1e-6)


def test_cloning_samples_within_the_bounds_by_its_key() -> None:
    values = Values({"score_width": 8, "score_hidden": 16, "score_blocks": 1, "sampler_steps": 3})
    settings = with_arrays(behavior.STAGE.read(values))
    model = behavior.model_of(INIT(jax.random.key(1), SPEC, settings))
    policy = behavior.STAGE.make_policy(values, SPEC, model)
    assert (policy.action_size, policy.steps) == (2, 3)
    act = jax.jit(behavior.STAGE.act)
    observations = jnp.zeros((16, 3))
    actions, same, other = (act(policy, observations, jax.random.key(seed)) for seed in (0, 0, 1))
    assert actions.shape == (16, 2)
    assert float(jnp.max(jnp.abs(actions))) <= 1.0
    np.testing.assert_array_equal(actions, same)
    assert not np.array_equal(actions, other)
