"""A run in the terminal while other processes train it: progress, speed, scores, losses, and which members diverged."""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.monitor.status import Status, StatusReader
from jaxrl_srpo.report.records import Evaluation, beta_text
from jaxrl_srpo.report.table import METRIC_LABELS

# What a line of the table stands for, from one member to a whole stage; the first that fits the screen is shown.
_LEVELS = (
    ("stage", "dataset", "setting", "beta", "seed"),
    ("stage", "dataset", "setting", "beta"),
    ("stage", "dataset"),
    ("stage",),
)
# Title, header with its rule, caption, message and the cursor's line.
_OTHER_LINES = 8
# Least columns of a terminal that shows bars, and columns of an output that is no terminal.
_ROOMY, _WIDE = 120, 200


class _Line(NamedTuple):
    """One line of the table: its cells in the columns of the level, and the members that it stands for."""

    cells: tuple[str, ...]
    members: list[Status]


def watch(
    run_dir: str | os.PathLike[str], once: bool = False, interval: float = 2.0, methods: Sequence[Method] = ()
) -> None:
    """Shows a run until interrupted; prints one snapshot of all members if standard output is no terminal.

    Args:
      run_dir: run directory.
      once: show one snapshot and return.
      interval: seconds between two looks at the files.
      methods: methods of a user's own that the run holds members of.

    Raises:
      UserError: not a run directory, or a file in it is damaged when watching begins.
    """
    reader = StatusReader(run_dir, methods)
    statuses = reader.read()
    console = Console()
    if once or not console.file.isatty():
        # A file or a pipe has no width that lines would have to fit.
        console = console if console.file.isatty() else Console(width=_WIDE)
        console.print(render(str(run_dir), statuses, time.time(), bars=console.width >= _ROOMY))
        return
    problem = ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            height, bars = console.height - _OTHER_LINES, console.width >= _ROOMY
            view = render(str(run_dir), statuses, time.time(), height, bars, problem)
            live.update(view, refresh=True)
            time.sleep(interval)
            try:
                statuses, problem = reader.read(), ""
            except UserError as error:
                problem = f"{error}; the last state that could be read is shown"


def render(
    run_dir: str,
    statuses: Sequence[Status],
    now: float,
    height: int | None = None,
    bars: bool = True,
    problem: str = "",
) -> Group:
    """A table with one line per stage and member, or per group of them where there are more lines than `height`.

    Args:
      run_dir: its title.
      statuses: stages of members, in order.
      now: seconds since the epoch.
      height: lines that the table may have; None has no limit.
      bars: draw progress as bars too.
      problem: a message below it.
    """
    level, lines = _lines(statuses, height)
    shown = [i for i in range(len(level)) if any(line.cells[i] for line in lines)]
    grouped = any(len(line.members) > 1 for line in lines)
    table = _empty_table([level[i] for i in shown] + (["members"] if grouped else []), bars)
    for line in lines:
        names = [line.cells[i] for i in shown] + ([str(len(line.members))] if grouped else [])
        bar = [_bar(line.members)] if bars else []
        table.add_row(*names, *bar, *_cells(line.members, now), style=_style(line.members))
    caption = Text(_caption(statuses, grouped), style="dim", no_wrap=True, overflow="ellipsis")
    message = [Text(problem, style="red")] if problem else []
    return Group(_title(run_dir, statuses), table, caption, *message)


def _empty_table(names: Sequence[str], bars: bool) -> Table:
    """A table without rows: columns that name members, then what they are doing."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in names:
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if name == "members" else "left")
    if bars:
        table.add_column("", width=12)
    for title in ("progress", "updates/s", "score"):
        table.add_column(title, justify="right", no_wrap=True)
    # The one column that may be cut where the terminal is narrow.
    table.add_column("losses", min_width=6)
    table.add_column("last row", justify="right", no_wrap=True, min_width=8)
    return table


def _lines(statuses: Sequence[Status], height: int | None) -> tuple[tuple[str, ...], list[_Line]]:
    """The finest level whose lines fit, and those lines."""
    for level in _LEVELS:
        groups: dict[tuple[str, ...], list[Status]] = {}
        for status in statuses:
            names = status.result._asdict() | {"beta": beta_text(status.result.beta)}
            cells = tuple(str(names[column]) for column in level)
            groups.setdefault(cells, []).append(status)
        if height is None or len(groups) <= height:
            break
    return level, [_Line(cells, members) for cells, members in groups.items()]


def _bar(members: Sequence[Status]) -> ProgressBar:
    return ProgressBar(sum(status.total for status in members), sum(status.step for status in members))


def _cells(members: Sequence[Status], now: float) -> list[Text]:
    """Progress, speed, scores, losses and age of some members."""
    # Members of one population all report its speed; where there are several populations the fastest is shown.
    rates = [status.updates_per_second for status in members if status.updates_per_second is not None]
    written = [status.written for status in members if status.written is not None and not status.finished]
    return [
        Text(_progress(members)),
        Text(f"{max(rates):,.0f}" if rates else ""),
        Text(_scores([status.evaluation for status in members if status.evaluation is not None])),
        Text(_losses(members), no_wrap=True, overflow="ellipsis"),
        Text(f"{_duration(now - max(written))} ago" if written else ""),
    ]


def _progress(members: Sequence[Status]) -> str:
    done, total = sum(status.step for status in members), sum(status.total for status in members)
    diverged = sum(status.diverged for status in members)
    # Rounded down, so that 100% is never said of what is not finished.
    finished = all(status.finished for status in members)
    text = f"{100 * done // total}%" if done else "evaluated" if finished else "waiting"
    if not_trained := sum(status.not_trained for status in members):
        text = "not trained" if not_trained == len(members) else f"{text}, {not_trained} not trained"
    if not diverged:
        return text
    return f"{text}, {diverged} diverged" if len(members) > 1 else f"{text}, diverged"


def _scores(evaluations: Sequence[Evaluation]) -> str:
    """The last score; of several members in one metric their mean, lowest and highest."""
    if len({evaluation.metric for evaluation in evaluations}) != 1:
        return ""
    values = [evaluation.mean for evaluation in evaluations]
    digits = 3 if evaluations[0].metric == "success_rate" else 1
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def _losses(members: Sequence[Status]) -> str:
    """Last losses, averaged over the members, `value_loss` as `value`; without a plain `loss`, which is their sum."""
    measured = list(dict.fromkeys(name for status in members for name in status.values if name.endswith("loss")))
    names = [name for name in measured if name.endswith("_loss")] or measured
    means = {name: np.mean([status.values[name] for status in members if name in status.values]) for name in names}
    return "  ".join(f"{name.removesuffix('_loss')} {mean:.4g}" for name, mean in means.items())


def _duration(seconds: float) -> str:
    """Rounded down to the largest unit; clocks of machines that share a file may differ, so never below 0."""
    whole = max(int(seconds), 0)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    return next((f"{whole // size} {unit}" for size, unit in units if whole >= size), f"{whole} s")


def _style(members: Sequence[Status]) -> str:
    if any(status.diverged for status in members):
        return "red"
    if all(status.finished for status in members):
        return "green"
    return "" if any(status.step for status in members) else "dim"


def _title(run_dir: str, statuses: Sequence[Status]) -> Text:
    finished, diverged = sum(status.finished for status in statuses), sum(status.diverged for status in statuses)
    text = Text(no_wrap=True, overflow="ellipsis").append(run_dir, style="bold")
    text.append(f"  {finished} of {len(statuses)} stages of members finished")
    if not_trained := sum(status.not_trained for status in statuses):
        text.append(f", {not_trained} not trained", style="bold red")
    return text.append(f", {diverged} diverged", style="bold red") if diverged else text


def _caption(statuses: Sequence[Status], grouped: bool) -> str:
    metrics = sorted({status.evaluation.metric for status in statuses if status.evaluation is not None})
    score = f"score: last {' or '.join(METRIC_LABELS.get(metric, metric) for metric in metrics)}" if metrics else ""
    several = "mean (lowest to highest) of several members" if grouped and metrics else ""
    return "; ".join(part for part in ("updates/s: of the whole population", score, several) if part)
