"""What a population of one stage costs: its FLOP, its memory, and its speed on random transitions.

Shared by `throughput.py`, which measures speed for its own sake, and by the experiments that plan a sweep with it.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxrl_srpo.data.table import Slice, example, row_width, unpack
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import Values, with_arrays
from jaxrl_srpo.nn.precision import affine, hidden_dtype
from jaxrl_srpo.population.member import Members, call, make_members
from jaxrl_srpo.population.offline import OfflinePopulation
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.types import Array, Spec

_BLOCK = 2**18
# Rows of an episode; it divides a block.
_EPISODE = 2**9


class Runner(Protocol):
    """Something that can be timed."""

    members: int

    def run(self, steps: int) -> None:
        """`steps` updates of every member; returns when they are done."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """A population of one stage by its sizes alone.

    Attributes:
      stage: what is trained.
      settings: settings of any member; a population's differ in swept numbers only, which change no cost.
      spec: sizes of the problem.
      groups: number of groups; the members of one share earlier results.
      members_per_group: number of members in each group.
      rows: transitions in the table.
      strategy: see `population.vectorize.PlacedMembers`.
    """

    stage: Stage
    settings: Values
    spec: Spec
    groups: int
    members_per_group: int
    rows: int
    strategy: Strategy = "auto"

    @property
    def sizes(self) -> Spec:
        """Sizes as the stage is told them."""
        return self.stage.spec(whole(self.spec, self.rows))

    @property
    def members(self) -> int:
        """Population size."""
        return self.groups * self.members_per_group

    def describe(self) -> Members:
        """Members that all learn from the whole table."""
        keys = jax.random.split(jax.random.key(0), self.members)
        settings = [self.stage.read(self.settings)] * self.members
        return make_members(keys, settings, [Slice(0, self.rows)] * self.members, self.groups)

    def untrained(self) -> Any:
        """Untrained earlier results, leaves [groups, ...]: speed does not depend on their weights."""
        return _untrained(self.stage, self.settings, whole(self.spec, self.rows), self.groups)

    def population(self) -> OfflinePopulation:
        """The population as training runs it, on random transitions."""
        return OfflinePopulation(
            self.stage.init,
            self.stage.update,
            self.sizes,
            self.describe(),
            self.untrained(),
            random_rows(self.sizes, self.rows),
            self.strategy,
        )


class PopulationRunner:
    """A population of one stage on random transitions, as training runs it.

    Args:
      workload: what to run.

    Attributes:
      members: population size.
      compile_seconds: tracing and compiling of the chunk.
      memory: bytes that the compiled chunk needs on all devices.
      state_bytes: bytes of the members' training states, a part of them.
    """

    def __init__(self, workload: Workload) -> None:
        self.members = workload.members
        self._population = workload.population()
        self._population.block_until_ready()
        self.state_bytes = self._population.state_bytes
        began = time.perf_counter()
        compiled = self._population.compile()
        self.compile_seconds = time.perf_counter() - began
        self.memory = chunk_memory(compiled) * len(jax.devices())
        self._step = 0

    def run(self, steps: int) -> None:
        """One chunk."""
        self._population.run(self._step, self._step + steps)
        self._population.block_until_ready()
        self._step += steps

    def diverged(self) -> bool:
        """Whether any member's numbers stopped being finite, which would make its updates no measure."""
        return bool(np.any(self._population.diverged_at >= 0))


def whole(spec: Spec, rows: int) -> Spec:
    """Sizes of a problem and of the data that `random_rows` makes for it."""
    return spec._replace(transitions=rows, episodes=-(-rows // _EPISODE))


def random_rows(spec: Spec, rows: int) -> np.ndarray:
    """A packed table [rows, width] of random transitions without terminals; long ones repeat a block.

    Columns that stages ask for are those of episodes of `_EPISODE` rows.
    """
    random = np.random.default_rng(0)
    block = random.standard_normal((min(rows, _BLOCK), row_width(spec)), np.float32)
    transitions: Any = unpack(cast(Any, block), spec)
    for actions in (transitions.actions, transitions.next_actions):
        if actions is not None:
            np.tanh(actions, out=actions)
    transitions.discounts[:] = 1.0
    if transitions.steps_left is not None:
        transitions.steps_left[:] = _EPISODE - 1 - np.arange(len(block)) % _EPISODE
    return np.resize(block, (rows, row_width(spec)))


def _untrained(stage: Stage, settings: Values, spec: Spec, groups: int) -> Any:
    """What a stage gets of untrained earlier results, leaves [groups, ...]."""

    def one(key: Array) -> Any:
        return _frozen(stage, settings, spec, key)

    return jax.vmap(one)(jax.random.split(jax.random.key(1), groups))


def _frozen(stage: Stage, settings: Values, spec: Spec, key: Array) -> Any:
    results = {
        earlier.name: untrained_result(earlier, settings, spec, jax.random.fold_in(key, number))
        for number, earlier in enumerate(stage.needs)
    }
    return stage.make_frozen(settings, results, spec)


def untrained_result(stage: Stage, settings: Values, spec: Spec, key: Array) -> Any:
    """The result of a stage of one member that has had no update, nor have those that it needs."""
    key_own, key_earlier = jax.random.split(key)
    given = {"settings": with_arrays(stage.read(settings)), "frozen": _frozen(stage, settings, spec, key_earlier)}
    return stage.result(call(stage.init, key=key_own, spec=stage.spec(spec), **given))


def chunk_memory(compiled: jax.stages.Compiled) -> float:
    """Bytes of arguments, results and temporaries on one device; results that reuse donated arguments count once."""
    found = compiled.memory_analysis()
    if found is None:
        return math.nan
    sizes = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return float(sizes - found.alias_size_in_bytes)


@functools.lru_cache
def update_flop(stage: Stage, settings: Values, spec: Spec) -> int:
    """Matrix-product FLOP of one member-update, counted in the program that `update` traces to."""
    own, sizes = with_arrays(stage.read(settings)), stage.spec(spec)

    def one(key: Array) -> Any:
        given = {"key": key, "settings": own, "frozen": _frozen(stage, settings, spec, key)}
        state = call(stage.init, spec=sizes, **given)
        batch, data = example(sizes, own.batch_size)
        return call(stage.update, state=state, batch=batch, data=data, step=jnp.int32(0), **given)

    return matrix_flop(jax.make_jaxpr(one)(jax.random.key(0)).jaxpr)


def matrix_flop(program: core.Jaxpr) -> int:
    """FLOP of the matrix products and convolutions of a traced program, two per multiplication and addition.

    The body of a scan counts once per iteration; that of another loop, whose length is not known, once.
    """
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), (_, _) = equation.params["dimension_numbers"]
            left, product = (cast(Any, x.aval).shape for x in (equation.invars[0], equation.outvars[0]))
            total += 2 * math.prod(product) * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel, product = (cast(Any, x.aval).shape for x in (equation.invars[1], equation.outvars[0]))
            features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(product) * math.prod(kernel) // features
        iterations = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += iterations * sum(matrix_flop(inner) for inner in core.jaxprs_in_params(equation.params))
    return total


def matrix_rate(size: int, repetitions: int = 5) -> float:
    """FLOP per second of [size, size] products on all devices at once, the best of several; at today's precision."""
    multiply = jax.jit(lambda x: affine(x, x, jnp.zeros(size), x.dtype))

    def rate(devices: Sequence[jax.Device]) -> float:
        # Zeros or ones would cost less power, and so give a higher rate, than what training multiplies.
        x = jax.random.normal(jax.random.key(0), (size, size)).astype(hidden_dtype())
        inputs = [jax.device_put(x, device) for device in devices]
        seconds = []
        for _ in range(repetitions + 1):
            began = time.perf_counter()
            jax.block_until_ready([multiply(x) for x in inputs])
            seconds.append(time.perf_counter() - began)
        return 2.0 * size**3 * len(devices) / min(seconds[1:])

    # The devices made of one CPU share its cores; whichever way gives more is the limit.
    return max(rate(jax.devices()), rate(jax.devices()[:1]))


def burst(runner: Runner, steps: int) -> float:
    """Member-updates per second over `steps` updates."""
    began = time.perf_counter()
    runner.run(steps)
    return runner.members * steps / (time.perf_counter() - began)


def calibrate(runner: Runner, seconds: float) -> int:
    """Warms up and finds how many updates fill `seconds`."""
    burst(runner, 1)
    steps, rate = 1, burst(runner, 1)
    while steps * runner.members / rate < seconds / 4.0:
        steps = max(2 * steps, math.ceil(rate * seconds / runner.members / 4.0))
        rate = burst(runner, steps)
    return max(1, math.ceil(rate * seconds / runner.members))
