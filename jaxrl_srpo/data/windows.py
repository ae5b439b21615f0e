"""Windows of episodes: some successive transitions as one row of numbers, gathered on the device."""

import jax.numpy as jnp

from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.types import Array, Batch


def starts_of(batch: Batch, data: Transitions, horizon: int) -> Array:
    """Where windows [B] begin: at the batch's transitions, but no episode that is cut off ends inside a window.

    A window that would run past a time limit begins H - 1 steps earlier, if the episode is that long.
    """
    assert batch.index is not None
    assert batch.steps_left is not None
    before = horizon - 1
    earlier = batch.index - before
    steps_left = data.take(earlier).steps_left
    same_episode = steps_left == batch.steps_left + before
    cut_off = data.take(batch.index + batch.steps_left.astype(jnp.int32)).discounts > 0.0
    return jnp.where(cut_off & same_episode & (batch.steps_left < before), earlier, batch.index)


def windows_of(starts: Array, data: Transitions, horizon: int) -> Array:
    """Windows [B, H, action_size + observation_size] from `starts` [B] on; what lies beyond an episode is 0."""
    steps = jnp.arange(horizon)
    taken = data.take((starts[:, None] + steps[None, :]).reshape(-1))
    rows = jnp.concatenate([taken.actions, taken.observations], axis=-1).reshape(len(starts), horizon, -1)
    assert taken.steps_left is not None
    steps_left = taken.steps_left.reshape(len(starts), horizon)
    # Of the same episode, the number of steps that are left falls by one with each step.
    inside = steps_left == steps_left[:, :1] - steps[None, :].astype(jnp.float32)
    return jnp.where(inside[:, :, None], rows, 0.0)
