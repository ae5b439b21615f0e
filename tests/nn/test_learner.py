"""A network that learns: what it computes, and one step of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner

NETWORK = networks.MLP(2, width=4, layers=1)
INPUTS = jnp.arange(6.0).reshape(2, 3)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner.create(NETWORK, jax.random.key(0), INPUTS)


def test_it_computes_what_its_network_computes(learner: Learner) -> None:
    expected = NETWORK.apply({"params": learner.params}, INPUTS)
    np.testing.assert_array_equal(learner(INPUTS), expected)
    other = jax.tree.map(lambda x: 2.0 * x, learner.params)
    np.testing.assert_array_equal(learner.apply(other, INPUTS), NETWORK.apply({"params": other}, INPUTS))


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_a_step_moves_parameters_and_moments_together(learner: Learner, weight_decay: float) -> None:
    grads = jax.tree.map(jnp.ones_like, learner.params)
    after = learner.apply_gradients(grads, 0.1, weight_decay)
    step = optimizers.adam(learner.params, learner.opt_state, grads, 0.1, weight_decay)
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), tuple(step))
    assert after.network is NETWORK
    moments: Any = after.opt_state
    assert int(moments.count) == 1


def test_given_parameters_begin_with_a_fresh_optimizer(learner: Learner) -> None:
    trained = learner.apply_gradients(jax.tree.map(jnp.ones_like, learner.params), 0.1)
    again: Any = Learner.of(trained.params, NETWORK)
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
    assert int(again.opt_state.count) == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(again.opt_state.mu))


def test_a_number_alone_learns_too() -> None:
    after = Learner.of(jnp.float32(1.0)).apply_gradients(jnp.float32(3.0), 0.1)
    np.testing.assert_allclose(after.params, 0.9, rtol=1e-6)


def test_targets_start_as_equal_copies(learner: Learner) -> None:
    copied = learner.copy_params()
    jax.tree.map(np.testing.assert_array_equal, copied, learner.params)
    pairs = zip(jax.tree.leaves(copied), jax.tree.leaves(learner.params), strict=True)
    assert all(one is not other for one, other in pairs)
