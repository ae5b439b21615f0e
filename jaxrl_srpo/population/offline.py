"""Training of populations: many members of one algorithm in one compiled program.

A member is a state, random keys and hyperparameters. `lifting` runs functions of one member for all of them; here is
what such a function is for training on transitions, with a guard that keeps a member at its last good state.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.population.vectorize import PlacedMembers, Strategy
from jaxrl_srpo.types import Array, Batch, Metrics, Spec


class Init(Protocol):
    """`init` of an algorithm, for one member."""

    def __call__(self, key: Array, spec: Spec, config: Any, hyper: Any, frozen: Any) -> Any:
        """A fresh state."""


class Update(Protocol):
    """`update` of an algorithm, for one member."""

    def __call__(self, state: Any, batch: Batch, key: Array, hyper: Any, frozen: Any) -> tuple[Any, Metrics]:
        """The next state and scalar metrics, `loss` among them."""


@struct.dataclass
class Members:
    """What distinguishes the members; every leaf has leading axes [groups, members per group].

    Attributes:
      keys: typed random keys.
      where: rows of the transition table.
      hyper: the algorithm's `Hyper`.
    """

    keys: Array
    where: table.Slice
    hyper: Any


@struct.dataclass
class Carry:
    """State of a population between chunks; leaves [groups, members per group, ...].

    Attributes:
      state: the algorithm's `State`.
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


class Population(PlacedMembers):
    """Compiled training of groups x members on transitions that are already there.

    Args:
      init: the algorithm's `init`.
      update: the algorithm's `update`.
      spec: sizes of the problem.
      config: the algorithm's `Config`, with a `batch_size`.
      shape: (groups, members per group).
      strategy: "vmap", "map", or "auto": map on CPU, vmap elsewhere.
      devices: devices to spread over; all by default.
    """

    def __init__(
        self,
        init: Init,
        update: Update,
        spec: Spec,
        config: Any,
        shape: tuple[int, int],
        strategy: Strategy = "auto",
        devices: list[jax.Device] | None = None,
    ) -> None:
        super().__init__(shape, strategy, devices)
        start = functools.partial(init_member, init, spec, config)
        chunk = functools.partial(_train_member, update, spec, config.batch_size)
        self._init = self.lift(start, ("member", "group"))
        self._chunk = self.lift(chunk, ("member", "member", "group", "shared", "shared", "shared"), donate=(0,))

    def init(self, members: Members, frozen: Any) -> Carry:
        """Fresh states, already on the devices. `members` and `frozen` are placed."""
        return self._init(members, frozen)

    def chunk(
        self, carry: Carry, members: Members, frozen: Any, rows: Array, start: int, steps: int
    ) -> tuple[Carry, Metrics]:
        """`steps` updates of every member from update `start` on; donates `carry`.

        Returns the new carry and the mean of each metric over the chunk's good updates, [groups, members].
        """
        return self._chunk(carry, members, frozen, rows, np.int32(start), np.int32(steps))

    def compile(self, carry: Carry, members: Members, frozen: Any, rows: Array) -> jax.stages.Compiled:
        """The program behind `chunk` by itself, for benchmarks: its size in memory, and compiling apart from running.

        It takes the arguments of `chunk`, `start` and `steps` as int32 scalars.
        """
        return self._chunk.lower(carry, members, frozen, rows, jnp.int32(0), jnp.int32(1)).compile()


def stack(trees: Sequence[Any]) -> Any:
    """Trees of equal structure as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def init_member(init: Init, spec: Spec, config: Any, members: Members, frozen: Any) -> Carry:
    """A fresh state of one member."""
    state = init(jax.random.fold_in(members.keys, 0), spec, config, members.hyper, frozen)
    return Carry(state, jnp.int32(-1))


def _train_member(
    update: Update,
    spec: Spec,
    batch_size: int,
    carry: Carry,
    members: Members,
    frozen: Any,
    rows: Array,
    start: Array,
    steps: Array,
) -> tuple[Carry, Metrics]:
    """`steps` updates of one member."""
    sample_key, update_key = (jax.random.fold_in(members.keys, i) for i in (1, 2))

    def step(i: Array, carried: tuple[Carry, Totals]) -> tuple[Carry, Totals]:
        number = start + i
        batch = table.sample(rows, members.where, spec, batch_size, sample_key, number)
        key = jax.random.fold_in(update_key, number)
        return guarded_update(update, *carried, batch, key, members.hyper, frozen, number)

    totals = empty_totals(update, spec, batch_size, carry.state, members.hyper, frozen)
    carry, totals = jax.lax.fori_loop(0, steps, step, (carry, totals))
    return carry, totals.means()


def guarded_update(
    update: Update, carry: Carry, totals: Totals, batch: Batch, key: Array, hyper: Any, frozen: Any, number: Array
) -> tuple[Carry, Totals]:
    """Update `number` of one member; it stays at its last good state once a loss or a parameter is not finite."""
    state, metrics = update(carry.state, batch, key, hyper, frozen)
    healthy = carry.diverged_at < 0
    good = healthy & jnp.isfinite(metrics["loss"]) & _all_finite(state)
    state = jax.tree.map(lambda new, old: jnp.where(good, new, old), state, carry.state)
    diverged_at = jnp.where(healthy & ~good, number, carry.diverged_at)
    sums = jax.tree.map(lambda total, x: total + jnp.where(good, x, 0.0), totals.sums, metrics)
    return Carry(state, diverged_at), Totals(sums, totals.count + good.astype(jnp.int32))


def empty_totals(update: Update, spec: Spec, batch_size: int, state: Any, hyper: Any, frozen: Any) -> Totals:
    """Totals of no update, with the metrics that `update` gives for this state."""

    def metrics_of(state: Any, frozen: Any, rows: Array) -> Metrics:
        return update(state, table.unpack(rows, spec), jax.random.key(0), hyper, frozen)[1]

    rows = jnp.zeros((batch_size, table.row_width(spec)))
    shapes = jax.eval_shape(metrics_of, state, frozen, rows)
    return Totals(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), jnp.int32(0))


def _all_finite(state: Any) -> Array:
    """Whether every floating leaf is finite; a sum is enough, for a NaN or an infinity survives in it."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.isfinite(functools.reduce(jnp.add, [jnp.sum(x) for x in leaves]))
