"""The published table: 15 datasets x 6 seeds at the published betas, networks and budgets, as one sweep.

    python experiments/d4rl_table.py --dry_run --out=runs/d4rl
    python experiments/d4rl_table.py --out=runs/d4rl

The first says what the second would train, and how long that takes on this device. Killed and started again, it goes
on where it was; a run that is complete only has its tables written again.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags

from jaxrl_srpo import api
from jaxrl_srpo.cli.command_line import exit_with, parse_experiment, parse_numbers, parse_seeds, prepare_jax
from jaxrl_srpo.data import d4rl, loading
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.names import EMBEDDED
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import DatasetError, UserError
from jaxrl_srpo.methods.presets import PAPER_BETA
from jaxrl_srpo.methods.settings import Settings
from jaxrl_srpo.methods.stages import STAGES, Stage
from jaxrl_srpo.nn import precision
from jaxrl_srpo.report.literature import write_literature_table
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.sweep import Member, Sweep, populations, unique
from jaxrl_srpo.types import Spec
from workload import PopulationRunner, Workload, burst, calibrate, row_width, update_flop

USAGE = """\
usage: python experiments/d4rl_table.py --out=RUN_DIR [--FLAG=VALUE ...]

Trains the published protocol and writes RUN_DIR/report/d4rl_table.md, .csv and .tex, and d4rl_aggregates.csv."""

# Sizes of data that are not here, for a dry run: what decides its cost are the widths.
_SPECS = {"hopper": Spec(11, 3), "halfcheetah": Spec(17, 6), "walker2d": Spec(17, 6), "antmaze": Spec(29, 8)}
_NOMINAL_TRANSITIONS = 1_000_000
# Transitions of the table that speed is measured on; it hardly depends on their number.
_MEASURED_ROWS = 100_000
MEASURED_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Part:
    """A stage of a population and what it costs.

    Attributes:
      stage: name of the stage.
      datasets: names of its datasets.
      members: population size.
      updates: of each member.
      flop: of all of it, matrix products only.
      memory: bytes on the device.
      seconds: of training, evaluation apart.
    """

    stage: str
    datasets: tuple[str, ...]
    members: int
    updates: int
    flop: float
    memory: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a member of one shape costs on this device.

    Attributes:
      rate: member-updates per second of the whole device.
      memory: bytes of one member.
      scratch: bytes besides, however many members there are.
      flop: of one update.
    """

    rate: float
    memory: float
    scratch: float
    flop: int


def missing(names: Sequence[str]) -> list[str]:
    """The names whose data are not on this machine."""
    return [name for name in names if not _is_here(name)]


def _is_here(name: str) -> bool:
    if name not in d4rl.known_names():
        return pathlib.Path(name).is_file() or name in EMBEDDED
    try:
        loading.d4rl_file(name, fetch=False)
    except DatasetError:
        return False
    return True


def nominal(name: str) -> Dataset:
    """A dataset of a D4RL name by its sizes alone, without its data.

    Raises:
      UserError: for a name whose sizes are not known.
    """
    spec = _SPECS.get(name.split("-")[0])
    if spec is None or name not in d4rl.known_names():
        raise UserError(
            f"--datasets: {name} is not here and its sizes are not known; see `jaxrl-srpo data info {name}`"
        )
    rows = _NOMINAL_TRANSITIONS

    def blank(*shape: int, dtype: Any = np.float32) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    observations, one = blank(rows, spec.observation_size), np.zeros(1)
    return Dataset(
        name=name,
        source=name,
        observations=observations,
        actions=blank(rows, spec.action_size),
        rewards=blank(rows),
        next_observations=observations,
        terminals=blank(rows, dtype=bool),
        episode_ends=blank(rows, dtype=bool),
        episode_returns=one,
        episode_lengths=one.astype(np.int64),
        timeouts=0,
        action_low=-np.ones(spec.action_size, np.float32),
        action_high=np.ones(spec.action_size, np.float32),
        fingerprint=name,
        family=d4rl.family(name),
    )


def plan(sweep: Sweep, datasets: Sequence[Dataset], members_per_population: int) -> list[Part]:
    """Every stage of every population, with costs measured on this device in a few seconds each."""
    sizes = {dataset.name: dataset.size for dataset in datasets}
    members = sweep.members(datasets)
    parts = []
    for stage in STAGES.values():
        for population in populations(unique(members, stage), stage, members_per_population):
            parts.append(_part(stage, population, sizes))
    return parts


def _part(stage: Stage, population: Sequence[Member], sizes: dict[str, int]) -> Part:
    first = population[0]
    names = tuple(dict.fromkeys(member.dataset for member in population))
    cost = measure(stage, first.settings, first.spec, len(population))
    updates = len(population) * stage.steps(first.settings)
    table = 4.0 * row_width(first.spec) * sum(sizes[name] for name in names) * len(jax.devices())
    return Part(
        stage.name,
        names,
        len(population),
        stage.steps(first.settings),
        float(updates) * cost.flop,
        table + cost.memory * len(population) + cost.scratch,
        updates / cost.rate,
    )


def measure(stage: Stage, settings: Settings, spec: Spec, members: int) -> Cost:
    """Times a population of this shape; on CPUs, where a member costs the same in any, one with a member per device."""
    one_by_one = jax.default_backend() == "cpu"
    if one_by_one:
        members = min(members, len(jax.devices()))
    with precision.using(settings.precision):  # type: ignore[arg-type]  # Checked by `override`.
        runner = PopulationRunner(Workload(stage, settings, spec, (members, 1), _MEASURED_ROWS))
        rate = burst(runner, calibrate(runner, MEASURED_SECONDS))
        flop = update_flop(stage, settings, spec)
    table = 4.0 * row_width(spec) * _MEASURED_ROWS * len(jax.devices())
    scratch = max(runner.memory - table - runner.state, 0.0)
    # Where members take turns on a device they share its scratch memory; batched ones all have their own.
    if one_by_one:
        return Cost(rate, runner.state / members, scratch, flop)
    return Cost(rate, (runner.state + scratch) / members, 0.0, flop)


def device_memory() -> float:
    """Bytes that all devices have together."""
    stats = [device.memory_stats() for device in jax.devices()]
    if all(stats):
        return float(sum(one["bytes_limit"] for one in stats if one))
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def check_fits(parts: Sequence[Part], available: float) -> None:
    """Refuses a plan that does not fit the device.

    Raises:
      UserError: naming the largest population and a size that fits.
    """
    largest = max(parts, key=lambda part: part.memory)
    if largest.memory > available:
        fitting = max(1, int(largest.members * available / largest.memory))
        raise UserError(
            f"{largest.stage} stage of {largest.members} members needs {_gigabytes(largest.memory)} of device memory, "
            f"there are {_gigabytes(available)}; --members_per_population={fitting} trains fewer at a time"
        )


def describe(parts: Sequence[Part]) -> str:
    """The plan as text."""
    lines = [f"{'stage':10}{'members':>8}{'updates each':>14}{'PFLOP':>11}{'memory':>10}{'hours':>9}  datasets"]
    for part in parts:
        lines.append(
            f"{part.stage:10}{part.members:8}{part.updates:14,}{part.flop / 1e15:11,.3f}{_gigabytes(part.memory):>10}"
            f"{_hours(part.seconds):>9}  {', '.join(part.datasets)}"
        )
    flop, seconds = sum(part.flop for part in parts), sum(part.seconds for part in parts)
    device = jax.devices()[0]
    return "\n".join(
        [
            *lines,
            f"all: {flop / 1e15:,.3f} PFLOP, {_hours(seconds)} hours of training on {len(jax.devices())} x "
            f"{device.device_kind}, evaluations apart; one population after another, "
            f"{_gigabytes(device_memory())} of memory",
        ]
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}" if seconds < 360_000 else f"{seconds / 3600:,.0f}"


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "d4rl", USAGE, arguments)
    if out is None:
        return
    names = tuple(name for name in values.datasets.split(",") if name)
    absent = missing(names)
    overrides = _overrides(values)
    seeds = parse_seeds(values.seeds)
    if values.dry_run:
        datasets = [nominal(name) if name in absent else load_dataset(name) for name in names]
        sweep = Sweep(names, seeds, values.preset, {k: tuple(v) for k, v in overrides.items()}, values.budget)
        parts = plan(sweep, datasets, values.members_per_population)
        print(describe(parts))
        if absent:
            print(_where_from(absent))
        check_fits(parts, device_memory())
        return
    if absent:
        raise UserError(_where_from(absent))
    options = Options(
        artefacts=pathlib.Path(values.artefacts) if values.artefacts else None,
        members_per_population=values.members_per_population,
    )
    api.train(names, out, seeds, values.preset, options, budget=values.budget, **overrides)
    paths = write_literature_table(out, out / "report")
    print(paths[0].read_text())
    print("\n".join(f"wrote {path}" for path in paths))


def _where_from(absent: Sequence[str]) -> str:
    commands = "; ".join(f"jaxrl-srpo data download {name}" for name in absent)
    return f"not on this machine: {', '.join(absent)}; get them with: {commands}"


def _overrides(values: flags.FlagValues) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    if values.beta:
        overrides["beta"] = parse_numbers("beta", values.beta)
    if values.episodes:
        overrides["episodes"] = [values.episodes]
    return overrides


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    text("out", None, "Run directory; one that holds a part of this sweep is continued.", flag_values=values)
    text("datasets", ",".join(PAPER_BETA), "Comma-separated names or paths.", flag_values=values)
    text("seeds", "0:6", "Seeds, a range or a list.", flag_values=values)
    flags.DEFINE_enum("preset", "paper", ["paper", "quick"], "See jaxrl-srpo train --help.", flag_values=values)
    flags.DEFINE_float("budget", 1.0, "Share of the preset's updates.", flag_values=values)
    flags.DEFINE_list("beta", [], "Betas for all datasets; the preset's otherwise.", flag_values=values)
    number("episodes", 0, "Episodes of an evaluation; 0: the preset's.", 0, flag_values=values)
    text("artefacts", None, "Directory of finished stages shared between runs.", flag_values=values)
    number("members_per_population", 0, "Most members trained together; 0: all that can be.", 0, flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "Say what would be trained, and train nothing.", flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    prepare_jax()
    exit_with("d4rl_table", main, sys.argv[1:], "interrupted; the same command continues")


if __name__ == "__main__":
    run()
