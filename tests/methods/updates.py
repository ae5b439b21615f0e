"""What tests of an update share: a batch, and a state in the form of `tests.reference`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.nn import networks
from jaxrl_srpo.types import Batch, Spec
from tests import reference


def batch_of(seed: int, spec: Spec, size: int) -> Batch:
    """Random transitions of which a fifth end."""
    keys = jax.random.split(jax.random.key(seed), 5)
    return Batch(
        observations=jax.random.normal(keys[0], (size, spec.observation_size)),
        actions=jax.random.uniform(keys[1], (size, spec.action_size), minval=-1.0, maxval=1.0),
        rewards=jax.random.normal(keys[2], (size,)),
        next_observations=jax.random.normal(keys[3], (size, spec.observation_size)),
        discounts=jax.random.bernoulli(keys[4], 0.8, (size,)).astype(jnp.float32),
    )


def to_numpy(tree: Any) -> Any:
    """The same in double precision, the two networks of every `TwinQ` apart."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), networks.split_heads(tree))


def warm(learner: Any) -> Any:
    """Adam's first step is the sign of the gradient, which rounding alone decides where the gradient is nearly 0."""
    old = learner.opt_state
    nu = jax.tree.map(lambda x: x + 1e-6, old.nu)
    return learner.replace(opt_state=old._replace(nu=nu, count=old.count + 2))


def reference_learner(learner: Any) -> reference.Learner:
    first, second = to_numpy(learner.opt_state.mu), to_numpy(learner.opt_state.nu)
    return reference.Learner(to_numpy(learner.params), reference.Moments(first, second, int(learner.opt_state.count)))
