"""Acting on the CPU: NumPy for one observation and a compiled program for more must be the same policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods.iql import Policy
from jaxrl_srpo.nn import networks
from jaxrl_srpo.runs.policies import act_on_cpu


@pytest.mark.parametrize("layers", [2, 4])
def test_one_observation_acts_as_in_a_batch(layers: int) -> None:
    network = networks.Actor(3, 16, layers)
    params = network.init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
    act = act_on_cpu(Policy(params, 3, 16, layers))
    observations = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    batch = act(observations)
    np.testing.assert_allclose(
        batch, networks.forward(network, params, jnp.asarray(observations)), rtol=1e-6, atol=1e-6
    )
    for observation, action in zip(observations, batch, strict=True):
        alone = act(observation[None])
        assert (alone.shape, alone.dtype) == ((1, 3), np.float32)
        np.testing.assert_allclose(alone[0], action, rtol=1e-5, atol=1e-6)


def test_acting_changes_neither_the_observation_nor_the_weights() -> None:
    params = networks.Actor(2, 8, 2).init(jax.random.key(0), jnp.zeros((1, 4)))["params"]
    act, observation = act_on_cpu(Policy(params, 2, 8, 2)), np.ones((1, 4), np.float32)
    first = act(observation)
    np.testing.assert_array_equal(observation, np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(act(observation), first)
