"""TD3+BC against a plain NumPy computation, and on problems whose answers are known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import td3_bc
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
SETTINGS = with_arrays(td3_bc.Settings(batch_size=32, width=16, learning_rate=3e-3, actor_learning_rate=1e-3))


def test_two_updates_agree_with_plain_numpy() -> None:
    """The first moves the critics alone, the second the actor and all targets too."""
    state = td3_bc.init(jax.random.key(0), SPEC, SETTINGS)
    state = dataclasses.replace(state, q=warm(state.q), actor=warm(state.actor))
    q, actor = reference_learner(state.q), reference_learner(state.actor)
    target_q, target_actor = to_numpy(state.target_q), to_numpy(state.target_actor)
    for number in range(2):
        batch, key = batch_of(number, SPEC, 32), jax.random.key(10 + number)
        noise = np.clip(0.2 * np.asarray(jax.random.normal(key, batch.actions.shape), np.float64), -0.5, 0.5)
        state, metrics = jax.jit(td3_bc.update)(state, batch, key, SETTINGS)

        b = to_numpy(batch)
        next_actions = np.clip(reference.actor(target_actor, b.next_observations).value + noise, -1.0, 1.0)
        next_q = reference.twin_q(target_q, b.next_observations, next_actions).value.min(axis=1)
        targets = b.rewards + 0.99 * b.discounts * next_q

        def q_loss(params: Any, b: Any = b, targets: np.ndarray = targets) -> reference.Node:
            error = reference.twin_q(params, b.observations, b.actions) - targets[:, None]
            return (error * error).sum() * (1.0 / len(targets))

        loss, gradient = reference.value_and_grad(q_loss, q.params)
        q = reference.adam(q, gradient, 3e-3)
        assert float(metrics["q_loss"]) == pytest.approx(loss, rel=1e-5)
        if number == 1:

            def actor_loss(params: Any, b: Any = b, q: reference.Learner = q) -> reference.Node:
                actions = reference.actor(params, b.observations)
                first = reference.twin_q(q.params, b.observations, actions).column(0)
                distance = actions - b.actions
                weight = 2.5 / np.abs(first.value).mean()
                return (distance * distance).mean() + first.mean() * -weight

            loss, gradient = reference.value_and_grad(actor_loss, actor.params)
            actor = reference.adam(actor, gradient, 1e-3)
            assert float(metrics["actor_loss"]) == pytest.approx(loss, rel=1e-4)

            def follow(target: np.ndarray, own: np.ndarray) -> np.ndarray:
                return target + 0.005 * (own - target)

            target_q = reference.tree_map(follow, target_q, q.params)
            target_actor = reference.tree_map(follow, target_actor, actor.params)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        ours = (state.q.params, state.actor.params, state.target_q, state.target_actor)
        theirs = (q.params, actor.params, target_q, target_actor)
        jax.tree.map(close, to_numpy(ours), theirs)


def bandit(size: int = 256) -> Batch:
    """One step, reward 1 - (a - 0.5)^2, actions uniform in [-1, 1]: cloning means 0, the best action is 0.5."""
    actions = jax.random.uniform(jax.random.key(0), (size, 1), minval=-1.0, maxval=1.0)
    zeros = jnp.zeros((size, 1))
    actions = actions - jnp.mean(actions)
    return Batch(zeros, actions, 1.0 - (actions[:, 0] - 0.5) ** 2, zeros, jnp.zeros((size,)))


def learned_action(alpha: float) -> float:
    settings = with_arrays(
        td3_bc.Settings(batch_size=256, width=32, alpha=alpha, learning_rate=3e-3, actor_learning_rate=3e-3)
    )
    batch = bandit()

    @jax.jit
    def train(state: td3_bc.State) -> td3_bc.State:
        def step(i: Array, state: td3_bc.State) -> td3_bc.State:
            return td3_bc.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings)[0]

        return jax.lax.fori_loop(0, 1500, step, state)

    state = train(td3_bc.init(jax.random.key(2), Spec(1, 1), settings))
    return float(td3_bc.policy_of(state).act(jnp.zeros((1, 1)))[0, 0])


def test_without_q_it_clones_and_with_much_of_it_it_takes_the_best_action() -> None:
    assert learned_action(0.0) == pytest.approx(0.0, abs=0.02)
    assert learned_action(50.0) == pytest.approx(0.5, abs=0.1)


def test_the_actor_and_the_targets_wait_for_the_delay() -> None:
    settings = with_arrays(td3_bc.Settings(batch_size=32, width=16, policy_delay=3))
    state = td3_bc.init(jax.random.key(0), SPEC, settings)
    moved = []
    for number in range(6):
        before = (state.actor.params, state.target_q, state.target_actor)
        state, _ = jax.jit(td3_bc.update)(state, batch_of(number, SPEC, 32), jax.random.key(number), settings)
        after = (state.actor.params, state.target_q, state.target_actor)
        changed = [bool(jnp.any(x != y)) for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
        moved.append(any(changed))
    assert moved == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("preset", "family", "expected"),
    [
        ("paper", "locomotion", {"normalize_observations": True, "reward_transform": "none", "episodes": 10}),
        ("paper", "antmaze", {"normalize_observations": False, "reward_transform": "none"}),
        ("corl", "antmaze", {"normalize_observations": True, "reward_transform": "d4rl-antmaze", "episodes": 100}),
    ],
)
def test_presets_are_those_of_their_sources(preset: str, family: str, expected: dict[str, Any]) -> None:
    values = td3_bc.METHOD.preset(preset, "", family)
    assert {name: values[name] for name in expected} == expected
    defaults = {flag: one.default for flag, one in td3_bc.METHOD.settings().items()}
    published = {
        "td3_bc_steps": 1_000_000,
        "td3_bc_batch_size": 256,
        "td3_bc_learning_rate": 3e-4,
        "td3_bc_actor_learning_rate": 3e-4,
        "td3_bc_alpha": 2.5,
        "td3_bc_policy_noise": 0.2,
        "td3_bc_noise_clip": 0.5,
        "td3_bc_policy_delay": 2,
        "td3_bc_width": 256,
        "td3_bc_layers": 2,
        "td3_bc_evaluation_interval": 5_000,
        "discount": 0.99,
        "target_rate": 0.005,
    }
    assert {name: defaults[name] for name in published} == published
