"""Fitted Q evaluation against a plain NumPy computation, and on a chain whose values are known."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.data.table import Slice, Transitions, unpack
from jaxrl_srpo.methods import fqe, td3_bc
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
DISCOUNT = 0.9

# A chain of three states. Action 1 goes on and, in the last, ends with 1; action -1 stays and is paid 0.02.
STATES = np.eye(3, dtype=np.float32)
STAYING = 0.02


def acting_stage(act: Callable[..., Any]) -> Stage:
    """A stage whose policy is `act` itself."""
    return dataclasses.replace(td3_bc.STAGE, name=act.__name__, act=act, stream=-1)


def goes_on(policy: Any, observations: Array) -> Array:
    return jnp.ones((len(observations), 1))


def stays_in_the_middle(policy: Any, observations: Array) -> Array:
    return jnp.where(observations[:, 1:2] == 1.0, -1.0, 1.0)


def tosses_a_coin(policy: Any, observations: Array, key: Array) -> Array:
    return jax.random.rademacher(key, (len(observations), 1), jnp.float32)


def chain() -> np.ndarray:
    """All state-action pairs as rows of the transition table."""
    rows = []
    for state in range(3):
        following = min(state + 1, 2)
        rows.append([*STATES[state], 1.0, float(state == 2), *STATES[following], float(state < 2)])
        rows.append([*STATES[state], -1.0, STAYING, *STATES[state], 1.0])
    return np.array(rows, np.float32)


def exact(going_on: list[float]) -> np.ndarray:
    """Values of the states under a policy that goes on with these probabilities."""
    move, pay = np.zeros((3, 3)), np.zeros(3)
    for state, share in enumerate(going_on):
        move[state, state] += 1.0 - share
        pay[state] += (1.0 - share) * STAYING
        if state < 2:
            move[state, state + 1] += share
        else:
            pay[state] += share
    return np.linalg.solve(np.eye(3) - DISCOUNT * move, pay)


def learned(act: Callable[..., Any], once: bool = False) -> np.ndarray:
    """Values of the states, by the policy's actions, after some thousand updates on all pairs."""
    stage, spec = fqe.evaluation_of(acting_stage(act), once), Spec(3, 1, transitions=6 if once else 0)
    shared: dict[str, Any] = {
        "updates": 3000, "batch_size": 6, "width": 32, "discount": DISCOUNT, "target_rate": 0.02, "learning_rate": 1e-3
    }  # fmt: skip
    settings: Any = fqe.DrawnSettings(draws=2, **shared) if once else fqe.Settings(**shared)
    batch, data = (
        unpack(jnp.asarray(chain()), spec, jnp.arange(6)),
        Transitions(jnp.asarray(chain()), Slice(0, 6), spec),
    )

    @jax.jit
    def train(state: fqe.State) -> fqe.State:
        def step(i: Array, state: fqe.State) -> fqe.State:
            given = (state, batch, jax.random.fold_in(jax.random.key(1), i), settings, jnp.zeros(()))
            return stage.update(*given, data, i)[0] if once else stage.update(*given)[0]

        return jax.lax.fori_loop(0, settings.steps, step, state)

    q = stage.result(train(fqe.init(jax.random.key(0), spec, settings)))
    both = np.stack([q(jnp.asarray(STATES), jnp.full((3, 1), action)) for action in (1.0, -1.0)])
    if act is tosses_a_coin:
        return both.mean(0)
    chosen = act(None, jnp.asarray(STATES))[:, 0]
    return np.where(chosen > 0, both[0], both[1])


@pytest.mark.parametrize(
    ("act", "going_on", "once"),
    [
        (goes_on, [1.0, 1.0, 1.0], False),
        (goes_on, [1.0, 1.0, 1.0], True),
        (stays_in_the_middle, [1.0, 0.0, 1.0], False),
        (tosses_a_coin, [0.5, 0.5, 0.5], False),
    ],
)
def test_the_values_of_a_chain_are_exact(act: Callable[..., Any], going_on: list[float], once: bool) -> None:
    np.testing.assert_allclose(learned(act, once), exact(going_on), atol=0.03)


def test_an_update_agrees_with_plain_numpy() -> None:
    settings = with_arrays(fqe.Settings(batch_size=32, width=16, learning_rate=3e-3, target_rate=0.1))
    stage = fqe.evaluation_of(acting_stage(goes_on))
    assert stage is fqe.evaluation_of(stage.needs[0])
    state = fqe.init(jax.random.key(0), Spec(4, 1), settings)
    state = dataclasses.replace(state, q=warm(state.q))
    q, target = reference_learner(state.q), to_numpy(state.target_q)
    batch = batch_of(0, Spec(4, 1), 32)
    state, metrics = jax.jit(stage.update)(state, batch, jax.random.key(1), settings, jnp.zeros(()))

    b = to_numpy(batch)
    next_inputs = np.concatenate([b.next_observations, np.ones((32, 1))], axis=1)
    targets = b.rewards + 0.99 * b.discounts * reference.mlp(target, next_inputs).value[:, 0]

    def loss_of(params: Any) -> reference.Node:
        inputs = np.concatenate([b.observations, b.actions], axis=1)
        error = reference.mlp(params, inputs).column(0) - targets
        return (error * error).mean()

    loss, gradient = reference.value_and_grad(loss_of, q.params)
    q = reference.adam(q, gradient, 3e-3)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    target = reference.tree_map(lambda old, new: old + 0.1 * (new - old), target, q.params)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(close, to_numpy((state.q.params, state.target_q)), (q.params, target))


def test_actions_are_drawn_once_for_every_transition_before_q_learns() -> None:
    def points(policy: Any, observations: Array) -> Array:
        return 0.5 * observations[:, :1]

    stage, spec = fqe.evaluation_of(acting_stage(points), once=True), Spec(3, 1, transitions=6)
    settings = with_arrays(fqe.DrawnSettings(draws=4, updates=2, batch_size=6, width=8))
    assert stage.steps({"fqe_draws": 4, "fqe_steps": 2}) == 6
    rows = jnp.asarray(chain())
    batch, data = unpack(rows, spec, jnp.arange(6)), Transitions(rows, Slice(0, 6), spec)
    state = first = fqe.init(jax.random.key(0), spec, settings)
    for step in range(4):
        state, metrics = stage.update(
            state, batch, jax.random.key(step), settings, jnp.zeros(()), data, jnp.int32(step)
        )
        assert float(metrics["loss"]) == 0.0
    np.testing.assert_allclose(np.asarray(state.drawn) / 32767.0, 0.5 * batch.next_observations[:, :1], atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, state.q.params, first.q.params)
    state, metrics = stage.update(state, batch, jax.random.key(9), settings, jnp.zeros(()), data, jnp.int32(4))
    assert float(metrics["loss"]) > 0.0


def test_the_datas_own_q_leaves_out_ends_by_a_time_limit() -> None:
    settings = with_arrays(fqe.Settings(batch_size=8, width=8))
    batch = batch_of(3, SPEC, 8)
    cut = jnp.arange(8) == 2
    batch = dataclasses.replace(
        batch,
        discounts=jnp.ones(8),
        next_actions=batch.actions,
        steps_left=jnp.where(cut, 0.0, 1.0),
    )
    state = fqe.init(jax.random.key(0), SPEC, settings)

    def updated(batch: Batch) -> Any:
        return fqe.update_behavior(state, batch, settings)[0].q.params

    other = dataclasses.replace(batch, rewards=jnp.where(cut, 99.0, batch.rewards))
    jax.tree.map(np.testing.assert_array_equal, updated(batch), updated(other))
    ended = dataclasses.replace(other, discounts=jnp.where(cut, 0.0, 1.0))
    before, after = (jax.tree.leaves(updated(one))[0] for one in (batch, ended))
    assert not np.array_equal(before, after)
