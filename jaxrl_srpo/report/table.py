"""The table of a run as CSV, as Markdown and as plain text."""

import csv
import dataclasses
import html
import io
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrl_srpo.data.names import REGENERATED
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.outcomes import Diverged, NotTrained
from jaxrl_srpo.report.published import explain, published_score
from jaxrl_srpo.report.records import (
    DATA_LABEL,
    LEAST_EFFECTIVE_SAMPLE_SIZE,
    beta_text,
    read_sweep,
)
from jaxrl_srpo.report.rows import Row, best_betas, collect, marked_dataset, origin_notes

METRIC_LABELS = {
    "normalized_score": "D4RL-normalized score",
    "normalized_score_other_version": "score by D4RL's returns of another version",
    "success_rate": "success rate",
    "return": "undiscounted return",
}
_METRIC_EXPLANATIONS = {
    "normalized_score": "normalized score as in D4RL: 0 for a random policy, 100 for an expert",
    "normalized_score_other_version": "score by D4RL's returns of a random policy (0) and an expert (100) in another "
    "version of the environment, which is paid otherwise; not comparable with published scores",
    "success_rate": "success rate: fraction of episodes, 0 to 1, that reach the goal",
    "return": "undiscounted return of an episode, not normalized",
}
_OWN_REFERENCES = (
    f"{REGENERATED}...: 0 and 100 are the returns of random and expert of the same recipe, not comparable with D4RL's"
)
_NOT_EVALUATED = "not evaluated"
_SCORED_BY = "`jaxrl-srpo evaluate RUN_DIR` scores what is trained, where the environment is installed"


def write_table(run_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Writes `report/table.csv` and `report/table.md`; equal run files give equal bytes.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    rows = collect(run_dir)
    report = pathlib.Path(run_dir) / "report"
    paths = [report / "table.csv", report / "table.md"]
    for path, text in zip(paths, (_csv(rows), _markdown(rows, read_sweep(run_dir))), strict=True):
        write_atomically(path, text)
    return paths


class Table(list[Row]):
    """The rows of a run's table, which prompts and notebooks show as a table."""

    def __repr__(self) -> str:
        return format_table(self)

    def _repr_html_(self) -> str:
        header, lines = display(self) if self else (["no scores yet"], [])
        rows = [[f"<th>{html.escape(cell)}</th>" for cell in header]]
        rows += [[f"<td>{html.escape(cell)}</td>" for cell in line] for line in lines]
        return f"<table>{''.join(f'<tr>{chr(10).join(row)}</tr>' for row in rows)}</table>"


def format_table(rows: Sequence[Row]) -> str:
    """The table as aligned plain text for a terminal, without a newline at its end."""
    if not rows:
        return "no scores yet"
    header, lines = display(rows)
    best = best_betas(rows)
    lines = [[*cells, "* best beta" if row in best else ""] for row, cells in zip(rows, lines, strict=True)]
    table = [[*header, ""], *lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # Names are read from the left, numbers are compared from the right.
    text = [
        "  ".join(_pad(*cell) for cell in zip([*header, ""], cells, widths, strict=True)).rstrip() for cells in table
    ]
    text.insert(1, "-" * max(map(len, text)))
    metrics = ", ".join(METRIC_LABELS.get(metric, metric) for metric in sorted({row.metric for row in rows}))
    text.append(f"{metrics}: mean +- std over seeds of each seed's last evaluation ({DATA_LABEL}: over its episodes)")
    if any(_has_own_references(row) for row in rows):
        text.append(_OWN_REFERENCES)
    text += _sources(rows)[:1]
    text += [f"(o) {note}" for note in origin_notes(rows)]
    if any(row.unfinished for row in rows):
        text.append("(u) unfinished: latest evaluation so far")
    if any(row.diverged for row in rows):
        text.append("(d) some members diverged and were frozen")
    if shared := _shared(rows):
        text.append(f"(s) {shared}")
    if any(row.not_trained for row in rows):
        text.append("(n) some members were not trained, because an earlier stage of theirs diverged")
    if any(_not_evaluated(row) for row in rows):
        text.append(f"{_NOT_EVALUATED}: {_SCORED_BY}")
    if any(_concentrated(row) for row in rows):
        text.append("(e) ESS too small: few actions carry each batch; a larger --awac_lambda weighs more evenly")
    # Terminals that only know ASCII are still around.
    return "\n".join(text).replace("±", "+-")


def _pad(title: str, text: str, width: int) -> str:
    """One cell of the plain-text table."""
    return text.ljust(width) if title in ("dataset", "algorithm", "setting", "metric", "") else text.rjust(width)


def _csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, one column per field of `Row`, absent values blank."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Row)]
    writer.writerow(names)
    for row in rows:
        cells = {name: _cell(getattr(row, name)) for name in names} | {"beta": beta_text(row.beta)}
        writer.writerow(cells.values())
    return output.getvalue()


def _cell(value: Any) -> Any:
    """A cell of `table.csv`: absent values blank, flags as 0 and 1."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.8g}" if isinstance(value, float) else value


def _number(value: float | None, metric: str) -> str:
    """A score with the digits that mean something in its metric."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.3f}" if metric == "success_rate" else f"{value:.1f}"


def display(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the readable table; columns that are blank in every row are left out."""
    titles = ["dataset", "algorithm", "beta", "setting", "seeds", "episodes", "metric", "mean ± std", "published"]
    titles += ["worst seed", "best (not last)", "success rate", "return", "ESS", "regret"]
    lines = [_cells(row) for row in rows]
    drop = {title for index, title in enumerate(titles) if not any(line[index] for line in lines)}
    # One metric for all rows is said once, above or below the table.
    drop |= {"metric"} if len({row.metric for row in rows}) <= 1 else set()
    # A task that pays 1 for its goal has the success rate as its return.
    drop |= {"return"} if all(_pays_success(row) for row in rows) else set()
    keep = [index for index, title in enumerate(titles) if title not in drop]
    return [titles[index] for index in keep], [[line[index] for index in keep] for line in lines]


def _cells(row: Row) -> list[str]:
    """One row of the readable table, all columns."""
    notes = {"u": row.unfinished, "d": row.diverged, "n": row.not_trained, "s": row.shared, "e": _concentrated(row)}
    marks = "".join(f" ({mark})" for mark, holds in notes.items() if holds)
    score = f"{_number(row.mean, row.metric)} ± {_number(row.std, row.metric)}"
    if math.isnan(row.mean):
        score = _NOT_EVALUATED if row.seeds else "not trained"
    return [
        marked_dataset(row),
        row.title,
        beta_text(row.beta),
        row.setting,
        "" if row.seeds is None else str(row.seeds),
        "" if row.episodes is None else str(row.episodes),
        METRIC_LABELS.get(row.metric, row.metric),
        f"{score}{marks}",
        "" if row.published is None else f"{_number(row.published, row.metric)} ({row.published_note})",
        _number(row.worst_seed, row.metric),
        _number(row.best_mean, row.metric),
        "" if row.metric == "success_rate" else _number(row.success_rate, "success_rate"),
        "" if row.metric == "return" else _number(row.return_mean, "return"),
        _number(row.effective_sample_size, "success_rate"),
        _number(row.regret, "success_rate"),
    ]


def _pays_success(row: Row) -> bool:
    """Whether the return of a row says again what its success rate does."""
    return row.metric == "success_rate" and (row.return_mean == row.mean or math.isnan(row.mean))


def _not_evaluated(row: Row) -> bool:
    """Whether a row is of members that trained, and no more."""
    return bool(row.seeds) and math.isnan(row.mean)


def _shared(rows: Sequence[Row]) -> str:
    """What is to be said of rows whose seeds share models; empty where none do."""
    shared = ", ".join(dict.fromkeys(row.shared.replace(";", ", ") for row in rows if row.shared))
    return f"seeds share earlier models ({shared}): ± leaves out how those vary" if shared else ""


def _has_own_references(row: Row) -> bool:
    """Whether 0 and 100 are the returns of policies that were made with the dataset, instead of D4RL's."""
    return row.metric == "normalized_score" and row.dataset.startswith(REGENERATED)


def _concentrated(row: Row) -> bool:
    """Whether AWAC's weights leave next to nothing of a batch in effect."""
    return row.effective_sample_size is not None and row.effective_sample_size < LEAST_EFFECTIVE_SAMPLE_SIZE


def _markdown(rows: Sequence[Row], sweep: dict[str, Any]) -> str:
    """The table with its protocol above it."""
    if not rows:
        return "\n".join(["# Results", "", "No scores yet.", "", *provenance(sweep)]) + "\n"
    header, lines = display(rows)
    best = best_betas(rows)
    text = ["# Results", "", *_protocol(rows, sweep), "", markdown_line(header)]
    text.append("|" + "|".join("---" if _pad(title, "x", 2) == "x " else "--:" for title in header) + "|")
    for row, cells in zip(rows, lines, strict=True):
        bold = {"algorithm", "beta", "setting", "mean ± std"} if row in best else set()
        cells = [f"**{cell}**" if title in bold and cell else cell for title, cell in zip(header, cells, strict=True)]
        text.append(markdown_line(cells))
    return "\n".join(text) + "\n"


def markdown_line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _protocol(rows: Sequence[Row], sweep: dict[str, Any]) -> list[str]:
    """What the numbers mean and which program made them, as a Markdown list."""
    metrics = sorted({row.metric for row in rows})
    lines = [f"- Metric: {'; '.join(_METRIC_EXPLANATIONS.get(metric, metric) for metric in metrics)}."]
    if any(_has_own_references(row) for row in rows):
        lines.append(f"- References: {_OWN_REFERENCES}.")
    lines.append(
        "- Protocol: each seed counts with the mean over its episodes at the **last evaluation**, never the best. "
        "mean ± std is over seeds (sample standard deviation, n − 1; 0 for a single seed); episodes are per seed."
    )
    lines.append(f"- {DATA_LABEL.capitalize()}: the dataset's own episodes; their mean ± std is over episodes.")
    if best_betas(rows):
        lines.append(
            "- Bold: the beta (and setting) of the highest mean for each dataset. It was picked by these same "
            "evaluations, in the environment, which a purely offline method could not do."
        )
    if any(row.best_mean is not None for row in rows):
        lines.append(
            "- best (not last): mean over seeds of each seed's best evaluation during training; not the result."
        )
    if any(row.effective_sample_size is not None for row in rows):
        lines.append(
            "- ESS: effective sample size of AWAC's weights, as a share of the batch, mean over the last rows of "
            "metrics.csv; 1 weighs all actions alike, 1 / batch size leaves one."
        )
    if any(row.regret is not None for row in rows):
        lines.append("- regret: 1, the score of an expert, minus the mean over all evaluations while learning online.")
    if any(row.published is not None for row in rows):
        lines.append("- published: means over seeds from the literature, not from this run.")
        lines += [f"- {line}" for line in _sources(rows)]
    lines += warnings(rows, sweep)
    return lines + provenance(sweep)


def _sources(rows: Sequence[Row]) -> list[str]:
    """What the marks of the published scores mean, and where these stand."""
    beside = [row for row in rows if row.published is not None]
    return explain(score for row in beside if (score := published_score(row.dataset, row.algorithm)))


def warnings(rows: Sequence[Row], sweep: dict[str, Any]) -> list[str]:
    """Lines about members that did not end as they should."""
    lines = [f"- (o): {note}." for note in origin_notes(rows)]
    if any(row.unfinished for row in rows):
        lines.append("- (u): **unfinished**; some seeds have not had their last evaluation, the latest stands in.")
    if diverged := Diverged(sweep).names:
        names = ", ".join(f"`{name}`" for name in diverged)
        lines.append(f"- (d): members diverged and were frozen at their last good state: {names}.")
    if shared := _shared(rows):
        lines.append(f"- (s): {shared}.")
    if not_trained := NotTrained(sweep).names:
        names = ", ".join(f"`{name}`" for name in not_trained)
        lines.append(f"- (n): members were not trained, because an earlier stage of theirs diverged: {names}.")
    if any(_not_evaluated(row) for row in rows):
        lines.append(f"- {_NOT_EVALUATED}: {_SCORED_BY}.")
    if any(_concentrated(row) for row in rows):
        lines.append(
            f"- (e): an ESS below {LEAST_EFFECTIVE_SAMPLE_SIZE:g}; few actions carry each batch and Q may have left "
            "its scale. A larger lambda weighs more evenly."
        )
    return lines


def provenance(sweep: dict[str, Any]) -> list[str]:
    """Lines that say which command, code and versions made the run."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(sweep.get("versions", {}).items()))
    facts = {"preset": "preset", "created": "started", "commit": "commit"}
    run = [f"{label} {sweep[key]}" for key, label in facts.items() if sweep.get(key)]
    lines = [f"- Run: {', '.join(run)}."] if run else []
    if versions:
        lines.append(f"- Versions: {versions}.")
    if sweep.get("command"):
        lines.append(f"- Command: `{' '.join(map(str, sweep['command']))}`")
    return lines
