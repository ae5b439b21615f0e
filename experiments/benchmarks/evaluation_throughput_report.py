"""What `evaluation_throughput.py` found, as a table and a picture."""

import dataclasses
import pathlib
import statistics
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.runs.provenance import versions

from .. import common
from .machine import conditions

_COLORS = {
    "one model": "#0072B2",
    "Gymnasium in threads": "#56B4E9",
    "SyncVectorEnv": "0.6",
    "AsyncVectorEnv": "0.8",
}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One way to step one environment.

    Attributes:
      environment: Gymnasium id.
      what: who steps.
      count: copies stepped together.
      rates: environment steps per second, one per burst.
    """

    environment: str
    what: str
    count: int
    rates: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Median environment steps per second."""
        return statistics.median(self.rates)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A whole evaluation of a population.

    Attributes:
      environment: Gymnasium id.
      members: population size.
      episodes: episodes of each member.
      steps: environment steps of all episodes.
      construction: seconds to make the environments.
      seconds: from the resets to the last end.
      acting: seconds of those spent in the policies.
    """

    environment: str
    members: int
    episodes: int
    steps: int
    construction: float
    seconds: float
    acting: float

    def sentence(self) -> str:
        """All of it in one sentence."""
        return (
            f"Whole evaluation in {self.environment}, {self.members} members x {self.episodes} episodes: "
            f"{self.steps:,} steps in {self.seconds:.1f} s ({self.steps / self.seconds:,.0f} steps/s, policies "
            f"{self.acting:.1f} s of it), after {self.construction:.2f} s to make the environments."
        )


def header() -> str:
    """One line on machine and versions."""
    found = versions()
    names = [f"{name} {found[name]}" for name in ("mujoco", "gymnasium", "gymnasium-robotics") if name in found]
    return f"{conditions()}; {', '.join(names)}"


def describe(one: Measurement, beside: Sequence[Measurement]) -> str:
    """One line; the ratio is to SyncVectorEnv in the same environment."""
    return (
        f"{one.environment:18} {one.what:20} {one.count:4} copies {one.rate:10,.0f} steps/s "
        f"({min(one.rates):,.0f} to {max(one.rates):,.0f})  {one.rate / _sync(one, beside):5.2f} x SyncVectorEnv"
    )


def _sync(one: Measurement, measurements: Sequence[Measurement]) -> float:
    same = (one.environment, "SyncVectorEnv")
    return next(other.rate for other in measurements if (other.environment, other.what) == same)


def summarize(measurements: Sequence[Measurement], how: str, evaluation: Evaluation | None) -> str:
    """`evaluation_throughput.md`; `how` is a sentence on sizes and repetitions."""
    cells = []
    for one in measurements:
        spread = f"{min(one.rates):,.0f} to {max(one.rates):,.0f}"
        ratio = f"{one.rate / _sync(one, measurements):.2f}"
        cells.append([one.environment, one.what, f"{one.rate:,.0f}", spread, ratio])
    titles = ["environment", "stepped by", "steps/s", "spread", "ratio to SyncVectorEnv"]
    lines = ["# Throughput of evaluation", "", f"{header()}. {how}", ""]
    lines += common.markdown_table(titles, cells, words=2)
    lines += ["", evaluation.sentence()] if evaluation is not None else []
    return "\n".join(lines) + "\n"


def write_csv(measurements: Sequence[Measurement], path: pathlib.Path) -> None:
    """One line per measurement; the last column says where it was made."""
    where = header()
    rows = [
        {
            "environment": one.environment,
            "what": one.what,
            "count": one.count,
            "steps_per_second": one.rate,
            "slowest": min(one.rates),
            "fastest": max(one.rates),
            "conditions": where,
        }
        for one in measurements
    ]
    write_atomically(path, common.format_csv(tuple(rows[0]), rows))


def draw(measurements: Sequence[Measurement]) -> Figure:
    """Environment steps per second as bars, one panel per environment with a scale of its own."""
    names = list(dict.fromkeys(one.environment for one in measurements))
    bars = max(sum(one.environment == name for one in measurements) for name in names)
    figure = Figure(figsize=(7.2, len(names) * (0.45 + 0.27 * bars) + 0.6), layout="constrained")
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        _draw_bars(panel, [one for one in measurements if one.environment == name])
        panel.set_title(name, fontsize=10, loc="left", fontweight="bold")
    figure.supxlabel(
        f"environment steps per second, {measurements[0].count} copies (in brackets: times SyncVectorEnv)\n"
        "lines reach from the slowest to the fastest burst",
        fontsize=8,
    )
    figure.suptitle("\n".join(textwrap.wrap(header(), 110)), fontsize=8)
    return figure


def _draw_bars(panel: Axes, own: Sequence[Measurement]) -> None:
    places = range(len(own))
    longest = max(max(one.rates) for one in own)
    panel.barh(places, [one.rate for one in own], height=0.72, color=[_COLORS[one.what] for one in own])
    for place, one in zip(places, own, strict=True):
        panel.plot([min(one.rates), max(one.rates)], [place, place], color="0.2", linewidth=1.0)
        text = f"{one.rate:,.0f}  ({one.rate / _sync(one, own):.1f} x)"
        panel.text(max(one.rates) + 0.012 * longest, place, text, va="center", fontsize=8)
    panel.set_yticks(places, [one.what for one in own], fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(0.0, 1.22 * longest)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.tick_params(axis="x", labelsize=8)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right"]].set_visible(False)
