"""Every state and next state of a dataset has its actions, each state's once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.data.packing import pack_with_columns
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import support
from jaxrl_srpo.methods.support import Solver, Support
from jaxrl_srpo.nn.noise import Keyed
from tests.data.arrays import random_dataset
from tests.methods.episodes import GaussianModel, PointModel, random_episodes

LENGTHS = (7, 1, 12, 3, 1)


@functools.cache
def drawn(steps: int) -> tuple[Support, float]:
    """The finished table of random episodes, and the last update's loss."""
    episodes = random_episodes(LENGTHS)
    settings = support.Settings(steps=steps, actions=3)
    state = support.init(episodes.spec, settings)
    update = jax.jit(lambda *given: support.update(given[0], given[1], settings, PointModel(), episodes.data, given[2]))
    for number in range(steps):
        state, metrics = update(state, jax.random.key(number), jnp.int32(number))
    return state, float(metrics["loss"])


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_the_actions_are_those_of_the_states_and_the_next_states(steps: int) -> None:
    """The sampler ends at a noise of 0.01, by which a sample misses the point."""
    episodes, (table, _) = random_episodes(LENGTHS), drawn(steps)
    index = jnp.arange(sum(LENGTHS))
    of_states = episodes.observations, table.of_states(index)
    of_next_states = episodes.next_observations, table.of_next_states(index)
    for observations, actions in (of_states, of_next_states):
        expected = np.broadcast_to(PointModel.action_in(observations, 2)[:, None], (24, 3, 2))
        np.testing.assert_allclose(actions, expected, atol=0.06)


def test_a_next_state_shares_the_actions_of_the_transition_that_follows() -> None:
    episodes, (table, _) = random_episodes(LENGTHS), drawn(5)
    assert table.actions.shape == (sum(LENGTHS) + len(LENGTHS), 3, 2)
    assert table.actions.dtype == jnp.int16
    inside = jnp.flatnonzero(~episodes.ends)
    np.testing.assert_array_equal(table.of_next_states(inside), table.of_states(inside + 1))
    others = table.actions.reshape(-1, 6)
    assert len(np.unique(others, axis=0)) == len(others)


def test_the_loss_is_the_distance_of_the_data_from_the_support() -> None:
    """In one block, of all states that begin a transition; 0 in a block beyond the last."""
    episodes, (table, loss) = random_episodes(LENGTHS), drawn(1)
    of_states = np.asarray(table.of_states(jnp.arange(sum(LENGTHS))))
    nearest = ((of_states - episodes.actions[:, None]) ** 2).sum(-1).min(-1)
    assert loss == pytest.approx(nearest.mean(), rel=1e-3)
    assert drawn(40)[1] == 0.0


def test_the_soft_value_is_between_the_mean_and_the_best() -> None:
    q = np.random.default_rng(0).normal(size=(5, 4))
    weights = np.exp(3.0 * q) / np.exp(3.0 * q).sum(-1, keepdims=True)
    np.testing.assert_allclose(support.soft_value(jnp.asarray(q), 3.0), (weights * q).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(support.soft_value(jnp.asarray(q), 0.0), q.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(support.soft_value(jnp.asarray(q), 1e3), q.max(-1), rtol=1e-4)


@pytest.mark.parametrize(("solver", "expected"), [("multistep", 0.1), ("singlestep2", 0.05), ("singlestep3", 0.05)])
def test_the_released_solvers_narrow_the_behavior(solver: Solver, expected: float) -> None:
    """With 15 steps on N(0.5, 0.1^2); that of SRPO does not."""
    sampler, model = support.Sampler(2, 15, solver), GaussianModel(jnp.full(2, 0.5), 0.1)
    actions = jax.jit(sampler.draw, static_argnums=3)(model, Keyed(jax.random.key(0)), jnp.zeros((500, 1)), 4)
    assert actions.shape == (500, 4, 2)
    np.testing.assert_allclose(actions.mean((0, 1)), 0.5, atol=0.01)
    np.testing.assert_allclose(actions.std((0, 1)), expected, atol=0.01)


def test_rows_out_of_their_order_are_refused() -> None:
    """A next state would get the actions of some other state."""
    with pytest.raises(UserError, match=r"--trajectory_weighting=2: .* in the order of its episodes"):
        pack_with_columns(random_dataset(20), support.STAGE.columns, reward_transform="none", trajectory_weighting=2.0)


def test_tasks_on_the_same_data_share_the_actions() -> None:
    assert not support.STAGE.learns_values
    assert support.STAGE.spec(random_episodes(LENGTHS).spec)[2:] == (24, ("steps_left",), 5)
