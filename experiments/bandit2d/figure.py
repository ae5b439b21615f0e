"""The picture of a bandit's policies: panels (a) to (e) of figure 3 of SRPO (arXiv 2310.07297)."""

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

INVERSE_BETAS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TARGETS_PER_SIDE = 7

_DATA = "#0B4F8A"
_FAINT = ListedColormap(mpl.colormaps["Greys"](np.linspace(0.0, 0.42, 128)))
_IMAGE: dict[str, Any] = {"origin": "lower", "extent": (-1.0, 1.0, -1.0, 1.0), "vmin": 0.0}
_STYLE: Any = {
    "axes.edgecolor": "#8C8C8C",
    "axes.linewidth": 0.8,
    "axes.titlesize": 12,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "legend.fontsize": 9,
    "mathtext.fontset": "dejavusans",
    "ytick.labelsize": 9,
}
_WITHOUT, _WITH = "#D55E00", "#0072B2"


class Result(NamedTuple):
    """What is known about one distribution; K is the number of temperatures.

    Attributes:
      name: name of the distribution.
      samples: [n, 2] that no model was trained on.
      density: [resolution, resolution] of the diffusion model over [-1, 1]^2, rows are y.
      actions: [49, K, 2] of the policies.
      log_density: [49, K] of the diffusion model at the policies, in nats.
      threshold: the log-density that 95% of `samples` exceed; a policy above it counts as on the data manifold.
    """

    name: str
    samples: np.ndarray
    density: np.ndarray
    actions: np.ndarray
    log_density: np.ndarray
    threshold: float


def targets() -> np.ndarray:
    """The best actions [49, 2] of all Qs, row by row from the lower left."""
    side = np.linspace(-0.9, 0.9, TARGETS_PER_SIDE, dtype=np.float32)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)


def draw(result: Result) -> Figure:
    """The paper's figure (a) to (e) of one distribution."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13.0, 3.2), layout="constrained")
        panels = figure.subplots(1, 5)
        titles = (
            "behavior samples",
            "diffusion density",
            r"49 critics $-|a-a^*|^2$",
            "policies",
            r"path over $1/\beta$",
        )
        for panel, letter, title in zip(panels, "abcde", titles, strict=True):
            panel.set_title(f"({letter}) {title}")
            panel.set(xlim=(-1.0, 1.0), ylim=(-1.0, 1.0), aspect="equal", xticks=[], yticks=[])
        panels[0].scatter(*result.samples.T, s=3.0, color=_DATA, alpha=0.6, linewidths=0)
        panels[1].imshow(result.density, cmap="Blues", interpolation="bicubic", **_IMAGE)
        _draw_critics(panels[2])
        for panel in panels[3:]:
            panel.imshow(np.sqrt(result.density), cmap=_FAINT, interpolation="bicubic", **_IMAGE)
        _draw_arrows(panels[3], result.actions)
        _draw_paths(figure, panels[4], result.actions)
        return figure


def _draw_critics(panel: Axes) -> None:
    """Every Q as a small picture of the whole action box, laid out like their targets."""
    side = np.linspace(-1.0, 1.0, 24)
    box = np.stack(np.meshgrid(side, side), axis=-1)
    q = -np.sum((box[None] - targets()[:, None, None]) ** 2, axis=-1)
    tiles = np.pad(q, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    n, size = TARGETS_PER_SIDE, len(side) + 2
    mosaic = tiles.reshape(n, n, size, size).swapaxes(1, 2).reshape(n * size, n * size)
    panel.imshow(np.exp(mosaic), cmap="magma", interpolation="nearest", **_IMAGE)


def _draw_arrows(panel: Axes, actions: np.ndarray) -> None:
    """From the policy without regularization, hollow, to the one with it, filled; `actions` [49, K, 2]."""
    start, end = actions[:, 0], actions[:, -1]
    panel.quiver(
        *start.T, *(end - start).T, angles="xy", scale_units="xy", scale=1.0, width=0.006, color="#595959", zorder=2
    )
    panel.scatter(
        start[:, 0],
        start[:, 1],
        s=13,
        facecolor="white",
        edgecolor=_WITHOUT,
        linewidth=1.1,
        label=r"$1/\beta=0$",
        zorder=3,
    )
    panel.scatter(end[:, 0], end[:, 1], s=15, color=_WITH, linewidths=0, label=r"$1/\beta=1$", zorder=4)
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, handletextpad=0.1)


def _draw_paths(figure: Figure, panel: Axes, actions: np.ndarray) -> None:
    """Policies of one target joined in the order of 1/beta, colored by it; `actions` [49, K, 2]."""
    colors = mpl.colormaps["plasma"](np.linspace(0.0, 0.92, len(INVERSE_BETAS)))
    segments = np.stack([actions[:, :-1], actions[:, 1:]], axis=2).reshape(-1, 2, 2)
    panel.add_collection(LineCollection(list(segments), colors=np.tile(colors[1:], (len(actions), 1)), linewidths=1.3))
    for i, color in enumerate(colors):
        panel.scatter(actions[:, i, 0], actions[:, i, 1], s=9, color=color, linewidths=0, zorder=3)
    levels = mpl.cm.ScalarMappable(
        mpl.colors.BoundaryNorm(np.arange(len(colors) + 1), len(colors)), ListedColormap(colors)
    )
    bar = figure.colorbar(levels, ax=panel, ticks=np.arange(len(colors)) + 0.5, fraction=0.05, pad=0.03)
    bar.ax.set_yticklabels([f"{value:g}" for value in INVERSE_BETAS])
    bar.ax.tick_params(length=0)
    bar.minorticks_off()
    bar.ax.set_title(r"$1/\beta$", fontsize=10)
    bar.outline.set_visible(False)
