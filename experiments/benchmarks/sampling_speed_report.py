"""What `sampling_speed.py` found, as a table and a picture."""

import math
import pathlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods.srpo import PAPER_BETA
from jaxrl_srpo.report.published import Score, explain

from .. import common
from .machine import conditions

LOCOMOTION = tuple(name for name in PAPER_BETA if not name.startswith("antmaze"))
REFERENCE = "srpo"
"""The algorithm to which the others are compared."""
_REFERENCE_LABEL = "SRPO"
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#E69F00", "0.45")
_COMPARED = (1, 256)
# Fewer calls have no 99th percentile to speak of.
_ENOUGH_CALLS = 100
_MARKERS = "os^Dv"


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
      batch: observations acted on at once.
      host: from a NumPy array to a NumPy array.
      device: from an array on the device to one that is ready there; None if it never runs there.
      flop: matrix-product FLOP of one action.
      score: published mean over D4RL's nine locomotion sets; None for a variant.
    """

    method: str
    batch: int
    host: Latency
    device: Latency | None
    flop: int
    score: Score | None

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
    srpo = next(other for other in measurements if (other.method, other.batch) == (_REFERENCE_LABEL, one.batch))
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


def summarize(measurements: Sequence[Measurement], how: str) -> str:
    """`sampling_speed.md`; `how` is a sentence on sizes and repetitions."""
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
    ]
    return "\n".join(lines) + "\n"


def _sources(measurements: Sequence[Measurement]) -> list[str]:
    """What the published scores are and where they stand."""
    return explain({one.method: one.score for one in measurements if one.score is not None}.values())


def _latencies(batch: int, measurements: Sequence[Measurement]) -> list[str]:
    titles = [f"policy, batch {batch}", "median", "p99", "on the device", "p99", "times SRPO"]
    titles += ["MFLOP per action", "published score"]
    rows = []
    for one in (one for one in measurements if one.batch == batch):
        device = [_time(one.device.median), _time(one.device.p99)] if one.device else ["", ""]
        cells = [one.method, _time(one.host.median), _time(one.host.p99), *device]
        cells += [f"{ratio(one, measurements):,.1f}", f"{one.flop / 1e6:,.2f}"]
        rows.append([*cells, "" if one.score is None else one.score.short()])
    return common.markdown_table(titles, rows)


def _verdict(batch: int, measurements: Sequence[Measurement]) -> str:
    """How much longer than SRPO the others take, in one sentence."""
    rivals = [one for one in measurements if one.batch == batch and not one.method.startswith(_REFERENCE_LABEL)]
    if not rivals:
        return ""
    first, last = (pick(rivals, key=lambda one: ratio(one, measurements)) for pick in (min, max))
    return (
        f"At batch {batch} the others take {ratio(first, measurements):,.1f} ({first.method}) to "
        f"{ratio(last, measurements):,.0f} ({last.method}) times as long as SRPO."
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
        row: dict[str, str | int] = {"method": one.method, "batch": one.batch}
        row |= _csv_latency("host", one.host) | _csv_latency("device", one.device)
        row |= {"actions_per_second": f"{one.rate:.5g}", "mflop_per_action": f"{one.flop / 1e6:.6g}"}
        row |= {"published_score": "" if one.score is None else f"{one.score.mean:.1f}", "conditions": where}
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
    looks = _looks(measurements)
    first = min(one.batch for one in measurements)
    scored = [one for one in measurements if one.score is not None and one.batch == first]
    figure = Figure(figsize=(13.2 if scored else 6.6, 4.8), layout="constrained")
    *panels, rates = figure.subplots(1, 3 if scored else 1, squeeze=False)[0]
    for panel, cost, text in zip(panels, (_mflop, _milliseconds), ("MFLOP per action", "ms per call"), strict=False):
        _draw_scores(panel, scored, cost, looks)
        panel.set_xlabel(text if cost is _mflop else f"{text}, batch {first}")
    for name, look in looks.items():
        line = [one for one in measurements if one.method == name]
        rates.plot([one.batch for one in line], [one.rate for one in line], label=name, markersize=4, **look)
    rates.set(xlabel="batch", ylabel="actions per second", xscale="log", yscale="log")
    for panel in (*panels, rates):
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*rates.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    note = ["scores are published, costs are measured"] if scored else []
    figure.suptitle("\n".join([*textwrap.wrap(header(), 175 if scored else 90), *note]), fontsize=8)
    return figure


def _looks(measurements: Sequence[Measurement]) -> dict[str, dict[str, Any]]:
    """Color and marker of each policy."""
    names = dict.fromkeys(one.method for one in measurements)
    count = len(_COLORS)
    return {
        name: {"color": _COLORS[i % count], "marker": _MARKERS[i // count % len(_MARKERS)]}
        for i, name in enumerate(names)
    }


def _mflop(one: Measurement) -> float:
    return one.flop / 1e6


def _milliseconds(one: Measurement) -> float:
    return one.host.median * 1e3


def _draw_scores(
    panel: Axes,
    scored: Sequence[Measurement],
    cost: Callable[[Measurement], float],
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    """A point for each policy that has a published score."""
    for one in scored:
        assert one.score is not None
        panel.plot([cost(one)], [one.score.mean], markersize=8, linestyle="none", **looks[one.method])
    panel.set(xscale="log", ylabel="published score, mean of 9 locomotion sets")
    panel.margins(0.12)
