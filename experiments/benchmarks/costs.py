"""What scores cost: the score of every method of a run against its time of training and its time of acting.

    jaxrl-srpo train --algorithm=all --datasets=hopper_medium-regen.hdf5 --seeds=0:4 --out=runs/all
    python -m experiments.benchmarks.costs --run=runs/all --out=docs/results/costs

Training counts all stages that a policy needs, by the speed that `metrics.csv` of that run has: a member's share of
its population's time. Acting is timed here, with the trained policies in turn.
"""

import itertools
import math
import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.report.drawing import PALETTE, STYLE, save
from jaxrl_srpo.report.records import DATA, Result, read_metrics
from jaxrl_srpo.report.rows import Row, collect
from jaxrl_srpo.report.table import METRIC_LABELS
from jaxrl_srpo.runs.acting import HostAct, act_on_host
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from jaxrl_srpo.runs.sweep import Member, stages_of, unique
from jaxrl_srpo.runs.workers import own_methods

from .. import common
from .sampling_speed import random_observations, time_calls
from .sampling_speed_report import Latency, header

MODULE = "benchmarks.costs"
DESCRIPTION = "Times the policies of runs and writes DIRECTORY/costs.csv, .md and .png."

NAME = "costs"
MANY = 256
"""Observations acted on at once, besides a single one."""
_MARKERS = "osD^vP*Xhp"
_MEAN = "mean of all"


class Cost(NamedTuple):
    """A method on a dataset, by its best setting.

    Attributes:
      dataset: the dataset's name, or `_MEAN`.
      algorithm: as in `evaluations.csv`.
      label: what tables call it.
      metric: of the score.
      setting: the setting, beta among it.
      seeds: number of them.
      score: mean over seeds of each seed's last evaluation.
      std: sample standard deviation over seeds.
      stages: seconds of training for one policy, by stage.
      one: seconds of acting on one observation, from host to host.
      many: seconds of acting on `MANY` observations at once.
    """

    dataset: str
    algorithm: str
    label: str
    metric: str
    setting: str
    seeds: int
    score: float
    std: float
    stages: dict[str, float]
    one: Latency
    many: Latency

    @property
    def training(self) -> float:
        """Seconds of training for one policy."""
        return sum(self.stages.values())


class Timed(NamedTuple):
    """A policy, and the seconds of its calls on one observation and on `MANY`."""

    act: HostAct
    observations: tuple[np.ndarray, np.ndarray]
    seconds: tuple[list[float], list[float]]

    def turn(self, seconds: float) -> None:
        """Acts for `seconds` on each."""
        for given, taken in zip(self.observations, self.seconds, strict=True):
            taken += time_calls(lambda given=given: self.act(given), seconds)  # type: ignore[misc]


def training_seconds(run_dirs: Sequence[pathlib.Path]) -> dict[Result, float]:
    """Seconds that every stage of every member trained: its share of its population's time.

    Where a stage stands in several runs, the first one counts.
    """
    found: dict[Result, float] = {}
    for path in run_dirs:
        own: dict[Result, float] = {}
        steps: dict[Result, int] = {}
        for row in read_metrics(path):
            if row.updates_per_second:
                # The speed is that of all members together.
                updates = row.step - steps.get(row.result, 0)
                own[row.result] = own.get(row.result, 0.0) + updates / row.updates_per_second
            steps[row.result] = row.step
        found = own | found
    return found


def needed(stage: Stage) -> list[Stage]:
    """A stage after all that it needs, each once."""
    return list(dict.fromkeys([*(one for earlier in stage.needs for one in needed(earlier)), stage]))


def best_rows(run_dir: pathlib.Path) -> list[Row]:
    """The finished row of the highest mean of every dataset and offline algorithm."""
    best: dict[tuple[str, str], Row] = {}
    for row in collect(run_dir):
        if row.algorithm == DATA or row.online or row.unfinished or not math.isfinite(row.mean):
            continue
        key = (row.dataset, row.algorithm)
        if key not in best or row.mean > best[key].mean:
            best[key] = row
    return list(best.values())


def measure(
    run_dirs: Sequence[pathlib.Path],
    seconds: float,
    rounds: int,
    artefacts: pathlib.Path | None = None,
    algorithm: Sequence[str] = (),
    log: Callable[[str], None] = print,
) -> list[Cost]:
    """Costs of all methods of some runs; one that several hold counts where it comes first.

    Args:
      run_dirs: run directories.
      seconds: how long each policy acts on one observation, and again on many.
      rounds: turns that these seconds are taken in, so that all policies see the same machine.
      artefacts: directory of finished stages, if the runs used a shared one.
      algorithm: methods of a user's own that the runs hold.
      log: receives messages.

    Raises:
      UserError: one is no run directory, or no method of theirs is finished.
    """
    trained = training_seconds(run_dirs)
    found: dict[tuple[str, str], tuple[Row, dict[str, float], Timed]] = {}
    for path in run_dirs:
        run = RunDirectory(path, artefacts, own_methods(algorithm))
        members = run.members()
        stages = {stage.algorithm: stage for stage in stages_of(members) if stage.acts}
        for row in best_rows(path):
            key, stage = (row.dataset, row.algorithm), stages.get(row.algorithm)
            if stage is None or key in found:
                continue
            own = [one for one in unique(members, stage) if _is_of(one, stage, row) and run.has_result(stage, one)]
            times = [_times(member, stage, trained) for member in own]
            if not own or not all(times):
                log(f"{row.dataset}: {row.title} is left out, not all of its stages are timed and finished")
                continue
            mean = {name: float(np.mean([one[name] for one in times])) for name in times[0]}
            found[key] = (row, mean, _timed(run, stage, own[0]))
    if not found:
        raise UserError(f"{', '.join(map(str, run_dirs))}: no method of theirs is finished and evaluated")
    # Compiles.
    for _, _, timed in found.values():
        timed.turn(0.0)
        for calls in timed.seconds:
            calls.clear()
    for _ in range(rounds):
        for _, _, timed in found.values():
            timed.turn(seconds / rounds)
    return [_cost(*one) for one in found.values()]


def _is_of(member: Member, stage: Stage, row: Row) -> bool:
    result = member.result(stage)
    return (result.dataset, result.setting, result.beta) == (row.dataset, row.setting, row.beta)


def _times(member: Member, stage: Stage, trained: dict[Result, float]) -> dict[str, float]:
    """Seconds of training by stage; empty if some are not known."""
    results = {one.name: member.result(one) for one in needed(stage)}
    known = all(result in trained for result in results.values())
    return {name: trained[result] for name, result in results.items()} if known else {}


def _timed(run: RunDirectory, stage: Stage, member: Member) -> Timed:
    policy = stage.make_policy(member.settings, member.spec, load_result(run, stage, member))
    observations = (random_observations(1, member.spec), random_observations(MANY, member.spec))
    return Timed(act_on_host(policy, stage.act), observations, ([], []))


def _cost(row: Row, stages: dict[str, float], timed: Timed) -> Cost:
    beta = "" if row.beta is None else f"beta={row.beta:g}"
    return Cost(
        dataset=row.dataset,
        algorithm=row.algorithm,
        label=row.title,
        metric=row.metric,
        setting=";".join(part for part in (beta, row.setting) if part),
        seeds=row.seeds or 0,
        score=row.mean,
        std=row.std,
        stages=stages,
        one=Latency.of(timed.seconds[0]),
        many=Latency.of(timed.seconds[1]),
    )


def averages(costs: Sequence[Cost]) -> list[Cost]:
    """The means over datasets of the algorithms that have all of them; none of a single dataset."""
    datasets = list(dict.fromkeys(one.dataset for one in costs))
    if len(datasets) == 1 or len({one.metric for one in costs}) > 1:
        return []
    means = []
    for algorithm in dict.fromkeys(one.algorithm for one in costs):
        own = [one for one in costs if one.algorithm == algorithm]
        if len(own) == len(datasets):
            means.append(_average(own))
    return means


def _average(own: Sequence[Cost]) -> Cost:
    def latency(each: Sequence[Latency]) -> Latency:
        return Latency(float(np.mean([one.median for one in each])), math.nan, sum(one.calls for one in each))

    return own[0]._replace(
        dataset=_MEAN,
        setting="",
        seeds=min(one.seeds for one in own),
        score=float(np.mean([one.score for one in own])),
        std=math.nan,
        stages={name: float(np.mean([one.stages[name] for one in own])) for name in own[0].stages},
        one=latency([one.one for one in own]),
        many=latency([one.many for one in own]),
    )


def draw(costs: Sequence[Cost]) -> Figure:
    """Score against seconds of training and against the time of one action, a row for each dataset."""
    everything = [*averages(costs), *costs]
    datasets = list(dict.fromkeys(one.dataset for one in everything))
    algorithms = list(dict.fromkeys((one.algorithm, one.label) for one in everything))
    looks = dict(zip(algorithms, zip(itertools.cycle(PALETTE), itertools.cycle(_MARKERS), strict=False), strict=False))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 0.8 + 3.4 * len(datasets)), layout="constrained")
        panels = figure.subplots(len(datasets), 2, squeeze=False, sharey="row")
        for dataset, (training, acting) in zip(datasets, panels, strict=True):
            own = [one for one in everything if one.dataset == dataset]
            for one in own:
                look = looks[one.algorithm, one.label]
                _draw_point(training, one.training, one, look)
                _draw_point(acting, 1e3 * one.one.median, one, look)
            training.set(title=dataset, ylabel=METRIC_LABELS.get(own[0].metric, own[0].metric))
            for panel in (training, acting):
                panel.set_xscale("log")
                panel.margins(x=0.15, y=0.15)
        panels[-1][0].set_xlabel("seconds of training for one policy, all stages")
        panels[-1][1].set_xlabel("milliseconds to act on one observation")
        handles = {label: handle for row in panels for panel in row for handle, label in _entries(panel)}
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
        figure.suptitle("\n".join(textwrap.wrap(header(), 140)), fontsize=8)
    return figure


def _entries(panel: Axes) -> list[tuple[Any, str]]:
    return list(zip(*panel.get_legend_handles_labels(), strict=True))


def _draw_point(panel: Axes, cost: float, one: Cost, look: tuple[str, str]) -> None:
    color, marker = look
    bars = None if math.isnan(one.std) or one.seeds < 2 else one.std
    panel.errorbar([cost], [one.score], yerr=bars, fmt=marker, color=color, markersize=8, capsize=3, label=one.label)


def to_csv(costs: Sequence[Cost]) -> str:
    """One row per dataset and method."""
    rows = [
        {
            "dataset": one.dataset,
            "algorithm": one.algorithm,
            "metric": one.metric,
            "setting": one.setting,
            "seeds": one.seeds,
            "score": one.score,
            "std": one.std,
            "training_seconds": one.training,
            "training_stages": ";".join(f"{name}={seconds:.5g}" for name, seconds in one.stages.items()),
            "acting_us": 1e6 * one.one.median,
            "acting_p99_us": None if math.isnan(one.one.p99) else 1e6 * one.one.p99,
            f"acting_{MANY}_us": 1e6 * one.many.median,
        }
        for one in costs
    ]
    return common.format_csv(list(rows[0]), rows)


def to_markdown(costs: Sequence[Cost]) -> str:
    """The table, cheapest training first."""
    titles = ["dataset", "method", "score", "training", "of which", "act on one", f"act on {MANY}"]
    cells = []
    for one in sorted(costs, key=lambda one: (one.dataset, one.training)):
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in one.stages.items())
        score = common.mean_cell([one.score], one.std if one.seeds > 1 else math.nan, 1)
        times = [f"{1e3 * one.one.median:.3g} ms", f"{1e3 * one.many.median:.3g} ms"]
        cells.append([one.dataset, one.label, score, f"{one.training:.0f} s", parts, *times])
    text = [
        "# What scores cost",
        "",
        f"{header()}. Training: a policy's share of the time of its populations, all stages that it needs, by the "
        "speed in metrics.csv of the run, evaluations apart. Acting: median over calls from host to host of the "
        "trained policies, in turn. Scores are those of each seed's last evaluation, of the best setting where a "
        "method has several.",
        "",
        *common.markdown_table(titles, cells, words=2),
    ]
    return "\n".join(text) + "\n"


def main(arguments: Sequence[str]) -> list[Cost]:
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
    run_dirs = [pathlib.Path(word) for word in values.run or ()]
    if not run_dirs:
        raise UserError("--run: is required; give run directories, comma-separated")
    costs = measure(run_dirs, values.seconds, values.rounds, line.artefacts, values.algorithm)
    write_atomically(out / f"{NAME}.csv", to_csv(costs))
    write_atomically(out / f"{NAME}.md", to_markdown([*averages(costs), *costs]))
    save(draw(costs), out / f"{NAME}.png")
    print((out / f"{NAME}.md").read_text())
    print(f"wrote {out / NAME}.csv, .md and .png")
    return costs


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, required="--run=RUN_DIR,...")
    line.words("run", None, "Run directories, comma-separated.")
    line.words("algorithm", [], "Methods of your own that the runs hold, as package.module:METHOD.")
    line.number("seconds", 1.0, "How long each policy acts on one observation, and again on many.", 0.0)
    line.whole("rounds", 5, "Turns that these seconds are taken in.", 1)
    line.define_artefacts()
    return line


if __name__ == "__main__":
    common.run(MODULE, main)
