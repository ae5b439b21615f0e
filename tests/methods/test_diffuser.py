"""Diffuser's returns and updates against plain NumPy, and a choice whose answer is known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import diffuser
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import planning, temporal
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.types import Array
from tests import reference, temporal_reference
from tests.data.episodes import SPEC, Episode, episode, transitions_of
from tests.reference import Node


@pytest.mark.parametrize("normalize", [False, True])
def test_returns_reach_to_the_end_of_the_episode(normalize: bool) -> None:
    random = np.random.default_rng(0)
    sizes = [(4, True), (1, False), (7, False), (1, True), (30, True), (11, False)]
    episodes = [episode(random, *size) for size in sizes]
    settings = with_arrays(diffuser.ReturnSettings(discount=0.9, termination_penalty=5.0, normalize_returns=normalize))
    expected = []
    for steps, rewards, terminates in episodes:
        paid = rewards.copy()
        paid[-1] -= 5.0 * terminates
        expected += [sum(0.9**k * r for k, r in enumerate(paid[i:])) for i in range(len(steps))]
    state = diffuser.init_returns(SPEC._replace(transitions=len(expected)))
    returns, metrics = jax.jit(diffuser.update_returns)(state, settings, transitions_of(episodes))
    mean, std = np.mean(expected), np.std(expected)
    assert (float(metrics["return"]), float(metrics["return_std"])) == pytest.approx((mean, std), rel=1e-5)
    wanted = (np.asarray(expected) - mean) / std if normalize else expected
    np.testing.assert_allclose(returns, wanted, rtol=0, atol=1e-5)


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


SMALL: dict[str, Any] = {
    "horizon": 3,
    "width": 8,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "diffusion_steps": 5,
    "average_decay": 0.9,
    "average_interval": 2,
    "average_start": 2,
}
MODEL = diffuser.ModelSettings(multipliers="1-2", **SMALL)
VALUE = diffuser.ValueSettings(multipliers="4", **SMALL)


def fresh(network: Any, step: int) -> diffuser.State:
    """A state some updates after the start, its average apart from the weights."""
    shapes = (jnp.zeros((1, 3, 3)), jnp.zeros(1))
    params, average = (temporal_reference.random_params(network, *shapes, seed=seed) for seed in range(2))
    learner = Learner.of(params, network)
    # Adam's first step is the sign of the gradient, which rounding alone decides where the gradient is nearly 0.
    nu = jax.tree.map(lambda x: x + 1e-4, learner.opt_state.nu)
    learner = dataclasses.replace(learner, opt_state=learner.opt_state._replace(nu=nu, count=jnp.int32(2)))
    return diffuser.State(learner, average, None, jnp.int32(step))


def noisy(windows: np.ndarray, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """The windows as an update of `key` shows them, and their times."""
    noise, times = (np.asarray(x, np.float64) for x in diffuser.draw(key, jnp.asarray(windows, jnp.float32), MODEL))
    assert np.all((times >= 1.0) & (times <= 5.0))
    signal = temporal_reference.cosine_signal(5)[times.astype(int)][:, None, None]
    shown = np.sqrt(signal) * windows + np.sqrt(1.0 - signal) * noise
    shown[:, 0, 1:] = windows[:, 0, 1:]
    return shown, times


def reference_step(state: diffuser.State, loss: Any, share: float) -> tuple[float, Any, Any]:
    """Loss, parameters and averages after one step; `share` is how far the averages go."""
    old = state.learner.opt_state
    moments = reference.Moments(to_numpy(old.mu), to_numpy(old.nu), int(old.count))
    params, average = to_numpy(state.learner.params), to_numpy(state.average)
    value, gradient = reference.value_and_grad(loss, params)
    new = reference.adam(reference.Learner(params, moments), gradient, 1e-2).params
    return value, new, reference.tree_map(lambda a, p: (1.0 - share) * a + share * p, average, new)


def assert_same(state: diffuser.State, params: Any, average: Any) -> None:
    def close(ours: Array, theirs: np.ndarray) -> None:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    jax.tree.map(close, state.learner.params, params)
    jax.tree.map(close, state.average, average)


EPISODES = [episode(np.random.default_rng(3), 4, True), episode(np.random.default_rng(4), 5, False)]
BATCH = jnp.asarray([0, 2, 3, 5])
WINDOWS = np.stack(
    [
        EPISODES[0].steps[0:3],
        np.concatenate([EPISODES[0].steps[2:4], np.zeros((1, 3))]),
        np.concatenate([EPISODES[0].steps[3:4], np.zeros((2, 3))]),
        EPISODES[1].steps[1:4],
    ]
)


UPDATE_MODEL = jax.jit(diffuser.update_model)


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (3, 0.0), (4, 0.1)])
def test_an_update_of_the_model_agrees_with_plain_numpy(step: int, share: float) -> None:
    """Its average is a copy at first, then moves at every second step."""
    state, data, key = fresh(temporal.TemporalUNet(8, (1, 2)), step), transitions_of(EPISODES), jax.random.key(1)
    new, metrics = UPDATE_MODEL(state, data.take(BATCH), key, with_arrays(MODEL), data)

    shown, times = noisy(WINDOWS, key)
    weights = np.ones((3, 3))
    weights[0] = [10.0, 0.0, 0.0]

    def loss(params: Any) -> Node:
        error = temporal_reference.unet(params, Node(shown), times - 1.0) - WINDOWS
        return (error * error * weights).mean()

    value, params, average = reference_step(state, loss, share)
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-5)
    assert_same(new, params, average)


def test_an_update_of_the_value_agrees_with_plain_numpy() -> None:
    state, data, key = fresh(temporal.WindowValue(8, (4,)), 4), transitions_of(EPISODES), jax.random.key(1)
    returns = np.random.default_rng(5).normal(size=9)
    frozen = diffuser.Frozen(planning.Network({}, temporal.TemporalUNet()), jnp.asarray(returns, jnp.float32))
    new, metrics = jax.jit(diffuser.update_value)(state, data.take(BATCH), key, with_arrays(VALUE), frozen, data)

    shown, times = noisy(WINDOWS, key)

    def loss(params: Any) -> Node:
        error = temporal_reference.window_value(params, Node(shown), times - 1.0) - returns[np.asarray(BATCH)]
        return (error * error).mean()

    value, params, average = reference_step(state, loss, 0.1)
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-5)
    assert_same(new, params, average)


def branches(random: np.random.Generator) -> list[Episode]:
    """Two steps from 0: a step to the right pays 1, one to the left, as three of four do, nothing; then both go on."""
    episodes = []
    for i in range(64):
        side = 0.8 if i % 4 == 0 else -0.8
        first, second = [side, 0.0, 1.0], [random.uniform(-0.5, 0.5), side, -1.0]
        episodes.append(Episode(np.asarray([first, second]), np.asarray([0.0, float(side > 0.0)]), terminates=True))
    return episodes


def test_plans_choose_the_branch_that_pays_later() -> None:
    """Without a value most plans go where the data go; with one they go right, by the gradient and by the choice."""
    data = transitions_of(branches(np.random.default_rng(0)))
    sizes: dict[str, Any] = {"horizon": 2, "multipliers": "1", "diffusion_steps": 5, "average_interval": 1}
    model_settings = with_arrays(diffuser.ModelSettings(learning_rate=2e-3, average_start=100, **sizes))
    value_settings = with_arrays(diffuser.ValueSettings(learning_rate=2e-3, average_start=100, **sizes))
    returns = diffuser.update_returns(
        jnp.zeros(128), with_arrays(diffuser.ReturnSettings(discount=1.0, termination_penalty=0.0)), data
    )[0]

    def train(update: Any, state: diffuser.State) -> diffuser.State:
        def step(i: Array, state: diffuser.State) -> diffuser.State:
            key, key_batch = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
            return update(state, data.take(jax.random.randint(key_batch, (64,), 0, 128)), key)[0]

        return jax.lax.fori_loop(0, 600, step, state)

    @jax.jit
    def train_both() -> tuple[planning.Network, planning.Network]:
        model = diffuser.init_model(jax.random.key(2), SPEC, model_settings)
        model = train(lambda s, b, k: diffuser.update_model(s, b, k, model_settings, data), model)
        frozen = diffuser.Frozen(model.network, returns)
        value = diffuser.init_value(jax.random.key(3), SPEC, value_settings, frozen)
        value = train(lambda s, b, k: diffuser.update_value(s, b, k, value_settings, frozen, data), value)
        return model.network, value.network

    model, value = train_both()
    cloning = diffuser.cloning_of(model, model_settings, SPEC)

    def share(policy: Any) -> float:
        starts = jnp.tile(jnp.asarray([[0.0, 1.0]]), (64, 1))
        actions = jax.jit(lambda policy: policy.act(starts, jax.random.key(4)))(policy)
        assert 0.7 < float(jnp.median(jnp.abs(actions))) < 0.9
        return float(jnp.mean(actions > 0.0))

    assert 0.15 < share(cloning) < 0.35
    planner = planning.Planner(cloning, value, plans=1, scale=0.0, guide_steps=1, stop_guide=1)
    assert share(dataclasses.replace(planner, plans=16)) > 0.95
    assert share(dataclasses.replace(planner, scale=10.0)) > 0.6


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("hopper-medium-v2", (32, "1-2-4-8", False, 0.1, 2)),
        ("walker2d-medium-expert-v2", (32, "1-2-4-8", False, 0.1, 2)),
        ("hopper-medium-expert-v2", (32, "1-2-4-8", False, 0.0001, 4)),
        ("halfcheetah-medium-replay-v2", (4, "1-4-8", True, 0.001, 4)),
    ],
)
def test_presets_are_those_of_the_released_code(dataset: str, expected: tuple[Any, ...]) -> None:
    defaults = {flag: one.default for flag, one in diffuser.METHOD.settings().items()}
    values = defaults | diffuser.METHOD.preset("paper", dataset, "locomotion")
    names = ("horizon", "multipliers", "attention", "scale", "stop_guide")
    assert tuple(values[f"diffuser_{name}"] for name in names) == expected
    published = {
        "diffuser_steps": 1_000_000,
        "diffuser_value_steps": 200_000,
        "diffuser_batch_size": 64,
        "diffuser_value_batch_size": 64,
        "diffuser_learning_rate": 2e-4,
        "diffuser_value_learning_rate": 2e-4,
        "diffuser_width": 32,
        "diffuser_diffusion_steps": 20,
        "diffuser_action_weight": 10.0,
        "diffuser_average_decay": 0.995,
        "diffuser_average_interval": 10,
        "diffuser_average_start": 2000,
        "diffuser_discount": 0.997,
        "diffuser_termination_penalty": 100.0,
        "diffuser_normalize_returns": False,
        "diffuser_plans": 64,
        "diffuser_guide_steps": 2,
        "normalize_observations": True,
        "reward_transform": "none",
        "episodes": 150,
    }
    assert {name: values[name] for name in published} == published


def test_success_that_ends_an_episode_costs_nothing() -> None:
    for preset in ("quick", "paper"):
        values = diffuser.METHOD.preset(preset, "antmaze-umaze-v2", "antmaze")
        assert values["diffuser_termination_penalty"] == 0.0
    note = diffuser.METHOD.presets["paper"].note
    assert "--diffuser_scale " in note("antmaze-umaze-v2", "antmaze")
    assert note("hopper-medium-v2", "locomotion") == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multipliers": "1,2"}, "--diffuser_multipliers=1,2: give whole numbers"),
        ({"multipliers": "1-0"}, "--diffuser_multipliers=1-0: give whole numbers"),
        ({"width": 12}, "--diffuser_width=12: .* no multiples of 8"),
        ({"width": 16, "multipliers": "2-1"}, "a quarter of the last one"),
    ],
)
def test_widths_that_do_not_divide_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        diffuser.ValueSettings(**settings).check()
    diffuser.ValueSettings().check()


def test_acting_alone_is_decided_by_what_is_no_part_of_an_address() -> None:
    own = {flag for flag in diffuser.STAGE.reach() if flag.startswith("diffuser_")}
    acting = {"plans", "scale", "guide_steps", "stop_guide", "value_evaluation_interval"}
    assert not own & {f"diffuser_{name}" for name in acting}
    # Tasks on the same data share the model.
    assert "reward_transform" not in diffuser.MODEL.reach()
    assert "reward_transform" in diffuser.RETURNS.reach()
