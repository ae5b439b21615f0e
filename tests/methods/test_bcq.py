"""BCQ against a plain NumPy computation, and on bandits whose answers are known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import bcq, vae
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import networks
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
SETTINGS: Any = with_arrays(bcq.Settings(batch_size=16, width=16, last_width=12, phi=0.3, target_candidates=5))


def perturbed(actor: Any, observations: np.ndarray, actions: np.ndarray, phi: float) -> reference.Node:
    moved = reference.tanh(reference.mlp(actor, reference.concatenate([observations, actions])))
    return reference.clip(moved * phi + actions, -1.0, 1.0)


def drawn(decoder: Any, observations: np.ndarray, key: Array) -> np.ndarray:
    codes = np.clip(np.asarray(jax.random.normal(key, (len(observations), 4)), np.float64), -0.5, 0.5)
    raw: np.ndarray = reference.mlp(decoder, reference.concatenate([observations, codes])).value
    return np.tanh(raw)


def test_two_updates_agree_with_plain_numpy() -> None:
    behavior = vae.decoder_of(vae.init(jax.random.key(5), SPEC, vae.Settings(width=8)))
    # Actions beyond tanh 0.9 and a phi of 0.3: the bounds of actions are met.
    behavior = dataclasses.replace(behavior, params=jax.tree.map(lambda x: 2.5 * x, behavior.params))
    state = bcq.init(jax.random.key(0), SPEC, SETTINGS, behavior)
    state = dataclasses.replace(state, q=warm(state.q), actor=warm(state.actor))
    q, actor = reference_learner(state.q), reference_learner(state.actor)
    target_q, target_actor, decoder = (to_numpy(x) for x in (state.target_q, state.target_actor, behavior.params))
    for number in range(2):
        batch, key = batch_of(number, SPEC, 16), jax.random.key(10 + number)
        key_next, key_actions = jax.random.split(key)
        state, metrics = jax.jit(bcq.update)(state, batch, key, SETTINGS)
        b = to_numpy(batch)

        states = np.repeat(b.next_observations, 5, axis=0)
        actions = perturbed(target_actor, states, drawn(decoder, states, key_next), 0.3).value
        next_q = reference.twin_q(target_q, states, actions).value
        mixed = 0.75 * next_q.min(axis=1) + 0.25 * next_q.max(axis=1)
        targets = b.rewards + 0.99 * b.discounts * mixed.reshape(16, 5).max(axis=1)

        def q_loss(params: Any, b: Any = b, targets: np.ndarray = targets) -> reference.Node:
            error = reference.twin_q(params, b.observations, b.actions) - targets[:, None]
            return (error * error).sum() * (1.0 / 16)

        loss_q, gradient = reference.value_and_grad(q_loss, q.params)
        q = reference.adam(q, gradient, 1e-3)
        samples = drawn(decoder, b.observations, key_actions)

        def actor_loss(params: Any, b: Any = b, q: Any = q.params, samples: np.ndarray = samples) -> reference.Node:
            moved = perturbed(params, b.observations, samples, 0.3)
            return reference.twin_q(q, b.observations, moved).column(0).mean() * -1.0

        loss_actor, gradient = reference.value_and_grad(actor_loss, actor.params)
        actor = reference.adam(actor, gradient, 1e-3)
        target_q, target_actor = (
            reference.tree_map(lambda old, own: old + 0.005 * (own - old), old, own)
            for old, own in ((target_q, q.params), (target_actor, actor.params))
        )
        assert float(metrics["q_loss"]) == pytest.approx(loss_q, rel=1e-5)
        assert float(metrics["actor_q"]) == pytest.approx(-loss_actor, rel=1e-4)
        ours = (state.q.params, state.actor.params, state.target_q, state.target_actor)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        jax.tree.map(close, to_numpy(ours), (q.params, actor.params, target_q, target_actor))
        jax.tree.map(np.testing.assert_array_equal, state.behavior.params, behavior.params)


def test_targets_are_the_best_of_candidates_by_a_mixture_of_both_q() -> None:
    """lambda min + (1 - lambda) max of one action at a time, then the best action; not the other way round."""
    q_values = jnp.asarray([[1.0, 3.0], [2.0, 1.8], [-1.0, -5.0], [-4.0, -4.0]])
    np.testing.assert_allclose(bcq.best_target(q_values, 0.75, 2), [1.85, -4.0], rtol=1e-6)
    np.testing.assert_allclose(bcq.best_target(q_values, 0.25, 2), [2.5, -2.0], rtol=1e-6)


def spread() -> vae.Decoder:
    """A behavior of one action, tanh of the first code: within +-tanh 0.5."""
    kernel = jnp.asarray([[0.0], [1.0], [0.0]])
    params = {"Dense_0": {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    return vae.Decoder(params, networks.MLP(1, layers=0))


@pytest.mark.parametrize("phi", [0.0, 0.2])
def test_it_takes_the_best_action_of_the_behavior_and_moves_it_by_phi(phi: float) -> None:
    """The reward is the action; the critic knows that 1 is the best, the behavior does not go there."""
    settings: Any = with_arrays(
        bcq.Settings(width=32, last_width=0, learning_rate=3e-3, actor_learning_rate=3e-3, phi=phi)
    )
    actions = jnp.linspace(-1.0, 1.0, 64)[:, None]
    zeros = jnp.zeros((64, 1))
    batch = Batch(zeros, actions, actions[:, 0], zeros, jnp.zeros(64))

    @jax.jit
    def train(state: bcq.State) -> bcq.State:
        def step(i: Array, state: bcq.State) -> bcq.State:
            return bcq.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings)[0]

        return jax.lax.fori_loop(0, 300, step, state)

    state = train(bcq.init(jax.random.key(0), Spec(1, 1), settings, spread()))
    policy = bcq.policy_of(bcq.result_of(state), settings)
    found = np.asarray(policy.act(jnp.zeros((200, 1)), jax.random.key(2)))
    np.testing.assert_allclose(found, np.tanh(0.5) + phi, atol=0.02)
    one = bcq.policy_of(bcq.result_of(state), bcq.Settings(candidates=1)).act(jnp.zeros((200, 1)), jax.random.key(2))
    assert float(jnp.mean(one)) == pytest.approx(phi, abs=0.1)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("paper", {"bcq_width": 400, "bcq_last_width": 300, "bcq_batch_size": 100, "bcq_learning_rate": 1e-3}),
        ("ogbench", {"bcq_width": 512, "bcq_last_width": 0, "bcq_batch_size": 256, "bcq_layers": 4, "episodes": 50}),
    ],
)
def test_presets_are_those_of_their_sources(preset: str, expected: dict[str, Any]) -> None:
    defaults = {flag: one.default for flag, one in bcq.METHOD.settings().items()}
    values = defaults | bcq.METHOD.preset(preset, "hopper-medium-v2", "locomotion")
    common = {
        "bcq_steps": 1_000_000,
        "vae_steps": 1_000_000,
        "vae_width": 750,
        "bcq_phi": 0.05,
        "bcq_min_weight": 0.75,
        "bcq_target_candidates": 10,
        "bcq_candidates": 100,
        "discount": 0.99,
        "target_rate": 0.005,
        "normalize_observations": False,
        "reward_transform": "none",
    } | expected
    assert {name: values[name] for name in common} == common
