"""BEAR against a plain NumPy computation, and on behaviors that are known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import bcq, bear, vae
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import networks
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
UPDATE = jax.jit(bear.update)


def settings_of(**given: Any) -> Any:
    sizes = {"batch_size": 16, "width": 16, "samples": 3, "target_candidates": 5, "sigma": 0.7, "learning_rate": 1e-3}
    return with_arrays(bear.Settings(**{**sizes, **given}))


def fresh(settings: Any, width: int = 8) -> tuple[bear.State, vae.Decoder]:
    """A state whose actor is not small, and a behavior."""
    state = bear.init(jax.random.key(0), SPEC, settings)
    large = jax.tree.map(lambda x: x, state.actor.params)
    large["Dense_2"]["Dense_0"]["kernel"] = 500.0 * large["Dense_2"]["Dense_0"]["kernel"]
    actor = dataclasses.replace(state.actor, params=large)
    state = dataclasses.replace(state, q=warm(state.q), actor=warm(actor))
    return state, vae.decoder_of(vae.init(jax.random.key(5), SPEC, vae.Settings(width=width)))


def gaussian(params: Any, observations: np.ndarray, noise: np.ndarray) -> reference.Node:
    """Actions before tanh."""
    outputs = reference.mlp(params, observations)
    columns = []
    for i in range(2):
        mean, log_std = reference.clip(outputs.column(i), -9.0, 9.0), reference.clip(outputs.column(2 + i), -5.0, 2.0)
        column = mean + reference.exp(log_std) * noise[:, i]
        columns.append(reference.Node(column.value[:, None], (column,), lambda g: (g[:, 0],)))
    return reference.concatenate(columns)


def mean_kernel(x: list[Any], y: list[Any], kernel: str, sigma: float) -> Any:
    """x and y hold [B, action_size] for each sample."""
    total: Any = reference.Node(0.0)
    for one in x:
        for other in y:
            difference = one - other
            distance = reference.absolute(difference) if kernel == "laplacian" else difference * difference
            total = total + reference.exp(distance.sum(1) * (-0.5 / sigma)) * (1.0 / (len(x) * len(y)))
    return total


@pytest.mark.parametrize(("kernel", "cloning_steps"), [("gaussian", 1), ("laplacian", 0)])
def test_two_updates_agree_with_plain_numpy(kernel: str, cloning_steps: int) -> None:
    """With one cloning step the first update is without Q and the second with it."""
    settings = settings_of(kernel=kernel, cloning_steps=cloning_steps, actor_learning_rate=1e-3)
    state, behavior = fresh(settings)
    q, actor = reference_learner(state.q), reference_learner(state.actor)
    multiplier = reference.learner({"m": np.zeros(())})
    target_q, decoder = to_numpy(state.target_q), to_numpy(behavior.params)
    for number in range(2):
        batch, key = batch_of(number, SPEC, 16), jax.random.key(10 + number)
        key_next, key_behavior, key_noise = jax.random.split(key, 3)
        state, metrics = UPDATE(state, batch, key, settings, behavior)
        b = to_numpy(batch)

        states = np.repeat(b.next_observations, 5, axis=0)
        next_noise = np.asarray(jax.random.normal(key_next, (80, 2)), np.float64)
        next_q = reference.twin_q(target_q, states, np.tanh(gaussian(actor.params, states, next_noise).value)).value
        mixed = 0.75 * next_q.min(axis=1) + 0.25 * next_q.max(axis=1)
        targets = b.rewards + 0.99 * b.discounts * mixed.reshape(16, 5).max(axis=1)

        def q_loss(params: Any, b: Any = b, targets: np.ndarray = targets) -> reference.Node:
            error = reference.twin_q(params, b.observations, b.actions) - targets[:, None]
            return (error * error).sum() * (1.0 / 16)

        codes = np.clip(np.asarray(jax.random.normal(key_behavior, (48, 4)), np.float64), -0.5, 0.5)
        repeated = np.repeat(b.observations, 3, axis=0)
        raw = reference.mlp(decoder, reference.concatenate([repeated, codes])).value.reshape(16, 3, 2)
        noise = np.asarray(jax.random.normal(key_noise, (48, 2)), np.float64).reshape(16, 3, 2)
        weight = float(np.exp(multiplier.params["m"]))
        excess = [0.0]

        def actor_loss(
            params: Any,
            b: Any = b,
            q: Any = q.params,
            raw: np.ndarray = raw,
            noise: np.ndarray = noise,
            weight: float = weight,
            excess: list[float] = excess,
            greedy: bool = number >= cloning_steps,
        ) -> reference.Node:
            u = [reference.Node(raw[:, i]) for i in range(3)]
            w = [gaussian(params, b.observations, noise[:, i]) for i in range(3)]
            pairs = mean_kernel(u, u, kernel, 0.7) + mean_kernel(w, w, kernel, 0.7)
            distance = reference.sqrt(pairs - mean_kernel(u, w, kernel, 0.7) * 2.0 + 1e-6).mean()
            excess[0] = float(distance.value) - 0.05
            loss = (distance - 0.05) * weight
            if greedy:
                values = reference.twin_q(q, b.observations, reference.tanh(w[0]))
                first = (values.value[:, 0] < values.value[:, 1]).astype(float)
                loss = loss - (values.column(0) * first + values.column(1) * (1.0 - first)).mean()
            return loss

        loss_q, q_gradient = reference.value_and_grad(q_loss, q.params)
        loss_actor, gradient = reference.value_and_grad(actor_loss, actor.params)
        actor = reference.adam(actor, gradient, 1e-3)
        q = reference.adam(q, q_gradient, 1e-3)
        multiplier = reference.adam(multiplier, {"m": np.asarray(-weight * excess[0])}, 1e-3)
        target_q = reference.tree_map(lambda old, own: old + 0.005 * (own - old), target_q, q.params)
        assert float(metrics["q_loss"]) == pytest.approx(loss_q, rel=1e-5)
        assert float(metrics["actor_loss"]) == pytest.approx(loss_actor, rel=1e-4)
        assert float(metrics["discrepancy"]) == pytest.approx(excess[0] + 0.05, rel=1e-4)
        assert float(state.multiplier.params) == pytest.approx(float(multiplier.params["m"]), abs=1e-6)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        jax.tree.map(
            close, to_numpy((state.q.params, state.actor.params, state.target_q)), (q.params, actor.params, target_q)
        )


def test_the_discrepancy_by_hand() -> None:
    """Two samples each in one dimension: distances 2, 1, 3, 0 ..., and twice sigma below, not sigma squared."""
    x, y = jnp.asarray([[[0.0], [2.0]]]), jnp.asarray([[[1.0], [1.0]]])
    for kernel, power in (("laplacian", 1), ("gaussian", 2)):
        k = {d: np.exp(-(d**power) / (2.0 * 5.0)) for d in (0, 1, 2)}
        expected = np.sqrt((2 + 2 * k[2]) / 4 + 1.0 - 2.0 * k[1] + 1e-6)
        np.testing.assert_allclose(bear.discrepancy(x, y, kernel, 5.0), [expected], rtol=1e-4)
        np.testing.assert_allclose(bear.discrepancy(x, x, kernel, 5.0), [1e-3], rtol=0.1)


def around(raw: float) -> vae.Decoder:
    """A behavior of one action whose value before tanh is `raw` and 0.2 of a code."""
    kernel = jnp.asarray([[0.0], [0.2], [0.0]])
    params = {"Dense_0": {"Dense_0": {"kernel": kernel, "bias": jnp.asarray([raw])}}}
    return vae.Decoder(params, networks.MLP(1, layers=0))


@functools.partial(jax.jit, static_argnames="steps")
def train(settings: bear.Settings, behavior: vae.Decoder, steps: int) -> tuple[bear.State, Array]:
    """A bandit that pays the action, and the mean discrepancy of the last 200 updates."""
    actions = jnp.linspace(-1.0, 1.0, 64)[:, None]
    zeros = jnp.zeros((64, 1))
    batch = Batch(zeros, actions, actions[:, 0], zeros, jnp.zeros(64))

    def step(i: Array, carry: tuple[bear.State, Array]) -> tuple[bear.State, Array]:
        state, total = carry
        state, metrics = bear.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings, behavior)
        return state, total + jnp.where(i >= steps - 200, metrics["discrepancy"], 0.0) / 200

    state = bear.init(jax.random.key(0), Spec(1, 1), settings)
    return jax.lax.fori_loop(0, steps, step, (state, jnp.zeros(())))


FAST = {"width": 32, "sigma": 1.0, "learning_rate": 3e-3, "actor_learning_rate": 3e-3, "target_candidates": 2}


def test_without_q_it_clones_before_tanh() -> None:
    """The behavior is at 2, where tanh is nearly flat, the actor starts at 0 with deviation 1."""
    state, _ = train(settings_of(**FAST, cloning_steps=10_000), around(2.0), 600)
    raw = bear.actor_of(state).raw_actions(jnp.zeros((1000, 1)), jax.random.normal(jax.random.key(3), (1000, 1)))
    assert float(jnp.mean(raw)) == pytest.approx(2.0, abs=0.15)
    assert float(jnp.std(raw)) < 0.6


def test_with_q_it_goes_as_far_as_the_threshold_lets_it() -> None:
    settings = settings_of(**FAST, cloning_steps=0, multiplier_learning_rate=1e-2, threshold=0.3)
    state, distance = train(settings, around(-0.5), 1200)
    assert float(distance) == pytest.approx(0.3, abs=0.06)
    actions = bear.actor_of(state).act(jnp.zeros((1000, 1)), jax.random.key(3))
    # The bandit pays 1 for the action 1, and the behavior is at tanh -0.5.
    assert np.tanh(-0.5) + 0.1 < float(jnp.mean(actions)) < 0.6
    policy = bcq.policy_of(bear.result_of(state), settings)
    assert float(jnp.mean(policy.act(jnp.zeros((50, 1)), jax.random.key(4)))) > float(jnp.mean(actions)) + 0.1


def test_q_counts_after_the_cloning_steps_alone() -> None:
    settings = settings_of(cloning_steps=5)
    state, behavior = fresh(settings)
    other = dataclasses.replace(state, q=bear.init(jax.random.key(9), SPEC, settings).q)
    for step, same in ((4, True), (5, False)):
        actors = [
            UPDATE(
                dataclasses.replace(one, step=jnp.int32(step)),
                batch_of(0, SPEC, 16),
                jax.random.key(1),
                settings,
                behavior,
            )[0].actor.params
            for one in (state, other)
        ]
        equal = [bool(jnp.all(x == y)) for x, y in zip(*map(jax.tree.leaves, actors), strict=True)]
        assert all(equal) == same


@pytest.mark.parametrize(("start", "threshold", "expected"), [(10.0, 0.0, 10.0), (-5.0, 9.0, -5.0), (0.0, 9.0, -0.5)])
def test_the_multiplier_stays_within_its_bounds(start: float, threshold: float, expected: float) -> None:
    """It rises while the actor is too far, also in the cloning steps, and falls while it is not."""
    settings = settings_of(threshold=threshold, multiplier_learning_rate=0.5)
    state, behavior = fresh(settings)
    state = dataclasses.replace(state, multiplier=dataclasses.replace(state.multiplier, params=jnp.float32(start)))
    after, metrics = UPDATE(state, batch_of(0, SPEC, 16), jax.random.key(1), settings, behavior)
    assert float(after.multiplier.params) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["multiplier"]) == pytest.approx(np.exp(expected), rel=1e-3)


@pytest.mark.parametrize(
    ("preset", "dataset", "kernel", "sigma"),
    [
        ("d4rl", "hopper-medium-v2", "gaussian", 50.0),
        ("recommended", "hopper-medium-v2", "laplacian", 20.0),
        ("recommended", "walker2d-medium-replay-v2", "laplacian", 20.0),
        ("recommended", "halfcheetah-medium-expert-v2", "gaussian", 20.0),
    ],
)
def test_presets_are_those_of_their_sources(preset: str, dataset: str, kernel: str, sigma: float) -> None:
    defaults = {flag: one.default for flag, one in bear.METHOD.settings().items()}
    values = defaults | bear.METHOD.preset(preset, dataset, "locomotion")
    published = {
        "bear_kernel": kernel,
        "bear_sigma": sigma,
        "bear_steps": 3_000_000,
        "bear_batch_size": 256,
        "bear_learning_rate": 3e-4,
        "bear_actor_learning_rate": 1e-4,
        "bear_multiplier_learning_rate": 1e-3,
        "bear_threshold": 0.05,
        "bear_samples": 4,
        "bear_cloning_steps": 40_000,
        "bear_target_candidates": 10,
        "bear_candidates": 100,
        "bear_width": 256,
        "bear_layers": 2,
        "vae_learning_rate": 3e-4,
        "vae_batch_size": 256,
        "vae_width": 750,
        "discount": 0.99,
        "target_rate": 0.005,
        "normalize_observations": False,
        "reward_transform": "none",
    }
    assert {name: values[name] for name in published} == published


def test_a_dataset_without_a_recommended_kernel_is_told_of() -> None:
    note = bear.METHOD.presets["recommended"].note
    assert note("hopper-medium-v2", "locomotion") == ""
    assert "--bear_kernel" in note("antmaze-umaze-v2", "antmaze")
