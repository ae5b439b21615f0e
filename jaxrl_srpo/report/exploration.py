"""Pictures of exploration: where states were visited, and how well over training."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.errors import UserError

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

_INK, _DPI = "#22262c", 110
# Two-sided 97.5% points of Student's t for 1 to 10 degrees of freedom; 1.96 from there on.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


class Curve(NamedTuple):
    """A quantity over training.

    Attributes:
      steps: [T] environment steps.
      values: [seeds, T].
    """

    steps: np.ndarray
    values: np.ndarray


def interval(values: np.ndarray) -> np.ndarray:
    """Half width of the 95% confidence interval of the mean over seeds, [seeds, ...] -> [...]; NaN for one seed."""
    seeds = len(values)
    if seeds < 2:
        return np.full(values.shape[1:], np.nan)
    t = _T[seeds - 2] if seeds - 2 < len(_T) else 1.96
    return t * values.std(axis=0, ddof=1) / np.sqrt(seeds)


def draw_heat_maps(
    rows: Mapping[str, Mapping[str, np.ndarray]], grid: Grid, reachable: np.ndarray, path: pathlib.Path
) -> None:
    """Draws a PNG of visits: one row per method, one panel per source of states, all on one scale.

    Color is the share of visits relative to a uniform distribution, on a logarithmic scale; black is never visited. A
    source without any visit is left white.

    Args:
      rows: counts [bins] by method and source; every method has the same sources.
      grid: the two-dimensional bins.
      reachable: bool [bins]; the others are left white.
      path: where the PNG goes.

    Raises:
      UserError: there is nothing to draw.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    from jaxrl_srpo.report.drawing import save

    if not rows:
        raise UserError("no visits to draw: pass at least one method")
    sources = list(next(iter(rows.values())))
    figure = Figure(figsize=(1.7 * len(sources) + 1.6, 1.7 * len(rows) + 0.4), layout="constrained")
    panels = figure.subplots(len(rows), len(sources), squeeze=False)
    norm, extent = LogNorm(0.03, 30.0), _extent(grid)
    for line, (method, counts) in zip(panels, rows.items(), strict=True):
        for panel, source in zip(line, sources, strict=True):
            share = counts[source] / max(counts[source].sum(), 1.0) * reachable.sum()
            known = reachable & counts[source].any()
            image = np.where(known, np.maximum(share, 1e-9), np.nan).reshape(grid.shape).T
            panel.imshow(image, cmap=_color_map(), norm=norm, origin="lower", extent=extent)
            panel.set(xticks=[], yticks=[])
            for spine in panel.spines.values():
                spine.set_visible(False)
        line[0].set_ylabel(method, color=_INK, fontsize=10)
    for panel, source in zip(panels[0], sources, strict=True):
        panel.set_title(source, color=_INK, fontsize=11)
    between = " " if len(rows) > 1 else "\n"
    bar = figure.colorbar(ScalarMappable(norm, _color_map()), ax=panels, shrink=min(1.0, 2.0 / len(rows)), pad=0.02)
    # On one line it is longer than a single row is high.
    bar.set_label(f"share of visits /{between}uniform share", color=_INK)
    save(figure, path, dpi=_DPI)


def draw_curves(curves: Mapping[str, Curve], label: str, ceiling: float, path: pathlib.Path) -> None:
    """Draws a PNG of means over seeds with 95% confidence intervals, a small panel per method with the others faint.

    Args:
      curves: by method.
      label: of the quantity, with its unit; it is not negative.
      ceiling: the largest value possible, drawn as a line.
      path: where the PNG goes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from jaxrl_srpo.report.drawing import save

    columns = min(4, len(curves))
    lines = -(-len(curves) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.4, 2.0 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for panel in list(panels.flat)[len(curves) :]:
        panel.set_axis_off()
    for panel, (method, curve) in zip(panels.flat, curves.items(), strict=False):
        for other in curves.values():
            panel.plot(other.steps, other.values.mean(0), color="#c9c9c9", linewidth=0.7)
        mean, half = curve.values.mean(0), np.nan_to_num(interval(curve.values))
        low, high = np.maximum(mean - half, 0.0), np.minimum(mean + half, ceiling)
        panel.fill_between(curve.steps, low, high, color="#0B6E99", alpha=0.22)
        panel.plot(curve.steps, mean, color="#0B6E99", linewidth=2.0)
        panel.axhline(ceiling, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
        panel.set_title(method, fontsize=9, color=_INK)
        panel.set_ylim(0.0, 1.05 * ceiling)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    # The lowest panel of every column, also where the last line is not full.
    for panel in list(panels.flat)[len(curves) - columns : len(curves)]:
        panel.tick_params(labelbottom=True)
    figure.supxlabel("environment steps", fontsize=9)
    figure.supylabel(label, fontsize=9)
    save(figure, path, dpi=_DPI)


def _extent(grid: Grid) -> Sequence[float]:
    (left, bottom), (columns, rows) = grid.low, grid.shape
    return (left, left + grid.width * columns, bottom, bottom + grid.width * rows)


def _color_map() -> "Colormap":
    import matplotlib as mpl

    return mpl.colormaps["magma"].with_extremes(bad="white", under="black")
