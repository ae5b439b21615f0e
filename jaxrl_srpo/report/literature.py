"""Runs beside the literature: all their methods, the published scores with their marks, and aggregates."""

import csv
import io
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.estimates import Estimate, estimate, interquartile_mean, mean_of_means
from jaxrl_srpo.report.latex import escaped, tabular
from jaxrl_srpo.report.published import (
    Score,
    explain,
    method_of,
    published_average,
    published_columns,
    published_score,
    published_scores,
)
from jaxrl_srpo.report.records import (
    DATA,
    DATA_LABEL,
    beta_text,
    read_evaluations,
    read_labels,
    read_stages,
    read_sweep,
)
from jaxrl_srpo.report.rows import Row, collect, last_evaluation, marked_dataset, origin_notes
from jaxrl_srpo.report.table import markdown_line, provenance

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Line(NamedTuple):
    """One dataset.

    Attributes:
      dataset: the dataset's name.
      family: the dataset's family.
      rows: the best setting of each algorithm, and `data`, in the order of the runs and of their stages.
      scores: the last evaluation of every seed [seeds] of those settings, by algorithm.
      tried: number of settings that each was picked from.
    """

    dataset: str
    family: str
    rows: dict[str, Row]
    scores: dict[str, np.ndarray]
    tried: dict[str, int]


class Aggregate(NamedTuple):
    """An algorithm over a group of datasets.

    Attributes:
      group: the family of the datasets, or `all`.
      algorithm: its name.
      label: what tables call it.
      datasets: number of datasets.
      runs: number of seeds of all datasets together.
      iqm: interquartile mean over runs.
      mean: mean over runs, every dataset counting alike.
      published: the mean of its published scores, where one source has them all.
    """

    group: str
    algorithm: str
    label: str
    datasets: int
    runs: int
    iqm: Estimate
    mean: Estimate
    published: Score | None


class Table(NamedTuple):
    """Titles and lines of cells; the first `words` columns are read from the left."""

    titles: list[str]
    cells: list[list[str]]
    words: int


def write_literature_table(run_dirs: Paths, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes `d4rl_table.md`, `.csv`, `.tex` and `d4rl_aggregates.csv`; equal run files give equal bytes.

    Args:
      run_dirs: run directory, or several whose methods stand in one table; an algorithm counts where it comes first.
      out: directory of the tables.

    Raises:
      UserError: not a run directory, a file in it is damaged, or a score is not normalized.
    """
    paths = list(_each(run_dirs))
    sweeps, lines = [read_sweep(path) for path in paths], read_lines(paths)
    aggregates, notes = aggregate(lines), _notes(lines, sweeps)
    tables = [_own_table(lines), _beside_table(lines), _published_table(lines), _aggregate_table(aggregates)]
    tables = [table for table in tables if table.cells]
    texts = {
        "d4rl_table.md": _markdown(tables, notes),
        "d4rl_table.csv": _csv(lines),
        "d4rl_table.tex": _latex(tables, notes, _origins(lines)),
        "d4rl_aggregates.csv": _aggregates_csv(aggregates),
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    return [out / name for name in texts]


def _each(run_dirs: Paths) -> Iterator[pathlib.Path]:
    several = [run_dirs] if isinstance(run_dirs, str | os.PathLike) else run_dirs
    return map(pathlib.Path, several)


def read_lines(run_dirs: Paths) -> list[Line]:
    """The datasets of runs that have scores.

    Raises:
      UserError: not a run directory, a file in it is damaged, or a score is not normalized.
    """
    lines: dict[str, Line] = {}
    for path in _each(run_dirs):
        sweep = read_sweep(path)
        online = {stage.algorithm for stage in read_stages(sweep).values() if stage.online}
        families = {entry["name"]: entry["family"] for entry in sweep["datasets"]}
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in collect(path):
            if row.metric != "normalized_score":
                raise UserError(f"{row.dataset}: has no D4RL-normalized score; its table is {path}/report/table.md")
            if row.algorithm not in online and row.seeds != 0:
                groups.setdefault((row.dataset, row.algorithm), []).append(row)
        scores = _last_scores(path)
        for (dataset, algorithm), rows in groups.items():
            line = lines.setdefault(dataset, Line(dataset, families[dataset], {}, {}, {}))
            if algorithm not in line.rows:
                best = max(rows, key=lambda row: (not row.unfinished, row.mean))
                line.rows[algorithm], line.tried[algorithm] = best, len(rows)
                line.scores[algorithm] = scores.get((dataset, algorithm, best.setting, best.beta), np.zeros(0))
    return list(lines.values())


def _last_scores(run_dir: pathlib.Path) -> dict[tuple[str, str, str, float | None], np.ndarray]:
    found: dict[tuple[str, str, str, float | None], dict[int, list[Any]]] = {}
    for one in read_evaluations(run_dir):
        seeds = found.setdefault((one.dataset, one.algorithm, one.setting, one.beta), {})
        seeds.setdefault(one.seed, []).append(one)
    return {
        key: np.array([last_evaluation(seeds[seed]).mean for seed in sorted(seeds)]) for key, seeds in found.items()
    }


def aggregate(lines: Sequence[Line]) -> list[Aggregate]:
    """Aggregates of every algorithm over each family of datasets, and over all if there are several."""
    families = list(dict.fromkeys(line.family for line in lines))
    groups = {family: [line for line in lines if line.family == family] for family in families}
    if len(groups) > 1:
        groups["all"] = list(lines)
    return [
        _aggregate(group, algorithm, members)
        for group, members in groups.items()
        for algorithm in _algorithms(lines)
        if all(algorithm in line.rows for line in members)
    ]


def _aggregate(group: str, algorithm: str, lines: Sequence[Line]) -> Aggregate:
    samples, method = [line.scores[algorithm] for line in lines], method_of(algorithm)
    return Aggregate(
        group=group,
        algorithm=algorithm,
        label=lines[0].rows[algorithm].title,
        datasets=len(samples),
        runs=sum(map(len, samples)),
        iqm=estimate(interquartile_mean, samples),
        mean=estimate(mean_of_means, samples),
        published=published_average(method, [line.dataset for line in lines]) if method else None,
    )


def _algorithms(lines: Sequence[Line]) -> list[str]:
    """All algorithms of the runs, in their order."""
    return [name for name in dict.fromkeys(name for line in lines for name in line.rows) if name != DATA]


def _own_table(lines: Sequence[Line]) -> Table:
    """Datasets by algorithms of these runs."""
    algorithms = _algorithms(lines)
    labels = {name: line.rows[name].title for line in reversed(lines) for name in line.rows}
    has_data = any(DATA in line.rows for line in lines)
    titles = ["dataset", *(labels[name] for name in algorithms), *([DATA_LABEL] if has_data else [])]
    cells = [
        [
            _dataset(line),
            *(_score(line.rows.get(name)) for name in algorithms),
            *([f"{line.rows[DATA].mean:.1f}" if DATA in line.rows else ""] if has_data else []),
        ]
        for line in lines
    ]
    return Table(titles, cells, 1)


def _beside_table(lines: Sequence[Line]) -> Table:
    """Every score of these runs with its published one."""
    titles = ["dataset", "algorithm", "setting", "seeds", "episodes", "here", "published", "difference"]
    titles += ["best, not last"]
    cells = [_beside_cells(line, line.rows[name]) for line in lines for name in line.rows if name != DATA]
    keep = [index for index in range(len(titles)) if any(row[index] for row in cells)]
    words = 3 if titles.index("setting") in keep else 2
    return Table([titles[i] for i in keep], [[row[i] for i in keep] for row in cells], words)


def _beside_cells(line: Line, row: Row) -> list[str]:
    published = published_score(line.dataset, row.algorithm)
    beta = "" if row.beta is None else f"beta={beta_text(row.beta)}"
    return [
        _dataset(line),
        row.title,
        ", ".join(part for part in (beta, row.setting.replace(";", ", ")) if part),
        "" if row.seeds is None else str(row.seeds),
        "" if row.episodes is None else str(row.episodes),
        _score(row),
        published.text() if published else "",
        f"{row.mean - published.mean:+.1f}" if published else "",
        "" if row.best_mean is None else f"{row.best_mean:.1f}",
    ]


def _published_table(lines: Sequence[Line]) -> Table:
    """Datasets by published columns; no line for data that are nobody's."""
    columns = published_columns(line.dataset for line in lines)
    cells = []
    for line in lines:
        scores = published_scores(line.dataset)
        if scores:
            cells.append([line.dataset, *(scores[one].short() if one in scores else "" for one in columns)])
    return Table(["published", *(column.title for column in columns)], cells, 1)


def _aggregate_table(aggregates: Sequence[Aggregate]) -> Table:
    titles = ["datasets of", "algorithm", "datasets", "runs", "IQM [95%]", "mean [95%]", "published mean"]
    cells = []
    for one in aggregates:
        published = one.published.text() if one.published else ""
        numbers = [str(one.datasets), str(one.runs), one.iqm.text(), one.mean.text(), published]
        cells.append([one.group, one.label, *numbers])
    shown = len(titles) if any(one.published for one in aggregates) else len(titles) - 1
    return Table(titles[:shown], [row[:shown] for row in cells], 2)


def _dataset(line: Line) -> str:
    return marked_dataset(next(iter(line.rows.values())))


def _score(row: Row | None) -> str:
    if row is None or math.isnan(row.mean):
        return ""
    return f"{row.mean:.1f} ± {row.std:.1f}" + (" (u)" if row.unfinished else "") + (" (d)" if row.diverged else "")


def _notes(lines: Sequence[Line], sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the numbers mean and where they come from."""
    notes = [
        "D4RL-normalized scores, mean ± sample standard deviation over seeds of each seed's last evaluation. best, not "
        "last: mean over seeds of each seed's best evaluation, which no offline method can pick. IQM and mean over "
        "runs with 95% intervals of a bootstrap stratified by dataset.",
    ]
    labels = {name: label for sweep in reversed(sweeps) for name, label in read_labels(sweep).items()}
    for name in _algorithms(lines):
        tried = max(line.tried.get(name, 0) for line in lines)
        if tried > 1:
            notes.append(
                f"{labels.get(name, name)}: the best of {tried} settings, picked by these same evaluations, which "
                "flatters it."
            )
    scores = [score for line in lines for score in published_scores(line.dataset).values()]
    if scores:
        notes.append("Published scores are means over seeds from the literature; what each is, its marks say.")
        notes += explain(scores)
    else:
        notes.append("No dataset here is one of D4RL's, so nothing published stands beside it.")
    notes += [f"(o) {note}." for note in _origins(lines)]
    if any(row.unfinished for line in lines for row in line.rows.values()):
        notes.append("(u): unfinished; the latest evaluation stands in.")
    if any(row.diverged for line in lines for row in line.rows.values()):
        notes.append("(d): members diverged and were frozen at their last good state.")
    return notes + [line.removeprefix("- ") for sweep in sweeps for line in provenance(dict(sweep))]


def _origins(lines: Sequence[Line]) -> list[str]:
    return origin_notes(row for line in lines for row in line.rows.values())


def _markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    text = ["# D4RL beside the literature", "", *(f"- {note}" for note in notes)]
    for table in tables:
        rule = "|---" * table.words + "|--:" * (len(table.titles) - table.words) + "|"
        text += ["", markdown_line(table.titles), rule, *map(markdown_line, table.cells)]
    return "\n".join(text) + "\n"


def _latex(tables: Sequence[Table], notes: Sequence[str], origins: Sequence[str]) -> str:
    """Tabulars for `booktabs`; the notes are comments, but for those on the origin of data, which are printed."""
    text = [f"% {note}" for note in notes]
    for table in tables:
        columns = "l" * table.words + "r" * (len(table.titles) - table.words)
        titles = [title.replace("%", "\\%") for title in table.titles]
        text += ["", *tabular(columns, titles, table.cells)]
    return "\n".join([*text, *(f"\\par{{\\footnotesize (o) {escaped(note)}.}}" for note in origins)]) + "\n"


def _csv(lines: Sequence[Line]) -> str:
    """One row per dataset and algorithm of these runs, and one per published score."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    names = ["dataset", "algorithm", "source", "beta", "setting", "seeds", "episodes", "mean", "std", "best_mean"]
    writer.writerow([*names, "marks", "origin"])
    for line in lines:
        for row in line.rows.values():
            settings = [beta_text(row.beta), row.setting, row.seeds, row.episodes]
            numbers = ("" if x is None else f"{x:.8g}" for x in (row.mean, row.std, row.best_mean))
            writer.writerow([line.dataset, row.algorithm, "run", *settings, *numbers, "", row.origin])
        for column, score in published_scores(line.dataset).items():
            spread = "" if score.std is None else f"{score.std:g}"
            words = [line.dataset, column.method, f"published ({column.by})", "", "", "", ""]
            writer.writerow([*words, f"{score.mean:g}", spread, "", score.marks, ""])
    return output.getvalue()


def _aggregates_csv(aggregates: Sequence[Aggregate]) -> str:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    names = [f"{name}{end}" for name in ("iqm", "mean") for end in ("", "_low", "_high")]
    writer.writerow(["group", "algorithm", "datasets", "runs", *names, "published", "published_note"])
    for one in aggregates:
        numbers = [f"{value:.8g}" for value in (*one.iqm, *one.mean)]
        published = [f"{one.published.mean:.8g}", one.published.note] if one.published else ["", ""]
        writer.writerow([one.group, one.algorithm, one.datasets, one.runs, *numbers, *published])
    return output.getvalue()
