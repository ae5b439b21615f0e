"""Lifts pure functions of one member to a population; the only place that knows vmap, map, meshes and donation.

A population is laid out as groups x members. The members of a group share the results of earlier stages (`frozen`),
which are therefore stored and applied once per group: a sweep of K temperatures over one behaviour model and critic
is one group of K members, and their forward passes through the frozen networks merge into one product.

Three ways to run it, equal in result up to rounding:
  vmap: all members in one batched program, for accelerators.
  map: members one after another inside the compiled program, for CPUs, where batched small matrices are slow.
Either is spread over the devices of a mesh without communication: groups (or the members of a group, whichever
divides better) are dealt to devices, and padded when they do not come out even. The devices may belong to several
processes (`hosts`): each of them then has all of the population's inputs and keeps its devices' part.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_srpo.data import table
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

Strategy = Literal["auto", "vmap", "map"]
Argument = Literal["member", "group", "shared"]
Act = Callable[[Any, Array, Array], Array]


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


class Layout(NamedTuple):
    """Shape of a population and the axis that is dealt to devices."""

    groups: int
    members: int
    sharded: Literal["groups", "members"]
    padded: int


class PlacedMembers:
    """Groups x members on one or several devices: brings arrays there, and lifts functions of one member to all.

    Args:
      shape: (groups, members per group).
      strategy: "vmap", "map", or "auto": map on CPU, vmap elsewhere.
      devices: devices to spread over; all by default.
    """

    def __init__(
        self, shape: tuple[int, int], strategy: Strategy = "auto", devices: list[jax.Device] | None = None
    ) -> None:
        devices = devices or jax.devices()
        if strategy == "auto":
            strategy = "map" if devices[0].platform == "cpu" else "vmap"
        self.layout = _layout(*shape, len(devices))
        self._strategy: Strategy = strategy
        self._mesh = Mesh(np.asarray(devices), ("devices",))

    def lift(
        self,
        function: Callable,
        arguments: Sequence[Argument],
        donate: Sequence[int] = (),
        strategy: Strategy | None = None,
    ) -> Any:
        """The compiled function of all members made of a pure function of one.

        Args:
          function: its results get leading axes [groups, members].
          arguments: what each argument is: "member", placed by `place`; "group", placed by `place_frozen` and the same
            for the members of a group; or "shared", the same for all.
          donate: arguments whose memory the results may take.
          strategy: in place of the population's. Reading and writing large arrays is vmapped everywhere, for a map
            would copy the whole array of each member.
        """
        lifted = _lift(function, arguments, strategy or self._strategy, self.layout, self._mesh)
        return jax.jit(lifted, donate_argnums=tuple(donate))

    def place(self, tree: Any) -> Any:
        """Pads leaves [groups, members, ...] and deals them to the devices."""
        return self._place(tree, _member_spec(self.layout))

    def place_frozen(self, tree: Any) -> Any:
        """Pads leaves [groups, ...] and deals them to the devices."""
        spec = PartitionSpec("devices") if self.layout.sharded == "groups" else PartitionSpec()
        return self._place(tree, spec)

    def place_table(self, rows: np.ndarray) -> Array:
        """Copies the transition table to every device."""
        return jax.device_put(rows, NamedSharding(self._mesh, PartitionSpec()))

    def _place(self, tree: Any, spec: PartitionSpec) -> Any:
        axis = next((i for i, name in enumerate(spec) if name), None)

        def place(x: Any) -> Array:
            if axis is not None and (missing := self.layout.padded - x.shape[axis]):
                last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
                x = jnp.concatenate([x, *[last] * missing], axis=axis)
            return _put(x, NamedSharding(self._mesh, spec))

        return jax.tree.map(place, tree)

    def unpad(self, tree: Any) -> Any:
        """Host copies of leaves [groups, members, ...] without the padding; all processes of the mesh must ask."""
        return jax.tree.map(lambda x: _fetch(x)[: self.layout.groups, : self.layout.members], tree)


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


@functools.partial(jax.jit, static_argnames="act")
def act_members(act: Act, policies: Any, observations: Array, keys: Array) -> Array:
    """Actions [members, episodes, action_size] of every member for `observations` [members, episodes, ...].

    Args:
      act: (policy, observations [episodes, ...], key) of one member.
      policies: leaves [members, ...].
      observations: of all members.
      keys: [members] typed random keys.
    """
    over = _sequential if jax.devices()[0].platform == "cpu" else jax.vmap
    return over(act)(policies, observations, keys)


def _put(x: Any, sharding: NamedSharding) -> Array:
    """`jax.device_put`, which refuses keys where some devices belong to other processes."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.device_put(jax.random.key_data(x), sharding))
    return jax.device_put(x, sharding)


def _fetch(x: Array) -> Any:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return multihost_utils.process_allgather(x, tiled=True) if jax.process_count() > 1 else np.asarray(x)


def _layout(groups: int, members: int, devices: int) -> Layout:
    def padded(n: int) -> int:
        return -(-n // devices) * devices

    if padded(groups) * members <= groups * padded(members):
        return Layout(groups, members, "groups", padded(groups))
    return Layout(groups, members, "members", padded(members))


def _member_spec(layout: Layout) -> PartitionSpec:
    return PartitionSpec("devices") if layout.sharded == "groups" else PartitionSpec(None, "devices")


def _lift(
    function: Callable, arguments: Sequence[Argument], strategy: Strategy, layout: Layout, mesh: Mesh
) -> Callable:
    """Turns a function of one member into one of the population."""
    over = jax.vmap if strategy == "vmap" else _sequential
    own = [i for i, kind in enumerate(arguments) if kind == "member"]
    of_group = [i for i, kind in enumerate(arguments) if kind == "group"]

    def local(*given: Any) -> Any:
        def call(values: Sequence[Any]) -> Any:
            replaced = dict(zip(of_group + own, values, strict=True))
            return function(*(replaced.get(i, argument) for i, argument in enumerate(given)))

        def group(shared: Sequence[Any], members: Sequence[Any]) -> Any:
            return over(lambda *values: call([*shared, *values]))(*members)

        return over(group)([given[i] for i in of_group], [given[i] for i in own])

    member = _member_spec(layout)
    group_spec = PartitionSpec("devices" if layout.sharded == "groups" else None)
    specs: dict[Argument, PartitionSpec] = {"member": member, "group": group_spec, "shared": PartitionSpec()}
    in_specs = tuple(specs[kind] for kind in arguments)
    return jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=member, check_vma=False)


def _sequential(function: Callable) -> Callable:
    """Like `jax.vmap(function)`, one after another."""
    return lambda *args: jax.lax.map(lambda xs: function(*xs), args)


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
