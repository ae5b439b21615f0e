"""Training on transitions that are already there: many members in one compiled chunk of updates."""

import functools
from collections.abc import Callable
from typing import Any

import jax
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
from jaxrl_srpo.population.vectorize import PlacedMembers, Strategy
from jaxrl_srpo.types import Array, Batch, Metrics, Spec


def chunk(
    update: Function,
    spec: Spec,
    carry: Carry,
    members: Members,
    frozen: Any,
    rows: Array,
    start: Array,
    steps: Array,
) -> tuple[Carry, Metrics]:
    """`steps` updates of one member from update `start` on, and the mean of each metric over the good ones."""
    settings, frozen = members.settings, precision.operands(frozen)
    sample_key, update_key = (jax.random.fold_in(members.keys, i) for i in (1, 2))

    def batch_of(number: Array) -> tuple[Batch, Array]:
        batch = table.sample(rows, members.where, spec, settings.batch_size, sample_key, number)
        return batch, jax.random.fold_in(update_key, number)

    totals = empty_totals(update, spec, carry.state, settings, frozen)
    carry, totals = run_updates(update, carry, totals, batch_of, start, steps, settings, frozen)
    return carry, totals.means()


def vectorize_init(placed: PlacedMembers, init: Function, spec: Spec) -> Callable[..., Any]:
    """`init_member` of all members, compiled; it takes `members` and `frozen`."""
    return placed.vectorize(functools.partial(init_member, init, spec), members="member", frozen="group")


def vectorize_chunk(placed: PlacedMembers, update: Function, spec: Spec) -> Callable[..., Any]:
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
    ) -> None:
        groups, size = members.keys.shape
        super().__init__((groups, size), strategy, devices)
        start = vectorize_init(self, init, spec)
        self._chunk = vectorize_chunk(self, update, spec)
        self._rows = self.place_table(rows)
        self._members, self._frozen = self.place(members), self.place_frozen(frozen)
        self._carry: Carry = start(members=self._members, frozen=self._frozen)

    def run(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Updates `start` to `stop` of every member; returns the mean of each metric, [groups, members]."""
        self._carry, means = self._chunk(**self._arguments(start, stop - start))
        metrics: dict[str, np.ndarray] = self.unpad(means)
        return metrics

    def compile(self) -> jax.stages.Compiled:
        """The chunk's program by itself, for benchmarks: its size in memory, and compiling apart from running."""
        compiled: jax.stages.Compiled = self._chunk.lower(**self._arguments(0, 1)).compile()  # type: ignore[attr-defined]
        return compiled

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
