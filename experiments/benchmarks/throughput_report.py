"""What `throughput.py` found, as a table, a picture and an extrapolation to the whole published protocol."""

import dataclasses
import itertools
import math
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.methods.contract import Stage, preset_values
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.methods.srpo import PAPER_BETA
from jaxrl_srpo.types import Spec

from .. import common
from .machine import conditions

PROTOCOL_SEEDS = 6

UpdateFlop = Callable[[Stage, Values, Spec], int]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One stage at one population size.

    Attributes:
      stage: its name.
      what: `jax`, `torch eager` or `torch compiled`.
      precision: precision of matrix products.
      strategy: how members are batched; empty for PyTorch.
      members: population size; PyTorch trains one member in turns with a population of this size.
      batch_size: batch size of one member's update.
      rates: member-updates per second, one per burst.
      flop: matrix-product FLOP of one member-update.
      limit: FLOP per second of a large matrix product in this process, device and precision.
      compile_seconds: tracing and compiling; NaN for PyTorch.
      memory: bytes on all devices while a chunk runs, the table included; NaN for PyTorch.
    """

    stage: str
    what: str
    precision: str
    strategy: str
    members: int
    batch_size: int
    rates: tuple[float, ...]
    flop: float
    limit: float
    compile_seconds: float = math.nan
    memory: float = math.nan

    @property
    def rate(self) -> float:
        """Median member-updates per second."""
        return statistics.median(self.rates)

    @property
    def fraction(self) -> float:
        """Share of the matrix-product rate that training reaches."""
        return self.rate * self.flop / self.limit

    def row(self) -> dict[str, str | int]:
        """As a line of `throughput.csv`."""
        return {
            "stage": self.stage,
            "what": self.what,
            "precision": self.precision,
            "strategy": self.strategy,
            "members": self.members,
            "batch_size": self.batch_size,
            "member_updates_per_second": f"{self.rate:.5g}",
            "slowest": f"{min(self.rates):.5g}",
            "fastest": f"{max(self.rates):.5g}",
            "gflop_per_member_update": f"{self.flop / 1e9:.5g}",
            "gflop_per_second": f"{self.rate * self.flop / 1e9:.5g}",
            "matrix_product_gflop_per_second": f"{self.limit / 1e9:.5g}",
            "fraction": f"{self.fraction:.4f}",
            "compile_seconds": "" if math.isnan(self.compile_seconds) else f"{self.compile_seconds:.2f}",
            "memory_mib": "" if math.isnan(self.memory) else f"{self.memory / 2**20:.0f}",
        }


class Estimate(NamedTuple):
    """Time of the whole published protocol; `limit` is what the matrix-product rate alone would allow."""

    precision: str
    hours: dict[str, float]
    limit: float


def protocol(measurements: Sequence[Measurement], update_flop: UpdateFlop) -> list[Estimate]:
    """15 datasets x 6 seeds of preset `paper`, extrapolated from the fastest size of each stage.

    Other problem sizes are taken to run at the same FLOP per second; the networks differ in their first and last
    layers only. Evaluation is not in it.
    """
    stages = {stage.name: stage for stage in srpo.METHOD.stages}
    estimates = []
    for precision in dict.fromkeys(one.precision for one in measurements):
        own = [one for one in measurements if one.what == "jax" and one.precision == precision]
        hours: dict[str, float] = {}
        limit = 0.0
        for name in dict.fromkeys(one.stage for one in own):
            best = max((one for one in own if one.stage == name), key=lambda one: one.rate)
            flop = _protocol_flop(stages[name], update_flop)
            hours[name] = flop / (best.rate * best.flop) / 3600.0
            limit += flop / best.limit / 3600.0
        estimates.append(Estimate(precision, hours, limit))
    return estimates


def _protocol_flop(stage: Stage, update_flop: UpdateFlop) -> float:
    total = 0.0
    for name in PAPER_BETA:
        maze = name.startswith("antmaze")
        settings = preset_values([srpo.METHOD], "paper", name, "antmaze" if maze else "locomotion")
        spec = Spec(29, 8) if maze else Spec(11, 3) if name.startswith("hopper") else Spec(17, 6)
        total += PROTOCOL_SEEDS * stage.steps(settings) * update_flop(stage, settings, spec)
    return total


def summarize(measurements: Sequence[Measurement], how: str, estimates: Sequence[Estimate]) -> str:
    """`throughput.md`; `how` is a sentence on shapes and repetitions."""
    header = ["stage", "precision", "strategy", "members", "member-updates/s", "spread", "GFLOP/s", "share"]
    header += ["compile s", "memory MiB", "PyTorch eager", "ratio", "PyTorch compiled", "ratio"]
    rows = [_cells(one, measurements) for one in measurements if one.what == "jax"]
    table = common.markdown_table(header, rows, words=3)
    lines = [
        "# Throughput",
        "",
        f"{conditions()}. {how} The share is of a large matrix product timed in the same process.",
        "",
        *table,
        "",
        *(describe(estimate) for estimate in estimates),
    ]
    return "\n".join(lines) + "\n"


def _cells(one: Measurement, measurements: Sequence[Measurement]) -> list[str]:
    cells = [
        one.stage,
        one.precision,
        one.strategy,
        str(one.members),
        f"{one.rate:,.1f}",
        f"{min(one.rates):,.1f} to {max(one.rates):,.1f}",
        f"{one.rate * one.flop / 1e9:,.1f}",
        f"{one.fraction:.0%}",
        f"{one.compile_seconds:.1f}",
        f"{one.memory / 2**20:,.0f}",
    ]
    for rival in ("eager", "compiled"):
        same = (one.stage, one.precision, one.members)
        beside = [
            other
            for other in measurements
            if other.what == f"torch {rival}" and (other.stage, other.precision, other.members) == same
        ]
        cells += [f"{beside[0].rate:,.1f}", f"{one.rate / beside[0].rate:.2f}"] if beside else ["", ""]
    return cells


def describe(estimate: Estimate) -> str:
    """One sentence."""
    parts = ", ".join(f"{name} {hours:,.1f} h" for name, hours in estimate.hours.items())
    return (
        f"Whole published protocol ({len(PAPER_BETA)} datasets x {PROTOCOL_SEEDS} seeds) in {estimate.precision}, "
        f"extrapolated from the fastest sizes: {sum(estimate.hours.values()):,.1f} h ({parts}); at the "
        f"matrix-product rate it would take {estimate.limit:,.1f} h. Evaluation is not included."
    )


def write_csv(measurements: Sequence[Measurement], path: pathlib.Path) -> None:
    """One line per measurement; the last column says where it was made."""
    rows = [one.row() | {"conditions": conditions()} for one in measurements]
    write_atomically(path, common.format_csv(tuple(rows[0]), rows))


_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(measurements: Sequence[Measurement]) -> Figure:
    """Member-updates per second over the population size, one panel per stage."""
    stages = list(dict.fromkeys(one.stage for one in measurements))
    figure = Figure(figsize=(4.2 * len(stages), 3.6), layout="constrained")
    panels = figure.subplots(1, len(stages), squeeze=False)[0]
    kinds = list(dict.fromkeys((one.what, one.precision, one.strategy) for one in measurements))
    for panel, name in zip(panels, stages, strict=True):
        own = [one for one in measurements if one.stage == name]
        for color, kind in zip(itertools.cycle(_COLORS), kinds, strict=False):
            line = [one for one in own if (one.what, one.precision, one.strategy) == kind]
            if line:
                _draw_line(panel, line, color, " ".join(part for part in kind if part and part != "auto"))
        panel.axhline(own[0].limit / own[0].flop, color="0.6", linestyle=":", label="matrix products alone")
        panel.set_title(f"{name}, batch {own[0].batch_size}", fontsize=10)
        panel.set_xlabel("members")
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted({one.members for one in own}))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.set_ylim(bottom=0.0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("member-updates per second")
    panels[0].legend(fontsize=7, frameon=False)
    figure.suptitle(conditions(), fontsize=8)
    return figure


def _draw_line(panel: Axes, line: Sequence[Measurement], color: str, label: str) -> None:
    members = [one.members for one in line]
    panel.plot(members, [one.rate for one in line], color=color, marker="o", markersize=3.5, label=label)
    panel.fill_between(
        members, [min(one.rates) for one in line], [max(one.rates) for one in line], color=color, alpha=0.2, linewidth=0
    )
