"""Policies whose actions are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.methods import sac
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.types import Spec

_SETTINGS = sac.Settings(width=8, layers=1)


def walker(directions: np.ndarray) -> TanhGaussianPolicy:
    """Under skill k it walks steadily in the direction of row k of `directions` [skills, 2]."""
    skills = len(directions)
    spec = Spec(2 + skills, 2)
    network = sac.actor_network(spec, _SETTINGS)
    fresh = network.init(jax.random.key(0), jnp.zeros((1, spec.observation_size)))["params"]
    params: Any = jax.tree.map(jnp.zeros_like, fresh)
    first, last = (params[name]["Dense_0"] for name in ("Dense_0", "Dense_1"))
    # The hidden units of a layer are the skill; the output is the mean before tanh, then the log-deviation.
    first["kernel"] = first["kernel"].at[2 : 2 + skills, :skills].set(jnp.eye(skills))
    last["kernel"] = last["kernel"].at[:skills, :2].set(jnp.asarray(3.0 * directions, jnp.float32))
    last["bias"] = last["bias"].at[2:].set(-6.0)
    return TanhGaussianPolicy(params, network)


def walker_at(angle: float) -> TanhGaussianPolicy:
    """It walks steadily in the direction of an angle; it has no skills."""
    policy = walker(np.zeros((0, 2)))
    last = policy.params["Dense_1"]["Dense_0"]
    pull = jnp.asarray([3.0 * np.cos(angle), 3.0 * np.sin(angle), 0.0, 0.0], jnp.float32)
    last["bias"] = last["bias"] + pull
    return policy
