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
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NoReturn

import jax
from absl import flags

from jaxrl_srpo.cli.command_line import exit_with, parse_experiment, parse_words
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods.presets import PRESETS, preset
from jaxrl_srpo.methods.settings import Settings, StageName
from jaxrl_srpo.methods.stages import ALGORITHMS, STAGES, Stage
from jaxrl_srpo.nn.precision import Precision, using
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.types import Spec
from throughput_report import Measurement, conditions, describe, draw, protocol, summarize, write_csv
from workload import PopulationRunner, Runner, Workload, burst, calibrate, matrix_rate, random_rows, update_flop

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
        shape = _shape(stage, members, options.betas)
        runner = PopulationRunner(Workload(stage, settings, options.spec, shape, options.rows, strategy))
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


def _shape(stage: Stage, members: int, betas: int) -> tuple[int, int]:
    """Groups and members per group: only the policy stage has earlier results that members could share."""
    if not stage.needs or betas == 1:
        return members, 1
    return -(-members // betas), min(members, betas)


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
    whole = options.preset == "paper" and set(options.stages) == set(ALGORITHMS["srpo"])
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
        stages=parse_words("stages", values.stages, ALGORITHMS["srpo"]),
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
