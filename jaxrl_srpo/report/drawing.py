"""What the pictures of runs share: style, colors, dashes, curves over seeds, legends."""

import io
import itertools
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.records import Evaluation

# Okabe and Ito's palette, which color-blind readers can tell apart; ordered values take viridis instead.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (9, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
)
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#4D4D4D",
    "axes.grid": True,
    "axes.labelcolor": "#262626",
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "xtick.color": "#4D4D4D",
    "xtick.labelsize": 9,
    "ytick.color": "#4D4D4D",
    "ytick.labelsize": 9,
}


class Look(NamedTuple):
    """How one curve is drawn and what the legend calls it."""

    label: str
    color: Any
    dashes: Any


# A curve by its beta and setting; each maps seeds to (steps [T], values [T]).
Key = tuple[float | None, str]
Curves = dict[Key, dict[int, tuple[np.ndarray, np.ndarray]]]


def save(figure: Figure, path: pathlib.Path, dpi: int = STYLE["savefig.dpi"]) -> None:
    """Writes the figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"optimize": True})
    write_atomically(path, buffer.getvalue())


def svg_of(figure: Figure) -> bytes:
    """The figure as SVG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # Without a salt, the names of clip paths are drawn by chance; without None, the file holds the date.
    with mpl.rc_context({**STYLE, "svg.hashsalt": "jaxrl-srpo"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def beta_colors(betas: Iterable[float | None]) -> dict[float | None, Any]:
    """A color for each beta, dark to light as beta grows; None stands for algorithms without a beta."""
    ordered = sorted({beta for beta in betas if beta is not None})
    # The light end of the map is too pale for lines on white.
    shades = (
        mpl.colormaps["viridis"](np.linspace(0.02, 0.82, len(ordered)))
        if len(ordered) > 1
        else np.array([[0.0, 0.47, 0.37, 1.0]])
    )
    return {None: PALETTE[0], **{beta: tuple(shade) for beta, shade in zip(ordered, shades, strict=False)}}


def dash_patterns(settings: Iterable[str]) -> dict[str, Any]:
    """A dash pattern for each setting."""
    return dict(zip(sorted(set(settings)), itertools.cycle(_DASHES), strict=False))


def curves_of(rows: Sequence[Evaluation]) -> Curves:
    """Scores by beta, setting and seed; of two evaluations at one step the later one counts."""
    points: dict[Key, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        points[row.beta, row.setting][row.seed][row.step] = row.mean
    return {key: {seed: to_line(values) for seed, values in seeds.items()} for key, seeds in points.items()}


def to_line(values: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Steps [T] in order and the values [T] at them."""
    steps = np.array(sorted(values))
    return steps, np.array([values[step] for step in steps])


def _stack(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps [T] that all lines have, and the values [lines, T] there.

    A mean over fewer lines would jump where a member of an unfinished run lags behind.
    """
    steps = lines[0][0]
    for others, _ in lines[1:]:
        steps = np.intersect1d(steps, others)
    return steps, np.stack([values[np.isin(own, steps)] for own, values in lines])


def draw_mean(panel: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray]], look: Look) -> tuple[np.ndarray, np.ndarray]:
    """Draws seeds as thin lines and their mean as a thick one; what has a single step is a dot.

    Args:
      panel: where to draw.
      lines: steps [T] and values [T] of each seed.
      look: of the curve.

    Returns:
      The steps [T] that all seeds have and the values [seeds, T] there.
    """
    if len(lines) > 1:
        for steps, values in lines:
            style: dict[str, Any] = {"linestyle": look.dashes, "linewidth": 0.7, "marker": _marker(steps)}
            panel.plot(steps, values, color=look.color, alpha=0.4, **style)
    steps, values = _stack(lines)
    # A diverged member has no numbers any more; the mean goes on over the others.
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0).sum(0), finite.sum(0)
    mean = np.divide(total, count, out=np.full(len(steps), np.nan), where=count > 0)
    style = {"linestyle": look.dashes, "linewidth": 2.0, "marker": _marker(steps)}
    panel.plot(steps, mean, color=look.color, label=look.label, **style)
    return steps, values


def _marker(steps: np.ndarray) -> str:
    """A line through a single point cannot be seen."""
    return "o" if len(steps) == 1 else ""


def format_steps(panel: Axes) -> None:
    """Updates as 20k or 1.5M."""
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=True))


def draw_legend(figure: Figure, panels: Iterable[Axes], dashes: dict[str, Any]) -> None:
    """One legend under all panels, each label once; settings get lines of their own."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            if label:
                handles.setdefault(label, handle)
    if len(dashes) > 1:
        for setting, pattern in dashes.items():
            label = setting.replace(";", ", ") or "default setting"
            handles[label] = Line2D([], [], color="#4D4D4D", linestyle=pattern, linewidth=2.0)
    if handles:
        # About 0.08 inches per letter and 0.7 per line sample, in rows of equal length.
        fitting = max(1, int(figure.get_figwidth() / (0.08 * max(map(len, handles)) + 0.7)))
        rows = -(-len(handles) // fitting)
        columns = -(-len(handles) // rows)
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
