"""Acting on the host: NumPy for one observation and a compiled program for more must be the same policy.

Loading policies of real runs is tested with the commands that make them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.policies import DeterministicPolicy, GaussianPolicy
from jaxrl_srpo.runs.acting import act_on_host
from jaxrl_srpo.types import Array


@pytest.mark.parametrize("layers", [2, 4])
def test_one_observation_acts_as_in_a_batch(layers: int) -> None:
    network = networks.Actor(3, 16, layers)
    params = network.init(jax.random.key(0), jnp.zeros((1, 5)))["params"]
    act = act_on_host(DeterministicPolicy(params, network))
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
    network = networks.Actor(2, 8, 2)
    params = network.init(jax.random.key(0), jnp.zeros((1, 4)))["params"]
    act, observation = act_on_host(DeterministicPolicy(params, network)), np.ones((1, 4), np.float32)
    first = act(observation)
    np.testing.assert_array_equal(observation, np.ones((1, 4), np.float32))
    np.testing.assert_array_equal(act(observation), first)


def test_other_networks_run_compiled() -> None:
    network = networks.GaussianActor(2, 8, 2, "tanh", "clip")
    policy = GaussianPolicy(network.init(jax.random.key(0), jnp.zeros((1, 4)))["params"], network)
    observations = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(act_on_host(policy)(observations), policy.act(jnp.asarray(observations)), rtol=1e-6)


def test_a_random_policy_draws_anew_with_each_call() -> None:
    def act(policy: Array, observations: Array, key: Array | None) -> Array:
        assert key is not None
        return policy * jax.random.uniform(key, observations.shape)

    drawn = act_on_host(jnp.float32(1.0), act)
    first, second = (drawn(np.zeros((1, 2), np.float32)) for _ in range(2))
    assert not np.array_equal(first, second)
