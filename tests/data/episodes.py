"""Episodes of two observations and an action, and the packed table of them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.types import Spec

SPEC = Spec(2, 1, columns=("steps_left",))


class Episode(NamedTuple):
    """[n, 3] of a and s, [n] rewards, and whether it terminates."""

    steps: np.ndarray
    rewards: np.ndarray
    terminates: bool


def episode(random: np.random.Generator, length: int, terminates: bool) -> Episode:
    return Episode(random.uniform(-1.0, 1.0, (length, 3)), random.normal(size=length), terminates)


def transitions_of(episodes: list[Episode], before: int = 0, rows_in_all: int = 0) -> Transitions:
    """A table of episodes, with rows of another dataset `before` them and after them."""
    blocks = []
    for steps, rewards, terminates in episodes:
        left = np.arange(len(steps))[::-1]
        discounts = np.where(left == 0, 1.0 - terminates, 1.0)
        following = np.zeros((len(steps), 2))
        blocks.append(np.column_stack([steps[:, 1:], steps[:, :1], rewards, following, discounts, left]))
    size = sum(map(len, blocks))
    after = max(rows_in_all - before - size, 0)
    rows = np.concatenate([np.full((before, 8), 3.0), *blocks, np.full((after, 8), 3.0)])
    where = table.Slice(jnp.int32(before), jnp.int32(size))
    return Transitions(jnp.asarray(rows, jnp.float32), where, SPEC)
