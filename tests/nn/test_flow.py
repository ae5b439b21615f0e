"""Flow matching on paths and flows that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.nn import flow


def test_a_path_leads_from_noise_to_actions() -> None:
    noise, actions = jnp.asarray([[1.0, -2.0]]), jnp.asarray([[0.0, 0.5]])
    ends = [flow.straight_path(noise, actions, jnp.full((1, 1), t)) for t in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose([end.x[0] for end in ends], [[1.0, -2.0], [0.75, -1.375], [0.0, 0.5]])
    np.testing.assert_allclose([end.velocity[0] for end in ends], [[-1.0, 2.5]] * 3)


@pytest.mark.parametrize("steps", [1, 10])
def test_euler_follows_a_straight_path_to_its_end(steps: int) -> None:
    """The velocity to a fixed action, (a - x) / (1 - t), is constant along each path."""
    action = jnp.asarray([[0.3, -0.9]])
    noise = jax.random.normal(jax.random.key(0), (5, 2))
    found = flow.euler(lambda _, x, t: (action - x) / (1.0 - t), jnp.zeros((5, 1)), noise, steps)
    np.testing.assert_allclose(found, np.repeat(action, 5, axis=0), atol=1e-5)


def test_euler_takes_the_velocity_at_the_start_of_each_step() -> None:
    """dx/dt = 2 t + s: four steps of 1/4 see t = 0, 1/4, 1/2 and 3/4, whose sum is 3/2."""
    observations = jnp.asarray([[0.1], [-0.2]])
    found = flow.euler(lambda s, x, t: 2.0 * t + s, observations, jnp.asarray([[-0.5], [-0.5]]), 4)
    np.testing.assert_allclose(found, [[-0.5 + 0.75 + 0.1], [-0.5 + 0.75 - 0.2]], rtol=1e-6)


def test_actions_are_clipped_at_the_end_alone() -> None:
    found = flow.euler(lambda _, x, t: jnp.where(t < 0.5, 8.0, -8.0), jnp.zeros((1, 1)), jnp.zeros((1, 1)), 2)
    np.testing.assert_allclose(found, [[0.0]])
    np.testing.assert_allclose(flow.euler(lambda _, x, t: 0.0 * x + 3.0, jnp.zeros((1, 1)), jnp.zeros((1, 1)), 2), 1.0)
