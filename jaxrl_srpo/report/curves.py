"""Pictures of a run: scores while it trains, and the losses of every stage."""

import dataclasses
import io
import itertools
import os
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

from jaxrl_srpo.files import write_atomically
from jaxrl_srpo.report.published import published_score
from jaxrl_srpo.report.records import (
    Evaluation,
    TrainingMetrics,
    read_evaluations,
    read_metrics,
    read_sweep,
)
from jaxrl_srpo.report.table import ALGORITHM_LABELS, METRIC_LABELS, ONLINE_ALGORITHMS, Row, collect

# Okabe and Ito's palette, which colour-blind readers can tell apart; ordered values take viridis instead.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_IQL_COLOR, _BC_COLOR, _DATA_COLOR, _PUBLISHED_COLOR = "#0072B2", "#CC4C02", "#6B6B6B", "#000000"
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (9, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
)
# What is evaluated while it trains.
_CURVES = ("iql", "srpo", "awac")
# What learns online, and what it goes on from.
_BEFORE = {"awac_online": "awac", "srpo_online": "srpo", "iql_online": "iql", "sac_online": "sac_offline", "sac": ""}
_STAGE_TITLES = {
    "behavior": "behaviour",
    "critic": "critic",
    "policy": "policy",
    "cloning": "cloning",
    "awac": "AWAC",
} | {name: ALGORITHM_LABELS[name] for name in ("sac_offline", *ONLINE_ALGORITHMS)}
_WIDTH = 9.6
_CAPTION = "thick lines: mean over seeds    bands: lowest to highest seed    thin lines: single seeds"
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


class _Look(NamedTuple):
    """How one curve is drawn and what the legend calls it."""

    label: str
    color: Any
    dashes: Any


# A curve by its beta and setting; each maps seeds to (steps [T], values [T]).
_Key = tuple[float | None, str]
_Curves = dict[_Key, dict[int, tuple[np.ndarray, np.ndarray]]]


def write_curves(run_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Writes `learning_curves.png`, `fine_tuning.png` and `losses.png` in `report/`, each if there is what to draw.

    Returns:
      The files written.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    report = pathlib.Path(run_dir) / "report"
    figures = {
        "learning_curves.png": draw_learning_curves(run_dir),
        "fine_tuning.png": draw_fine_tuning(run_dir),
        "losses.png": draw_losses(run_dir),
    }
    written = []
    for name, figure in figures.items():
        if figure is not None:
            save(figure, report / name)
            written.append(report / name)
    return written


def draw_learning_curves(run_dir: str | os.PathLike[str]) -> Figure | None:
    """Scores over training, one row per dataset and one panel per algorithm that is evaluated meanwhile.

    Thick lines are means over seeds, bands reach from the lowest to the highest seed, thin lines are single seeds.

    Returns:
      The figure; None if nothing was evaluated.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    evaluations = [row for row in read_evaluations(run_dir) if row.algorithm in _CURVES]
    shown = [algorithm for algorithm in _CURVES if any(row.algorithm == algorithm for row in evaluations)]
    evaluated = {row.dataset for row in evaluations}
    datasets = [entry["name"] for entry in read_sweep(run_dir)["datasets"] if entry["name"] in evaluated]
    rows = collect(run_dir)
    if not datasets:
        return None
    dashes = _dashes(row.setting for row in evaluations)
    colors = _colors(row.beta for row in evaluations)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.0 * len(datasets) + 1.3), layout="constrained")
        panels = figure.subplots(len(datasets), len(shown), sharey="row", squeeze=False)
        for dataset, line in zip(datasets, panels, strict=True):
            own = [row for row in evaluations if row.dataset == dataset]
            levels = [row for row in rows if row.dataset == dataset]
            for panel, algorithm in zip(line, shown, strict=True):
                _draw_levels(panel, levels, algorithm)
                curves = _curves([row for row in own if row.algorithm == algorithm])
                _draw_scores(panel, curves, ALGORITHM_LABELS[algorithm], colors, dashes)
                panel.set_title(f"{dataset}  ·  {ALGORITHM_LABELS[algorithm]}")
            line[0].set_ylabel(METRIC_LABELS.get(own[0].metric, own[0].metric))
        for panel in panels[-1]:
            panel.set_xlabel("updates")
        if len({row.seed for row in evaluations}) > 1:
            figure.suptitle(_CAPTION, x=0.01, ha="left", fontsize=9, color="#6B6B6B")
        _legend(figure, panels.flat, dashes)
        return figure


def draw_fine_tuning(run_dir: str | os.PathLike[str]) -> Figure | None:
    """Scores before and after the switch from the dataset to the environment, one panel per dataset.

    Updates on the dataset count up to 0, where the switch is marked; environment steps count from there. Colours tell
    methods apart, dashes tell betas and settings apart.

    Returns:
      The figure; None if nothing was evaluated online.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    evaluations = read_evaluations(run_dir)
    online = [row for row in evaluations if row.algorithm in _BEFORE]
    datasets = [
        entry["name"] for entry in read_sweep(run_dir)["datasets"] if entry["name"] in {r.dataset for r in online}
    ]
    if not datasets:
        return None
    dashes = _dashes(_variant(row) for row in online)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.2 * len(datasets) + 1.1), layout="constrained")
        panels = figure.subplots(len(datasets), 1, squeeze=False)[:, 0]
        for panel, dataset in zip(panels, datasets, strict=True):
            own = [row for row in evaluations if row.dataset == dataset]
            _draw_levels(panel, [row for row in collect(run_dir) if row.dataset == dataset], "awac")
            # The second colour of the palette is too near to that of cloning.
            for algorithm, color in zip(_BEFORE, (PALETTE[0], *PALETTE[2:]), strict=False):
                curves = _curves([row for row in own if row.algorithm == algorithm])
                before = _curves([_before_switch(row, own) for row in own if row.algorithm == _BEFORE[algorithm]])
                for key, lines in curves.items():
                    look = _Look(ALGORITHM_LABELS[algorithm], color, dashes[_name(key)])
                    _draw_mean(panel, list(lines.values()), look)
                    if key in before:
                        _draw_mean(panel, list(before[key].values()), look._replace(label=""))
            panel.axvline(0, color="#262626", linewidth=1.2, label="switch to the environment")
            panel.set_title(dataset)
            panel.set_ylabel(METRIC_LABELS.get(own[0].metric, own[0].metric))
            _format_steps(panel)
        panels[-1].set_xlabel("updates on the dataset (up to 0)  |  environment steps (from 0)")
        _legend(figure, panels, dashes)
        return figure


def _before_switch(row: Evaluation, rows: Sequence[Evaluation]) -> Evaluation:
    """An offline evaluation with its step counted back from the last one of its stage."""
    last = max(other.step for other in rows if other.algorithm == row.algorithm)
    return dataclasses.replace(row, step=row.step - last)


def _name(key: _Key) -> str:
    """A curve's beta and setting, for legends."""
    beta, setting = key
    return ";".join(part for part in ("" if beta is None else f"beta={beta:g}", setting) if part)


def _variant(row: Evaluation) -> str:
    return _name((row.beta, row.setting))


def draw_losses(run_dir: str | os.PathLike[str]) -> Figure | None:
    """What each stage measured while it trained, one small panel per stage and quantity.

    Thick lines are means over seeds, thin lines are single seeds. Colour tells datasets apart, in a run on one dataset
    it tells betas apart; dashes tell other settings apart.

    Returns:
      The figure; None if no metrics were written.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    names = [entry["name"] for entry in read_sweep(run_dir)["datasets"]]
    metrics = read_metrics(run_dir)
    # Dictionaries keep the order of stages and of columns in the file.
    quantities = list(dict.fromkeys((row.stage, name) for row in metrics for name in row.values))
    if not quantities:
        return None
    known = list(_STAGE_TITLES)
    stages = sorted({stage for stage, _ in quantities}, key=lambda stage: [*known, stage].index(stage))
    quantities = [quantity for stage in stages for quantity in quantities if quantity[0] == stage]
    by_dataset = dict(zip(names, itertools.cycle(PALETTE), strict=False)) if len(names) > 1 else None
    dashes = _dashes(row.setting for row in metrics)
    colors = _colors(row.beta for row in metrics)
    with mpl.rc_context(STYLE):
        columns = min(4, len(quantities))
        lines = -(-len(quantities) // columns)
        figure = Figure(figsize=(max(4.8, 2.5 * columns), 2.0 * lines + 1.1), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        for index, (panel, (stage, name)) in enumerate(zip(panels, quantities, strict=False)):
            rows = [row for row in metrics if row.stage == stage and name in row.values]
            _draw_metric(panel, rows, name, by_dataset, colors, dashes)
            panel.set_title(f"{_STAGE_TITLES.get(stage, stage)}: {name.replace('_', ' ')}", fontsize=10)
            if index + columns >= len(quantities):
                panel.set_xlabel("updates", fontsize=9)
        for panel in panels[len(quantities) :]:
            panel.set_axis_off()
        _legend(figure, figure.axes, dashes)
        return figure


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes the figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def _colors(betas: Iterable[float | None]) -> dict[float | None, Any]:
    """A colour for each beta, dark to light as beta grows; None, no beta, is the IQL actor or an earlier stage."""
    ordered = sorted({beta for beta in betas if beta is not None})
    # The light end of the map is too pale for lines on white.
    shades = (
        mpl.colormaps["viridis"](np.linspace(0.02, 0.82, len(ordered)))
        if len(ordered) > 1
        else np.array([[0.0, 0.47, 0.37, 1.0]])
    )
    return {None: _IQL_COLOR, **{beta: tuple(shade) for beta, shade in zip(ordered, shades, strict=False)}}


def _dashes(settings: Iterable[str]) -> dict[str, Any]:
    """A dash pattern for each setting."""
    return dict(zip(sorted(set(settings)), itertools.cycle(_DASHES), strict=False))


def _curves(rows: Sequence[Evaluation]) -> _Curves:
    """Scores by beta, setting and seed; of two evaluations at one step the later one counts."""
    points: dict[_Key, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        points[row.beta, row.setting][row.seed][row.step] = row.mean
    return {key: {seed: _line(values) for seed, values in seeds.items()} for key, seeds in points.items()}


def _line(values: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
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


def _draw_scores(
    panel: Axes, curves: _Curves, name: str, colors: dict[float | None, Any], dashes: dict[str, Any]
) -> None:
    """The learning curves of one panel, last scores marked by a dot."""
    for beta, setting in sorted(curves, key=lambda key: (key[1], key[0] or 0.0)):
        label = name if beta is None else f"{name}, beta {beta:g}"
        look = _Look(label, colors[beta], dashes[setting])
        lines = list(curves[beta, setting].values())
        steps, values = _draw_mean(panel, lines, look)
        if len(lines) > 1:
            panel.fill_between(steps, values.min(0), values.max(0), color=look.color, alpha=0.10, linewidth=0)
        panel.plot(steps[-1:], values.mean(0)[-1:], color=look.color, marker="o", markersize=5, clip_on=False)
    _format_steps(panel)
    if not curves:
        panel.text(0.5, 0.5, "not evaluated yet", transform=panel.transAxes, ha="center", va="center", color="#6B6B6B")


def _draw_mean(
    panel: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray]], look: _Look
) -> tuple[np.ndarray, np.ndarray]:
    """Draws seeds thin and their mean thick; returns the steps [T] they share and the values [seeds, T] there."""
    if len(lines) > 1:
        for steps, values in lines:
            panel.plot(steps, values, color=look.color, linestyle=look.dashes, linewidth=0.7, alpha=0.4)
    steps, values = _stack(lines)
    # A diverged member has no numbers any more; the mean goes on over the others.
    mean = np.ma.masked_invalid(values).mean(0)
    panel.plot(steps, mean, color=look.color, linestyle=look.dashes, linewidth=2.0, label=look.label)
    return steps, values


def _draw_levels(panel: Axes, rows: Sequence[Row], algorithm: str) -> None:
    """Horizontal lines to compare with: the data's own average, cloning, and the published score."""
    for row in rows:
        if row.algorithm == "data":
            panel.axhline(row.mean, color=_DATA_COLOR, linestyle=(0, (6, 3)), linewidth=1.4, label="behaviour data")
        if row.algorithm == ("cloning" if algorithm == "awac" else "bc"):
            label = ALGORITHM_LABELS[row.algorithm]
            panel.axhline(row.mean, color=_BC_COLOR, linestyle=(0, (5, 2, 1, 2)), linewidth=1.4, label=label)
    metric = rows[0].metric if rows else ""
    score = published_score(rows[0].dataset, algorithm) if metric == "normalized_score" else None
    if score is not None:
        panel.axhline(score, color=_PUBLISHED_COLOR, linestyle=(0, (1, 1.6)), linewidth=1.6, label="published score")


def _draw_metric(
    panel: Axes,
    rows: Sequence[TrainingMetrics],
    name: str,
    by_dataset: dict[str, str] | None,
    colors: dict[float | None, Any],
    dashes: dict[str, Any],
) -> None:
    """One quantity over the updates of its stage."""
    curves: dict[tuple[str, str, float | None], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        # Infinities would hide everything else on the axis.
        value = row.values[name] if np.isfinite(row.values[name]) else np.nan
        curves[row.dataset, row.setting, row.beta][row.seed][row.step] = value
    for dataset, setting, beta in sorted(curves, key=lambda key: (key[0], key[1], key[2] or 0.0)):
        lines = [_line(values) for values in curves[dataset, setting, beta].values()]
        if by_dataset is not None:
            look = _Look(dataset, by_dataset[dataset], dashes[setting])
        else:
            look = _Look("" if beta is None else f"beta {beta:g}", colors[beta], dashes[setting])
        _draw_mean(panel, lines, look)
    finite = np.array([row.values[name] for row in rows if np.isfinite(row.values[name])])
    # Losses that fall by orders of magnitude are flat on a linear axis.
    if finite.size and finite.min() > 0 and finite.max() > 50 * finite.min():
        panel.set_yscale("log")
    _format_steps(panel)


def _format_steps(panel: Axes) -> None:
    """Updates as 20k or 1.5M."""
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=True))


def _legend(figure: Figure, panels: Iterable[Axes], dashes: dict[str, Any]) -> None:
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
