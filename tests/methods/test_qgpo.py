"""QGPO against a plain NumPy computation, and on a bandit whose policy is known in closed form."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods import qgpo, support
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.methods.support import Support
from jaxrl_srpo.nn import policies
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference, synthetic
from tests.methods.episodes import GaussianModel
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
SETTINGS = with_arrays(
    qgpo.Settings(steps=4, batch_size=32, width=16, learning_rate=3e-3, guidance_learning_rate=1e-3, q_alpha=2.0)
)
MODEL = GaussianModel(jnp.zeros(2), 0.3)


def random_support(size: int = 32, actions: int = 5) -> Support:
    """Of episodes of one transition."""
    table = jax.random.randint(jax.random.key(7), (2 * size, actions, 2), -32767, 32768).astype(jnp.int16)
    return Support(table, 2 * jnp.arange(size))


def numbered(batch: Batch) -> Batch:
    return dataclasses.replace(batch, index=jnp.arange(len(batch.rewards)))


def reference_q(params: Any, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The smaller Q [B, M] of actions [B, M, A]."""
    rows = np.repeat(observations, actions.shape[1], axis=0)
    flat = actions.reshape(-1, actions.shape[-1])
    return reference.twin_q(params, rows, flat).value.min(-1).reshape(actions.shape[:2])


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_updates_agree_with_plain_numpy_and_the_critic_stops_halfway() -> None:
    """Two of four updates move the critic; the guidance goes on with the target as it is."""
    table = random_support()
    frozen = support.Frozen(MODEL, table)
    state = qgpo.init(jax.random.key(0), SPEC, SETTINGS, frozen)
    state = dataclasses.replace(state, q=warm(state.q), guidance=warm(state.guidance))
    q, guidance, target = reference_learner(state.q), reference_learner(state.guidance), to_numpy(state.target_q)
    frequencies = to_numpy(state.constants)["FourierFeatures_0"]["frequencies"]
    update = jax.jit(qgpo.update)
    for number in range(3):
        batch, key = numbered(batch_of(number, SPEC, 32)), jax.random.key(10 + number)
        state, metrics = update(state, batch, key, SETTINGS, frozen, jnp.int32(number))

        index = jnp.arange(32)
        b, actions, following = to_numpy((batch, table.of_states(index), table.of_next_states(index)))
        if number < 2:
            next_q = reference_q(target, b.next_observations, following)
            targets = b.rewards + 0.99 * b.discounts * (softmax(2.0 * next_q) * next_q).sum(-1)

            def q_loss(params: Any, b: Any = b, targets: np.ndarray = targets) -> reference.Node:
                error = reference.twin_q(params, b.observations, b.actions) - targets[:, None]
                return (error * error).mean()

            loss, gradient = reference.value_and_grad(q_loss, q.params)
            assert float(metrics["q_loss"]) == pytest.approx(loss, rel=1e-5)
            q = reference.adam(q, gradient, 3e-3)
            target = reference.tree_map(lambda t, p: t + 0.005 * (p - t), target, q.params)
        else:
            assert float(metrics["q_loss"]) == 0.0

        key_time, key_noise = jax.random.split(key)
        times = to_numpy(jax.random.uniform(key_time, (32,), minval=1e-3, maxval=1.0))
        noise = to_numpy(jax.random.normal(key_noise, actions.shape)).reshape(-1, 2)
        rows = np.repeat(times, 5)
        noisy = reference.diffuse(actions.reshape(-1, 2), noise, rows)
        weights = softmax(3.0 * reference_q(target, b.observations, actions))

        def guidance_loss(
            params: Any, b: Any = b, noisy: np.ndarray = noisy, rows: np.ndarray = rows, weights: np.ndarray = weights
        ) -> reference.Node:
            energies = reference.energy(params, frequencies, noisy, rows, np.repeat(b.observations, 5, axis=0))
            return (reference.log_softmax(energies.reshape(32, 5)) * weights).sum(-1).mean() * -1.0

        loss, gradient = reference.value_and_grad(guidance_loss, guidance.params)
        assert float(metrics["guidance_loss"]) == pytest.approx(loss, rel=1e-5)
        guidance = reference.adam(guidance, gradient, 1e-3)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        ours = (state.q.params, state.guidance.params, state.target_q)
        jax.tree.map(close, to_numpy(ours), (q.params, guidance.params, target))


@pytest.fixture(scope="module")
def bandit() -> qgpo.Guided:
    """Trained on one state with behavior N(0, 0.3^2) in both dimensions and Q(a) = a_1."""
    size = 64
    rates = qgpo.Settings(learning_rate=3e-3, guidance_learning_rate=3e-3, target_rate=0.05)
    settings = with_arrays(dataclasses.replace(rates, steps=1000, width=32, layers=2, guidance_layers=2))
    zeros = jnp.zeros((size, 1))
    sampler = support.Sampler(2, 15, "multistep")
    actions = jax.jit(sampler.draw, static_argnums=3)(MODEL, Keyed(jax.random.key(0)), jnp.zeros((2 * size, 1)), 64)
    table = Support(jnp.round(actions * 32767.0).astype(jnp.int16), 2 * jnp.arange(size))
    frozen = support.Frozen(MODEL, table)

    @jax.jit
    def train(state: qgpo.State) -> qgpo.State:
        def step(i: Array, state: qgpo.State) -> qgpo.State:
            key = jax.random.fold_in(jax.random.key(1), i)
            taken = 0.3 * jax.random.normal(jax.random.fold_in(key, 0), (size, 2))
            batch = numbered(Batch(zeros, taken, taken[:, 0], zeros, jnp.zeros((size,))))
            return qgpo.update(state, batch, key, settings, frozen, i)[0]

        return jax.lax.fori_loop(0, 1000, step, state)

    return qgpo.guided(train(qgpo.init(jax.random.key(2), Spec(1, 2), settings, frozen)))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_the_policy_is_the_behavior_times_exp_alpha_q(bandit: qgpo.Guided, scale: float) -> None:
    """A Gaussian times exp(w alpha a_1) is the same Gaussian, w alpha 0.3^2 to the right."""
    settings = qgpo.Acting(guidance_scale=scale)
    policy = qgpo.policy_of(qgpo.scaled(settings, bandit), settings, Spec(1, 2))
    actions = jax.jit(policies.act)(policy, jnp.zeros((2000, 1)), jax.random.key(3))
    np.testing.assert_allclose(actions.mean(0), [scale * 3.0 * 0.09, 0.0], atol=0.03 * max(1.0, scale))
    np.testing.assert_allclose(actions.std(0), 0.3, atol=0.05)


def test_a_guidance_scale_is_another_way_of_acting_and_trains_nothing_again() -> None:
    assert "qgpo_guidance_scale" not in qgpo.GUIDANCE.reach()
    assert "qgpo_guidance_scale" in qgpo.STAGE.own_settings()
    assert qgpo.METHOD.settings()["qgpo_guidance_scale"].swept


def test_scales_of_one_trained_model_are_rows_of_a_run(tmp_path: pathlib.Path) -> None:
    own = {"support_steps": 3, "qgpo_steps": 8, "qgpo_evaluation_interval": 8}
    jaxrl_srpo.train(
        synthetic.write_pendulum(tmp_path / "pendulum.hdf5"),
        tmp_path / "run",
        seeds=[0],
        algorithm="qgpo",
        qgpo_guidance_scale=[0.0, 1.0],
        log=lambda message: None,
        **synthetic.TINY | own,
    )
    rows = csv_log.read_rows(tmp_path / "run" / "evaluations.csv")
    assert [(row["algorithm"], row["setting"]) for row in rows] == [
        ("bc", ""),
        ("qgpo_unscaled", ""),
        ("qgpo", "qgpo_guidance_scale=0"),
        ("qgpo", "qgpo_guidance_scale=1"),
    ]
    means = {row["setting"] or row["algorithm"]: float(row["mean"]) for row in rows}
    assert means["qgpo_guidance_scale=1"] == pytest.approx(means["qgpo_unscaled"], rel=1e-3)
    policy = jaxrl_srpo.load_policy(tmp_path / "run", algorithm="qgpo", qgpo_guidance_scale=1.0)
    assert policy(np.zeros((4, 3))).shape == (4, 1)


@pytest.mark.parametrize(
    ("preset", "family", "expected"),
    [
        ("released", "locomotion", {"reward_transform": "d4rl-locomotion", "behavior_batch_size": 4096}),
        ("released", "antmaze", {"support_actions": 32, "support_solver": "singlestep2"}),
        ("ogbench", "ogbench", {"qgpo_width": 512, "reward_transform": "none"}),
    ],
)
def test_presets_are_those_of_their_sources(preset: str, family: str, expected: dict[str, Any]) -> None:
    values = qgpo.METHOD.preset(preset, "", family)
    assert {name: values[name] for name in expected} == expected
    defaults = {flag: one.default for flag, one in qgpo.METHOD.settings().items()}
    published = {
        "qgpo_steps": 1_000_000,
        "qgpo_batch_size": 256,
        "qgpo_critic_share": 0.5,
        "qgpo_learning_rate": 3e-4,
        "qgpo_guidance_learning_rate": 3e-4,
        "qgpo_alpha": 3.0,
        "qgpo_q_alpha": 1.0,
        "qgpo_width": 256,
        "qgpo_layers": 3,
        "qgpo_guidance_layers": 4,
        "qgpo_sampler_steps": 15,
        "support_actions": 16,
        "support_sampler_steps": 15,
        "discount": 0.99,
        "target_rate": 0.005,
    }
    assert {name: defaults[name] for name in published} == published
    assert "--qgpo_guidance_scale=" in qgpo.METHOD.presets["released"].note("hopper-medium-v2", "locomotion")
