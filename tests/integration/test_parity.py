"""Consecutive updates of each stage against the plain NumPy computation of `tests/reference.py`.

Both start from the same parameters and use the same batches and draws. Adam divides by the size of the gradient, which
hides its scale, so the gradient itself is compared too, through Adam's moments.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import behavior, iql, srpo
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import diffusion, networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.types import Batch, Spec
from tests import reference

SPEC = Spec(observation_size=5, action_size=3)
BATCH = 32
UPDATES = 3
TOTAL_STEPS = 10
TOLERANCE = 1e-5
RATE = 3e-3
BEHAVIOR_INIT, IQL_INIT, SRPO_INIT = (jax.jit(module.init, static_argnames="spec") for module in (behavior, iql, srpo))


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), networks.split_heads(tree))


def batch_of(seed: int) -> Batch:
    keys = jax.random.split(jax.random.key(seed), 5)
    of_states, of_actions = (BATCH, SPEC.observation_size), (BATCH, SPEC.action_size)
    return Batch(
        observations=jax.random.normal(keys[0], of_states),
        actions=jax.random.uniform(keys[1], of_actions, minval=-1.0, maxval=1.0),
        rewards=jax.random.normal(keys[2], (BATCH,)),
        next_observations=jax.random.normal(keys[3], of_states),
        discounts=jax.random.bernoulli(keys[4], 0.8, (BATCH,)).astype(jnp.float32),
    )


def transitions(batch: Batch) -> reference.Transitions:
    arrays = to_numpy(batch)
    return reference.Transitions(
        arrays.observations, arrays.actions, arrays.rewards, arrays.next_observations, arrays.discounts
    )


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=TOLERANCE), to_numpy(actual), expected)


def assert_learner(learner: Learner, expected: reference.Learner) -> None:
    opt_state: Any = learner.opt_state
    assert_close(learner.params, expected.params)
    assert_close(opt_state.mu, expected.moments.first)
    assert_close(opt_state.nu, expected.moments.second)
    assert int(opt_state.count) == expected.moments.steps


def warm(learner: Any) -> tuple[Any, reference.Learner]:
    """The same Adam state, for both sides, as if two updates had seen small gradients.

    A first update of Adam is the sign of the gradient, which rounding alone decides where the gradient is nearly 0.
    """
    assert_learner(learner, reference.learner(to_numpy(learner.params)))
    opt_state = learner.opt_state
    opt_state = opt_state._replace(nu=jax.tree.map(lambda x: x + 1e-8, opt_state.nu), count=opt_state.count + 2)
    moments = reference.Moments(to_numpy(opt_state.mu), to_numpy(opt_state.nu), int(opt_state.count))
    return learner.replace(opt_state=opt_state), reference.Learner(to_numpy(learner.params), moments)


@jax.jit
def dropout_masks(state: Any, key: jax.Array, inputs: Any) -> list[jax.Array]:
    """What each residual block keeps, seen at the entry of its LayerNorm."""
    seen: list[jax.Array] = []

    def watch(next_function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.LayerNorm):
            seen.append(args[0] != 0.0)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(watch):
        variables = {"params": state.score.params, "constants": state.constants}
        state.score.network.apply(variables, *inputs, train=True, rngs={"dropout": key})
    return seen


@pytest.mark.parametrize("cosine", [False, True])
def test_behavior(cosine: bool) -> None:
    settings = with_arrays(
        behavior.Settings(
            batch_size=BATCH,
            width=32,
            hidden=64,
            blocks=2,
            cosine=cosine,
            weight_average=0.9,
            learning_rate=RATE,
            weight_decay=5.0,
            steps=TOTAL_STEPS,
        )
    )
    state: Any = BEHAVIOR_INIT(jax.random.key(0), SPEC, settings)
    # Neither scale nor bias of a fresh LayerNorm would show a mistake, for they are 1 and 0.
    params = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), state.score.params
    )
    score, expected = warm(state.score.replace(params=params))
    state = state.replace(score=score, average=params)
    average = expected.params
    frequencies = np.asarray(jax.tree.leaves(state.constants)[0], np.float64)
    update = jax.jit(behavior.update)

    for i in range(UPDATES):
        batch, key = batch_of(i), jax.random.key(100 + i)
        key_time, key_noise, key_dropout = jax.random.split(key, 3)
        times = jax.random.uniform(key_time, (BATCH,), minval=1e-3, maxval=1.0)
        noise = jax.random.normal(key_noise, batch.actions.shape)
        noisy = diffusion.diffuse(batch.actions, noise, times)
        masks = to_numpy(dropout_masks(state, key_dropout, (noisy, times, batch.observations)))
        assert 0.0 < np.mean(np.stack(masks)) < 1.0

        state, metrics = update(state, batch, key, settings)
        expected, loss = reference.behavior_update(
            expected,
            frequencies,
            transitions(batch),
            to_numpy(times),
            to_numpy(noise),
            masks,
            rate=6554 / 65536,  # The nearest to 0.1 that 16 random bits can give.
            learning_rate=RATE * (reference.cosine(i, TOTAL_STEPS) if cosine else 1.0),
            weight_decay=5.0,
        )
        average = reference.tree_map(lambda a, p: 0.9 * a + 0.1 * p, average, expected.params)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=TOLERANCE)
        assert_learner(state.score, expected)
        assert_close(state.average, average)


@pytest.mark.parametrize("actor_layers", [2, 4])
def test_critic(actor_layers: int) -> None:
    settings = with_arrays(
        iql.Settings(
            batch_size=BATCH,
            width=32,
            actor_layers=actor_layers,
            learning_rate=RATE,
            actor_learning_rate=2 * RATE,
            expectile=0.8,
            discount=0.95,
            temperature=5.0,
            target_rate=0.1,
            steps=TOTAL_STEPS,
        )
    )
    state: Any = IQL_INIT(jax.random.key(1), SPEC, settings)
    # Targets unlike the online networks.
    state = state.replace(target_q=jax.tree.map(lambda x: 2.0 * x, state.target_q))
    learners, expected_learners = {}, {}
    for name in ("q", "value", "actor"):
        learners[name], expected_learners[name] = warm(getattr(state, name))
    state = state.replace(**learners)
    expected = reference.Critic(**expected_learners, target=to_numpy(state.target_q))
    update = jax.jit(iql.update)
    for i in range(UPDATES):
        batch = batch_of(i)
        state, metrics = update(state, batch, settings)
        expected, losses = reference.critic_update(
            expected,
            transitions(batch),
            learning_rate=RATE,
            actor_rate=2 * RATE * reference.cosine(i, TOTAL_STEPS),
            expectile=0.8,
            discount=0.95,
            temperature=5.0,
            target_rate=0.1,
        )
        for name, loss in losses.items():
            np.testing.assert_allclose(metrics[name], loss, rtol=TOLERANCE)
        assert_learner(state.q, expected.q)
        assert_learner(state.value, expected.value)
        assert_learner(state.actor, expected.actor)
        assert_close(state.target_q, expected.target)


WEIGHTINGS = ("sigma2", "one", "alpha_over_sigma")
Q_GRADIENTS = ("raw", "sample", "batch")
# Every pair of two switches' values occurs.
VARIANTS = [(WEIGHTINGS[i], Q_GRADIENTS[j], (i + j) % 2 == 1) for i in range(3) for j in range(3)]


@pytest.mark.parametrize(("weighting", "q_gradient", "minus_noise"), VARIANTS)
def test_policy(weighting: Any, q_gradient: Any, minus_noise: bool) -> None:
    score_settings = with_arrays(behavior.Settings(width=32, hidden=64, blocks=1))
    behavior_state = BEHAVIOR_INIT(jax.random.key(2), SPEC, score_settings)
    critic_state = IQL_INIT(jax.random.key(3), SPEC, with_arrays(iql.Settings(width=32)))
    frozen = srpo.Frozen(behavior.model_of(behavior_state), iql.result_of(critic_state).critic)
    settings = with_arrays(
        srpo.Settings(
            batch_size=BATCH,
            width=32,
            weighting=weighting,
            minus_noise=minus_noise,
            q_gradient=q_gradient,
            beta=0.7,
            regularization=1.3,
            learning_rate=RATE,
            steps=TOTAL_STEPS,
        )
    )
    state: Any = SRPO_INIT(jax.random.key(4), SPEC, settings, frozen)

    frequencies = np.asarray(jax.tree.leaves(behavior_state.constants)[0], np.float64)
    score_params = reference.tree_map(reference.Node, to_numpy(behavior_state.score.params))

    def noise_prediction(noisy_actions: np.ndarray, times: np.ndarray, observations: np.ndarray) -> np.ndarray:
        return reference.score_network(score_params, frequencies, noisy_actions, times, observations).value

    actor, expected = warm(state.actor)
    state = state.replace(actor=actor)
    update = jax.jit(srpo.update)
    for i in range(UPDATES):
        batch, key = batch_of(i), jax.random.key(200 + i)
        key_time, key_noise = jax.random.split(key)
        times = jax.random.uniform(key_time, (BATCH,), minval=0.02, maxval=0.98)
        noise = jax.random.normal(key_noise, batch.actions.shape)
        state, _ = update(state, batch, key, settings, frozen)
        expected = reference.policy_update(
            expected,
            noise_prediction,
            to_numpy(critic_state.target_q),
            to_numpy(batch.observations),
            to_numpy(times),
            to_numpy(noise),
            weighting=weighting,
            minus_noise=minus_noise,
            q_gradient=q_gradient,
            beta=0.7,
            regularization=1.3,
            learning_rate=RATE * reference.cosine(i, TOTAL_STEPS),
        )
        assert_learner(state.actor, expected)
