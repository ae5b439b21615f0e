"""The published table: 15 datasets x 6 seeds of one method or all of them, beside the published scores.

    python -m experiments.d4rl.table --dry_run --out=runs/d4rl
    python -m experiments.d4rl.table --download --out=runs/d4rl
    python -m experiments.d4rl.table --algorithm=all --preset=paper --download --out=runs/all

The first says what the second would train, and how long that takes on this device. The second trains SRPO at the
published betas, networks and budgets; it fetches the data that are not here, first. The third trains every method that
has the preset: those whose presets agree on rewards, observations and discount in one run, RUN_DIR itself or a folder
in it, and sets all of them in one table. Killed and started again, it goes on where it was; of runs that are complete
it only writes the tables again.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_srpo import api
from jaxrl_srpo.data import d4rl, loading
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.names import EMBEDDED
from jaxrl_srpo.data.table import row_width
from jaxrl_srpo.envs.datasets import download_all, load_dataset
from jaxrl_srpo.errors import DatasetError, UserError
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods import ALL, every_method, find_method
from jaxrl_srpo.methods.contract import Method, Stage, agreeing
from jaxrl_srpo.methods.settings import Values, fields_of
from jaxrl_srpo.nn import precision
from jaxrl_srpo.report.literature import write_literature_table
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.sweep import Member, Sweep, populations, stages_of, unique
from jaxrl_srpo.types import Spec

from .. import common
from ..benchmarks.workload import PopulationRunner, Workload, burst, calibrate, update_flop

MODULE = "d4rl.table"
DESCRIPTION = """\
Trains methods by a published protocol and writes RUN_DIR/report/d4rl_table.md, .csv and .tex, and
d4rl_aggregates.csv; RUN_DIR is the directory of --out."""

# Sizes of data that are not here, for a dry run: what decides its cost are the widths.
_SPECS = {"hopper": Spec(11, 3), "halfcheetah": Spec(17, 6), "walker2d": Spec(17, 6), "antmaze": Spec(29, 8)}
_NOMINAL_TRANSITIONS = 1_000_000
# Transitions of the table that speed is measured on; it hardly depends on their number.
_MEASURED_ROWS = 100_000
MEASURED_SECONDS = 2.0
_SCALING = "and scaled by FLOP to data of other widths"


@dataclasses.dataclass(frozen=True)
class Part:
    """A stage of a population and what it costs.

    Attributes:
      stage: name of the stage.
      datasets: names of its datasets.
      members: population size.
      updates: updates of each member.
      flop: matrix-product FLOP of all its updates.
      memory: bytes on the device.
      seconds: time to train it, without evaluations.
      spread: of `seconds`, as a share of it; see `Cost`.
    """

    stage: str
    datasets: tuple[str, ...]
    members: int
    updates: int
    flop: float
    memory: float
    seconds: float
    spread: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a member of one shape costs on this device.

    Attributes:
      rate: member-updates per second of the whole device.
      spread: by how much two measurements of it differ, as a share of it.
      memory: bytes of one member.
      scratch: bytes besides, however many members there are.
      flop: matrix-product FLOP of one update.
    """

    rate: float
    spread: float
    memory: float
    scratch: float
    flop: int


def missing(names: Sequence[str]) -> list[str]:
    """The names whose data are not on this machine."""
    return [name for name in names if not _is_here(name)]


def fetch(names: Sequence[str]) -> None:
    """Downloads the data of D4RL names, as far as they can be had; a line tells of each."""
    download_all([name for name in names if name in d4rl.known_names()], print_message)


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


def plan(sweeps: Sequence[Sweep], datasets: Sequence[Dataset], members_per_population: int) -> list[Part]:
    """Every stage of every population, with costs measured on this device in a few seconds each.

    Networks of equal shapes are measured once, in their largest population; what data of other widths cost follows
    from the FLOP.
    """
    sizes = {dataset.name: dataset.size for dataset in datasets}
    members = [member for sweep in sweeps for member in sweep.members(datasets)]
    units = [
        (stage, population)
        for stage in stages_of(members)
        for population in populations(unique(members, stage), stage, members_per_population)
    ]
    costs: dict[Any, Cost] = {}
    for stage, population in sorted(units, key=lambda unit: -len(unit[1])):
        first, shape = population[0], _shape(stage, population[0].settings)
        if shape not in costs:
            costs[shape] = measure(stage, first.settings, first.spec, len(population))
            print_message(f"{stage.name}: {costs[shape].rate:,.4g} member-updates per second")
    return [
        _part(stage, population, sizes, costs[_shape(stage, population[0].settings)]) for stage, population in units
    ]


def _shape(stage: Stage, settings: Values) -> Any:
    """What decides the cost of an update besides the widths of the data."""
    static = tuple(settings[one.setting.flag] for one in fields_of(stage.settings) if not one.setting.swept)
    return stage.name, static, settings["precision"]


def _part(stage: Stage, population: Sequence[Member], sizes: dict[str, int], cost: Cost) -> Part:
    first = population[0]
    names = tuple(dict.fromkeys(member.dataset for member in population))
    updates = len(population) * stage.steps(first.settings)
    flop = update_flop(stage, first.settings, first.spec)
    table = 4.0 * row_width(stage.spec(first.spec)) * sum(sizes[name] for name in names) * len(jax.devices())
    return Part(
        stage=stage.name,
        datasets=names,
        members=len(population),
        updates=stage.steps(first.settings),
        flop=float(updates) * flop,
        memory=table + cost.memory * len(population) + cost.scratch,
        seconds=updates / cost.rate * flop / cost.flop,
        spread=cost.spread,
    )


def measure(stage: Stage, settings: Values, spec: Spec, members: int) -> Cost:
    """Times a population of this shape; on CPUs, where a member costs the same in any, one with a member per device."""
    one_by_one = jax.default_backend() == "cpu"
    if one_by_one:
        members = min(members, len(jax.devices()))
    with precision.using(settings["precision"]):
        runner = PopulationRunner(Workload(stage, settings, spec, members, 1, _MEASURED_ROWS))
        steps = calibrate(runner, MEASURED_SECONDS)
        rates = [burst(runner, steps) for _ in range(2)]
        flop = update_flop(stage, settings, spec)
    table = 4.0 * row_width(stage.spec(spec)) * _MEASURED_ROWS * len(jax.devices())
    rate = sum(rates) / len(rates)
    spread = (max(rates) - min(rates)) / rate
    scratch = max(runner.memory - table - runner.state_bytes, 0.0)
    # Members that take turns on a device share its scratch memory; batched ones have their own.
    if one_by_one:
        return Cost(rate, spread, runner.state_bytes / members, scratch, flop)
    return Cost(rate, spread, (runner.state_bytes + scratch) / members, 0.0, flop)


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
    unsure = sum(part.spread * part.seconds for part in parts) / seconds
    device = jax.devices()[0]
    return "\n".join(
        [
            *lines,
            f"all: {flop / 1e15:,.3f} PFLOP, {_hours(seconds)} hours of training on {len(jax.devices())} x "
            f"{device.device_kind}, evaluations apart; one population after another, "
            f"{_gigabytes(device_memory())} of memory",
            f"Measured in bursts of {MEASURED_SECONDS:g} s, of which two differed by {unsure:.0%}, {_SCALING}.",
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
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return
    values, names, seeds = line.values, line.datasets, line.seeds
    overrides = _overrides(line)
    if values.download:
        fetch(missing(names))
    absent = missing(names)
    groups = groups_of(values.algorithm, values.preset, names)
    if values.dry_run:
        datasets = [nominal(name) if name in absent else load_dataset(name) for name in names]
        sweeps = [Sweep(names, seeds, values.preset, overrides, values.budget, tuple(group)) for group in groups]
        parts = plan(sweeps, datasets, values.members_per_population)
        print(describe(parts))
        if absent:
            print(_where_from(absent))
        check_fits(parts, device_memory())
        return
    if absent:
        raise UserError(_where_from(absent))
    runs = [out] if len(groups) == 1 else [out / "+".join(method.name for method in group) for group in groups]
    artefacts = line.artefacts if len(groups) == 1 else line.artefacts or out / "artefacts"
    options = Options(artefacts=artefacts, members_per_population=values.members_per_population)
    for group, run in zip(groups, runs, strict=True):
        api.train(names, run, seeds, values.preset, options, algorithm=group, budget=values.budget, **overrides)
    paths = write_literature_table(runs, out / "report")
    print(paths[0].read_text())
    print("\n".join(f"wrote {path}" for path in paths))


def groups_of(algorithms: Sequence[str], preset: str, names: Sequence[str]) -> list[list[Method]]:
    """The methods in groups that can share a run; see `contract.agreeing`.

    Args:
      algorithms: words; `all` for every method that has the preset.
      preset: that each of them has.
      names: names or paths of the datasets.

    Raises:
      UserError: there is no such method or preset.
    """
    own = [find_method(word) for word in algorithms if word != ALL]
    methods = dict.fromkeys([*(every_method(preset) if ALL in algorithms else ()), *own])
    if not methods:
        raise UserError(f"--algorithm: no method has --preset={preset}; see `jaxrl-srpo methods`")
    stems = [name if name in d4rl.known_names() else pathlib.Path(name).stem for name in names]
    return agreeing(list(methods), preset, [(stem, d4rl.family(stem)) for stem in stems])


def _where_from(absent: Sequence[str]) -> str:
    commands = "; ".join(f"jaxrl-srpo data download {name}" for name in absent)
    return f"not on this machine: {', '.join(absent)}; --download fetches them, as do: {commands}"


def _overrides(line: common.CommandLine) -> dict[str, Any]:
    given = {name: (line.values[name].value,) for name in ("episodes", "behavior_seeds", "critic_seeds")}
    return {name: values for name, values in ({"beta": line.betas} | given).items() if values not in ((), (0,), [])}


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, "Run directory; one that holds a part of this sweep is continued.")
    line.define_datasets(",".join(d4rl.PAPER))
    line.define_seeds("0:6")
    line.words("algorithm", ["srpo"], "Methods, see `jaxrl-srpo methods`; all: every one that has the preset.")
    line.text("preset", "paper", "See jaxrl-srpo train --help; each method has presets of its own.")
    line.define_budget()
    line.define_betas([], "Betas for all datasets; the preset's otherwise.")
    line.whole("episodes", 0, "Episodes of an evaluation; 0: the preset's.", 0)
    line.whole("behavior_seeds", 0, "Behavior models of a dataset that its seeds share; 0: each seed has its own.", 0)
    line.whole("critic_seeds", 0, "Critics likewise.", 0)
    line.define_artefacts()
    line.whole("members_per_population", 0, "Most members trained together; 0: all that can be.", 0)
    line.switch("download", "Fetch the data that are not here, first.")
    line.switch("dry_run", "Say what would be trained, and train nothing.")
    return line


if __name__ == "__main__":
    common.run(MODULE, main, continues=True)
