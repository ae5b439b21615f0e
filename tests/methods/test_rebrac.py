"""ReBRAC, the update of TD3+BC with its switches, against plain NumPy, and where the answer is known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import find_method, td3_bc
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
SETTINGS = with_arrays(
    td3_bc.RebracSettings(
        batch_size=32, width=16, learning_rate=3e-3, actor_learning_rate=1e-3, actor_penalty=0.3, critic_penalty=0.7
    )
)


def rebrac_batch(seed: int) -> Batch:
    """As of a stage with both columns: some transitions end their episode."""
    keys = jax.random.split(jax.random.key(100 + seed))
    batch = batch_of(seed, SPEC, 32)
    following = jax.random.uniform(keys[0], batch.actions.shape, minval=-1.0, maxval=1.0)
    left = jax.random.randint(keys[1], batch.rewards.shape, 0, 4).astype(jnp.float32)
    return dataclasses.replace(batch, next_actions=following, steps_left=left)


@pytest.mark.parametrize(
    "switches",
    [{}, {"actor_q": "first", "dimensions": "mean", "normalize_q": False, "layer_norm": False, "layers": 1}],
    ids=["released", "all other switches"],
)
def test_two_updates_agree_with_plain_numpy(switches: dict[str, Any]) -> None:
    """The first moves the critics alone, the second the actor and all targets too."""
    settings = dataclasses.replace(SETTINGS, **switches)
    state = td3_bc.init(jax.random.key(0), SPEC, settings)
    state = dataclasses.replace(state, q=warm(state.q), actor=warm(state.actor))
    q, actor = reference_learner(state.q), reference_learner(state.actor)
    target_q, target_actor = to_numpy(state.target_q), to_numpy(state.target_actor)
    assert ("LayerNorm_0" in q.params["MLP_0"]) == settings.layer_norm
    over_dimensions = np.sum if settings.dimensions == "sum" else np.mean
    for number in range(2):
        batch, key = rebrac_batch(number), jax.random.key(10 + number)
        noise = np.clip(0.2 * np.asarray(jax.random.normal(key, batch.actions.shape), np.float64), -0.5, 0.5)
        state, metrics = jax.jit(td3_bc.update)(state, batch, key, settings)

        b = to_numpy(batch)
        next_actions = np.clip(reference.actor(target_actor, b.next_observations).value + noise, -1.0, 1.0)
        next_q = reference.twin_q(target_q, b.next_observations, next_actions).value.min(axis=1)
        penalty = 0.7 * over_dimensions((next_actions - b.next_actions) ** 2, axis=1)
        next_q = np.where(b.steps_left > 0, next_q - penalty, next_q)
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
                both = reference.twin_q(q.params, b.observations, actions)
                smaller = both.value.argmin(axis=1) if settings.actor_q == "min" else np.zeros(len(both.value), int)
                climbed = (both * np.eye(2)[smaller]).sum(axis=1)
                distance = actions - b.actions
                dimensions = b.actions.shape[1] if settings.dimensions == "sum" else 1
                weight = 1.0 / np.abs(climbed.value).mean() if settings.normalize_q else 1.0
                return (distance * distance).mean() * (0.3 * dimensions) + climbed.mean() * -weight

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


def test_nothing_is_penalized_where_the_data_take_no_next_action() -> None:
    """A time limit ended the episode: the column then holds the transition's own action, which says nothing of s'."""
    state = td3_bc.init(jax.random.key(0), SPEC, SETTINGS)
    batch = dataclasses.replace(rebrac_batch(0), discounts=jnp.ones((32,)))
    free = with_arrays(dataclasses.replace(SETTINGS, critic_penalty=0.0))
    key = jax.random.key(1)
    penalties = td3_bc.q_targets(state, batch, key, free) - td3_bc.q_targets(state, batch, key, SETTINGS)
    ends = np.asarray(batch.steps_left == 0)
    assert 0 < ends.sum() < 32
    np.testing.assert_array_equal(np.asarray(penalties)[ends], 0.0)
    assert (np.asarray(penalties)[~ends] > 0.0).all()


def chain(size: int = 64) -> Batch:
    """The first of two steps: reward 0, and the data go on with the action 0.5."""
    zeros = jnp.zeros((size, 1))
    actions = jax.random.uniform(jax.random.key(0), (size, 1), minval=-1.0, maxval=1.0)
    left = jnp.arange(size, dtype=jnp.float32) % 2
    return Batch(
        observations=jnp.where(left[:, None] > 0, zeros, zeros + 1.0),
        actions=actions,
        rewards=jnp.where(left > 0, 0.0, 1.0),
        next_observations=zeros + 1.0,
        discounts=left,
        next_actions=zeros + 0.5,
        steps_left=left,
    )


def learned(critic_penalty: float, actor_penalty: float) -> tuple[float, float]:
    """Q of the chain's first step, and what the actor does in the second."""
    settings = with_arrays(
        td3_bc.RebracSettings(
            batch_size=64,
            width=16,
            layers=1,
            learning_rate=1e-2,
            actor_learning_rate=1e-2,
            actor_penalty=actor_penalty,
            critic_penalty=critic_penalty,
            policy_noise=0.0,
            target_rate=0.05,
        )
    )
    batch = chain()

    @jax.jit
    def train(state: td3_bc.State) -> td3_bc.State:
        def step(i: Array, state: td3_bc.State) -> td3_bc.State:
            return td3_bc.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings)[0]

        return jax.lax.fori_loop(0, 600, step, state)

    state = train(td3_bc.init(jax.random.key(2), Spec(1, 1), settings))
    value = jnp.mean(state.q(batch.observations[1::2], batch.actions[1::2]))
    return float(value), float(td3_bc.policy_of(state).act(jnp.ones((1, 1)))[0, 0])


def test_the_first_step_of_a_chain_is_worth_what_follows_less_the_penalty() -> None:
    # Data of mean 0 in the last step keep the actor there: it is 0.5 from the action that the data take next.
    free, action = learned(critic_penalty=0.0, actor_penalty=100.0)
    mean = float(jnp.mean(chain().actions[0::2]))
    assert action == pytest.approx(mean, abs=0.05)
    assert free == pytest.approx(0.99, abs=0.05)
    punished, action = learned(critic_penalty=2.0, actor_penalty=100.0)
    assert punished == pytest.approx(0.99 * (1.0 - 2.0 * (action - 0.5) ** 2), abs=0.05)


def test_it_starts_as_the_released_networks_do() -> None:
    """Small last layers; an actor that hardly acts."""
    state = td3_bc.init(jax.random.key(0), SPEC, with_arrays(td3_bc.RebracSettings(width=16)))
    actor = state.actor.params["MLP_0"]
    assert set(actor) == {"Dense_0", "Dense_1", "Dense_2", "Dense_3"}
    assert float(jnp.abs(actor["Dense_3"]["Dense_0"]["kernel"]).max()) <= 1e-3
    critic = state.q.params["heads"]
    assert set(critic) == {f"{kind}_{i}" for kind, most in (("Dense", 4), ("LayerNorm", 3)) for i in range(most)}
    assert float(jnp.abs(critic["Dense_3"]["Dense_0"]["kernel"]).max()) <= 3e-3


def test_td3_bc_asks_for_no_further_columns() -> None:
    assert td3_bc.STAGE.columns == ()
    assert td3_bc.REBRAC.columns == ("next_actions", "steps_left")


MAZE = {"rebrac_learning_rate": 5e-5, "rebrac_actor_learning_rate": 3e-4, "rebrac_batch_size": 256}


@pytest.mark.parametrize(
    ("preset", "dataset", "family", "expected"),
    [
        (
            "paper",
            "hopper-medium-v2",
            "locomotion",
            {"rebrac_actor_penalty": 0.01, "rebrac_critic_penalty": 0.01, "reward_transform": "none", "episodes": 10},
        ),
        (
            "paper",
            "antmaze-medium-play-v2",
            "antmaze",
            {"rebrac_actor_penalty": 0.001, "rebrac_critic_penalty": 0.0005, "discount": 0.999, "episodes": 100}
            | MAZE
            | {"reward_transform": "x100"},
        ),
        (
            "paper",
            "pen-human-v1",
            "adroit",
            {"rebrac_actor_penalty": 0.1, "rebrac_critic_penalty": 0.5, "rebrac_batch_size": 256}
            | {"rebrac_learning_rate": 3e-4, "rebrac_actor_learning_rate": 3e-4},
        ),
        (
            "td3_bc",
            "antmaze-umaze-v2",
            "antmaze",
            {"rebrac_actor_penalty": 0.4, "rebrac_critic_penalty": 0.0, "rebrac_layers": 2, "rebrac_layer_norm": False}
            | MAZE
            | {"reward_transform": "x100"},
        ),
        (
            "td3_bc",
            "walker2d-medium-replay-v2",
            "locomotion",
            {"rebrac_actor_penalty": 0.1, "rebrac_learning_rate": 3e-4, "rebrac_batch_size": 256},
        ),
        (
            "ogbench",
            "cube-single-play-singletask-task1-v0",
            "ogbench",
            {"rebrac_actor_penalty": 1.0, "rebrac_critic_penalty": 0.0, "rebrac_width": 512, "rebrac_layers": 4},
        ),
    ],
)
def test_presets_are_those_of_their_sources(preset: str, dataset: str, family: str, expected: dict[str, Any]) -> None:
    values = td3_bc.METHOD_REBRAC.preset(preset, dataset, family)
    assert {name: values[name] for name in expected} == expected
    assert values["normalize_observations"] is False
    defaults = {flag: one.default for flag, one in td3_bc.METHOD_REBRAC.settings().items()}
    released = {
        "rebrac_steps": 1_000_000,
        "rebrac_batch_size": 1024,
        "rebrac_learning_rate": 1e-3,
        "rebrac_actor_learning_rate": 1e-3,
        "rebrac_policy_noise": 0.2,
        "rebrac_noise_clip": 0.5,
        "rebrac_policy_delay": 2,
        "rebrac_width": 256,
        "rebrac_layers": 3,
        "rebrac_layer_norm": True,
        "rebrac_actor_q": "min",
        "rebrac_normalize_q": True,
        "rebrac_dimensions": "sum",
        "discount": 0.99,
        "target_rate": 0.005,
    }
    assert {name: defaults[name] for name in released} == released


def test_a_dataset_without_published_penalties_is_told_of() -> None:
    for preset in ("paper", "td3_bc"):
        note = find_method("rebrac").presets[preset].note
        assert note("hopper-medium-v2", "locomotion") == ""
        assert note("kitchen-mixed-v0", "kitchen").startswith("kitchen-mixed-v0: the paper ")
