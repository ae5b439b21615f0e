"""What an agent leaves to defaults."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.methods import sac
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.population import agent
from jaxrl_srpo.types import Spec


def test_agents_have_no_context_and_act_by_their_policy() -> None:
    assert sac.AGENT.context(jax.random.key(0)).shape == (sac.AGENT.context_size,) == (0,)
    assert sac.AGENT.context is agent.no_context
    assert sac.AGENT.observe is None
    state = sac.init(jax.random.key(0), Spec(3, 2), with_arrays(sac.Settings(width=8, layers=1)))
    policy, observations = sac.AGENT.policy(state), jnp.ones((4, 3))
    actions = sac.AGENT.act(policy, observations, None)
    np.testing.assert_array_equal(actions, policy.act(observations))
    assert actions.shape == (4, 2)
