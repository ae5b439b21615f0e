"""One member: what it is made of, and its updates, watched for divergence."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
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
      diverged_at: update at which the loss or a parameter was first seen not to be finite; -1 while all is well.
    """

    state: Any
    diverged_at: Array


@struct.dataclass
class Totals:
    """Metrics summed over the good updates of a chunk, and the number of those; leaves like those of `Carry`.

    Attributes:
      sums: one number for each of `names`, all in one array, so that adding to them is one kernel.
      count: of good updates.
      names: of the metrics.
    """

    sums: Array
    count: Array
    names: tuple[str, ...] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, names: Iterable[str]) -> "Totals":
        """Of no update."""
        names = tuple(names)
        return cls(jnp.zeros(len(names)), jnp.int32(0), names)

    def add(self, metrics: Metrics, good: Array) -> "Totals":
        """With the metrics of one more update, if it was good."""
        values = jnp.stack([metrics[name] for name in self.names])
        return Totals(self.sums + jnp.where(good, values, 0.0), self.count + good.astype(jnp.int32), self.names)

    def means(self) -> Metrics:
        """The mean of each metric; NaN where there was no good update."""
        count = jnp.where(self.count > 0, self.count.astype(jnp.float32), jnp.nan)
        return {name: self.sums[..., i] / count for i, name in enumerate(self.names)}


def stack(trees: Sequence[Any]) -> Any:
    """Trees of equal structure as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def init_member(init: Function, spec: Spec, members: Members, frozen: Any) -> Carry:
    """A fresh state of one member."""
    key = jax.random.fold_in(members.keys, 0)
    state = call(init, key=key, spec=spec, settings=members.settings, frozen=frozen)
    return Carry(state, jnp.int32(-1))


def run_updates(
    update: Function,
    carry: Carry,
    totals: Totals,
    batch_of: Callable[[Array], tuple[Batch, Array]],
    first: Array,
    count: Array,
    settings: Any,
    frozen: Any,
    data: table.Transitions | None = None,
) -> tuple[Carry, Totals]:
    """`count` updates of one member, and its totals with those added.

    The loss is watched after every update, the state at the end only: what is not finite there never becomes finite
    again. A member that failed goes back to the state it came with, and is named by the number of the update. So
    nothing but the loss is looked at in an update, and no state is kept between two.

    Args:
      update: the method's `update`.
      carry: the member; one that diverged before stays as it is.
      totals: metrics of the good updates so far.
      batch_of: the batch and the key of an update, by its number.
      first: number of the first update.
      count: of updates; may be 0.
      settings: of the member.
      frozen: results of earlier stages.
      data: all transitions of the member's dataset; None online.
    """

    def step(i: Array, carried: tuple[Any, Totals, Array]) -> tuple[Any, Totals, Array]:
        state, totals, failed_at = carried
        batch, key = batch_of(first + i)
        given = {"batch": batch, "key": key, "settings": settings, "frozen": frozen, "data": data, "step": first + i}
        state, metrics = call(update, state=state, **given)
        healthy = failed_at < 0
        good = healthy & jnp.isfinite(metrics["loss"])
        return state, totals.add(metrics, good), jnp.where(healthy & ~good, first + i, failed_at)

    state, totals, failed_at = jax.lax.fori_loop(0, count, step, (carry.state, totals, carry.diverged_at))
    failed_at = jnp.where((failed_at < 0) & ~_all_finite(state), first + count - 1, failed_at)
    state = jax.tree.map(lambda new, old: jnp.where(failed_at < 0, new, old), state, carry.state)
    return Carry(state, failed_at), totals


def empty_totals(update: Function, spec: Spec, state: Any, settings: Any, frozen: Any) -> Totals:
    """Totals of no update, with the metrics that `update` gives for this state."""

    def metrics_of(state: Any, settings: Any, frozen: Any) -> Metrics:
        batch, data = table.example(spec, settings.batch_size)
        given = {"batch": batch, "key": jax.random.key(0), "data": data, "step": jnp.int32(0)}
        return call(update, state=state, settings=settings, frozen=frozen, **given)[1]

    return Totals.of(jax.eval_shape(metrics_of, state, settings, frozen))


def _all_finite(state: Any) -> Array:
    """Whether every floating leaf is finite; a sum is enough, for a NaN or an infinity survives in it."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.isfinite(functools.reduce(jnp.add, [jnp.sum(x) for x in leaves], jnp.float32(0.0)))
