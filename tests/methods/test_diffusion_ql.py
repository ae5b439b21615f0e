"""Diffusion-QL and EDP against a plain NumPy computation, and on problems whose answers are known."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.methods import diffusion_ql
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.nn.schedules import Discrete, betas
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.reference import Node

SPEC, SIZE = Spec(4, 2), 32
TINY: dict[str, Any] = {"batch_size": SIZE, "width": 16, "layers": 2, "average_start": 1, "average_interval": 1}
FAST: dict[str, Any] = {"learning_rate": 3e-3, "actor_learning_rate": 1e-3, "average_decay": 0.9}
SETTINGS: dict[str, Any] = {
    "diffusion_ql": with_arrays(diffusion_ql.Settings(**TINY, **FAST, eta=0.7, gradient_norm=0.5)),
    "backup": with_arrays(diffusion_ql.Settings(**TINY, **FAST, eta=0.7, gradient_norm=0.5, max_q_backup=True)),
    "edp": with_arrays(
        diffusion_ql.EdpSettings(
            **TINY, **FAST, eta=0.7, gradient_norm=0.5, diffusion_steps=5, schedule="vp", solver_steps=0
        )
    ),
}
BETAS = betas("vp", 5)
SIGNAL = np.concatenate([[1.0], np.cumprod(1.0 - BETAS)])


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), networks.split_heads(tree))


def batch_of(seed: int, size: int = SIZE) -> Batch:
    keys = jax.random.split(jax.random.key(seed), 5)
    return Batch(
        observations=jax.random.normal(keys[0], (size, SPEC.observation_size)),
        actions=jax.random.uniform(keys[1], (size, SPEC.action_size), minval=-1.0, maxval=1.0),
        rewards=jax.random.normal(keys[2], (size,)),
        next_observations=jax.random.normal(keys[3], (size, SPEC.observation_size)),
        discounts=jax.random.bernoulli(keys[4], 0.8, (size,)).astype(jnp.float32),
    )


def warm(learner: Any) -> Any:
    """Adam's first step is the sign of the gradient, which rounding alone decides where the gradient is nearly 0."""
    old = learner.opt_state
    nu = jax.tree.map(lambda x: x + 1e-6, old.nu)
    return learner.replace(opt_state=old._replace(nu=nu, count=old.count + 2))


def reference_learner(learner: Any) -> reference.Learner:
    state = learner.opt_state
    return reference.Learner(
        to_numpy(learner.params), reference.Moments(to_numpy(state.mu), to_numpy(state.nu), int(state.count))
    )


def chain(params: Any, observations: np.ndarray, key: Array) -> Node:
    """Five steps of DDPM as Diffusion-QL's code has them: predicted data clipped, posterior variance, a last clip."""
    key_start, key_steps = jax.random.split(key)
    size = len(observations)
    x = Node(np.asarray(jax.random.normal(key_start, (size, 2)), np.float64))
    for i, t in enumerate(range(5, 0, -1)):
        now, after, beta = SIGNAL[t], SIGNAL[t - 1], BETAS[t - 1]
        noise = reference.noise_mlp(params, x, np.full(size, t - 1.0), observations)
        data = reference.clip(x * np.sqrt(1.0 / now) - noise * np.sqrt(1.0 / now - 1.0))
        mean = data * (beta * np.sqrt(after) / (1.0 - now)) + x * ((1.0 - after) * np.sqrt(1.0 - beta) / (1.0 - now))
        drawn = np.asarray(jax.random.normal(jax.random.fold_in(key_steps, i), (size, 2)), np.float64)
        x = mean + drawn * np.sqrt(beta * (1.0 - after) / (1.0 - now))
    return reference.clip(x)


def clipped_gradient(gradient: Any, limit: float) -> Any:
    squares: list[float] = []
    reference.tree_map(lambda g: squares.append(float((g**2).sum())), gradient)
    scale = min(1.0, limit / (np.sqrt(sum(squares)) + 1e-6))
    return reference.tree_map(lambda g: scale * g, gradient)


twin_q = functools.partial(reference.twin_q, activation=reference.mish)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_updates_agree_with_plain_numpy(name: str) -> None:
    """The second bootstraps from an average that has moved; the gradient norms are limited in both."""
    settings = SETTINGS[name]
    state = diffusion_ql.init(jax.random.key(0), SPEC, settings)
    state = dataclasses.replace(state, q=warm(state.q), actor=warm(state.actor))
    q, actor = reference_learner(state.q), reference_learner(state.actor)
    target_q, average = to_numpy(state.target_q), to_numpy(state.average)
    coins = []
    for number in range(2):
        batch, key = batch_of(number), jax.random.key(20 + number)
        state, metrics = jax.jit(diffusion_ql.update)(state, batch, key, settings)

        key_target, key_actor = jax.random.split(key)
        b, count = to_numpy(batch), 10 if name == "backup" else 1
        repeated = np.repeat(b.next_observations, count, axis=0)
        next_actions = chain(reference.tree_map(Node, average), repeated, key_target).value
        next_q = twin_q(target_q, repeated, next_actions).value.reshape(SIZE, count, 2).max(1).min(1)
        targets = b.rewards + 0.99 * b.discounts * next_q

        def q_loss(params: Any, b: Any = b, targets: np.ndarray = targets) -> Node:
            error = twin_q(params, b.observations, b.actions) - targets[:, None]
            return (error * error).sum() * (1.0 / SIZE)

        loss, gradient = reference.value_and_grad(q_loss, q.params)
        q = reference.adam(q, clipped_gradient(gradient, 0.5), 3e-3)
        assert float(metrics["q_loss"]) == pytest.approx(loss, rel=1e-5)

        key_time, key_noise, key_chain, key_coin = jax.random.split(key_actor, 4)
        times = np.asarray(jax.random.randint(key_time, (SIZE,), 1, 6))
        noise = np.asarray(jax.random.normal(key_noise, (SIZE, 2)), np.float64)
        coin = int(jax.random.bernoulli(key_coin))
        coins.append(coin)

        def actor_loss(
            params: Any,
            b: Any = b,
            q: reference.Learner = q,
            times: np.ndarray = times,
            noise: np.ndarray = noise,
            key: Array = key_chain,
            coin: int = coin,
        ) -> Node:
            signal = SIGNAL[times][:, None]
            noisy = np.sqrt(signal) * b.actions + np.sqrt(1.0 - signal) * noise
            predicted = reference.noise_mlp(params, noisy, times - 1.0, b.observations)
            error = predicted - noise
            if name == "edp":
                actions = reference.clip((predicted * -np.sqrt(1.0 - signal) + noisy) * (1.0 / np.sqrt(signal)))
            else:
                actions = chain(params, b.observations, key)
            values = twin_q(q.params, b.observations, actions)
            other = coin if name == "edp" else 1 - coin
            weight = 0.7 / np.abs(values.value[:, other]).mean()
            return (error * error).mean() + values.column(coin).mean() * -weight

        _, gradient = reference.value_and_grad(actor_loss, actor.params)
        actor = reference.adam(actor, clipped_gradient(gradient, 0.5), 1e-3)

        def follow(rate: float, target: np.ndarray, own: np.ndarray) -> np.ndarray:
            return target + rate * (own - target)

        target_q = reference.tree_map(functools.partial(follow, 0.005), target_q, q.params)
        if number == 1:
            average = reference.tree_map(functools.partial(follow, 0.1), average, actor.params)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        ours = (state.q.params, state.actor.params, state.target_q, state.average)
        jax.tree.map(close, to_numpy(ours), (q.params, actor.params, target_q, average))


def test_both_q_guide_by_turns_and_are_divided_as_the_codes_divide_them() -> None:
    values = jnp.asarray([[1.0, -4.0], [3.0, -8.0]])
    loss = diffusion_ql.guidance_loss
    assert float(loss(values, jnp.int32(0), jnp.int32(1))) == pytest.approx(-2.0 / 6.0)
    assert float(loss(values, jnp.int32(1), jnp.int32(0))) == pytest.approx(6.0 / 2.0)
    assert float(loss(values, jnp.int32(1), jnp.int32(1))) == pytest.approx(1.0)
    # Neither column is a function of the other's size.
    gradient = jax.grad(loss)(values, jnp.int32(0), jnp.int32(1))
    np.testing.assert_allclose(gradient, [[-1.0 / 12.0, 0.0], [-1.0 / 12.0, 0.0]], rtol=1e-6)


def test_the_average_keeps_the_first_weights_until_it_starts() -> None:
    settings = with_arrays(diffusion_ql.Settings(**TINY | {"average_start": 4, "average_interval": 2}))
    state = diffusion_ql.init(jax.random.key(0), SPEC, settings)
    moved = []
    for number in range(8):
        before = state.average
        state, _ = jax.jit(diffusion_ql.update)(state, batch_of(number), jax.random.key(number), settings)
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(state.average), strict=True)
        moved.append(any(bool(jnp.any(x != y)) for x, y in pairs))
    assert moved == [False, False, False, False, True, False, True, False]


@struct.dataclass
class Sloped:
    """Q_1 = s a_1, Q_2 = 10, of which the first is the smaller."""

    def q_values(self, observations: Array, actions: Array) -> Array:
        first = observations[:, 0] * actions[:, 0]
        return jnp.stack([first, jnp.full_like(first, 10.0)], axis=-1)


def policy_with(candidates: int, weight: float) -> diffusion_ql.SoftmaxPolicy:
    state = diffusion_ql.init(jax.random.key(0), Spec(1, 1), SETTINGS["diffusion_ql"])
    actor = diffusion_ql.result_of(state).actor
    critic: Any = Sloped()
    return diffusion_ql.SoftmaxPolicy(actor, critic, 1, diffusion_ql.Chain(Discrete("vp", 5)), candidates, weight)


def test_it_acts_by_a_softmax_over_raw_q() -> None:
    """The trap of the method: a Q of hundreds makes it an argmax, one near 0 a uniform draw."""
    observations, key = jnp.full((4000, 1), 300.0), jax.random.key(1)
    key_draw, _ = jax.random.split(key)
    flat, steep = policy_with(8, 0.0), policy_with(8, 1.0)
    repeated = jnp.repeat(observations, 8, axis=0)
    drawn = np.asarray(diffusion_ql.draw(flat.actor, repeated, Keyed(key_draw), 1, flat.chain)).reshape(4000, 8)
    uniform, greedy = (np.asarray(jax.jit(one.act)(observations, key))[:, 0] for one in (flat, steep))
    assert uniform.mean() == pytest.approx(drawn.mean(), abs=0.05)
    # Two candidates at the bound are equally good.
    assert np.mean(np.abs(greedy - drawn.max(1)) < 0.02) > 0.9
    # Probability e / (1 + e) for the better of two that differ by 1.
    chosen = jax.random.categorical(key, jnp.broadcast_to(jnp.asarray([[0.0, 1.0]]), (4000, 2)))
    assert float(jnp.mean(chosen)) == pytest.approx(np.e / (1.0 + np.e), abs=0.03)


def test_edps_reconstruction_is_exact_where_the_actor_is() -> None:
    """One evaluation finds the action behind any noise if the noise is known, and what Q likes moves it."""
    schedule = Discrete("linear", 100)
    settings: Any = diffusion_ql.EdpSettings(diffusion_steps=100)
    batch, noise = batch_of(0), jax.random.normal(jax.random.key(1), (SIZE, 2))
    times = jnp.arange(1.0, SIZE + 1.0)
    noisy = schedule.diffuse(batch.actions, noise, times)
    model: Any = None
    found = diffusion_ql.policy_actions(model, noisy, noise, times, batch, jax.random.key(2), settings)
    np.testing.assert_allclose(found, batch.actions, atol=1e-5)


class Learned(NamedTuple):
    clones: np.ndarray
    actions: np.ndarray


# Two modes of actions, of which the reward prefers the right one: 1 - |a - (0.5, 0.5)|.
MODES = np.asarray([[-0.5, -0.5], [0.5, 0.5]])


def learned(settings: Any, updates: int = 1200) -> Learned:
    """What a policy of a two-mode bandit draws, and how it acts."""
    zeros = jnp.zeros((128, 1))

    @jax.jit
    def train(state: diffusion_ql.State) -> diffusion_ql.State:
        def step(i: Array, state: diffusion_ql.State) -> diffusion_ql.State:
            key_mode, key_spread, key_update = jax.random.split(jax.random.fold_in(jax.random.key(1), i), 3)
            modes = jnp.asarray(MODES, jnp.float32)[jax.random.randint(key_mode, (128,), 0, 2)]
            actions = jnp.clip(modes + 0.1 * jax.random.normal(key_spread, (128, 2)), -1.0, 1.0)
            rewards = 1.0 - jnp.linalg.norm(actions - jnp.asarray(MODES[1:], jnp.float32), axis=-1)
            batch = Batch(zeros, actions, rewards, zeros, jnp.zeros(128))
            return diffusion_ql.update(state, batch, key_update, settings)[0]

        return jax.lax.fori_loop(0, updates, step, state)

    state = train(diffusion_ql.init(jax.random.key(2), Spec(1, 2), settings))
    result = diffusion_ql.result_of(state)
    policy = diffusion_ql.policy_of(result, settings, Spec(1, 2))
    clones = diffusion_ql.draw(result.actor, jnp.zeros((400, 1)), Keyed(jax.random.key(3)), 2, settings.chain)
    return Learned(np.asarray(clones), np.asarray(jax.jit(policy.act)(jnp.zeros((100, 1)), jax.random.key(4))))


def bandit_settings(kind: type, **values: Any) -> Any:
    sizes = {"batch_size": 128, "width": 32, "layers": 2, "candidates": 10, "choice_weight": 20.0}
    return with_arrays(kind(**sizes, learning_rate=3e-3, actor_learning_rate=3e-3, **values))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (diffusion_ql.Settings, {}),
        (diffusion_ql.EdpSettings, {"diffusion_steps": 20, "schedule": "vp", "solver_steps": 15}),
    ],
)
def test_without_q_it_clones_both_modes_and_with_it_the_better_one(kind: type, values: dict[str, Any]) -> None:
    cloned = learned(bandit_settings(kind, eta=0.0, **values))
    near = np.linalg.norm(cloned.clones[:, None] - MODES, axis=-1) < 0.4
    assert np.all(near.mean(0) > 0.25)
    # Also a clone acts well: the critic chooses among its candidates.
    assert np.mean(np.linalg.norm(cloned.actions - MODES[1], axis=-1) < 0.4) > 0.85
    guided = learned(bandit_settings(kind, eta=1.0, **values))
    near = np.linalg.norm(guided.clones[:, None] - MODES, axis=-1) < 0.4
    assert near[:, 1].mean() > 0.9 * near.any(1).mean() > 0.4


def test_members_of_a_population_train_together() -> None:
    """Every setting that a sweep varies is a number of one vectorized program."""
    settings = SETTINGS["diffusion_ql"]

    def run(eta: Array, key: Array) -> Array:
        own = settings.replace(eta=eta)
        state = diffusion_ql.init(jax.random.key(0), SPEC, own)
        state, metrics = diffusion_ql.update(state, batch_of(0), key, own)
        return jnp.stack([metrics["cloning_loss"], jnp.sum(state.actor.params["MLP_0"]["Dense_0"]["Dense_0"]["bias"])])

    etas, keys = jnp.asarray([0.0, 2.0]), jax.random.split(jax.random.key(1), 2)
    together = jax.jit(jax.vmap(run))(etas, keys)
    one = jax.jit(run)
    apart = np.stack([np.asarray(one(eta, key)) for eta, key in zip(etas, keys, strict=True)])
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "preset", "dataset", "family", "expected"),
    [
        (diffusion_ql.METHOD, "paper", "hopper-medium-v2", "locomotion", {"dql_eta": 1.0, "dql_gradient_norm": 9.0}),
        (
            diffusion_ql.METHOD,
            "paper",
            "walker2d-medium-v2",
            "locomotion",
            {"reward_transform": "none", "episodes": 10},
        ),
        (
            diffusion_ql.METHOD,
            "paper",
            "antmaze-medium-play-v0",
            "antmaze",
            {"dql_eta": 2.0, "dql_max_q_backup": True, "dql_actor_learning_rate": 1e-3, "dql_steps": 1_000_000}
            | {"reward_transform": "cql-antmaze", "episodes": 100},
        ),
        (
            diffusion_ql.METHOD,
            "paper",
            "pen-human-v1",
            "adroit",
            {"dql_eta": 0.15, "dql_actor_learning_rate": 3e-5, "reward_transform": "standardize"},
        ),
        (diffusion_ql.METHOD, "paper", "kitchen-complete-v0", "kitchen", {"dql_eta": 0.005, "dql_steps": 250_000}),
        (
            diffusion_ql.METHOD,
            "cleandiffuser",
            "hopper-medium-expert-v2",
            "locomotion",
            {"dql_choice_weight": 8.0, "dql_start_scale": 0.5, "dql_gradient_norm": 0.0, "dql_steps": 2_000_000},
        ),
        (
            diffusion_ql.METHOD_EDP,
            "paper",
            "hopper-medium-v2",
            "locomotion",
            {"edp_eta": 2.0, "dql_gradient_norm": 9.0, "edp_diffusion_steps": 1000, "edp_solver_steps": 15},
        ),
        (diffusion_ql.METHOD_EDP, "ogbench", "cube-single-play-v0", "ogbench", {"dql_width": 512, "dql_layers": 4}),
    ],
)
def test_presets_are_those_of_their_sources(
    method: Method, preset: str, dataset: str, family: str, expected: dict[str, Any]
) -> None:
    values = {flag: one.default for flag, one in method.settings().items()} | method.preset(preset, dataset, family)
    assert {name: values[name] for name in expected} == expected
    published = {
        "dql_batch_size": 256,
        "dql_learning_rate": 3e-4,
        "dql_average_decay": 0.995,
        "dql_average_interval": 5,
        "dql_average_start": 1_000,
        "dql_candidates": 50,
        "discount": 0.99,
        "target_rate": 0.005,
    }
    assert {name: values[name] for name in published} == published


def test_a_dataset_outside_the_published_table_gets_a_note() -> None:
    paper = diffusion_ql.METHOD.presets["paper"]
    assert paper.note("hopper-medium-v2", "locomotion") == ""
    assert paper.note("door-human-v1", "adroit").startswith("door-human-v1: the paper has no eta for it; --dql_eta ")
