"""Training on transitions that are already there: many members in one compiled chunk of updates."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.nn import precision
from jaxrl_srpo.population.member import (
    Carry,
    Function,
    Members,
    empty_totals,
    init_member,
    run_updates,
)
from jaxrl_srpo.population.vectorize import PlacedMembers, Strategy, Vectorized
from jaxrl_srpo.types import Array, Batch, Spec


class Outcome(NamedTuple):
    """What a chunk gives beside the new states; arrays on the devices need not be there yet.

    Attributes:
      metrics: the mean of each metric over the good updates.
      diverged_at: update at which a member stopped being finite; -1 while all is well.
    """

    metrics: Mapping[str, Any]
    diverged_at: Any


def chunk(
    update: Function,
    spec: Spec,
    carry: Carry,
    members: Members,
    frozen: Any,
    rows: Array,
    start: Array,
    steps: Array,
) -> tuple[Carry, Outcome]:
    """`steps` updates of one member from update `start` on."""
    settings, frozen = members.settings, precision.operands(frozen)
    sample_key, update_key = (jax.random.fold_in(members.keys, i) for i in (1, 2))

    def batch_of(number: Array) -> tuple[Batch, Array]:
        batch = table.sample(rows, members.where, spec, settings.batch_size, sample_key, number)
        return batch, jax.random.fold_in(update_key, number)

    totals = empty_totals(update, spec, carry.state, settings, frozen)
    data = table.Transitions(rows, members.where, spec)
    carry, totals = run_updates(update, carry, totals, batch_of, start, steps, settings, frozen, data)
    return carry, Outcome(totals.means(), carry.diverged_at)


def vectorize_init(placed: PlacedMembers, init: Function, spec: Spec) -> Vectorized:
    """`init_member` of all members, compiled; it takes `members` and `frozen`."""
    return placed.vectorize(functools.partial(init_member, init, spec), members="member", frozen="group")


def vectorize_chunk(placed: PlacedMembers, update: Function, spec: Spec) -> Vectorized:
    """`chunk` of all members, compiled; it takes the arguments from `carry` on by name, and replaces the carry."""
    return placed.vectorize(
        functools.partial(chunk, update, spec),
        carry="member",
        members="member",
        frozen="group",
        rows="shared",
        start="shared",
        steps="shared",
        donate="carry",
    )


class Programs(NamedTuple):
    """What a population runs: `init_member` and `chunk` of all members."""

    init: Vectorized
    chunk: Vectorized


def compile_programs(
    init: Function,
    update: Function,
    spec: Spec,
    members: Members,
    frozen: Any,
    rows: jax.ShapeDtypeStruct,
    strategy: Strategy = "auto",
    devices: list[jax.Device] | None = None,
) -> Programs:
    """The programs of an `OfflinePopulation` with these arguments, compiled before its inputs are there.

    Args:
      init: the method's `init`.
      update: the method's `update`.
      spec: sizes of the problem.
      members: keys, rows and settings, [groups, members per group].
      frozen: shapes and types of the results of earlier stages, [groups, ...].
      rows: shape and type of the transition table.
      strategy: see `population.vectorize`.
      devices: devices to spread over; all by default.
    """
    groups, size = members.keys.shape
    placed = PlacedMembers((groups, size), strategy, devices)
    programs = Programs(vectorize_init(placed, init, spec), vectorize_chunk(placed, update, spec))
    inputs = {"members": placed.place(members), "frozen": placed.shapes_of_frozen(frozen)}
    lowered = programs.init.lower(**inputs)
    first = lowered.compile()

    def described(result: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(result.shape, result.dtype, sharding=sharding)

    carry = jax.tree.map(described, lowered.out_info, first.output_shardings)
    table_shape = described(rows, placed.replicated)
    numbers = {"start": np.int32(0), "steps": np.int32(0)}
    then = programs.chunk.lower(carry=carry, rows=table_shape, **inputs, **numbers).compile()
    return Programs(programs.init.with_program(first), programs.chunk.with_program(then))


class OfflinePopulation(PlacedMembers):
    """Groups x members of one stage that learn from a transition table.

    Args:
      init: the method's `init`.
      update: the method's `update`.
      spec: sizes of the problem.
      members: keys, rows and settings, [groups, members per group].
      frozen: results of earlier stages, leaves [groups, ...].
      rows: the transition table [N, width].
      strategy: "vmap", "map", or "auto": map on CPU, vmap elsewhere.
      devices: devices to spread over; all by default.
      programs: what `compile_programs` gave for the same arguments; compiled when first needed by default.
    """

    def __init__(
        self,
        init: Function,
        update: Function,
        spec: Spec,
        members: Members,
        frozen: Any,
        rows: np.ndarray,
        strategy: Strategy = "auto",
        devices: list[jax.Device] | None = None,
        programs: Programs | None = None,
    ) -> None:
        groups, size = members.keys.shape
        super().__init__((groups, size), strategy, devices)
        programs = programs or Programs(vectorize_init(self, init, spec), vectorize_chunk(self, update, spec))
        self._chunk = programs.chunk
        self._rows = self.place_table(rows)
        self._members, self._frozen = self.place(members), self.place_frozen(frozen)
        self._carry: Carry = programs.init(members=self._members, frozen=self._frozen)

    def launch(self, start: int, stop: int) -> Outcome:
        """Starts updates `start` to `stop` of every member; what they give is on the devices, see `fetch`."""
        self._carry, outcome = self._chunk(**self._arguments(start, stop - start))
        launched: Outcome = outcome
        return launched

    def fetch(self, tree: Any) -> Any:
        """Host copies [groups, members, ...] of what `launch` or `copy_of` gave, once they are there."""
        return self.unpad(tree)

    def run(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Updates `start` to `stop` of every member; returns the mean of each metric, [groups, members]."""
        metrics: dict[str, np.ndarray] = self.fetch(self.launch(start, stop).metrics)
        return metrics

    def copy_of(self, part: Callable[[Any], Any]) -> Any:
        """A copy on the devices of a part of the states, which the next chunk overwrites."""
        return _copying(part)(self._carry.state)

    def compile(self) -> jax.stages.Compiled:
        """The chunk's program by itself, for benchmarks: its size in memory, and compiling apart from running."""
        return self._chunk.lower(**self._arguments(0, 1)).compile()

    def block_until_ready(self) -> None:
        """Waits for the device."""
        jax.block_until_ready(self._carry)

    @property
    def state_bytes(self) -> int:
        """Size of the members' training states."""
        return sum(x.nbytes for x in jax.tree.leaves(self._carry))

    @property
    def states(self) -> Any:
        """The method's states on the host, leaves [groups, members, ...]."""
        return self.unpad(self._carry.state)

    @property
    def diverged_at(self) -> np.ndarray:
        """Update at which a member stopped being finite, [groups, members]; -1 while all is well."""
        at: np.ndarray = self.unpad(self._carry.diverged_at)
        return at

    def checkpoint(self) -> Carry:
        """What `restore` needs, arrays on the host."""
        carry: Carry = self.unpad(self._carry)
        return carry

    def checkpoint_shapes(self) -> Carry:
        """Shapes and types of a checkpoint."""
        shapes: Carry = self.shapes(self._carry)
        return shapes

    def restore(self, saved: Carry) -> None:
        """Goes back to a checkpoint."""
        self._carry = self.place(saved)

    def close(self) -> None:
        """Nothing is open."""

    def _arguments(self, start: int, steps: int) -> dict[str, Any]:
        return {
            "carry": self._carry,
            "members": self._members,
            "frozen": self._frozen,
            "rows": self._rows,
            "start": np.int32(start),
            "steps": np.int32(steps),
        }


@functools.cache
def _copying(part: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, part(tree)))
