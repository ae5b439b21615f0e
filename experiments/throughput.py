"""How fast populations train: member-updates per second of each stage, beside PyTorch and beside the device's limit.

For every stage and population size the chunk that `jaxrl-srpo train` runs is compiled and timed on random transitions
of the published shapes; a matrix product timed in the same process says what the device could do, and plain PyTorch
(`torch_srpo.py`) takes turns with it, burst by burst, so that both see the same machine.

    python experiments/throughput.py --out=docs/results/throughput
"""

import dataclasses
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NoReturn, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.extend import core

from jaxrl_srpo.algorithms import srpo
from jaxrl_srpo.cli import exit_with, parse_experiment, parse_words
from jaxrl_srpo.data import table
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.files import write_atomically
from jaxrl_srpo.population import Members, Population, Strategy
from jaxrl_srpo.precision import Precision, dot_general, hidden_dtype, using
from jaxrl_srpo.settings import PRESETS, Settings, StageName, preset
from jaxrl_srpo.stages import STAGES, Stage
from jaxrl_srpo.types import Array, Batch, Spec
from throughput_report import Measurement, conditions, describe, draw, protocol, summarize, write_csv

USAGE = """\
usage: python experiments/throughput.py --out=DIRECTORY [--FLAG=VALUE ...]

Times the training stages and writes DIRECTORY/throughput.csv, throughput.md and throughput.png."""

MEMBERS = (1, 2, 4, 8, 16, 32, 64, 90)
HALFCHEETAH = Spec(17, 6)
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
Rival = Literal["eager", "compiled"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      stages: names out of `stages.STAGES`.
      members: population sizes.
      preset: whose networks and batch sizes.
      precisions: of matrix products, see `precision.using`.
      strategies: see `population.Population`.
      betas: members that share behaviour model and critic in the policy stage.
      rivals: which PyTorch takes turns with the first precision and strategy.
      spec: sizes of the problem.
      rows: transitions in the table.
      seconds: least length of a burst.
      repetitions: bursts of each.
      limit: seconds that one population size of one stage may take; larger ones are left out.
    """

    stages: tuple[StageName, ...] = ("behavior", "critic", "policy")
    members: tuple[int, ...] = MEMBERS
    preset: str = "paper"
    precisions: tuple[Precision, ...] = ("float32",)
    strategies: tuple[Strategy, ...] = ("auto",)
    betas: int = 1
    rivals: tuple[Rival, ...] = ()
    spec: Spec = HALFCHEETAH
    rows: int = 1_000_000
    seconds: float = 2.0
    repetitions: int = 5
    limit: float = 120.0


class Runner(Protocol):
    """Something that can be timed."""

    members: int

    def run(self, steps: int) -> None:
        """`steps` updates of every member; returns when they are done."""


class PopulationRunner:
    """A population of one stage on random transitions, as `training.py` runs it.

    Attributes:
      compile_seconds: tracing and compiling of the chunk.
      memory: bytes that the compiled chunk needs on all devices.
    """

    def __init__(self, stage: Stage, settings: Settings, members: int, strategy: Strategy, options: Options) -> None:
        self.members = members
        shape = (members, 1)
        if stage.needs and options.betas > 1:
            shape = (-(-members // options.betas), min(members, options.betas))
            self.members = shape[0] * shape[1]
        self._population = Population(stage.init, stage.update, options.spec, stage.config(settings), shape, strategy)
        self._rows = self._population.place_table(random_rows(options.spec, options.rows))
        self._placed = self._population.place(_describe(stage.hyper(settings), shape, options.rows))
        self._frozen = self._population.place_frozen(_frozen(stage, settings, options.spec, shape[0]))
        self._carry = self._population.init(self._placed, self._frozen)
        jax.block_until_ready(self._carry)
        began = time.perf_counter()
        self._chunk = self._population.compile(self._carry, self._placed, self._frozen, self._rows)
        self.compile_seconds = time.perf_counter() - began
        self.memory = _memory(self._chunk) * len(jax.devices())
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


class TorchRunner:
    """The same stage of one run in PyTorch, on all cores or on the GPU."""

    members = 1

    def __init__(self, stage: Stage, settings: Settings, rival: Rival, options: Options) -> None:
        import torch

        import torch_srpo

        torch.set_num_threads(os.cpu_count() or 1)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        rows = random_rows(options.spec, options.rows)
        self._rows = torch.from_numpy(rows).to(self._device)
        self._trainer = torch_srpo.make(stage.name, options.spec, settings, self._device)
        if rival == "compiled":
            torch_srpo.compile_losses(self._trainer)

    def run(self, steps: int) -> None:
        """`steps` updates in a Python loop."""
        for _ in range(steps):
            self._trainer.update(self._rows)
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()


def random_rows(spec: Spec, rows: int) -> np.ndarray:
    """A packed table [rows, width] of random transitions without terminals."""
    random = np.random.default_rng(0)
    table_rows = random.standard_normal((rows, 2 * spec.observation_size + spec.action_size + 2), np.float32)
    actions = slice(spec.observation_size, spec.observation_size + spec.action_size)
    table_rows[:, actions] = np.tanh(table_rows[:, actions])
    table_rows[:, -1] = 1.0
    return table_rows


def _describe(hyper: Any, shape: tuple[int, int], rows: int) -> Members:
    keys = jax.random.split(jax.random.key(0), shape)
    where = table.Slice(jnp.zeros(shape, jnp.int32), jnp.full(shape, rows, jnp.int32))
    return Members(keys, where, jax.tree.map(lambda x: jnp.full(shape, x, jnp.float32), hyper))


def _frozen(stage: Stage, settings: Settings, spec: Spec, groups: int) -> Any:
    """Untrained earlier results, one per group: speed does not depend on their weights."""
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


def _memory(compiled: jax.stages.Compiled) -> float:
    """Bytes of arguments, results and temporaries on one device; results that reuse donated arguments count once."""
    found = compiled.memory_analysis()
    if found is None:
        return math.nan
    sizes = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return float(sizes - found.alias_size_in_bytes)


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


def alternate(runners: Sequence[Runner], options: Options) -> list[tuple[float, ...]]:
    """Rates of every runner, which take turns."""
    steps = [calibrate(runner, options.seconds) for runner in runners]
    rates: list[list[float]] = [[] for _ in runners]
    for _ in range(options.repetitions):
        for runner, count, own in zip(runners, steps, rates, strict=True):
            own.append(burst(runner, count))
    return [tuple(own) for own in rates]


def measure(options: Options, log: Callable[[str], None] = print) -> list[Measurement]:
    """Measures everything asked for, saying each figure as it comes."""
    found: list[Measurement] = []
    size = 2048 if jax.devices()[0].platform == "cpu" else 8192
    for precision in options.precisions:
        with using(precision):
            limit = matrix_rate(size)
            log(f"matrix product {size} x {size}, {precision}: {limit / 1e9:,.0f} GFLOP/s")
            for name, strategy in itertools.product(options.stages, options.strategies):
                first = precision == options.precisions[0] and strategy == options.strategies[0]
                rivals = options.rivals if first else ()
                for one in _measure_stage(STAGES[name], precision, strategy, rivals, limit, options):
                    log(_line(one))
                    found.append(one)
    return found


def _measure_stage(
    stage: Stage, precision: Precision, strategy: Strategy, rivals: Sequence[Rival], limit: float, options: Options
) -> Iterator[Measurement]:
    settings = preset(options.preset, "", "locomotion")
    flop = update_flop(stage, settings, options.spec)
    batch_size = stage.config(settings).batch_size
    torches: list[Runner] = [TorchRunner(stage, settings, rival, options) for rival in rivals]
    rate = math.inf
    for members in options.members:
        # Calibration takes two updates, a burst at least one.
        if members * (options.repetitions + 2) / rate > options.limit:
            break
        runner = PopulationRunner(stage, settings, members, strategy, options)
        rates, *torch_rates = alternate([runner, *torches], options)
        if runner.diverged():
            raise UserError(f"{stage.name} with {members} members diverged; its speed would mean nothing")
        rate = statistics.median(rates)
        yield Measurement(
            stage.name,
            "jax",
            precision,
            strategy,
            runner.members,
            batch_size,
            rates,
            flop,
            limit,
            runner.compile_seconds,
            runner.memory,
        )
        for rival, own in zip(rivals, torch_rates, strict=True):
            what = f"torch {rival}"
            yield Measurement(stage.name, what, precision, "", runner.members, batch_size, own, flop, limit)


def _line(one: Measurement) -> str:
    return (
        f"{one.stage:9} {one.what:14} {one.precision:9} {one.strategy:5} {one.members:3} members "
        f"{one.rate:10,.1f} member-updates/s ({min(one.rates):,.1f} to {max(one.rates):,.1f})  "
        f"{one.rate * one.flop / 1e9:9,.1f} GFLOP/s = {one.fraction:4.0%} of the matrix product"
    )


def main(arguments: Sequence[str]) -> list[Measurement]:
    """Runs the command; nothing is returned after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "throughput", USAGE, arguments)
    if out is None:
        return []
    if values.cpu_devices:
        jax.config.update("jax_num_cpu_devices", values.cpu_devices)
    options = _options(values)
    print(conditions())
    measurements = measure(options)
    write_csv(measurements, out / "throughput.csv")
    whole = options.preset == "paper" and set(options.stages) == set(STAGES)
    estimates = protocol(measurements, update_flop) if whole else []
    write_atomically(out / "throughput.md", summarize(measurements, _how(options), estimates))
    draw(measurements).savefig(out / "throughput.png", dpi=150)
    for estimate in estimates:
        print(describe(estimate))
    print(f"wrote {out / 'throughput.csv'}, throughput.md and throughput.png")
    return measurements


def _how(options: Options) -> str:
    return (
        f"Preset `{options.preset}`, observations {options.spec.observation_size}, actions {options.spec.action_size}, "
        f"{options.rows:,} transitions. Median of {options.repetitions} bursts of at least {options.seconds:g} s."
    )


def _options(values: flags.FlagValues) -> Options:
    default = Options()
    accelerator = jax.devices()[0].platform != "cpu"
    precisions = values.precisions or ("float32,tf32,bfloat16" if accelerator else "float32")
    options = dataclasses.replace(
        default,
        stages=parse_words("stages", values.stages, tuple(STAGES)),
        members=tuple(sorted(_sizes(values.members))),
        preset=values.preset,
        precisions=parse_words("precisions", precisions, PRECISIONS),
        strategies=parse_words("strategies", values.strategies, ("auto", "vmap", "map")),
        betas=values.betas,
        rivals=parse_words("torch", values.torch, ("eager", "compiled")) if values.torch else (),
        rows=values.rows,
        seconds=values.seconds,
        repetitions=values.repetitions,
        limit=values.limit,
    )
    if options.rivals:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise UserError("--torch: PyTorch is not installed; pip install 'jaxrl-srpo[torch]'") from None
    return options


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise UserError(f"--members={text}: give different sizes such as 1,8,90")
    return sizes


def _define_flags() -> flags.FlagValues:
    values, default = flags.FlagValues(), Options()
    text, whole, number = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    text("out", None, "Directory of the results.", flag_values=values)
    text("stages", ",".join(default.stages), "Stages.", flag_values=values)
    text("members", ",".join(map(str, default.members)), "Population sizes.", flag_values=values)
    flags.DEFINE_enum("preset", default.preset, PRESETS, "Whose networks and batch sizes.", flag_values=values)
    text("precisions", None, "Of matrix products; float32 on CPU, all three elsewhere.", flag_values=values)
    text("strategies", "auto", "auto, vmap, map.", flag_values=values)
    whole("betas", default.betas, "Members sharing one behaviour model and critic.", 1, flag_values=values)
    whole("cpu_devices", 0, "JAX devices to make of this CPU; 0: one per core.", 0, flag_values=values)
    text("torch", "", "PyTorch to take turns with: eager, compiled.", flag_values=values)
    whole("rows", default.rows, "Transitions in the table.", 4096, flag_values=values)
    number("seconds", default.seconds, "Least length of a burst.", 0.0, flag_values=values)
    whole("repetitions", default.repetitions, "Bursts of each.", 1, flag_values=values)
    number("limit", default.limit, "Seconds per population size; larger ones are left out.", 0.0, flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    # One JAX device per core, as `jaxrl-srpo train` does; it must be set before any computation.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    exit_with("throughput", main, sys.argv[1:])


if __name__ == "__main__":
    run()
