"""Rings of packed transitions: what they hold, forget and draw."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.population import replay
from jaxrl_srpo.types import Array, Batch, Spec

SPEC = Spec(3, 1)
WIDTH = table.row_width(SPEC)


def numbered(start: int, stop: int) -> Array:
    """Rows that hold their own number everywhere."""
    return jnp.repeat(jnp.arange(start, stop, dtype=jnp.float32)[:, None], WIDTH, axis=1)


def test_a_full_buffer_forgets_its_oldest_rows() -> None:
    buffer = replay.empty(5, SPEC)
    for start in (0, 3, 6):
        buffer = replay.add(buffer, numbered(start, start + 3))
    assert sorted(buffer.rows[:, 0].tolist()) == [4.0, 5.0, 6.0, 7.0, 8.0]
    assert (int(buffer.size), int(buffer.position)) == (5, 4)


def test_it_may_start_as_a_part_of_a_table() -> None:
    buffer = replay.from_dataset(numbered(0, 10), table.Slice(4, 3), 5)
    assert buffer.rows[:, 0].tolist() == [4.0, 5.0, 6.0, 0.0, 0.0]
    assert (int(buffer.size), int(buffer.position)) == (3, 3)
    full = replay.from_dataset(numbered(0, 10), table.Slice(0, 5), 5)
    assert replay.add(full, numbered(20, 21)).rows[:, 0].tolist() == [20.0, 1.0, 2.0, 3.0, 4.0]


def test_rows_are_drawn_evenly_and_none_that_are_not_there() -> None:
    buffer = replay.add(replay.empty(50, SPEC), numbered(1, 6))
    drawn = np.asarray(replay.sample(buffer, 5000, jax.random.key(0))[:, 0])
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    # Five standard deviations of 5,000 draws.
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(5000 * 0.2 * 0.8)


def test_unpacking_undoes_packing() -> None:
    keys = jax.random.split(jax.random.key(1), 5)
    shapes = ((4, 3), (4, 1), (4,), (4, 3), (4,))
    batch = Batch(*(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)))
    jax.tree.map(np.testing.assert_array_equal, table.unpack(replay.pack(batch), SPEC), batch)
