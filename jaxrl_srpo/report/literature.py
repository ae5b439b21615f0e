"""A run beside the literature: the published table's rows, differences to it, and aggregates with their uncertainty.

Aggregates follow Agarwal et al. (arXiv 2108.13264): the interquartile mean over all runs of a group of datasets, and
95% percentile intervals of a bootstrap stratified by dataset. SciPy's bootstrap of several samples, each resampled on
its own, is exactly that.
"""

import csv
import io
import os
import pathlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.published import METHODS, published_method, published_source
from jaxrl_srpo.report.records import DATA, beta_text, read_evaluations, read_sweep
from jaxrl_srpo.report.rows import Row, best_betas, collect, last_evaluation, marked_dataset, origin_notes
from jaxrl_srpo.report.table import markdown_line, provenance

ALGORITHMS = ("srpo", "iql", "bc")
RESAMPLES = 5_000
_TITLES = ("dataset", "beta", "seeds", "episodes", "SRPO", "published SRPO", "difference", "best, not last")


class Line(NamedTuple):
    """A line of the table: one dataset.

    Attributes:
      dataset: the dataset's name.
      family: the dataset's family.
      rows: rows of this run's table by algorithm, `data` among them; SRPO's is that of its best beta.
      betas: number of settings of SRPO that the best one was picked from.
    """

    dataset: str
    family: str
    rows: dict[str, Row]
    betas: int


class Estimate(NamedTuple):
    """A number and its 95% confidence interval, NaN where a dataset has a single seed."""

    value: float
    low: float
    high: float


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
    """

    group: str
    algorithm: str
    label: str
    datasets: int
    runs: int
    iqm: Estimate
    mean: Estimate


def write_literature_table(run_dir: str | os.PathLike[str], out: pathlib.Path) -> list[pathlib.Path]:
    """Writes `d4rl_table.md`, `.csv`, `.tex` and `d4rl_aggregates.csv`; equal run files give equal bytes.

    Args:
      run_dir: run directory.
      out: directory of the tables.

    Raises:
      UserError: not a run directory, a file in it is damaged, or a score is not normalized.
    """
    sweep, lines = read_sweep(run_dir), read_lines(run_dir)
    aggregates = aggregate(lines, final_scores(run_dir, lines))
    texts = {
        "d4rl_table.md": _markdown(lines, aggregates, sweep),
        "d4rl_table.csv": _csv(lines),
        "d4rl_table.tex": _latex(lines, aggregates, sweep),
        "d4rl_aggregates.csv": _aggregates_csv(aggregates),
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    return [out / name for name in texts]


def read_lines(run_dir: str | os.PathLike[str]) -> list[Line]:
    """The datasets of a run that have scores.

    Raises:
      UserError: not a run directory, a file in it is damaged, or a score is not normalized.
    """
    rows = [row for row in collect(run_dir) if row.algorithm in (*ALGORITHMS, DATA)]
    for row in rows:
        if row.metric != "normalized_score":
            raise UserError(f"{row.dataset}: has no D4RL-normalized score; its table is RUN_DIR/report/table.md")
    best = best_betas(rows)
    families = {entry["name"]: entry["family"] for entry in read_sweep(run_dir)["datasets"]}
    lines: dict[str, Line] = {}
    for row in rows:
        betas = sum((one.dataset, one.algorithm) == (row.dataset, "srpo") for one in rows)
        line = lines.setdefault(row.dataset, Line(row.dataset, families[row.dataset], {}, betas))
        if row.algorithm not in line.rows or row in best:
            line.rows[row.algorithm] = row
    return list(lines.values())


def final_scores(run_dir: str | os.PathLike[str], lines: Sequence[Line]) -> dict[tuple[str, str], np.ndarray]:
    """The last evaluation of every seed [seeds], by dataset and algorithm, of the settings in `lines`."""
    shown = {(row.dataset, row.algorithm, row.setting, row.beta) for line in lines for row in line.rows.values()}
    found: dict[tuple[str, str], dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for one in read_evaluations(run_dir):
        if (one.dataset, one.algorithm, one.setting, one.beta) in shown:
            found[one.dataset, one.algorithm][one.seed].append(one)
    return {
        key: np.array([last_evaluation(seeds[seed]).mean for seed in sorted(seeds)]) for key, seeds in found.items()
    }


def aggregate(lines: Sequence[Line], scores: dict[tuple[str, str], np.ndarray]) -> list[Aggregate]:
    """Aggregates of every algorithm over each family of datasets, and over all if there are several."""
    families = list(dict.fromkeys(line.family for line in lines))
    groups = {family: [line for line in lines if line.family == family] for family in families}
    if len(groups) > 1:
        groups["all"] = list(lines)
    return [
        _aggregate(group, members[0].rows[algorithm], [scores[line.dataset, algorithm] for line in members])
        for group, members in groups.items()
        for algorithm in ALGORITHMS
        if all(algorithm in line.rows for line in members)
    ]


def _aggregate(group: str, row: Row, samples: Sequence[np.ndarray]) -> Aggregate:
    return Aggregate(
        group=group,
        algorithm=row.algorithm,
        label=row.title,
        datasets=len(samples),
        runs=sum(map(len, samples)),
        iqm=_estimate(_iqm, samples),
        mean=_estimate(_mean, samples),
    )


def _iqm(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: of the runs of all datasets, without the lowest and the highest quarter."""
    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def _mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)


def _estimate(statistic: Any, samples: Sequence[np.ndarray]) -> Estimate:
    """The statistic and its interval, by a bootstrap that resamples the seeds of every dataset on its own."""
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Estimate(value, np.nan, np.nan)
    found = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=np.random.default_rng(0)
    )
    interval = found.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def _methods(lines: Sequence[Line]) -> list[str]:
    """Compared methods of the literature that have a score for one of the datasets."""
    known = [name for name in METHODS if name != "SRPO"]
    return [name for name in known if any(published_method(name, line.dataset) is not None for line in lines)]


def _cells(line: Line, methods: Sequence[str]) -> list[str]:
    """One line of the table, as text."""
    own = line.rows.get("srpo")
    published = published_method("SRPO", line.dataset)
    difference = None if own is None or published is None else own.mean - published
    return [
        marked_dataset(next(iter(line.rows.values()))),
        "" if own is None else beta_text(own.beta),
        "" if own is None else str(own.seeds),
        "" if own is None else str(own.episodes),
        _score(own),
        _number(published),
        "" if difference is None else f"{difference:+.1f}",
        "" if own is None else _number(own.best_mean),
        _score(line.rows.get("iql")),
        _score(line.rows.get("bc")),
        _number(line.rows[DATA].mean) if DATA in line.rows else "",
        *(_number(published_method(name, line.dataset)) for name in methods),
    ]


def _score(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.mean:.1f} ± {row.std:.1f}" + (" (u)" if row.unfinished else "") + (" (d)" if row.diverged else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _table(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells, without the columns that are blank everywhere."""
    methods = _methods(lines)
    titles = [*_TITLES, "IQL actor", "cloning", "data", *methods]
    cells = [_cells(line, methods) for line in lines]
    keep = [index for index in range(len(titles)) if any(row[index] for row in cells)]
    return [titles[i] for i in keep], [[row[i] for i in keep] for row in cells]


def _interval(estimate: Estimate) -> str:
    spread = "" if np.isnan(estimate.low) else f" [{estimate.low:.1f}, {estimate.high:.1f}]"
    return f"{estimate.value:.1f}{spread}"


def _aggregate_cells(one: Aggregate) -> list[str]:
    numbers = [str(one.datasets), str(one.runs), _interval(one.iqm), _interval(one.mean)]
    return [one.group, one.label, *numbers]


def _notes(lines: Sequence[Line], sweep: dict[str, Any]) -> list[str]:
    """What the numbers mean and where they come from."""
    notes = [
        "D4RL-normalized scores. SRPO, IQL actor and cloning: this run, mean ± sample standard deviation over seeds of "
        "each seed's last evaluation. best, not last: mean over seeds of each seed's best evaluation, which no offline "
        "method can pick. IQM and mean over runs with 95% intervals of a bootstrap stratified by dataset.",
    ]
    if any(line.betas > 1 for line in lines):
        tried = max(line.betas for line in lines)
        notes.append(f"SRPO: the best of {tried} settings, picked by these same evaluations, which flatters it.")
    if _methods(lines):
        notes.append(f"Columns of published methods are means over seeds from the literature. {published_source()}")
    else:
        notes.append("No dataset here is one of D4RL's, so nothing published stands beside it.")
    notes += [f"(o) {note}." for note in _origins(lines)]
    if any(row.unfinished for line in lines for row in line.rows.values()):
        notes.append("(u): unfinished; the latest evaluation stands in.")
    if any(row.diverged for line in lines for row in line.rows.values()):
        notes.append("(d): members diverged and were frozen at their last good state.")
    return notes + [line.removeprefix("- ") for line in provenance(sweep)]


def _origins(lines: Sequence[Line]) -> list[str]:
    return origin_notes(row for line in lines for row in line.rows.values())


def _markdown(lines: Sequence[Line], aggregates: Sequence[Aggregate], sweep: dict[str, Any]) -> str:
    titles, cells = _table(lines)
    text = ["# SRPO beside the literature", "", *(f"- {note}" for note in _notes(lines, sweep)), ""]
    text += [markdown_line(titles), "|---" + "|--:" * (len(titles) - 1) + "|", *map(markdown_line, cells), ""]
    head = ["datasets of", "algorithm", "datasets", "runs", "IQM [95%]", "mean [95%]"]
    text += [markdown_line(head), "|---|---" + "|--:" * 4 + "|"]
    text += [markdown_line(_aggregate_cells(one)) for one in aggregates]
    return "\n".join(text) + "\n"


def _latex(lines: Sequence[Line], aggregates: Sequence[Aggregate], sweep: dict[str, Any]) -> str:
    """Two tabulars for `booktabs`; the notes are comments, but for those on the origin of data, which are printed."""
    titles, cells = _table(lines)
    head = ["datasets of", "algorithm", "datasets", "runs", "IQM [95\\%]", "mean [95\\%]"]
    text = [f"% {note}" for note in _notes(lines, sweep)]
    text += _tabular("l" + "r" * (len(titles) - 1), titles, cells)
    text += [f"\\par{{\\footnotesize (o) {_escaped(note)}.}}" for note in _origins(lines)]
    text += ["", *_tabular("llrrrr", head, [_aggregate_cells(one) for one in aggregates])]
    return "\n".join(text) + "\n"


def _tabular(columns: str, titles: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    def line(row: Sequence[str]) -> str:
        return " & ".join(map(_escaped, row)) + " \\\\"

    rules = ["\\toprule", line(titles), "\\midrule", *map(line, cells), "\\bottomrule"]
    return [f"\\begin{{tabular}}{{{columns}}}", *rules, "\\end{tabular}"]


def _escaped(text: str) -> str:
    return text.replace(" ± ", " $\\pm$ ").replace("_", "\\_")


def _csv(lines: Sequence[Line]) -> str:
    """One row per dataset and algorithm of this run, and one per published score."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(
        ["dataset", "algorithm", "source", "beta", "seeds", "episodes", "mean", "std", "best_mean", "origin"]
    )
    for line in lines:
        for row in line.rows.values():
            beta = beta_text(row.beta)
            numbers = ("" if x is None else f"{x:.8g}" for x in (row.mean, row.std, row.best_mean))
            writer.writerow([line.dataset, row.algorithm, "run", beta, row.seeds, row.episodes, *numbers, row.origin])
        for name in METHODS:
            score = published_method(name, line.dataset)
            if score is not None:
                writer.writerow([line.dataset, name, "published", "", "", "", f"{score:g}", "", "", ""])
    return output.getvalue()


def _aggregates_csv(aggregates: Sequence[Aggregate]) -> str:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    names = [f"{name}{end}" for name in ("iqm", "mean") for end in ("", "_low", "_high")]
    writer.writerow(["group", "algorithm", "datasets", "runs", *names])
    for one in aggregates:
        numbers = [f"{value:.8g}" for value in (*one.iqm, *one.mean)]
        writer.writerow([one.group, one.algorithm, one.datasets, one.runs, *numbers])
    return output.getvalue()
