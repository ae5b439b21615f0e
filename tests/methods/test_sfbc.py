"""SfBC against plain NumPy recursions over episodes, its choice among candidates, and a chain with a known answer."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import sfbc, support
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.methods.support import Support
from jaxrl_srpo.nn import networks, policies
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.types import Batch
from tests import reference
from tests.methods.episodes import GaussianModel, PointModel, random_episodes
from tests.methods.updates import reference_learner, to_numpy, warm

LENGTHS = (7, 1, 12, 3, 1)
SIZE = sum(LENGTHS)
SETTINGS = with_arrays(sfbc.Settings(steps=6, rounds=2, batch_size=8, width=16, alpha=3.0, discount=0.9))
MODEL = GaussianModel(jnp.zeros(2), 0.3)
act = jax.jit(policies.act)
PLANNED = jax.jit(sfbc.planned_returns)


def recursion(rewards: np.ndarray, ends: np.ndarray, values: np.ndarray, discount: float) -> np.ndarray:
    """The released code's loop, from the last transition to the first."""
    returns, following = np.zeros(len(rewards)), 0.0
    for i in reversed(range(len(rewards))):
        following = max(rewards[i] + discount * following * (not ends[i]), values[i])
        returns[i] = following
    return returns


def random_support() -> Support:
    places = np.arange(SIZE) + np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    shape = (SIZE + len(LENGTHS), 4, 2)
    actions = jax.random.randint(jax.random.key(7), shape, -32767, 32768)
    return Support(actions.astype(jnp.int16), jnp.asarray(places, jnp.int32))


@pytest.mark.parametrize("seed", range(3))
def test_planned_returns_are_those_of_a_loop_over_random_episodes(seed: int) -> None:
    random = np.random.default_rng(seed)
    rewards, values = random.normal(size=(2, 3000))
    ends = random.random(3000) < 0.02
    ends[-1] = True
    discounts = np.where(ends, 0.0, 0.97)
    inputs = (jnp.asarray(x, jnp.float32) for x in (rewards, discounts, 3.0 * values))
    expected = recursion(rewards, ends, 3.0 * values, 0.97)
    np.testing.assert_allclose(PLANNED(*inputs), expected, atol=1e-4)


def test_without_values_they_are_the_discounted_sums() -> None:
    """Of one long trajectory as well, as mazes have it: -1e30 must not get in."""
    rewards = np.random.default_rng(0).normal(size=20_000)
    ends = np.arange(20_000) == 19_999
    none = jnp.full(20_000, sfbc._LOWEST)
    found = PLANNED(jnp.asarray(rewards, jnp.float32), jnp.where(ends, 0.0, 0.99), none)
    np.testing.assert_allclose(found, recursion(rewards, ends, np.full(20_000, -np.inf), 0.99), atol=1e-3)


def test_rows_out_of_their_order_give_other_returns() -> None:
    """Which is why the column `steps_left`, with which weighted tables are refused, is asked for."""
    assert sfbc.STAGE.columns == ("steps_left",)
    rewards = jnp.arange(4.0)
    discounts, none = jnp.array([0.5, 0.5, 0.5, 0.0]), jnp.full(4, sfbc._LOWEST)
    order = jnp.array([2, 0, 3, 1])
    shuffled = PLANNED(rewards[order], discounts[order], none)
    assert not np.allclose(shuffled, PLANNED(rewards, discounts, none)[order])


def q_network(params: Any, observations: np.ndarray, actions: np.ndarray) -> reference.Node:
    return reference.mlp(params, reference.concatenate([observations, actions]), reference.silu).column(0)


def test_updates_agree_with_plain_numpy_over_two_rounds() -> None:
    """The fourth update begins the second round: new returns, first weights, a fresh optimizer."""
    episodes, table = random_episodes(LENGTHS), random_support()
    frozen = support.Frozen(MODEL, table)
    state = sfbc.init(jax.random.key(0), episodes.spec, SETTINGS, frozen)
    start = to_numpy(state.first)
    support_actions = to_numpy(table.of_states(jnp.arange(SIZE)))
    q, returns, mean, deviation = reference.learner(start), np.zeros(SIZE), 0.0, 1.0
    update = jax.jit(sfbc.update)
    for number in range(4):
        index = jax.random.randint(jax.random.key(number), (8,), 0, SIZE)
        batch: Batch = episodes.data.take(index)
        state, metrics = update(state, batch, SETTINGS, frozen, episodes.data, jnp.int32(number))
        if number % 3 == 0:
            values = np.full(SIZE, -np.inf)
            if number == 3:
                rows = np.repeat(episodes.observations, 4, axis=0)
                q_values = q_network(q.params, rows, support_actions.reshape(-1, 2)).value.reshape(SIZE, 4)
                weights = np.exp(3.0 * q_values)
                values = mean + deviation * (weights * q_values).sum(-1) / weights.sum(-1)
            returns = recursion(episodes.rewards, episodes.ends, values, 0.9)
            mean, deviation = returns.mean(), max(returns.std(), 0.1)
            q = reference.learner(start)
            np.testing.assert_allclose(state.targets, (returns - mean) / deviation, atol=1e-4)
        b, goal = to_numpy(batch), ((returns - mean) / deviation)[np.asarray(index)]

        def loss_of(params: Any, b: Any = b, goal: np.ndarray = goal) -> reference.Node:
            error = q_network(params, b.observations, b.actions) - goal
            return (error * error).mean()

        loss, gradient = reference.value_and_grad(loss_of, q.params)
        q = reference.adam(q, gradient, 1e-3)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-3)
        assert float(metrics["return_mean"]) == pytest.approx(mean, abs=1e-4)
    assert int(state.q.opt_state.count) == 1


def test_one_update_agrees_with_plain_numpy_to_the_last_digits() -> None:
    """With an optimizer that is warm, and without a new round."""
    episodes = random_episodes(LENGTHS)
    frozen = support.Frozen(MODEL, random_support())
    state = sfbc.init(jax.random.key(0), episodes.spec, SETTINGS, frozen)
    targets = jax.random.normal(jax.random.key(1), (SIZE,))
    state = dataclasses.replace(state, q=warm(state.q), targets=targets)
    q, batch = reference_learner(state.q), episodes.data.take(jnp.arange(8))
    state, _ = jax.jit(sfbc.update)(state, batch, SETTINGS, frozen, episodes.data, jnp.int32(1))
    b, goal = to_numpy((batch, targets))

    def loss_of(params: Any) -> reference.Node:
        error = q_network(params, b.observations, b.actions) - goal[:8]
        return (error * error).mean()

    _, gradient = reference.value_and_grad(loss_of, q.params)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(close, to_numpy(state.q.params), reference.adam(q, gradient, 1e-3).params)


def test_planning_joins_the_better_halves_of_two_episodes() -> None:
    """Both pass through one state; what follows there is good in one of them only, and the other learns of it."""
    values = np.array([-9.0, 5.0, -9.0, 5.0])  # Of a state before, and of the common one.
    rewards, ends = np.array([1.0, 5.0, 2.0, 0.0]), np.array([False, True, False, True])
    returns = PLANNED(jnp.asarray(rewards), jnp.where(ends, 0.0, 1.0), jnp.asarray(values))
    np.testing.assert_allclose(returns, [6.0, 5.0, 7.0, 5.0])


def test_candidates_are_drawn_by_their_weights_and_none_twice() -> None:
    logits = jnp.log(jnp.broadcast_to(jnp.array([[0.6, 0.3, 0.1]]), (20_000, 3)))
    chosen = np.asarray(sfbc.choose(Keyed(jax.random.key(0)), logits, 2))
    assert np.all(chosen[:, 0] != chosen[:, 1])
    shares = np.bincount(chosen[:, 0], minlength=3) / len(chosen)
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.02)
    second = chosen[chosen[:, 0] == 0, 1]
    np.testing.assert_allclose(np.mean(second == 1), 0.75, atol=0.02)


def test_a_lead_of_more_than_forty_counts_as_forty() -> None:
    """Two far ahead of all others are equals, however far one is ahead of the other."""
    logits = jnp.broadcast_to(jnp.array([[1000.0, 500.0, 0.0, 0.0]]), (4_000, 4))
    first = np.asarray(sfbc.choose(Keyed(jax.random.key(0)), logits, 3))[:, 0]
    np.testing.assert_allclose(np.mean(first == 0), 0.5, atol=0.03)


def test_the_policy_takes_the_mean_of_the_best_candidates() -> None:
    """Q rises with the first action, of which 32 draws of N(0, 0.3^2) have 0.62 on average at most."""
    network = networks.MLP(1, 2, 1, jax.nn.silu)
    zeros = network.init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
    params = jax.tree.map(jnp.zeros_like, zeros)
    # silu(x) - silu(-x) = x.
    params["Dense_0"]["Dense_0"]["kernel"] = params["Dense_0"]["Dense_0"]["kernel"].at[3].set(jnp.array([1.0, -1.0]))
    params["Dense_1"]["Dense_0"]["kernel"] = jnp.array([[1.0], [-1.0]])
    spec = random_episodes(LENGTHS).spec
    trained = sfbc.Trained(MODEL, params, network)
    means = {}
    for averaged in (1, 4):
        policy = sfbc.policy_of(trained, sfbc.Settings(averaged=averaged, selection=1e4), spec)
        means[averaged] = act(policy, jnp.zeros((1000, 3)), jax.random.key(1)).mean(0)
    # Expected order statistics of 32 normal draws: 2.07, 1.65, 1.40, 1.22.
    np.testing.assert_allclose(means[1], [0.62, 0.0], atol=0.03)
    np.testing.assert_allclose(means[4], [0.3 * 1.585, 0.0], atol=0.03)


def test_a_policy_of_one_candidate_is_the_behavior() -> None:
    spec = random_episodes(LENGTHS).spec
    state = sfbc.init(jax.random.key(0), spec, SETTINGS, support.Frozen(PointModel(), random_support()))
    policy = sfbc.policy_of(sfbc.trained(state), sfbc.Settings(candidates=1, averaged=1), spec)
    observations = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    actions = act(policy, jnp.asarray(observations), jax.random.key(0))
    np.testing.assert_allclose(actions, PointModel.action_in(observations, 2), atol=0.06)


def test_more_actions_than_candidates_are_refused() -> None:
    with pytest.raises(UserError, match="--sfbc_averaged=4: must not be above --sfbc_candidates=2"):
        sfbc.Settings(candidates=2).check()


@pytest.mark.parametrize(
    ("dataset", "family", "expected"),
    [
        ("hopper-medium-v2", "locomotion", {"sfbc_averaged": 4, "support_solver": "singlestep3"}),
        ("antmaze-umaze-v2", "antmaze", {"sfbc_averaged": 1, "sfbc_steps": 97_600}),
        ("antmaze-large-play-v2", "antmaze", {"sfbc_averaged": 1, "sfbc_layers": 3}),
    ],
)
def test_presets_are_those_of_their_sources(dataset: str, family: str, expected: dict[str, Any]) -> None:
    values = sfbc.METHOD.preset("released", dataset, family)
    assert {name: values[name] for name in expected} == expected
    assert values["reward_transform"] == "none"
    defaults = {flag: one.default for flag, one in sfbc.METHOD.settings().items()}
    published = {
        "sfbc_steps": 2 * 100 * 244,
        "sfbc_rounds": 2,
        "sfbc_batch_size": 4096,
        "sfbc_learning_rate": 1e-3,
        "sfbc_alpha": 20.0,
        "sfbc_width": 256,
        "sfbc_layers": 2,
        "sfbc_candidates": 32,
        "sfbc_selection": 100.0,
        "sfbc_sampler_steps": 15,
        "support_actions": 16,
        "discount": 0.99,
    }
    assert {name: defaults[name] for name in published} == published
