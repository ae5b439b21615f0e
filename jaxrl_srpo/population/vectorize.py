"""Turns pure functions of one member into functions of a population; the only place that knows vmap, meshes, donation.

A population is laid out as groups x members. The members of a group share the results of earlier stages (`frozen`),
which are therefore stored and applied once per group: a sweep of K temperatures over one behavior model and critic
is one group of K members, and their forward passes through the frozen networks merge into one product.

Two ways to run it, equal in result up to rounding:
  vmap: all members in one batched program, for accelerators.
  map: members one after another inside the compiled program, for CPUs, where batched small matrices are slow.
Either is spread over the devices of a mesh without communication: groups (or the members of a group, whichever
divides better) are dealt to devices, and padded when they do not come out even. The devices may belong to several
processes: each of them then has all of the population's inputs and keeps its devices' part.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_srpo.nn import kernels
from jaxrl_srpo.population.member import call
from jaxrl_srpo.types import Act, Array

Strategy = Literal["auto", "vmap", "map"]
Axes = Literal["member", "group", "shared"]


class Layout(NamedTuple):
    """Shape of a population and the axis that is dealt to devices."""

    groups: int
    members: int
    sharded: Literal["groups", "members"]
    padded: int


class Vectorized:
    """A function of all members; it takes the arguments of the function of one by name.

    Args:
      names: of the arguments, in their order.
      function: takes them by position; compiled when first called, or ahead of time.
    """

    def __init__(self, names: Sequence[str], function: Callable[..., Any]) -> None:
        self._names, self._function = names, function

    def __call__(self, **arguments: Any) -> Any:
        """The results, with leading axes [groups, members]."""
        return self._function(*(arguments[name] for name in self._names))

    def lower(self, **arguments: Any) -> jax.stages.Lowered:
        """The program for arguments, or shapes, types and places of arguments; of one that is not compiled yet."""
        lowered: jax.stages.Lowered = self._function.lower(*(arguments[name] for name in self._names))  # type: ignore[attr-defined]
        return lowered

    def with_program(self, program: jax.stages.Compiled) -> "Vectorized":
        """The same function with its program, which was compiled before."""
        return Vectorized(self._names, program)


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

    def vectorize(
        self, function: Callable[..., Any], *, donate: str = "", strategy: Strategy | None = None, **axes: Axes
    ) -> "Vectorized":
        """The compiled function of all members made of a pure function of one.

        Args:
          function: its results get leading axes [groups, members].
          donate: argument [groups, members, ...] that the result, or the first result, replaces in memory; they have
            equal shapes. Several are separated by spaces, and replaced by as many first results.
          strategy: in place of the population's. Reading and writing large arrays is vmapped everywhere, for a map
            would copy the whole array of each member.
          **axes: what each argument of the function is: "member", placed by `place`; "group", placed by `place_frozen`
            and the same for the members of a group; or "shared", the same for all.
        """
        names = tuple(axes)
        donated = [names.index(name) for name in donate.split()]
        lifted = _lift(function, axes, donated, strategy or self._strategy, self.layout, self._mesh)
        return Vectorized(names, jax.jit(lifted, donate_argnums=tuple(donated)))

    def place(self, tree: Any) -> Any:
        """Pads leaves [groups, members, ...] and deals them to the devices."""
        return self._place(tree, _member_spec(self.layout))

    def place_frozen(self, tree: Any) -> Any:
        """Pads leaves [groups, ...] and deals them to the devices."""
        return self._place(tree, self._frozen_spec)

    def shapes_of_frozen(self, tree: Any) -> Any:
        """Shapes, types and places of what `place_frozen` would give for leaves [groups, ...]."""
        sharding, padded = self._sharding(self._frozen_spec), self.layout.padded

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            groups = padded if self.layout.sharded == "groups" else x.shape[0]
            return jax.ShapeDtypeStruct((groups, *x.shape[1:]), x.dtype, sharding=sharding)

        return jax.tree.map(shape, tree)

    @property
    def replicated(self) -> NamedSharding:
        """Where all devices have the whole of an array."""
        return NamedSharding(self._mesh, PartitionSpec())

    def place_table(self, rows: np.ndarray) -> Array:
        """Copies the transition table to every device."""
        return jax.device_put(rows, self.replicated)

    @property
    def _frozen_spec(self) -> PartitionSpec:
        return PartitionSpec("devices") if self.layout.sharded == "groups" else PartitionSpec()

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        # As JAX says it of results on one device. Said otherwise, the same arrays would need a program of their own,
        # and a run that is restored would not run the one of a run that was never stopped.
        return NamedSharding(self._mesh, spec) if self._mesh.size > 1 else self.replicated

    def _place(self, tree: Any, spec: PartitionSpec) -> Any:
        axis = next((i for i, name in enumerate(spec) if name), None)
        sharding = self._sharding(spec)

        def place(x: Any) -> Array:
            if axis is not None and (missing := self.layout.padded - x.shape[axis]):
                last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
                x = jnp.concatenate([x, *[last] * missing], axis=axis)
            return _put(x, sharding)

        return jax.tree.map(place, tree)

    def unpad(self, tree: Any) -> Any:
        """Host copies of leaves [groups, members, ...] without the padding; all processes of the mesh must ask."""
        return jax.tree.map(lambda x: _fetch(x)[: self.layout.groups, : self.layout.members], tree)

    def shapes(self, tree: Any) -> Any:
        """Shapes and types of what `unpad` would give, without copying anything."""
        shape = (self.layout.groups, self.layout.members)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*shape, *x.shape[2:]), x.dtype), tree)


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
    function: Callable[..., Any],
    axes: Mapping[str, Axes],
    donated: Sequence[int],
    strategy: Strategy,
    layout: Layout,
    mesh: Mesh,
) -> Callable[..., Any]:
    """Turns a function of one member into one of the population, with the arguments of `axes` in their order."""
    over = _batched if strategy == "vmap" else functools.partial(_in_turn, replaced=len(donated))
    names, kinds = tuple(axes), tuple(axes.values())
    own = [*donated, *(i for i, kind in enumerate(kinds) if kind == "member" and i not in donated)]
    of_group = [i for i, kind in enumerate(kinds) if kind == "group"]

    def local(*given: Any) -> Any:
        def one(shared: Sequence[Any], members: Sequence[Any]) -> Any:
            replaced = dict(zip(of_group + own, [*shared, *members], strict=True))
            return function(**{name: replaced.get(i, given[i]) for i, name in enumerate(names)})

        with kernels.batching(strategy == "vmap"):
            return over(one, [given[i] for i in of_group], [given[i] for i in own])

    member = _member_spec(layout)
    group_spec = PartitionSpec("devices" if layout.sharded == "groups" else None)
    specs: dict[Axes, PartitionSpec] = {"member": member, "group": group_spec, "shared": PartitionSpec()}
    in_specs = tuple(specs[kind] for kind in kinds)
    return jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=member, check_vma=False)


def _batched(call: Callable[..., Any], of_groups: Sequence[Any], of_members: Sequence[Any]) -> Any:
    """All groups and members at once; leaves [groups, ...] and [groups, members, ...]."""
    return jax.vmap(lambda shared, own: jax.vmap(functools.partial(call, shared))(own))(of_groups, of_members)


def _in_turn(call: Callable[..., Any], of_groups: Sequence[Any], of_members: Sequence[Any], replaced: int) -> Any:
    """Likewise, one member after another; the results take the place of the first `replaced` of `of_members`.

    Writing them there saves a copy of each member's state, which counts where an update is all that a call does.
    """
    groups, members = jax.tree.leaves(of_members)[0].shape[:2]

    def results_of(i: Array, current: Sequence[Any]) -> list[Any]:
        group, member = i // members, i % members
        shared = jax.tree.map(lambda x: x[group], of_groups)
        own = jax.tree.map(lambda x: x[group, member], [*current, *of_members[replaced:]])
        results = call(shared, own)
        return [*results] if type(results) is tuple else [results]

    def step(i: Array, all_results: list[Any]) -> list[Any]:
        def write(whole: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice(whole, part[None, None], (i // members, i % members, *[0] * part.ndim))

        return jax.tree.map(write, all_results, results_of(i, all_results[:replaced]))

    shapes = jax.eval_shape(results_of, jnp.int32(0), of_members[:replaced])
    fresh = jax.tree.map(lambda x: jnp.zeros((groups, members, *x.shape), x.dtype), shapes[replaced:])
    all_results = jax.lax.fori_loop(0, groups * members, step, [*of_members[:replaced], *fresh])
    return tuple(all_results) if len(all_results) > 1 else all_results[0]


@functools.partial(jax.jit, static_argnames=("act", "batched"))
def act_members(act: Act, policies: Any, observations: Array, keys: Array, batched: bool = False) -> Array:
    """Actions [members, episodes, action_size] of every member for `observations` [members, episodes, ...].

    Args:
      act: how one member acts; it may declare a key or not.
      policies: leaves [members, ...].
      observations: of all members.
      keys: [members] typed random keys.
      batched: all members in one batched call, for accelerators; one after another otherwise.
    """

    def one(policy: Any, observations: Array, key: Array) -> Array:
        actions: Array = call(act, policy=policy, observations=observations, key=key)
        return actions

    if batched:
        return jax.vmap(one)(policies, observations, keys)
    return jax.lax.map(lambda xs: one(*xs), (policies, observations, keys))
