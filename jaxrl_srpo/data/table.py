"""All datasets of a population as one packed array on the device, and the shuffled walk through it.

A row is `[s | a | r | s' | discount]` in float32, and after these the columns that a stage asks for. The table is an
argument of the compiled chunk, never captured.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.units import measure_units
from jaxrl_srpo.types import Array, Batch, Spec

COLUMNS: Mapping[str, str] = {
    "next_actions": "the action that the data take next, in the units of the networks",
    "steps_left": "transitions of the episode that follow",
}
"""What a stage may ask for beside the transitions themselves; fields of `types.Batch`."""

# At least half of the values that are walked over arrive, so after these rounds one in 2^48 has not.
_ROUNDS = 48


class Slice(NamedTuple):
    """Where the rows of one member's dataset lie in the table: `rows[offset : offset + size]`."""

    offset: Array | int
    size: Array | int


class PackedTable(NamedTuple):
    """`rows` [sum of N, 2 observation_size + action_size + 2] float32, and one slice per dataset."""

    rows: np.ndarray
    slices: list[Slice]


def pack_rows(dataset: Dataset, rewards: np.ndarray, normalize: bool = False) -> np.ndarray:
    """Rows [N, 2 observation_size + action_size + 2] float32 of a dataset, in the units of the networks.

    Args:
      dataset: N transitions in the environment's units.
      rewards: [N], after the reward transform.
      normalize: whether observations are normalized by the dataset's own mean and standard deviation.
    """
    units = measure_units(dataset, normalize_observations=normalize)
    columns = (
        units.normalize_observations(dataset.observations),
        units.normalize_actions(dataset.actions),
        rewards[:, None],
        units.normalize_observations(dataset.next_observations),
        1.0 - dataset.terminals[:, None].astype(np.float32),
    )
    return np.concatenate(columns, axis=1, dtype=np.float32)


def pack_column(dataset: Dataset, name: str) -> np.ndarray:
    """One of `COLUMNS`, [N, width of the column] float32."""
    ends = np.flatnonzero(dataset.episode_ends)
    rows = np.arange(dataset.size)
    end_of = ends[np.searchsorted(ends, rows)]
    if name == "steps_left":
        return (end_of - rows).astype(np.float32)[:, None]
    actions: np.ndarray = measure_units(dataset).normalize_actions(dataset.actions)
    return actions[np.minimum(rows + 1, end_of)]


def pack(blocks: Sequence[np.ndarray]) -> PackedTable:
    """One array of several datasets' rows."""
    offsets = np.cumsum([0, *(len(block) for block in blocks)])
    slices = [Slice(int(offset), len(block)) for offset, block in zip(offsets, blocks, strict=False)]
    return PackedTable(np.concatenate(blocks), slices)


def permute(positions: Array, size: Array, key: Array) -> Array:
    """A random permutation of 0 .. size - 1, evaluated at `positions` [B] uint32 only.

    Three rounds of multiply, shift and add are a bijection of the next power of two, and walking until the value
    falls below `size` makes it one of 0 .. size - 1 ("cycle walking", Black and Rogaway 2002). No permutation is
    stored, so any step of any epoch can be drawn by itself, which makes resuming exact.
    """
    size = size.astype(jnp.uint32)
    bits = 32 - jax.lax.clz(size - 1)
    mask = (jnp.uint32(1) << bits) - 1
    shift = jnp.maximum((bits + 1) // 2, 1)
    multipliers, offsets = jax.random.bits(key, (2, 3), jnp.uint32)

    def scramble(x: Array) -> Array:
        for i in range(3):
            x = (x * (multipliers[i] | 1) + offsets[i]) & mask
            x = x ^ (x >> shift)
        return x

    def walk(x: Array) -> Array:
        return jnp.where(x >= size, scramble(x), x)

    def until_all_arrive(x: Array) -> Array:
        return jax.lax.while_loop(lambda x: jnp.any(x >= size), walk, x)

    def in_one_kernel(x: Array) -> Array:
        for _ in range(_ROUNDS):
            x = walk(x)
        return x

    # An accelerator would wait for the host at every turn of a loop whose length is not known.
    arrived: Array = jax.lax.platform_dependent(scramble(positions), cpu=until_all_arrive, default=in_one_kernel)
    return arrived


def sample(rows: Array, where: Slice, spec: Spec, batch_size: int, key: Array, step: Array) -> Batch:
    """The batch of update `step`: the dataset is walked in a new random order each epoch, a partial batch dropped.

    Args:
      rows: the packed table.
      where: the member's slice of it.
      spec: sizes of the problem.
      batch_size: B; a dataset with fewer rows is walked round and round.
      key: the member's sampling key.
      step: number of the update, from 0.
    """
    size = jnp.asarray(where.size, jnp.int32)
    steps_per_epoch = jnp.maximum(size // batch_size, 1)
    epoch, turn = jnp.divmod(step, steps_per_epoch)
    positions = (turn * batch_size + jnp.arange(batch_size, dtype=jnp.int32)) % size
    order = permute(positions.astype(jnp.uint32), size, jax.random.fold_in(key, epoch))
    # Without the barriers XLA draws the order and gathers the rows again for each of their readers.
    order = jax.lax.optimization_barrier(where.offset + order.astype(jnp.int32))
    taken = jax.lax.optimization_barrier(jnp.take(rows, order, axis=0, mode="clip"))
    return unpack(taken, spec, order - where.offset)


@struct.dataclass
class Transitions:
    """All transitions of a member's dataset, in the order of the file, for a stage that looks beyond its batch.

    Attributes:
      rows: the packed table.
      where: the member's slice of it.
      spec: sizes of the problem, and the columns that the table has.
    """

    rows: Array
    where: Slice
    spec: Spec = struct.field(pytree_node=False)

    @property
    def size(self) -> Array:
        """Number of transitions, int32 []."""
        return jnp.asarray(self.where.size, jnp.int32)

    def take(self, index: Array) -> Batch:
        """The transitions `index` [B] int32; numbers outside the dataset stand for the nearest inside."""
        inside = jnp.clip(index, 0, self.size - 1)
        taken = jnp.take(self.rows, self.where.offset + inside, axis=0, mode="clip")
        return unpack(taken, self.spec, inside)


def _width(name: str, spec: Spec) -> int:
    return spec.action_size if name == "next_actions" else 1


def row_width(spec: Spec) -> int:
    """Numbers in a row."""
    own = 2 * spec.observation_size + spec.action_size + 2
    return own + sum(_width(name, spec) for name in spec.columns)


def unpack(rows: Array, spec: Spec, index: Array | None = None) -> Batch:
    """Rows [B, width] as a batch; `index` [B] are their numbers within their dataset."""
    s, a = spec.observation_size, spec.action_size
    place = 2 * s + a + 2
    columns = {}
    for name in spec.columns:
        column = rows[:, place : place + _width(name, spec)]
        columns[name] = column if name == "next_actions" else column[:, 0]
        place += _width(name, spec)
    return Batch(
        observations=rows[:, :s],
        actions=rows[:, s : s + a],
        rewards=rows[:, s + a],
        next_observations=rows[:, s + a + 1 : 2 * s + a + 1],
        discounts=rows[:, 2 * s + a + 1],
        index=index,
        **columns,
    )


class Example(NamedTuple):
    """What an update gets of the data, for tracing it."""

    batch: Batch
    data: Transitions


def example(spec: Spec, batch_size: int) -> Example:
    """Zeros of the shapes that an update gets."""
    rows = jnp.zeros((batch_size, row_width(spec)))
    data = Transitions(rows, Slice(jnp.int32(0), jnp.int32(batch_size)), spec)
    return Example(unpack(rows, spec, jnp.zeros((batch_size,), jnp.int32)), data)
