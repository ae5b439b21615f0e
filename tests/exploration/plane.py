"""Made-up visits of a plane, and one compiled step of an intrinsic reward on them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.exploration.intrinsic import Intrinsic, Reward, Visits
from jaxrl_srpo.population.member import call
from jaxrl_srpo.types import Spec

GRID = Grid((-4.0, -4.0), 1.0, (8, 8), (0, 1))
KEY = jax.random.key(0)
SPEC = Spec(2, 2)


def make_visits(batch_size: int = 32, skills: int = 1, seed: int = 0) -> Visits:
    """Steps of a tenth of a random action from random places; the environment's reward is 0.5 everywhere."""
    random = np.random.default_rng(seed)
    s, a = (random.normal(size=(batch_size, 2)).astype(np.float32) for _ in range(2))
    z = random.integers(0, skills, batch_size).astype(np.int32)
    return Visits(*(jnp.asarray(x) for x in (s, a, 0.5 * np.ones(batch_size, np.float32), s + 0.1 * a, z)))


def arriving_at(seen: Visits, places: jax.Array) -> Visits:
    """The same visits with other next observations."""
    return seen.replace(next_observations=places)  # type: ignore[attr-defined]


def init(reward: Intrinsic) -> Any:
    """A fresh state."""
    return call(reward.init, key=KEY, spec=SPEC)


def observe(reward: Intrinsic, state: Any, seen: Visits) -> Any:
    """The state after new visits."""
    assert reward.observe is not None
    return call(reward.observe, state=state, visits=seen)


@functools.partial(jax.jit, static_argnames="reward")
def step(reward: Intrinsic, state: Any, seen: Visits, settings: Any) -> Reward:
    """The reward of a batch."""
    result: Reward = call(reward.reward, state=state, visits=seen, key=KEY, settings=settings)
    return result
