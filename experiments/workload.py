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

from jaxrl_srpo.data import table
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.methods.settings import Settings
from jaxrl_srpo.methods.stages import STAGES, Stage
from jaxrl_srpo.nn.precision import dot_general, hidden_dtype
from jaxrl_srpo.population.offline import Members, Population
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.types import Array, Batch, Spec

_BLOCK = 2**18


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
      settings: of any member; those of a population differ in swept numbers only, which change no cost.
      spec: sizes of the problem.
      shape: (groups, members per group), see `population`.
      rows: transitions in the table.
      strategy: see `population.Population`.
    """

    stage: Stage
    settings: Settings
    spec: Spec
    shape: tuple[int, int]
    rows: int
    strategy: Strategy = "auto"

    @property
    def members(self) -> int:
        """Population size."""
        return self.shape[0] * self.shape[1]

    def population(self) -> Population:
        """Lifts the stage as `training.py` does."""
        config = self.stage.config(self.settings)
        return Population(self.stage.init, self.stage.update, self.spec, config, self.shape, self.strategy)

    def describe(self) -> Members:
        """Members that all learn from the whole table."""
        keys = jax.random.split(jax.random.key(0), self.shape)
        where = table.Slice(jnp.zeros(self.shape, jnp.int32), jnp.full(self.shape, self.rows, jnp.int32))
        hyper = jax.tree.map(lambda x: jnp.full(self.shape, x, jnp.float32), self.stage.hyper(self.settings))
        return Members(keys, where, hyper)

    def frozen(self) -> Any:
        """Untrained earlier results, one per group: speed does not depend on their weights."""
        return _frozen(self.stage, self.settings, self.spec, self.shape[0])


class PopulationRunner:
    """A population of one stage on random transitions, as `training.py` runs it.

    Args:
      workload: what to run.

    Attributes:
      compile_seconds: tracing and compiling of the chunk.
      memory: bytes that the compiled chunk needs on all devices.
      state: of these, bytes of the members' training states.
    """

    def __init__(self, workload: Workload) -> None:
        self.members = workload.members
        self._population = workload.population()
        self._rows = self._population.place_table(random_rows(workload.spec, workload.rows))
        self._placed = self._population.place(workload.describe())
        self._frozen = self._population.place_frozen(workload.frozen())
        self._carry = self._population.init(self._placed, self._frozen)
        jax.block_until_ready(self._carry)
        self.state = sum(x.nbytes for x in jax.tree.leaves(self._carry))
        began = time.perf_counter()
        self._chunk = self._population.compile(self._carry, self._placed, self._frozen, self._rows)
        self.compile_seconds = time.perf_counter() - began
        self.memory = chunk_memory(self._chunk) * len(jax.devices())
        self._step = 0

    def run(self, steps: int) -> None:
        """One chunk."""
        arguments = (self._placed, self._frozen, self._rows, jnp.int32(self._step), jnp.int32(steps))
        self._carry, _ = self._chunk(self._carry, *arguments)
        jax.block_until_ready(self._carry)
        self._step += steps

    def diverged(self) -> bool:
        """Whether any member's numbers stopped being finite, which would make its updates no measure."""
        return bool(np.any(self._population.unpad(self._carry.diverged_at) >= 0))


def row_width(spec: Spec) -> int:
    """Numbers in a row of the transition table."""
    return 2 * spec.observation_size + spec.action_size + 2


def random_rows(spec: Spec, rows: int) -> np.ndarray:
    """A packed table [rows, width] of random transitions without terminals; long ones repeat a block."""
    random = np.random.default_rng(0)
    block = random.standard_normal((min(rows, _BLOCK), row_width(spec)), np.float32)
    actions = slice(spec.observation_size, spec.observation_size + spec.action_size)
    block[:, actions] = np.tanh(block[:, actions])
    block[:, -1] = 1.0
    return np.resize(block, (rows, row_width(spec)))


def _frozen(stage: Stage, settings: Settings, spec: Spec, groups: int) -> Any:
    if not stage.needs:
        return jnp.zeros((groups,))

    def one(key: Array) -> srpo.Frozen:
        key_behavior, key_critic = jax.random.split(key)
        needs = [
            STAGES[name].init(k, spec, STAGES[name].config(settings), STAGES[name].hyper(settings), None)
            for name, k in zip(stage.needs, (key_behavior, key_critic), strict=True)
        ]
        start = needs[1].actor.params if settings.policy_start == "iql" else None
        return srpo.Frozen(needs[0].model, needs[1].critic, start)

    return jax.vmap(one)(jax.random.split(jax.random.key(1), groups))


def chunk_memory(compiled: jax.stages.Compiled) -> float:
    """Bytes of arguments, results and temporaries on one device; results that reuse donated arguments count once."""
    found = compiled.memory_analysis()
    if found is None:
        return math.nan
    sizes = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return float(sizes - found.alias_size_in_bytes)


@functools.lru_cache
def update_flop(stage: Stage, settings: Settings, spec: Spec) -> int:
    """Matrix-product FLOP of one member-update, counted in the program that `update` traces to."""
    config, hyper = stage.config(settings), stage.hyper(settings)

    def one(key: Array, batch: Batch) -> Any:
        frozen = jax.tree.map(lambda x: x[0], _frozen(stage, settings, spec, 1))
        state = stage.init(key, spec, config, hyper, frozen)
        return stage.update(state, batch, key, jax.tree.map(jnp.float32, hyper), frozen)

    shapes = {"observations": (spec.observation_size,), "actions": (spec.action_size,), "rewards": ()}
    shapes |= {"next_observations": (spec.observation_size,), "discounts": ()}
    batch = Batch(**{name: jnp.zeros((config.batch_size, *shape)) for name, shape in shapes.items()})
    return matrix_flop(jax.make_jaxpr(one)(jax.random.key(0), batch).jaxpr)


def matrix_flop(program: core.Jaxpr) -> int:
    """FLOP of the matrix products of a traced program, two per multiplication and addition.

    The body of a scan counts once per iteration; that of another loop, whose length is not known, once.
    """
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), (_, _) = equation.params["dimension_numbers"]
            left, product = (cast(Any, x.aval).shape for x in (equation.invars[0], equation.outvars[0]))
            total += 2 * math.prod(product) * math.prod(left[axis] for axis in contracted)
        iterations = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += iterations * sum(matrix_flop(inner) for inner in core.jaxprs_in_params(equation.params))
    return total


def matrix_rate(size: int, repetitions: int = 5) -> float:
    """FLOP per second of [size, size] products on all devices at once, the best of several; at today's precision."""
    multiply = jax.jit(lambda x: dot_general(x, x, (((1,), (0,)), ((), ()))) * jnp.asarray(1.0 / size, x.dtype))

    def rate(devices: Sequence[jax.Device]) -> float:
        inputs = [jax.device_put(jnp.ones((size, size), hidden_dtype()), device) for device in devices]
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
