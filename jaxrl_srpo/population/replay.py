"""A replay buffer of one member: packed transitions on the device, the oldest overwritten once it is full.

Rows are those of `data.table`, `[s | a | r | s' | discount]`, so that a buffer may start as an offline dataset.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.types import Array, Batch, Spec


@struct.dataclass
class Replay:
    """Packed rows in a ring.

    Attributes:
      rows: [capacity, width] float32; those from `size` on are zeros.
      position: where the next row goes.
      size: how many rows are there.
    """

    rows: Array
    position: Array
    size: Array


def empty(capacity: int, spec: Spec) -> Replay:
    """A buffer without transitions."""
    return Replay(jnp.zeros((capacity, table.row_width(spec))), jnp.int32(0), jnp.int32(0))


def from_dataset(rows: Array, where: table.Slice, capacity: int) -> Replay:
    """A buffer that holds a member's slice of a table [N, width]; it must not be longer than `capacity`."""
    size = jnp.asarray(where.size, jnp.int32)
    order = jnp.arange(capacity, dtype=jnp.int32)
    kept = jnp.take(rows, where.offset + jnp.minimum(order, size - 1), axis=0, mode="clip")
    return Replay(jnp.where(order[:, None] < size, kept, 0.0), size % capacity, size)


def add(replay: Replay, rows: Array) -> Replay:
    """Appends rows [n, width], n at most the capacity."""
    capacity, count = len(replay.rows), len(rows)
    places = (replay.position + jnp.arange(count, dtype=jnp.int32)) % capacity
    size = jnp.minimum(replay.size + count, capacity)
    return Replay(replay.rows.at[places].set(rows), (replay.position + count) % capacity, size)


def sample(replay: Replay, batch_size: int, key: Array) -> Array:
    """Rows [batch_size, width], drawn uniformly and with replacement from a buffer that is not empty."""
    return jnp.take(replay.rows, jax.random.randint(key, (batch_size,), 0, replay.size), axis=0, mode="clip")


def pack(batch: Batch) -> Array:
    """A batch as rows [B, width]; `table.unpack` undoes it."""
    columns = (
        batch.observations,
        batch.actions,
        batch.rewards[:, None],
        batch.next_observations,
        batch.discounts[:, None],
    )
    return jnp.concatenate(columns, axis=-1)
