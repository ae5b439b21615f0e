"""IDQL: the choice among candidates, and its DDPM against a plain NumPy computation and known distributions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.envs.bandits import eight_gaussians
from jaxrl_srpo.methods import behavior, idql, iql
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import diffusion, networks
from jaxrl_srpo.nn.noise import Drawing, Keyed, Noise
from jaxrl_srpo.nn.policies import BestOf, QFunction
from jaxrl_srpo.nn.schedules import betas
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference

SPEC = Spec(4, 2)
SMALL = with_arrays(idql.DdpmSettings(batch_size=32, width=16, hidden=24, blocks=2, dropout_rate=0.0, steps=100))


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), networks.split_heads(tree))


def batch_of(seed: int, size: int = 32) -> Batch:
    keys = jax.random.split(jax.random.key(seed), 3)
    observations = jax.random.normal(keys[0], (size, SPEC.observation_size))
    actions = jax.random.uniform(keys[1], (size, SPEC.action_size), minval=-1.0, maxval=1.0)
    return Batch(observations, actions, jnp.zeros(size), observations, jnp.ones(size))


@struct.dataclass
class Uniform(Drawing):
    """Clones everything: uniform actions in [0, 1]."""

    size: int = struct.field(pytree_node=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        return jax.scipy.stats.norm.cdf(noise.normal((observations.shape[0], self.size)))


@struct.dataclass
class Linear:
    """Q_1 = a_1 + s_1 a_1, Q_2 = 1: the smaller one is flat where Q_1 is large."""

    def q_values(self, observations: Array, actions: Array) -> Array:
        first = actions[:, 0] * (1.0 + observations[:, 0])
        return jnp.stack([first, jnp.ones_like(first)], axis=-1)


def best_of(cloning: Any, critic: Any, candidates: int) -> BestOf:
    return BestOf(cloning, critic, candidates, smaller=True)


@pytest.mark.parametrize("candidates", [1, 4, 16])
def test_the_best_of_n_uniform_actions_is_n_of_n_plus_one(candidates: int) -> None:
    actions = best_of(Uniform(1), Linear(), candidates).act(jnp.zeros((20_000, 1)), jax.random.key(0))
    assert float(jnp.mean(actions)) == pytest.approx(candidates / (candidates + 1), abs=0.008)


def test_every_observation_gets_the_candidate_that_the_smaller_q_likes_best() -> None:
    observations, key = jnp.asarray([[0.0], [-2.0], [3.0]]), jax.random.key(1)
    drawn = np.asarray(Uniform(2).act(jnp.repeat(observations, 8, axis=0), key)).reshape(3, 8, 2)
    slopes = np.asarray(1.0 + observations[:, 0])
    expected = [own[np.argmax(np.minimum(slope * own[:, 0], 1.0))] for own, slope in zip(drawn, slopes, strict=True)]
    np.testing.assert_array_equal(best_of(Uniform(2), Linear(), 8).act(observations, key), expected)


def test_it_draws_from_srpos_behavior_model_as_it_is_told_to() -> None:
    sizes: Any = with_arrays(behavior.Settings(width=8, hidden=8, blocks=1))
    model = behavior.model_of(behavior.init(jax.random.key(0), SPEC, sizes))
    critic = iql.result_of(iql.init(jax.random.key(1), SPEC, with_arrays(iql.Settings(width=8)))).critic
    result = idql.init(idql.STAGE.make_frozen({}, {"behavior": model, "critic": Trained(critic)}, Spec(3, 1)))
    observations, key = jnp.ones((3, 4)), jax.random.key(2)
    draws: dict[behavior.Sampler, Any] = {"dpm_solver": diffusion.sample, "ddpm": diffusion.sample_ddpm}
    for sampler, draw in draws.items():
        settings = idql.Settings(candidates=1, sampler=sampler, sampler_steps=3)
        actions = idql.policy_of(result, settings, SPEC).act(observations, key)
        np.testing.assert_allclose(actions, draw(model, Keyed(key), observations, 2, 3), atol=1e-6)


@struct.dataclass
class Trained:
    """What IDQL takes of a critic stage."""

    critic: QFunction


def test_two_updates_agree_with_plain_numpy() -> None:
    state = idql.init_ddpm(jax.random.key(0), SPEC, SMALL)
    # Adam's first step is the sign of the gradient, which rounding alone decides where the gradient is nearly 0.
    old = state.score.opt_state
    warm = old._replace(nu=jax.tree.map(lambda x: x + 1e-6, old.nu), count=old.count + 2)
    state = state.replace(score=state.score.replace(opt_state=warm))  # type: ignore[attr-defined]
    moments = reference.Moments(to_numpy(warm.mu), to_numpy(warm.nu), 2)
    learner = reference.Learner(to_numpy(state.score.params), moments)
    average = to_numpy(state.average)
    signal = np.cumprod(1.0 - betas("vp", 5))
    for number in range(2):
        batch, key = batch_of(number), jax.random.key(10 + number)
        key_time, key_noise, _ = jax.random.split(key, 3)
        steps = np.asarray(jax.random.randint(key_time, (32,), 1, 6)) - 1
        noise = np.asarray(jax.random.normal(key_noise, (32, 2)), np.float64)
        state, metrics = jax.jit(idql.update_ddpm)(state, batch, key, SMALL)

        b = to_numpy(batch)
        noisy = np.sqrt(signal[steps])[:, None] * b.actions + np.sqrt(1.0 - signal[steps])[:, None] * noise

        def loss_of(params: Any, b: Any = b, noisy: Any = noisy, steps: Any = steps, noise: Any = noise) -> Any:
            error = reference.score_network(params, None, noisy, steps.astype(float), b.observations) - noise
            return (error * error).sum(-1).mean()

        loss, gradient = reference.value_and_grad(loss_of, learner.params)
        learner = reference.adam(learner, gradient, 3e-4 * reference.cosine(number, 100), 1e-4)
        average = reference.tree_map(lambda t, p: 0.999 * t + 0.001 * p, average, learner.params)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        jax.tree.map(close, to_numpy((state.score.params, state.average)), (learner.params, average))
    assert idql.DDPM.result(state).params is state.average


def test_sampling_is_that_of_the_published_code_step_by_step() -> None:
    """Variance beta and not that of the posterior, no noise at the end, and a clip after every step."""
    state = idql.init_ddpm(jax.random.key(0), SPEC, SMALL)
    policy = idql.DdpmPolicy(idql.DDPM.result(state), 2)
    observations, key = jax.random.normal(jax.random.key(1), (64, 4)), jax.random.key(2)
    key_start, key_steps = jax.random.split(key)
    x = np.asarray(jax.random.normal(key_start, (64, 2)), np.float64)
    beta = betas("vp", 5)
    signal, params = np.cumprod(1.0 - beta), to_numpy(state.average)
    clipped = 0
    for i, step in enumerate(range(4, -1, -1)):
        inputs = (x, np.full(64, float(step)), np.asarray(observations, np.float64))
        noise = reference.score_network(params, None, *inputs).value
        x = (x - beta[step] / np.sqrt(1.0 - signal[step]) * noise) / np.sqrt(1.0 - beta[step])
        drawn = jax.random.normal(jax.random.fold_in(key_steps, i), (64, 2))
        x = x + (step > 0) * np.sqrt(beta[step]) * np.asarray(drawn, np.float64)
        clipped += int((np.abs(x) > 1.0).sum())
        x = np.clip(x, -1.0, 1.0)
    assert clipped > 50
    np.testing.assert_allclose(jax.jit(policy.act)(observations, key), x, atol=2e-5)


@pytest.fixture(scope="module")
def eight() -> idql.DdpmModel:
    """A model of eight Gaussians on a circle."""
    settings: Any = with_arrays(
        idql.DdpmSettings(
            batch_size=256, width=48, hidden=96, blocks=2, dropout_rate=0.0, steps=1500, learning_rate=2e-3
        ).replace(weight_average=0.99, diffusion_steps=20)  # type: ignore[attr-defined]
    )

    @jax.jit
    def train(key: Array) -> idql.DdpmState:
        nothing = jnp.zeros((256, 1))

        def step(i: Array, state: idql.DdpmState) -> idql.DdpmState:
            key_batch, key_update = jax.random.split(jax.random.fold_in(key, i))
            batch = Batch(nothing, eight_gaussians(key_batch, 256), nothing[:, 0], nothing, nothing[:, 0])
            return idql.update_ddpm(state, batch, key_update, settings)[0]

        return jax.lax.fori_loop(0, 1500, step, idql.init_ddpm(key, Spec(1, 2), settings))

    return idql.DDPM.result(train(jax.random.key(0)))


CENTERS = 0.75 * np.stack([np.cos(np.arange(8) * np.pi / 4.0), np.sin(np.arange(8) * np.pi / 4.0)], axis=1)


@struct.dataclass
class Top:
    """Q = -distance to the top of eight Gaussians, in both."""

    def q_values(self, observations: Array, actions: Array) -> Array:
        distances = jnp.linalg.norm(actions - jnp.asarray([[0.0, 0.75]]), axis=-1)
        return -jnp.stack([distances, distances], axis=-1)


def test_cloning_covers_all_modes_and_the_best_of_many_is_the_best_mode(eight: idql.DdpmModel) -> None:
    cloning, observations = idql.DdpmPolicy(eight, 2), jnp.zeros((800, 1))
    clones = np.asarray(jax.jit(cloning.act)(observations, jax.random.key(1)))
    distances = np.linalg.norm(clones[:, None] - CENTERS, axis=-1)
    assert np.mean(distances.min(1) < 0.25) > 0.75
    shares = np.bincount(distances.argmin(1), minlength=8) / 800
    assert shares.min() > 0.06
    assert shares.max() < 0.22
    chosen = np.asarray(jax.jit(best_of(cloning, Top(), 32).act)(observations[:200], jax.random.key(2)))
    assert np.mean(np.linalg.norm(chosen - CENTERS[2], axis=-1) < 0.3) > 0.9
    # The mean height of about 0 by cloning rises to that of the top.
    assert abs(clones[:, 1].mean()) < 0.1
    assert chosen[:, 1].mean() > 0.65


@pytest.mark.parametrize(
    ("method", "preset", "family", "expected"),
    [
        (idql.METHOD, "paper", "locomotion", {"expectile": 0.7, "critic_steps": 1_500_000, "episodes": 50}),
        (idql.METHOD_DDPM, "paper", "antmaze", {"expectile": 0.9, "ddpm_steps": 1_500_000, "ddpm_batch_size": 2048}),
        (idql.METHOD_DDPM, "released", "locomotion", {"ddpm_steps": 3_000_000, "ddpm_batch_size": 512}),
        (idql.METHOD_DDPM, "released", "locomotion", {"critic_steps": 3_000_000, "critic_batch_size": 512}),
        (idql.METHOD, "ogbench", "ogbench", {"idql_candidates": 32, "behavior_steps": 1_000_000, "expectile": 0.9}),
    ],
)
def test_presets_are_those_of_their_sources(method: Any, preset: str, family: str, expected: dict[str, Any]) -> None:
    values = {flag: one.default for flag, one in method.settings().items()} | method.preset(preset, "", family)
    assert {name: values[name] for name in expected} == expected
    published = {
        "ddpm_learning_rate": 3e-4,
        "ddpm_weight_decay": 1e-4,
        "ddpm_weight_average": 0.999,
        "ddpm_diffusion_steps": 5,
        "ddpm_dropout_rate": 0.1,
        "critic_learning_rate": 3e-4,
        "target_rate": 0.005,
        "discount": 0.99,
    }
    assert {name: values[name] for name in published if name in values}.items() <= published.items()


def test_how_it_acts_is_no_part_of_what_is_learned() -> None:
    assert idql.STAGE.own_settings().keys().isdisjoint({"idql_candidates", "idql_sampler", "idql_sampler_steps"})
    assert idql.STAGE.steps({}) == idql.STAGE.interval({}) == 0
    assert not idql.STAGE.learns
