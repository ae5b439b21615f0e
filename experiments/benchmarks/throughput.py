"""How fast populations train: member-updates per second of each stage, beside PyTorch and beside the device's limit.

For every stage and population size the chunk that `jaxrl-srpo train` runs is compiled and timed on random transitions
of the published shapes; a matrix product timed in the same process says what the device could do, and plain PyTorch
(`torch_srpo.py`) takes turns with it, burst by burst, so that both see the same machine.

    python -m experiments.benchmarks.throughput --out=docs/results/throughput
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import jax

from jaxrl_srpo import methods
from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.io.processors import usable_cores
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.methods.contract import Method, Stage, preset_values
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.nn.precision import Precision, using
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.types import Spec

from .. import common
from . import kernels
from .machine import conditions
from .throughput_report import Measurement, describe, draw, protocol, summarize, write_csv
from .workload import (
    PopulationRunner,
    Runner,
    Workload,
    burst,
    calibrate,
    matrix_rate,
    random_rows,
    update_flop,
    whole,
)

MODULE = "benchmarks.throughput"
DESCRIPTION = "Times the training stages and writes DIRECTORY/throughput.csv, throughput.md and throughput.png."

MEMBERS = (1, 2, 4, 8, 16, 32, 64, 90)
HALFCHEETAH = Spec(17, 6)
STAGES = tuple(stage.name for stage in srpo.METHOD.stages)
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
Rival = Literal["eager", "compiled"]
# Updates that a profile takes the mean of.
_PROFILED = 20


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      stages: names of stages; SRPO's by default.
      members: population sizes.
      preset: preset that gives networks and batch sizes.
      precisions: precisions of matrix products, see `precision.using`.
      strategies: see `population.vectorize.PlacedMembers`.
      betas: members that share behavior model and critic in the policy stage.
      rivals: which PyTorch takes turns with the first precision and strategy.
      spec: sizes of the problem.
      rows: transitions in the table.
      seconds: least length of a burst.
      repetitions: bursts of each.
      limit: seconds that one population size of one stage may take; larger ones are left out.
      profile: whether to show the kernels of an update, too.
    """

    stages: tuple[str, ...] = STAGES
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
    profile: bool = False


class TorchRunner:
    """The same stage of one run in PyTorch, on all cores or on the GPU."""

    members = 1

    def __init__(self, stage: Stage, settings: Values, rival: Rival, options: Options) -> None:
        import torch

        from . import torch_srpo

        torch.set_num_threads(usable_cores())
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
                for one in _measure_stage(name, precision, strategy, rivals, limit, options):
                    log(_line(one))
                    found.append(one)
    return found


def _measure_stage(
    name: str, precision: Precision, strategy: Strategy, rivals: Sequence[Rival], limit: float, options: Options
) -> Iterator[Measurement]:
    stage, settings = _find(name, options)
    flop = update_flop(stage, settings, whole(options.spec, options.rows))
    batch_size: int = stage.read(settings).batch_size
    torches: list[Runner] = [TorchRunner(stage, settings, rival, options) for rival in rivals]
    rate = math.inf
    for members in options.members:
        # Calibration takes two updates, a burst at least one.
        if members * (options.repetitions + 2) / rate > options.limit:
            break
        runner = PopulationRunner(_workload(name, members, strategy, options))
        rates, *torch_rates = alternate([runner, *torches], options)
        if runner.diverged():
            raise UserError(f"{stage.name} with {members} members diverged; its speed would mean nothing")
        rate = statistics.median(rates)
        ours = Measurement(
            stage=stage.name,
            what="jax",
            precision=precision,
            strategy=strategy,
            members=runner.members,
            batch_size=batch_size,
            rates=rates,
            flop=flop,
            limit=limit,
            compile_seconds=runner.compile_seconds,
            memory=runner.memory,
        )
        yield ours
        if options.profile:
            print(kernels.describe(kernels.measured(runner.run, _PROFILED)))
        for rival, own in zip(rivals, torch_rates, strict=True):
            yield dataclasses.replace(
                ours, what=f"torch {rival}", strategy="", rates=own, compile_seconds=math.nan, memory=math.nan
            )


def known_stages(preset: str) -> dict[str, Method]:
    """The stages that learn from a dataset, by name, each with the first method that has it and the preset."""
    found: dict[str, Method] = {}
    for method in methods.METHODS:
        for stage in method.stages if preset in method.presets else ():
            found.setdefault(stage.name, method)
    return found


def _find(name: str, options: Options) -> tuple[Stage, Values]:
    """A stage, and the preset's settings of its method."""
    method = known_stages(options.preset)[name]
    stage = next(stage for stage in method.stages if stage.name == name)
    return stage, preset_values([method], options.preset, "halfcheetah", "locomotion")


def _workload(name: str, members: int, strategy: Strategy, options: Options) -> Workload:
    stage, settings = _find(name, options)
    # Only stages with earlier results have some that members could share.
    shared = min(members, options.betas) if stage.needs else 1
    groups = -(-members // shared)
    return Workload(stage, settings, options.spec, groups, shared, options.rows, strategy)


def plan(options: Options, log: Callable[[str], None] = print) -> None:
    """Says what an H100 would run in an update of each stage, population size and precision."""
    for precision, name, members in itertools.product(options.precisions, options.stages, options.members):
        with using(precision):
            found = kernels.planned(_workload(name, members, "vmap", options))
        log(f"{name}, {members} members, {precision}, planned for an H100:\n{kernels.describe(found)}")


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
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return []
    values = line.values
    if values.plan:
        # Else JAX looks for a GPU before it compiles for one.
        jax.config.update("jax_platforms", "cpu")
    if values.cpu_devices:
        jax.config.update("jax_num_cpu_devices", values.cpu_devices)
    options = _options(line)
    if values.plan:
        plan(options)
        return []
    if options.profile:
        kernels.require_gpu()
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


def _options(line: common.CommandLine) -> Options:
    values = line.values
    accelerator = jax.devices()[0].platform != "cpu"
    precisions = values.precisions or ("float32,tf32,bfloat16" if accelerator else "float32")
    options = Options(
        stages=parse_words("stages", values.stages, tuple(known_stages(values.preset))),
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
        profile=values.profile,
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


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Options()
    line.text("stages", ",".join(default.stages), "Stages of any methods, such as td3_bc; SRPO's unless given.")
    line.text("members", ",".join(map(str, default.members)), "Population sizes.")
    line.define_preset(default.preset, tuple(srpo.METHOD.presets), "Preset that gives networks and batch sizes.")
    line.text("precisions", None, "Precisions of matrix products; float32 on CPU, all three elsewhere.")
    line.text("strategies", "auto", "How members are batched: auto, vmap, map.")
    line.whole("betas", default.betas, "Members sharing one behavior model and critic.", 1)
    line.whole("cpu_devices", 0, "JAX devices to make of this CPU; 0: one per core.", 0)
    line.text("torch", "", "PyTorch to take turns with: eager, compiled.")
    line.whole("rows", default.rows, "Transitions in the table.", 4096)
    line.number("seconds", default.seconds, "Least length of a burst.", 0.0)
    line.whole("repetitions", default.repetitions, "Bursts of each.", 1)
    line.number("limit", default.limit, "Seconds per population size; larger ones are left out.", 0.0)
    line.switch("profile", "Show the kernels of an update, on a GPU.")
    line.switch(
        "plan", "Only show the kernels that an H100 would run; no GPU is needed, but pip install 'jax[cuda12]'."
    )
    return line


def _one_device_per_core() -> None:
    """As training does; without its cache of compiled programs, for compiling is timed too."""
    jax.config.update("jax_num_cpu_devices", usable_cores())


if __name__ == "__main__":
    common.run(MODULE, main, _one_device_per_core)
