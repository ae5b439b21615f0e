"""FQL and IFQL against a plain NumPy computation, and on bandits whose answers are known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.envs import bandits
from jaxrl_srpo.methods import fql, idql, iql
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn.policies import BestOf, QFunction
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
SETTINGS: Any = with_arrays(fql.Settings(batch_size=16, width=16, layers=2, learning_rate=1e-3, alpha=3.0))
UPDATE = jax.jit(fql.update)


def wide_actor(state: Any) -> Any:
    """The state with an actor of twice as large outputs, so that its actions are clipped."""
    params = jax.tree.map(lambda x: x, state.actor.params)
    last = params[f"Dense_{len(params) - 1}"]["Dense_0"]
    last["kernel"] = 2.0 * last["kernel"]
    return state.replace(actor=state.actor.replace(params=params))


def field(params: Any, *inputs: Any) -> reference.Node:
    return reference.mlp(params, reference.concatenate(inputs), reference.gelu)


def twin_q(params: Any, observations: np.ndarray, actions: Any) -> reference.Node:
    return reference.twin_q(params, observations, actions, reference.gelu)


@pytest.mark.parametrize(("aggregation", "normalize_q"), [("mean", False), ("min", True)])
def test_two_updates_agree_with_plain_numpy(aggregation: str, normalize_q: bool) -> None:
    settings = SETTINGS.replace(aggregation=aggregation, normalize_q=normalize_q)
    state = wide_actor(fql.init(jax.random.key(0), SPEC, settings))
    state = dataclasses.replace(state, q=warm(state.q), flow=warm(state.flow), actor=warm(state.actor))
    q, flow, actor = (reference_learner(one) for one in (state.q, state.flow, state.actor))
    target = to_numpy(state.target_q)
    for number in range(2):
        batch, key = batch_of(number, SPEC, 16), jax.random.key(10 + number)
        key_next, key_flow, key_noise = jax.random.split(key, 3)
        key_path, key_times = jax.random.split(key_flow)
        shape = batch.actions.shape
        next_noise, path_noise, noise = (
            np.asarray(jax.random.normal(one, shape), np.float64) for one in (key_next, key_path, key_noise)
        )
        times = np.asarray(jax.random.uniform(key_times, (shape[0], 1)), np.float64)
        state, metrics = UPDATE(state, batch, key, settings)

        b = to_numpy(batch)
        next_actions = np.clip(field(actor.params, b.next_observations, next_noise).value, -1.0, 1.0)
        next_q = twin_q(target, b.next_observations, next_actions).value
        aggregated = next_q.min(axis=1) if aggregation == "min" else next_q.mean(axis=1)
        targets = b.rewards + 0.99 * b.discounts * aggregated

        def q_loss(params: Any, b: Any = b, targets: np.ndarray = targets) -> reference.Node:
            error = twin_q(params, b.observations, b.actions) - targets[:, None]
            return (error * error).mean()

        def flow_loss(params: Any, b: Any = b, z: np.ndarray = path_noise, t: np.ndarray = times) -> reference.Node:
            error = field(params, b.observations, (1.0 - t) * z + t * b.actions, t) - (b.actions - z)
            return (error * error).mean()

        goals = noise
        for i in range(10):
            goals = goals + field(flow.params, b.observations, goals, np.full((len(noise), 1), i / 10)).value / 10
        goals = np.clip(goals, -1.0, 1.0)

        def actor_loss(
            params: Any, b: Any = b, q: Any = q.params, z: np.ndarray = noise, goals: np.ndarray = goals
        ) -> reference.Node:
            actions = field(params, b.observations, z)
            error = actions - goals
            values = twin_q(q, b.observations, reference.clip(actions, -1.0, 1.0)).mean(1)
            scale = np.abs(values.value).mean() if normalize_q else 1.0
            return (error * error).mean() * 3.0 - values.mean() * (1.0 / scale)

        assert np.abs(field(actor.params, b.observations, noise).value).max() > 1.0
        # The target follows the critic before its step.
        target = reference.tree_map(lambda old, own: old + 0.005 * (own - old), target, q.params)
        losses = []
        trained = []
        for learner, loss_of in ((q, q_loss), (flow, flow_loss), (actor, actor_loss)):
            loss, gradient = reference.value_and_grad(loss_of, learner.params)
            losses.append(loss)
            trained.append(reference.adam(learner, gradient, 1e-3))
        q, flow, actor = trained

        assert float(metrics["loss"]) == pytest.approx(sum(losses), rel=1e-5)
        assert float(metrics["q_loss"]) == pytest.approx(losses[0], rel=1e-5)
        assert float(metrics["flow_loss"]) == pytest.approx(losses[1], rel=1e-5)
        ours = (state.q.params, state.flow.params, state.actor.params, state.target_q)
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        jax.tree.map(close, to_numpy(ours), (q.params, flow.params, actor.params, target))


def eight(size: int = 256) -> Batch:
    """One state, actions near eight points of a circle, the reward their first coordinate, then the end."""
    actions = bandits.eight_gaussians(jax.random.key(0), size)
    states = jnp.zeros((size, 1))
    return Batch(states, actions, actions[:, 0], states, jnp.zeros(size))


def modes_of(actions: Array) -> np.ndarray:
    """The share of actions nearest to each of the eight points, those within 0.25 of it alone."""
    angles = np.arange(8) * np.pi / 4.0
    centers = 0.75 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    distances = np.linalg.norm(np.asarray(actions)[:, None] - centers, axis=-1)
    return np.array([np.mean((distances.argmin(axis=1) == i) & (distances.min(axis=1) < 0.25)) for i in range(8)])


@jax.jit
def train(state: fql.State, batch: Batch, settings: fql.Settings) -> fql.State:
    """A thousand updates on the same batch, which is the whole problem."""

    def step(i: Array, state: fql.State) -> fql.State:
        return fql.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings)[0]

    return jax.lax.fori_loop(0, 1000, step, state)


@functools.cache
def learned(alpha: float) -> fql.State:
    settings = with_arrays(fql.Settings(width=64, layers=2, alpha=alpha, learning_rate=3e-3, euler_steps=5))
    return train(fql.init(jax.random.key(2), Spec(1, 2), settings), eight(), settings)


def best_of(state: fql.State, candidates: int) -> BestOf:
    """IFQL's policy of the flow and of the critic that FQL learned."""
    combined = idql.Combined(
        fql.Flow(state.flow.params, state.flow.network), QFunction(state.q.params, state.q.network)
    )
    return fql.policy_of_ifql(combined, fql.ChoiceSettings(candidates=candidates, euler_steps=10))


def test_a_large_alpha_keeps_every_mode_and_a_small_one_takes_the_best() -> None:
    observations = jnp.zeros((2000, 1))
    cloned, greedy = (fql.policy_of(learned(alpha)).act(observations, jax.random.key(3)) for alpha in (1000.0, 0.3))
    assert modes_of(cloned).min() > 0.04
    assert float(jnp.mean(cloned[:, 0])) == pytest.approx(0.0, abs=0.1)
    assert float(jnp.mean(greedy[:, 0])) > 0.6


def test_the_flow_is_cloning_alone_however_greedy_the_actor() -> None:
    """No gradient reaches the flow through the distillation, nor from Q."""
    cloned, greedy = learned(1000.0), learned(0.3)
    jax.tree.map(np.testing.assert_array_equal, cloned.flow.params, greedy.flow.params)
    shares = modes_of(best_of(cloned, 1).act(jnp.zeros((2000, 1)), jax.random.key(3)))
    assert shares.min() > 0.05
    assert shares.sum() > 0.65


def test_ifql_takes_the_best_of_its_candidates() -> None:
    state = learned(1000.0)
    actions = best_of(state, 32).act(jnp.zeros((500, 1)), jax.random.key(4))
    # Of 32 actions nearly always one is of the rightmost mode.
    assert float(jnp.mean(actions[:, 0] > 0.6)) > 0.95
    # It is one of the candidates, and no other has a larger smaller Q.
    observations = jnp.zeros((500 * 32, 1))
    candidates = best_of(state, 1).act(observations, jax.random.key(4))
    q_values = state.q(observations, candidates).min(axis=-1).reshape(500, 32)
    chosen = jnp.take_along_axis(candidates.reshape(500, 32, 2), q_values.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    np.testing.assert_allclose(actions, chosen, atol=1e-6)


def test_ifqls_flow_learns_as_fqls_and_reads_no_rewards() -> None:
    settings = with_arrays(fql.FlowSettings(width=16, layers=2, learning_rate=1e-3))
    state = fql.init_flow(jax.random.key(1), SPEC, settings)
    batch, key = batch_of(0, SPEC, 16), jax.random.key(2)
    after, metrics = jax.jit(fql.clone)(state, batch, key, settings)
    expected, loss = jax.jit(fql.update_flow)(state, batch, key, 1e-3)
    jax.tree.map(np.testing.assert_array_equal, after.params, expected.params)
    np.testing.assert_array_equal(metrics["loss"], loss)
    # Tasks on the same data share it, as it stands on no critic.
    assert not fql.FLOW.learns_values
    assert not fql.FLOW.needs
    assert fql.IFQL.needs == (fql.FLOW, iql.STAGE)


def test_values_of_a_chain() -> None:
    """State 0 earns 1 and ends; state 1 earns nothing and leads there: worth the discount."""
    settings = with_arrays(
        fql.Settings(width=32, layers=2, learning_rate=3e-3, target_rate=0.05, discount=0.9, euler_steps=2)
    )
    index = jnp.tile(jnp.arange(2), 32)
    states = jnp.eye(2)[index]
    batch = Batch(
        observations=states,
        actions=jax.random.uniform(jax.random.key(0), (64, 1), minval=-1.0, maxval=1.0),
        rewards=jnp.asarray([1.0, 0.0])[index],
        next_observations=jnp.tile(jnp.eye(2)[0], (64, 1)),
        discounts=jnp.asarray([0.0, 1.0])[index],
    )

    state = train(fql.init(jax.random.key(2), Spec(2, 1), settings), batch, settings)
    expected = np.asarray([1.0, 0.9])[index][:, None] * np.ones(2)
    np.testing.assert_allclose(state.q(batch.observations, batch.actions), expected, atol=0.06)


def test_networks_start_as_the_sources() -> None:
    """Glorot's uniform kernels, no bias, the output layer included."""
    state = fql.init(jax.random.key(0), Spec(17, 6), fql.Settings(width=64))
    for params in (state.q.params["heads"], state.flow.params, state.actor.params):
        layers = [params[f"Dense_{i}"]["Dense_0"] for i in range(5)]
        for layer in layers:
            bound = np.sqrt(6.0 / sum(layer["kernel"].shape[-2:]))
            assert 0.95 * bound < np.abs(layer["kernel"]).max() <= 1.000001 * bound
            assert not np.asarray(layer["bias"]).any()
    assert "LayerNorm_3" in state.q.params["heads"]
    assert "LayerNorm_0" not in state.flow.params
    kernel = state.flow.params["Dense_0"]["Dense_0"]["kernel"]
    assert kernel.shape == (17 + 6 + 1, 64)


@pytest.mark.parametrize(
    ("preset", "dataset", "family", "expected"),
    [
        ("paper", "antmaze-large-play-v2", "antmaze", (3.0, "mean", False, 0.99, 500_000)),
        ("paper", "pen-expert-v1", "adroit", (3_000.0, "min", False, 0.99, 500_000)),
        ("paper", "hopper-medium-v2", "locomotion", (1.0, "mean", True, 0.99, 500_000)),
        ("ogbench", "antmaze-giant-navigate-singletask-v0", "ogbench", (10.0, "min", False, 0.995, 1_000_000)),
        ("ogbench", "humanoidmaze-large-navigate-singletask-v0", "ogbench", (30.0, "mean", False, 0.995, 1_000_000)),
        ("ogbench", "cube-double-play-singletask-task2-v0", "ogbench", (300.0, "mean", False, 0.99, 1_000_000)),
        ("ogbench", "puzzle-4x4-play-singletask-v0", "ogbench", (1_000.0, "mean", False, 0.99, 1_000_000)),
    ],
)
def test_presets_are_those_of_the_source(preset: str, dataset: str, family: str, expected: tuple[Any, ...]) -> None:
    defaults = {flag: one.default for flag, one in fql.METHOD.settings().items()}
    values = defaults | fql.METHOD.preset(preset, dataset, family)
    flags = ("fql_alpha", "fql_aggregation", "fql_normalize_q", "discount", "fql_steps")
    assert tuple(values[flag] for flag in flags) == expected
    published = {
        "fql_batch_size": 256,
        "fql_learning_rate": 3e-4,
        "fql_euler_steps": 10,
        "fql_width": 512,
        "fql_layers": 4,
        "fql_layer_norm": True,
        "target_rate": 0.005,
        "episodes": 50,
        "normalize_observations": False,
        "reward_transform": "d4rl-antmaze" if family == "antmaze" else "none",
    }
    assert {name: values[name] for name in published} == published


def test_a_dataset_without_an_alpha_is_told_of() -> None:
    preset = fql.METHOD.presets["paper"]
    assert preset.note("antmaze-umaze-v2", "antmaze") == ""
    assert "--fql_alpha" in preset.note("hopper-medium-v2", "locomotion")


@pytest.mark.parametrize(("preset", "steps"), [("paper", 500_000), ("ogbench", 1_000_000)])
def test_presets_of_ifql_are_those_of_the_source(preset: str, steps: int) -> None:
    defaults = {flag: one.default for flag, one in fql.METHOD_IFQL.settings().items()}
    values = defaults | fql.METHOD_IFQL.preset(preset, "antmaze-large-play-v2", "antmaze")
    published = {
        "critic_steps": steps,
        "flow_steps": steps,
        "critic_width": 512,
        "flow_width": 512,
        "critic_layers": 4,
        "flow_layers": 4,
        "critic_layer_norm": True,
        "critic_batch_size": 256,
        "flow_batch_size": 256,
        "critic_learning_rate": 3e-4,
        "flow_learning_rate": 3e-4,
        "expectile": 0.9,
        "ifql_candidates": 32,
        "flow_euler_steps": 10,
        "episodes": 50,
    }
    assert {name: values[name] for name in published} == published
