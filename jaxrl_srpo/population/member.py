"""One member: what it is made of, and one guarded update of it."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

Function = Callable[..., Any]


def call(function: Function, **arguments: Any) -> Any:
    """Calls a function of a method with those of the arguments that it declares."""
    return function(**{name: arguments[name] for name in _parameters(function) if name in arguments})


@functools.cache
def _parameters(function: Function) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


@struct.dataclass
class Members:
    """What distinguishes the members; every leaf has leading axes [groups, members per group].

    Attributes:
      keys: typed random keys.
      where: rows of the transition table.
      settings: the method's settings; the numbers that may differ are leaves, all else is static.
    """

    keys: Array
    where: table.Slice
    settings: Any


def make_members(
    keys: Sequence[Array] | Array, settings: Sequence[Any], slices: Sequence[table.Slice] = (), groups: int = 1
) -> Members:
    """The members of a population in the order of their groups.

    Args:
      keys: a typed random key for each.
      settings: of each; their static parts are equal.
      slices: rows of the transition table for each; empty ones by default.
      groups: number of groups, each of equally many members.
    """
    shape = (groups, len(keys) // groups)
    slices = slices or [table.Slice(0, 0)] * len(keys)
    where = table.Slice(*(jnp.asarray(column, jnp.int32) for column in zip(*slices, strict=True)))
    # Static parts may differ in what no program reads, such as intervals between evaluations.
    structure = jax.tree.structure(settings[0])
    columns = zip(*map(jax.tree.leaves, settings), strict=True)
    stacked = jax.tree.unflatten(structure, [jnp.asarray(values, jnp.float32) for values in columns])
    stacked_keys = keys if isinstance(keys, jax.Array) else jnp.stack(keys)
    return jax.tree.map(lambda x: x.reshape(shape), Members(stacked_keys, where, stacked))


@struct.dataclass
class Carry:
    """State of a population between chunks; leaves [groups, members per group, ...].

    Attributes:
      state: the method's `State`.
      diverged_at: update at which a loss or a parameter stopped being finite; -1 while all is well.
    """

    state: Any
    diverged_at: Array


@struct.dataclass
class Totals:
    """Metrics summed over the good updates of a chunk, and the number of those; leaves like those of `Carry`."""

    sums: Metrics
    count: Array

    def means(self) -> Metrics:
        """The mean of each metric; NaN where there was no good update."""
        count = jnp.where(self.count > 0, self.count.astype(jnp.float32), jnp.nan)
        return jax.tree.map(lambda total: total / count, self.sums)


def stack(trees: Sequence[Any]) -> Any:
    """Trees of equal structure as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def init_member(init: Function, spec: Spec, members: Members, frozen: Any) -> Carry:
    """A fresh state of one member."""
    key = jax.random.fold_in(members.keys, 0)
    state = call(init, key=key, spec=spec, settings=members.settings, frozen=frozen)
    return Carry(state, jnp.int32(-1))


def guarded_update(
    update: Function,
    carry: Carry,
    totals: Totals,
    batch: Batch,
    key: Array,
    settings: Any,
    frozen: Any,
    number: Array,
) -> tuple[Carry, Totals]:
    """Update `number` of one member; it stays at its last good state once a loss or a parameter is not finite."""
    state, metrics = call(update, state=carry.state, batch=batch, key=key, settings=settings, frozen=frozen)
    healthy = carry.diverged_at < 0
    good = healthy & jnp.isfinite(metrics["loss"]) & _all_finite(state)
    state = jax.tree.map(lambda new, old: jnp.where(good, new, old), state, carry.state)
    diverged_at = jnp.where(healthy & ~good, number, carry.diverged_at)
    sums = jax.tree.map(lambda total, x: total + jnp.where(good, x, 0.0), totals.sums, metrics)
    return Carry(state, diverged_at), Totals(sums, totals.count + good.astype(jnp.int32))


def empty_totals(update: Function, spec: Spec, state: Any, settings: Any, frozen: Any) -> Totals:
    """Totals of no update, with the metrics that `update` gives for this state."""

    def metrics_of(state: Any, settings: Any, frozen: Any, rows: Array) -> Metrics:
        batch, key = table.unpack(rows, spec), jax.random.key(0)
        return call(update, state=state, batch=batch, key=key, settings=settings, frozen=frozen)[1]

    rows = jnp.zeros((settings.batch_size, table.row_width(spec)))
    shapes = jax.eval_shape(metrics_of, state, settings, frozen, rows)
    return Totals(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), jnp.int32(0))


def _all_finite(state: Any) -> Array:
    """Whether every floating leaf is finite; a sum is enough, for a NaN or an infinity survives in it."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.isfinite(functools.reduce(jnp.add, [jnp.sum(x) for x in leaves]))
