"""What `sampling_speed.py` found, as a table and a picture."""

import itertools
import math
import pathlib
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import common
from experiments.benchmarks.machine import conditions
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods.srpo import PAPER_BETA
from jaxrl_srpo.report.published import explain, published_average

LOCOMOTION = tuple(name for name in PAPER_BETA if not name.startswith("antmaze"))
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#E69F00", "0.45")
_COMPARED = (1, 256)
# Methods of figure 1 whose policy is a network of the size of SRPO's actor.
_SAME_NETWORK = ("TD3+BC", "IQL")
# Fewer calls have no 99th percentile to speak of.
_ENOUGH_CALLS = 100
_LABELS_BELOW = ("Diffuser", "QGPO", "TD3+BC")


class Latency(NamedTuple):
    """Seconds of single calls: median, 99th percentile (NaN of fewer than 100), and how many calls there were."""

    median: float
    p99: float
    calls: int

    @staticmethod
    def of(seconds: Sequence[float]) -> "Latency":
        """The latency of these calls."""
        p99 = float(np.percentile(seconds, 99)) if len(seconds) >= _ENOUGH_CALLS else math.nan
        return Latency(float(np.median(seconds)), p99, len(seconds))


class Measurement(NamedTuple):
    """A policy at one batch.

    Attributes:
      method: the policy.
      how: how it finds an action.
      batch: observations acted on at once.
      host: from a NumPy array to a NumPy array.
      device: from an array on the device to one that is ready there; None if it never runs there.
      flop: matrix-product FLOP of one action.
      score: published mean over D4RL's nine locomotion sets; None for a variant.
    """

    method: str
    how: str
    batch: int
    host: Latency
    device: Latency | None
    flop: int
    score: float | None

    @property
    def rate(self) -> float:
        """Actions per second, from host to host."""
        return self.batch / self.host.median


def header() -> str:
    """One line on machine, versions, precision and dispatch."""
    dispatch = "asynchronous" if jax.config.values["jax_cpu_enable_async_dispatch"] else "synchronous"
    on_cpu = jax.devices()[0].platform == "cpu"
    precision = jax.config.values["jax_default_matmul_precision"] or ("float32" if on_cpu else "JAX's default")
    return f"{conditions()}; matrix products {precision}" + (f"; {dispatch} dispatch" if on_cpu else "")


def ratio(one: Measurement, measurements: Sequence[Measurement]) -> float:
    """How many times SRPO's latency at the same batch it takes, from host to host."""
    srpo = next(other for other in measurements if (other.method, other.batch) == ("SRPO", one.batch))
    return one.host.median / srpo.host.median


def describe(one: Measurement, measurements: Sequence[Measurement]) -> str:
    """One line."""
    p99 = _time(one.host.p99) or "unknown"
    return (
        f"{one.method:20} batch {one.batch:6,}  {_time(one.host.median):>8} (p99 {p99}, "
        f"{one.host.calls:,} calls)  {one.rate:12,.0f} actions/s  {ratio(one, measurements):8,.1f} x SRPO"
    )


def _time(seconds: float) -> str:
    """Seconds with a unit that fits; empty for NaN."""
    if math.isnan(seconds):
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def summarize(measurements: Sequence[Measurement], how: str, notes: str) -> str:
    """`sampling_speed.md`; `how` is a sentence on sizes and repetitions, `notes` one on the policies."""
    lines = [
        "# Sampling speed",
        "",
        f"{header()}. {how}",
        "",
        "Latency of a call, work that starts and ends on the host and work that stays on the device (p99 blank: fewer "
        "than 100 calls); times SRPO compares medians from host to host at equal batch.",
    ]
    for batch in (batch for batch in _COMPARED if any(one.batch == batch for one in measurements)):
        lines += ["", *_latencies(batch, measurements), "", _verdict(batch, measurements)]
    lines += [
        "",
        "Actions per second, from host to host, one call after another (blank: left out):",
        "",
        *_rates(measurements),
        "",
        f"Published scores: means over D4RL's nine locomotion sets. {' '.join(_sources(measurements))}",
        "",
        notes,
    ]
    return "\n".join(lines) + "\n"


def _sources(measurements: Sequence[Measurement]) -> list[str]:
    """What the published scores are and where they stand."""
    names = dict.fromkeys([*(one.method for one in measurements if one.score is not None), *_SAME_NETWORK])
    return explain(average for name in names if (average := published_average(name, LOCOMOTION)))


def _latencies(batch: int, measurements: Sequence[Measurement]) -> list[str]:
    titles = ["policy", f"one action, batch {batch}", "median", "p99", "on the device", "p99", "times SRPO"]
    titles += ["MFLOP per action", "published score"]
    rows = []
    for one in (one for one in measurements if one.batch == batch):
        device = [_time(one.device.median), _time(one.device.p99)] if one.device else ["", ""]
        cells = [one.method, one.how, _time(one.host.median), _time(one.host.p99), *device]
        cells += [f"{ratio(one, measurements):,.1f}", f"{one.flop / 1e6:,.2f}"]
        rows.append([*cells, "" if one.score is None else f"{one.score:.1f}"])
    return common.markdown_table(titles, rows, words=2)


def _verdict(batch: int, measurements: Sequence[Measurement]) -> str:
    """How much sooner SRPO acts than the others, in one sentence."""
    rivals = [one for one in measurements if one.batch == batch and not one.method.startswith("SRPO")]
    if not rivals:
        return ""
    first, last = (pick(rivals, key=lambda one: ratio(one, measurements)) for pick in (min, max))
    return (
        f"At batch {batch} SRPO acts {ratio(first, measurements):,.0f} times ({first.method}) to "
        f"{ratio(last, measurements):,.0f} times ({last.method}) sooner than the diffusion policies."
    )


def _rates(measurements: Sequence[Measurement]) -> list[str]:
    batches = sorted({one.batch for one in measurements})
    rates = {(one.method, one.batch): f"{one.rate:,.0f}" for one in measurements}
    methods = dict.fromkeys(one.method for one in measurements)
    rows = [[method, *(rates.get((method, batch), "") for batch in batches)] for method in methods]
    return common.markdown_table(["policy", *(f"batch {batch:,}" for batch in batches)], rows)


def write_csv(measurements: Sequence[Measurement], path: pathlib.Path) -> None:
    """One line per measurement; the last column says where it was made."""
    where = header()
    rows = []
    for one in measurements:
        row: dict[str, str | int] = {"method": one.method, "how": one.how, "batch": one.batch}
        row |= _csv_latency("host", one.host) | _csv_latency("device", one.device)
        row |= {"actions_per_second": f"{one.rate:.5g}", "mflop_per_action": f"{one.flop / 1e6:.6g}"}
        row |= {"published_score": "" if one.score is None else f"{one.score:.1f}", "conditions": where}
        rows.append(row)
    write_atomically(path, common.format_csv(tuple(rows[0]), rows))


def _csv_latency(where: str, latency: Latency | None) -> dict[str, str]:
    columns = [f"{where}_median_us", f"{where}_p99_us", f"{where}_calls"]
    if latency is None:
        return dict.fromkeys(columns, "")
    p99 = "" if math.isnan(latency.p99) else f"{latency.p99 * 1e6:.5g}"
    return dict(zip(columns, (f"{latency.median * 1e6:.5g}", p99, str(latency.calls)), strict=True))


def draw(measurements: Sequence[Measurement]) -> Figure:
    """Published scores over the cost of an action, as figure 1 of the SRPO paper, and actions per second."""
    figure = Figure(figsize=(13.2, 4.8), layout="constrained")
    by_flop, by_time, rates = figure.subplots(1, 3)
    first = min(one.batch for one in measurements)
    scored = [one for one in measurements if one.score is not None]
    own = [one for one in scored if one.batch == first]
    _draw_scores(by_flop, own, [one.flop / 1e6 for one in own])
    by_flop.set_xlabel("MFLOP per action")
    _draw_scores(by_time, own, [one.host.median * 1e3 for one in own])
    by_time.set_xlabel(f"milliseconds per call, batch {first}")
    for color, method in zip(itertools.cycle(_COLORS), [one.method for one in own], strict=False):
        _draw_rates(rates, [one for one in scored if one.method == method], color)
    rates.set(xlabel="batch", ylabel="actions per second", xscale="log", yscale="log")
    rates.margins(x=0.25)
    for panel in (by_flop, by_time, rates):
        panel.spines[["top", "right"]].set_visible(False)
    note = f"scores are published, costs are measured; {' and '.join(_SAME_NETWORK)} act by networks of SRPO's size"
    figure.suptitle("\n".join([*textwrap.wrap(header(), 175), note]), fontsize=8)
    return figure


def _draw_scores(panel: Axes, own: Sequence[Measurement], costs: Sequence[float]) -> None:
    """A named point for each policy; hollow ones, at SRPO's cost, for those that were not measured."""
    points = [
        (one.method, cost, one.score, color)
        for one, cost, color in zip(own, costs, itertools.cycle(_COLORS), strict=False)
    ]
    averages = [(name, published_average(name, LOCOMOTION)) for name in _SAME_NETWORK]
    points += [(name, costs[0], average.mean, "white") for name, average in averages if average]
    for name, cost, score, color in points:
        assert score is not None
        panel.plot([cost], [score], "o", color=color, markeredgecolor="0.3", markersize=9)
        offset, align = (-7, "top") if name in _LABELS_BELOW else (7, "bottom")
        panel.annotate(name, (cost, score), (0, offset), textcoords="offset points", ha="center", va=align, fontsize=7)
    panel.set(xscale="log", ylabel="published score, mean of 9 locomotion sets", ylim=(72.0, 92.0))
    panel.margins(x=0.2)


def _draw_rates(panel: Axes, line: Sequence[Measurement], color: str) -> None:
    """One policy's line, with its name at the end."""
    panel.plot([one.batch for one in line], [one.rate for one in line], color=color, marker="o", markersize=3.5)
    end = (line[-1].batch, line[-1].rate)
    panel.annotate(line[-1].method, end, (5, 0), textcoords="offset points", va="center", fontsize=7)
