"""One page of a run, or of several side by side, that opens without a server and without network."""

import base64
import math
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from jaxrl_srpo.io.files import expand_home, write_atomically
from jaxrl_srpo.report.curves import draw_fine_tuning, draw_learning_curves, draw_losses
from jaxrl_srpo.report.drawing import svg_of
from jaxrl_srpo.report.records import DATA, read_stages, read_sweep
from jaxrl_srpo.report.rows import Row, best_betas, collect
from jaxrl_srpo.report.table import METRIC_LABELS, display, warnings

NAME = "index.html"


class _Run(NamedTuple):
    """What the page needs of a run: its directory, its `sweep.json` and the rows of its table."""

    path: pathlib.Path
    sweep: dict[str, Any]
    rows: list[Row]

    @property
    def name(self) -> str:
        return self.path.resolve().name


def write_page(run_dirs: Sequence[str | os.PathLike[str]], out: pathlib.Path) -> pathlib.Path:
    """Writes `index.html`, one self-contained file; equal run files give equal bytes.

    Args:
      run_dirs: run directories; the table tells several apart by a column `run`.
      out: directory of the page.

    Returns:
      The page.

    Raises:
      UserError: one is not a run directory, or a file in it is damaged.
    """
    runs = [_Run(path, read_sweep(path), collect(path)) for path in map(expand_home, run_dirs)]
    template = string.Template(resources.files("jaxrl_srpo.report").joinpath("page.html").read_text("utf-8"))
    title = "Results of " + ", ".join(run.name for run in runs)
    body = "\n".join([f"<h1>{escape(title)}</h1>", _table(runs), *map(_section, runs)])
    write_atomically(out / NAME, template.substitute(title=escape(title), body=body))
    return out / NAME


def _table(runs: Sequence[_Run]) -> str:
    """The rows of all runs in one table."""
    rows = [row for run in runs for row in run.rows]
    if not rows:
        return "<p>No scores yet.</p>"
    header, lines = display(rows)
    best = [row in found for run in runs for found in [best_betas(run.rows)] for row in run.rows]
    if len(runs) > 1:
        names = [run.name for run in runs for _ in run.rows]
        header, lines = ["run", *header], [[name, *line] for name, line in zip(names, lines, strict=True)]
    titles = "".join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in header)
    cells = "\n".join(_line(line, bold) for line, bold in zip(lines, best, strict=True))
    metrics = ", ".join(METRIC_LABELS.get(metric, metric) for metric in sorted({row.metric for row in rows}))
    caption = f"{metrics}: mean ± std over seeds of each seed's last evaluation. A column's title sorts by it."
    if any(best):
        caption += " Bold: the beta and setting of the highest mean of a dataset."
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="Table of results"><table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{titles}</tr></thead>\n"
        f"<tbody>\n{cells}\n</tbody></table></div>"
    )


def _line(cells: Sequence[str], best: bool) -> str:
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="best">{row}</tr>' if best else f"<tr>{row}</tr>"


def _section(run: _Run) -> str:
    """What a run has beside its rows: warnings, pictures, settings and where it comes from."""
    parts = [f"<h2>{escape(run.name)}</h2>", _warnings(run)]
    pictures = {
        "Learning curves": draw_learning_curves(run.path),
        "Before and after the switch to the environment": draw_fine_tuning(run.path),
        "Losses and other measures while training": draw_losses(run.path),
    }
    parts += [_picture(title, figure, run.name) for title, figure in pictures.items() if figure is not None]
    parts += [_meanings(run.sweep), _settings(run.sweep), _origin(run.sweep)]
    return "\n".join(part for part in parts if part)


def _warnings(run: _Run) -> str:
    """Lines about members that did not end as they should, and of a run that was not evaluated."""
    lines = [line.removeprefix("- ").replace("**", "").replace("`", "") for line in warnings(run.rows, run.sweep)]
    if all(row.algorithm == DATA or math.isnan(row.mean) for row in run.rows):
        lines.append("No policy has been evaluated.")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warning"><h3>Warnings</h3><ul>{items}</ul></div>' if lines else ""


def _picture(title: str, figure: Figure, run: str) -> str:
    """A figure as SVG inside the page; an image, so that names in it are neither read as HTML nor run."""
    data = base64.b64encode(svg_of(figure)).decode()
    alt = escape(f"{title} of {run}; the table gives the last scores")
    return (
        f'<figure><h3>{title}</h3><div class="box" tabindex="0" role="region" aria-label="{title}">'
        f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{title}. Thick lines: means over seeds; thin lines: single seeds.</figcaption></figure>"
    )


def _meanings(sweep: Mapping[str, Any]) -> str:
    """What each stage measured, in its method's words; nothing for runs whose `sweep.json` does not tell."""
    titles = {name: stage.title for name, stage in read_stages(sweep).items()}
    items = [
        f"<dt>{escape(titles[entry['name']])}: {escape(str(name))}</dt><dd>{escape(str(meaning))}</dd>"
        for entry in sweep.get("stages") or ()
        for name, meaning in _mapping(entry.get("metrics")).items()
    ]
    return f"<details><summary>What the losses mean</summary><dl>{''.join(items)}</dl></details>" if items else ""


def _settings(sweep: Mapping[str, Any]) -> str:
    """The settings of the run's members, those that differ between members first."""
    values: dict[str, list[str]] = {}
    common = sweep.get("settings") or {}
    for member in sweep.get("members") or ():
        for name, value in (_mapping(common.get(member["dataset"])) | _mapping(member.get("values"))).items():
            found = values.setdefault(name, [])
            if str(value) not in found:
                found.append(str(value))
    ordered = sorted(values, key=lambda name: (len(values[name]) == 1, name))
    lines = "\n".join(_line([name, ", ".join(values[name])], len(values[name]) > 1) for name in ordered)
    if not lines:
        return ""
    return (
        '<details><summary>Settings</summary><div class="box" tabindex="0" role="region" aria-label="Settings"><table>'
        "<caption>Bold: settings that differ between members.</caption>"
        '<thead><tr><th scope="col">setting</th><th scope="col">values</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div></details>"
    )


def _origin(sweep: Mapping[str, Any]) -> str:
    """Command, versions and commit."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(_mapping(sweep.get("versions")).items()))
    facts = {"preset": sweep.get("preset"), "started": sweep.get("created"), "commit": sweep.get("commit")}
    items = {name: str(value) for name, value in {**facts, "versions": versions}.items() if value}
    lines = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in items.items())
    command = " ".join(map(str, sweep.get("command") or ()))
    return f"<h3>How it was made</h3><pre>{escape(command)}</pre><dl>{lines}</dl>"


def _mapping(value: Any) -> dict[str, Any]:
    """A part of `sweep.json` that older versions lack or wrote as null."""
    return dict(value) if isinstance(value, Mapping) else {}
