"""Pictures of a run: scores while it trains, and the losses of every stage."""

import dataclasses
import itertools
import os
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl_srpo.report.drawing import (
    PALETTE,
    STYLE,
    Curves,
    Key,
    Look,
    beta_colors,
    curves_of,
    dash_patterns,
    draw_legend,
    draw_mean,
    format_steps,
    save,
    to_line,
)
from jaxrl_srpo.report.published import RECALLED, published_score
from jaxrl_srpo.report.records import (
    DATA,
    Evaluation,
    StageInfo,
    TrainingMetrics,
    beta_text,
    read_evaluations,
    read_metrics,
    read_stages,
    read_sweep,
)
from jaxrl_srpo.report.rows import Row, collect
from jaxrl_srpo.report.table import METRIC_LABELS

_CLONING_COLOR, _DATA_COLOR, _PUBLISHED_COLOR = "#CC4C02", "#6B6B6B", "#000000"
_CLONING_DASHES = ((0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
# The second color of the palette is too near to that of cloning.
_ONLINE_COLORS = (PALETTE[0], *PALETTE[2:])
_WIDTH = 9.6
# Letters that fit above a panel of losses.
_LETTERS = 26
_CAPTION = "thick lines: mean over seeds    bands: lowest to highest seed    thin lines: single seeds"


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
    """Scores over updates on the dataset, one row per dataset and one panel per algorithm evaluated while it trains.

    Thick lines are means over seeds, bands reach from the lowest to the highest seed, thin lines are single seeds.

    Returns:
      The figure; None if nothing was evaluated.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    sweep = read_sweep(run_dir)
    stages = {stage.algorithm: stage for stage in read_stages(sweep).values() if stage.curve and not stage.online}
    evaluations = [row for row in read_evaluations(run_dir) if row.algorithm in stages]
    datasets = _datasets(sweep, evaluations)
    rows = collect(run_dir)
    if not datasets:
        return None
    evaluated = {row.algorithm for row in evaluations}
    shown = [stage for stage in stages.values() if stage.algorithm in evaluated]
    # Titles of one line would overlap where panels are narrow.
    between = "  ·  " if len(shown) <= 2 else "\n"
    dashes = dash_patterns(row.setting for row in evaluations)
    colors = beta_colors(row.beta for row in evaluations)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(_WIDTH, 2.9 * len(shown)), 3.0 * len(datasets) + 1.3), layout="constrained")
        panels = figure.subplots(len(datasets), len(shown), sharey="row", squeeze=False)
        for dataset, line in zip(datasets, panels, strict=True):
            own = [row for row in evaluations if row.dataset == dataset]
            levels = [row for row in rows if row.dataset == dataset]
            for panel, stage in zip(line, shown, strict=True):
                _draw_levels(panel, levels, [stage.cloning])
                _draw_published(panel, levels, stage.algorithm)
                curves = curves_of([row for row in own if row.algorithm == stage.algorithm])
                _draw_scores(panel, curves, stage.label, colors, dashes)
                panel.set_title(f"{dataset}{between}{stage.label}")
            line[0].set_ylabel(METRIC_LABELS.get(own[0].metric, own[0].metric))
        for panel in panels[-1]:
            panel.set_xlabel("updates")
        if len({row.seed for row in evaluations}) > 1:
            figure.suptitle(_CAPTION, x=0.01, ha="left", fontsize=9, color="#6B6B6B")
        draw_legend(figure, panels.flat, dashes)
        return figure


def draw_fine_tuning(run_dir: str | os.PathLike[str]) -> Figure | None:
    """Scores before and after the switch from the dataset to the environment, one panel per dataset.

    Updates on the dataset count up to 0, where the switch is marked; environment steps count from there. Colors tell
    methods apart, dashes tell betas and settings apart.

    Returns:
      The figure; None if nothing was evaluated online.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    sweep, evaluations = read_sweep(run_dir), read_evaluations(run_dir)
    stages = read_stages(sweep)
    evaluated = {row.algorithm for row in evaluations}
    shown = [stage for stage in stages.values() if stage.online and stage.algorithm in evaluated]
    online = [row for row in evaluations if row.algorithm in {stage.algorithm for stage in shown}]
    datasets = _datasets(sweep, online)
    if not datasets:
        return None
    followed = list(dict.fromkeys(stage.follows for stage in shown if stage.follows))
    cloning = [stage.cloning for stage in stages.values() if stage in shown or stage.algorithm in followed]
    dashes = dash_patterns(_variant(row) for row in online)
    rows = collect(run_dir)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 3.2 * len(datasets) + 1.1), layout="constrained")
        panels = figure.subplots(len(datasets), 1, squeeze=False)[:, 0]
        for panel, dataset in zip(panels, datasets, strict=True):
            own = [row for row in evaluations if row.dataset == dataset]
            levels = [row for row in rows if row.dataset == dataset]
            _draw_levels(panel, levels, cloning)
            # A line for each of several methods would not say whose it is.
            if len(followed) == 1:
                _draw_published(panel, levels, followed[0])
            for stage, color in zip(shown, itertools.cycle(_ONLINE_COLORS), strict=False):
                curves = curves_of([row for row in own if row.algorithm == stage.algorithm])
                before = curves_of([_before_switch(row, own) for row in own if row.algorithm == stage.follows])
                for key, lines in curves.items():
                    look = Look(stage.label, color, dashes[_name(key)])
                    draw_mean(panel, list(lines.values()), look)
                    if key in before:
                        draw_mean(panel, list(before[key].values()), look._replace(label=""))
            panel.axvline(0, color="#262626", linewidth=1.2, label="switch to the environment")
            panel.set_title(dataset)
            panel.set_ylabel(METRIC_LABELS.get(own[0].metric, own[0].metric))
            format_steps(panel)
        panels[-1].set_xlabel("updates on the dataset (up to 0)  |  environment steps (from 0)")
        draw_legend(figure, panels, dashes)
        return figure


def _datasets(sweep: Mapping[str, Any], evaluations: Sequence[Evaluation]) -> list[str]:
    """The evaluated datasets in the order of the sweep."""
    evaluated = {row.dataset for row in evaluations}
    return [entry["name"] for entry in sweep["datasets"] if entry["name"] in evaluated]


def _before_switch(row: Evaluation, rows: Sequence[Evaluation]) -> Evaluation:
    """An offline evaluation with its step counted back from the last one of its stage."""
    last = max(other.step for other in rows if other.algorithm == row.algorithm)
    return dataclasses.replace(row, step=row.step - last)


def _name(key: Key) -> str:
    """A curve's beta and setting, for legends."""
    beta, setting = key
    return ";".join(part for part in ("" if beta is None else f"beta={beta_text(beta)}", setting) if part)


def _variant(row: Evaluation) -> str:
    return _name((row.beta, row.setting))


def draw_losses(run_dir: str | os.PathLike[str]) -> Figure | None:
    """What each stage measured while it trained, one small panel per stage and quantity.

    Thick lines are means over seeds, thin lines are single seeds. Colors tell datasets apart, or betas in a run on one
    dataset; dashes tell other settings apart.

    Returns:
      The figure; None if no metrics were written.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    sweep, metrics = read_sweep(run_dir), read_metrics(run_dir)
    names = [entry["name"] for entry in sweep["datasets"]]
    # Dictionaries keep the order of stages and of columns in the file.
    quantities = list(dict.fromkeys((row.stage, name) for row in metrics for name in row.values))
    if not quantities:
        return None
    stages = read_stages(sweep)
    # Sorting is stable: stages that are not in the list follow in the order of the file.
    quantities.sort(key=lambda quantity: [*stages, quantity[0]].index(quantity[0]))
    online = any(_is_online(stages.get(stage)) for stage, _ in quantities)
    by_dataset = dict(zip(names, itertools.cycle(PALETTE), strict=False)) if len(names) > 1 else None
    dashes = dash_patterns(row.setting for row in metrics)
    colors = beta_colors(row.beta for row in metrics)
    with mpl.rc_context(STYLE):
        columns = min(4, len(quantities))
        lines = -(-len(quantities) // columns)
        figure = Figure(figsize=(max(4.8, 2.5 * columns), 2.0 * lines + 1.1), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        for index, (panel, (stage, name)) in enumerate(zip(panels, quantities, strict=False)):
            rows = [row for row in metrics if row.stage == stage and name in row.values]
            _draw_metric(panel, rows, name, by_dataset, colors, dashes)
            title, quantity = stages[stage].title if stage in stages else stage, name.replace("_", " ")
            between = " " if len(title) + len(quantity) <= _LETTERS else "\n"
            panel.set_title(f"{title}:{between}{quantity}", fontsize=10)
            if online or index + columns >= len(quantities):
                label = "environment steps" if _is_online(stages.get(stage)) else "updates"
                panel.set_xlabel(label, fontsize=9)
        for panel in panels[len(quantities) :]:
            panel.set_axis_off()
        draw_legend(figure, figure.axes, dashes)
        return figure


def _is_online(stage: StageInfo | None) -> bool:
    return stage is not None and stage.online


def _draw_scores(
    panel: Axes, curves: Curves, name: str, colors: dict[float | None, Any], dashes: dict[str, Any]
) -> None:
    """The learning curves of one panel, last scores marked by a dot."""
    for beta, setting in sorted(curves, key=lambda key: (key[1], key[0] or 0.0)):
        label = name if beta is None else f"{name}, beta {beta_text(beta)}"
        look = Look(label, colors[beta], dashes[setting])
        lines = list(curves[beta, setting].values())
        steps, values = draw_mean(panel, lines, look)
        if len(lines) > 1:
            panel.fill_between(steps, values.min(0), values.max(0), color=look.color, alpha=0.10, linewidth=0)
        panel.plot(steps[-1:], values.mean(0)[-1:], color=look.color, marker="o", markersize=5, clip_on=False)
    format_steps(panel)
    if not curves:
        panel.text(0.5, 0.5, "not evaluated yet", transform=panel.transAxes, ha="center", va="center", color="#6B6B6B")


def _draw_levels(panel: Axes, rows: Sequence[Row], cloning: Iterable[str]) -> None:
    """Horizontal lines to compare with: the data's own average, and the algorithms that clone the data."""
    for row in rows:
        if row.algorithm == DATA:
            panel.axhline(row.mean, color=_DATA_COLOR, linestyle=(0, (6, 3)), linewidth=1.4, label=row.title)
    own = [row for row in rows if row.algorithm in set(cloning)]
    dashes = dict(zip(dict.fromkeys(row.algorithm for row in own), itertools.cycle(_CLONING_DASHES), strict=False))
    for row in own:
        pattern = dashes[row.algorithm]
        panel.axhline(row.mean, color=_CLONING_COLOR, linestyle=pattern, linewidth=1.4, label=row.title)


def _draw_published(panel: Axes, rows: Sequence[Row], algorithm: str) -> None:
    """A horizontal line at the published score, where there is one."""
    metric = rows[0].metric if rows else ""
    score = published_score(rows[0].dataset, algorithm) if metric == "normalized_score" else None
    if score is not None:
        label = "published score" + (" (recalled)" if RECALLED in score.marks else "")
        panel.axhline(score.mean, color=_PUBLISHED_COLOR, linestyle=(0, (1, 1.6)), linewidth=1.6, label=label)


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
        lines = [to_line(values) for values in curves[dataset, setting, beta].values()]
        if by_dataset is not None:
            look = Look(dataset, by_dataset[dataset], dashes[setting])
        else:
            look = Look("" if beta is None else f"beta {beta_text(beta)}", colors[beta], dashes[setting])
        draw_mean(panel, lines, look)
    finite = np.array([row.values[name] for row in rows if np.isfinite(row.values[name])])
    # Losses that fall by orders of magnitude are flat on a linear axis.
    if finite.size and finite.min() > 0 and finite.max() > 50 * finite.min():
        panel.set_yscale("log")
    format_steps(panel)
