"""A run on tasks of OGBench beside the literature: success in percent, by task and by the mean over a family's tasks.

The protocol is that of arXiv 2502.02538: a seed counts with the mean of its last three evaluations. Aggregates are
those of `report.estimates`.
"""

import csv
import functools
import importlib.resources
import io
import json
import os
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.data import ogbench_tasks
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.estimates import Estimate, estimate, interquartile_mean, mean_of_means
from jaxrl_srpo.report.latex import escaped, tabular
from jaxrl_srpo.report.records import Evaluation, beta_text, read_evaluations, read_sweep
from jaxrl_srpo.report.table import markdown_line, provenance

LAST = 3
"""Evaluations whose mean is a seed's score."""


class Policy(NamedTuple):
    """What is trained on every task: an algorithm with its settings.

    Attributes:
      algorithm: as in `evaluations.csv`.
      setting: as in `evaluations.csv`.
      beta: SRPO's temperature; None for the others.
    """

    algorithm: str
    setting: str
    beta: float | None

    def title(self, labels: Mapping[str, str]) -> str:
        """What tables call it."""
        beta = "" if self.beta is None else f"beta={beta_text(self.beta)}"
        details = ", ".join(one for one in (beta, self.setting) if one)
        return labels[self.algorithm] + (f" ({details})" if details else "")


class Scores(NamedTuple):
    """A policy on a task.

    Attributes:
      seeds: its seeds.
      successes: percent, of each seed.
      evaluations: that each is the mean of, at the least.
      step: of the last one.
    """

    seeds: tuple[int, ...]
    successes: np.ndarray
    evaluations: int
    step: int


class Published(NamedTuple):
    """A column of published scores.

    Attributes:
      method: as the literature calls it.
      mark: `t` transcribed, `r` recalled.
      source: where its scores come from.
      of: what its scores are of: `default task` or `mean over five tasks`.
      scores: mean and perhaps deviation by environment (default tasks) or family.
    """

    method: str
    mark: str
    source: str
    of: str
    scores: Mapping[str, Sequence[float]]


_Table = dict[str, dict[Policy, Scores]]


def write_ogbench_table(run_dir: str | os.PathLike[str], out: pathlib.Path) -> list[pathlib.Path]:
    """Writes `ogbench_table.md`, `.csv` and `.tex`; equal run files give equal bytes.

    Args:
      run_dir: run directory.
      out: directory of the tables.

    Raises:
      UserError: not a run directory, a file in it is damaged, or it has no evaluation of a task of OGBench.
    """
    sweep, table = read_sweep(run_dir), read_table(run_dir)
    labels = {one["algorithm"]: one["label"] for one in sweep["stages"]}
    texts = {
        "ogbench_table.md": _markdown(table, labels, sweep),
        "ogbench_table.csv": _csv(table),
        "ogbench_table.tex": _latex(table, labels, sweep),
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    return [out / name for name in texts]


def read_table(run_dir: str | os.PathLike[str]) -> _Table:
    """The scores of every policy by task, tasks in the order of the sweep.

    Raises:
      UserError: not a run directory, a file in it is damaged, or it has no evaluation of a task of OGBench.
    """
    found: dict[tuple[str, Policy], dict[int, list[Evaluation]]] = defaultdict(lambda: defaultdict(list))
    for one in read_evaluations(run_dir):
        if ogbench_tasks.parse(one.dataset) is not None and not one.again:
            found[one.dataset, Policy(one.algorithm, one.setting, one.beta)][one.seed].append(one)
    names = [entry["name"] for entry in read_sweep(run_dir)["datasets"]]
    table: _Table = {name: {} for name in names if any(name == dataset for dataset, _ in found)}
    for (dataset, policy), seeds in found.items():
        table[dataset][policy] = _scores(seeds)
    if not table:
        raise UserError(f"{os.fspath(run_dir)}: has no evaluation of a task of OGBench; see its report/table.md")
    return table


def _scores(seeds: Mapping[int, Sequence[Evaluation]]) -> Scores:
    numbers = tuple(sorted(seeds))
    last = [sorted(seeds[number], key=lambda one: one.step)[-LAST:] for number in numbers]
    successes = [100.0 * float(np.mean([one.mean for one in own])) for own in last]
    return Scores(numbers, np.array(successes), min(map(len, last)), min(own[-1].step for own in last))


def families(table: _Table) -> dict[str, list[str]]:
    """The tasks by family, such as `cube-single-play`."""
    found: dict[str, list[str]] = {}
    for task in table:
        found.setdefault(_family(task), []).append(task)
    return found


def best_policies(table: _Table, tasks: Sequence[str]) -> list[Policy]:
    """One policy of each algorithm: that of the highest mean over some tasks, of which all were evaluated."""
    common = [policy for policy in table[tasks[0]] if all(policy in table[task] for task in tasks)]
    means = {policy: float(np.mean([table[task][policy].successes.mean() for task in tasks])) for policy in common}
    best: dict[str, Policy] = {}
    for policy, mean in means.items():
        if policy.algorithm not in best or mean > means[best[policy.algorithm]]:
            best[policy.algorithm] = policy
    return list(best.values())


@functools.cache
def published() -> tuple[Published, ...]:
    """All published columns."""
    text = importlib.resources.files("jaxrl_srpo.report").joinpath("published_ogbench.json").read_text(encoding="utf-8")
    return tuple(
        Published(method, column["mark"], column["source"], column["of"], scores)
        for column in json.loads(text)["columns"]
        for method, scores in column["scores"].items()
    )


def _sources() -> dict[str, str]:
    return {column.mark: column.source for column in published()}


def published_score(column: Published, task: str | None, family: str) -> Sequence[float] | None:
    """What a column says of a task, or of the mean over a family's tasks (`task` None); None where it says nothing."""
    if task is None:
        return column.scores.get(family) if column.of == "mean over five tasks" else None
    name = ogbench_tasks.parse(task)
    if name is None or column.of != "default task" or name.number != ogbench_tasks.default_task(name.environment):
        return None
    # These scores are of the kinds that the protocol names.
    usual = f"{name.environment}-{'navigate' if 'maze' in name.environment else 'play'}"
    return column.scores.get(name.environment) if family == usual and not name.large else None


def _family(task: str) -> str:
    name = ogbench_tasks.parse(task)
    assert name is not None
    return f"{name.environment}-{name.kind}{'-100m' if name.large else ''}"


class _Line(NamedTuple):
    """A line of a table: a task, or the mean over a family's (`task` None)."""

    family: str
    task: str | None
    number: str
    scores: dict[Policy, str]


def _lines(table: _Table, family: str, tasks: Sequence[str]) -> list[_Line]:
    policies = best_policies(table, tasks)
    lines = [
        _Line(family, task, _number_of(task), {one: _cell(scores) for one, scores in table[task].items()})
        for task in tasks
    ]
    if len(tasks) == 1:
        return lines
    means = {one: f"{mean_of_means(*[table[task][one].successes for task in tasks]):.0f}" for one in policies}
    return [*lines, _Line(family, None, f"mean of {len(tasks)}", means)]


def _number_of(task: str) -> str:
    name = ogbench_tasks.parse(task)
    assert name is not None
    return f"task {name.number}" + (" (default)" if name.number == ogbench_tasks.default_task(name.environment) else "")


def _cell(scores: Scores) -> str:
    spread = f" ± {np.std(scores.successes, ddof=1):.0f}" if len(scores.successes) > 1 else ""
    return f"{scores.successes.mean():.0f}{spread}"


def _table_of(table: _Table, labels: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: the best policies of each family, and published columns that say something."""
    groups = families(table)
    algorithms = list(dict.fromkeys(policy.algorithm for task in table for policy in table[task]))
    chosen = {family: {one.algorithm: one for one in best_policies(table, tasks)} for family, tasks in groups.items()}
    lines = [line for family, tasks in groups.items() for line in _lines(table, family, tasks)]
    columns = [
        one for one in published() if any(published_score(one, line.task, line.family) is not None for line in lines)
    ]
    titles = ["data", "task", *(labels[one] for one in algorithms), *(f"{one.method} ({one.mark})" for one in columns)]
    cells = []
    for line in lines:
        own = [chosen[line.family].get(algorithm) for algorithm in algorithms]
        cells.append(
            [
                line.family,
                line.number,
                *("" if one is None else line.scores.get(one, "") for one in own),
                *(_published_cell(published_score(one, line.task, line.family)) for one in columns),
            ]
        )
    return titles, cells


def _published_cell(score: Sequence[float] | None) -> str:
    return "" if score is None else " ± ".join(f"{number:g}" for number in score)


def _all_settings(table: _Table, labels: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Every policy on every task, where an algorithm has several settings."""
    policies = list(dict.fromkeys(policy for task in table for policy in table[task]))
    counts = [sum(one.algorithm == other.algorithm for other in policies) for one in policies]
    several = [one for one, count in zip(policies, counts, strict=True) if count > 1]
    titles = ["data", "task", *(one.title(labels) for one in several)]
    cells = [
        [_family(task), _number_of(task), *(_cell(own[one]) if one in own else "" for one in several)]
        for task, own in table.items()
    ]
    return titles, cells if several else []


def _aggregates(table: _Table, labels: Mapping[str, str]) -> list[list[str]]:
    rows = []
    for family, tasks in families(table).items():
        for policy in best_policies(table, tasks):
            samples = [table[task][policy].successes for task in tasks]
            found: list[Estimate] = [estimate(one, samples) for one in (interquartile_mean, mean_of_means)]
            runs = str(sum(map(len, samples)))
            rows.append([family, policy.title(labels), str(len(tasks)), runs, *(one.text() for one in found)])
    return rows


_AGGREGATE_TITLES = ("data", "algorithm", "tasks", "runs", "IQM [95%]", "mean [95%]")


def _notes(table: _Table, labels: Mapping[str, str], sweep: Mapping[str, Any]) -> list[str]:
    """What the numbers mean and where they come from."""
    everything = [scores for own in table.values() for scores in own.values()]
    fewest = min(scores.evaluations for scores in everything)
    notes = [
        "Success in percent, mean ± sample standard deviation over seeds; a seed counts with the mean of its last "
        f"{LAST} evaluations" + (f" (some have {fewest} only)." if fewest < LAST else "."),
        "Updates of each policy at its last evaluation: "
        + ", ".join(f"{label} {steps}" for label, steps in _updates(table, labels).items())
        + ".",
    ]
    for family, tasks in families(table).items():
        for policy in best_policies(table, tasks):
            tried = {one for task in tasks for one in table[task] if one.algorithm == policy.algorithm}
            if len(tried) > 1:
                notes.append(
                    f"{family}: {policy.title(labels)} is the best of {len(tried)} settings by these same evaluations, "
                    "which flatters it."
                )
    notes += [f"({mark}): {source}." for mark, source in _sources().items()]
    notes.append("Data made here are regenerated by the published recipe: the same distribution, other bytes.")
    return notes + [line.removeprefix("- ") for line in provenance(dict(sweep))]


def _updates(table: _Table, labels: Mapping[str, str]) -> dict[str, str]:
    steps: dict[str, set[int]] = defaultdict(set)
    for own in table.values():
        for policy, scores in own.items():
            steps[labels[policy.algorithm]].add(scores.step)
    return {label: " or ".join(f"{step:,}" for step in sorted(found)) for label, found in steps.items()}


def _markdown(table: _Table, labels: Mapping[str, str], sweep: Mapping[str, Any]) -> str:
    text = ["# OGBench, single tasks", "", *(f"- {note}" for note in _notes(table, labels, sweep)), ""]
    for titles, cells in (
        _table_of(table, labels),
        _all_settings(table, labels),
        (list(_AGGREGATE_TITLES), _aggregates(table, labels)),
    ):
        if cells:
            text += [markdown_line(titles), "|---|---" + "|--:" * (len(titles) - 2) + "|"]
            text += [*map(markdown_line, cells), ""]
    return "\n".join(text)


def _latex(table: _Table, labels: Mapping[str, str], sweep: Mapping[str, Any]) -> str:
    """Tabulars for `booktabs`; the notes are comments, but for the marks, which are printed."""
    titles, cells = _table_of(table, labels)
    text = [f"% {note}" for note in _notes(table, labels, sweep)]
    text += tabular("ll" + "r" * (len(titles) - 2), titles, cells)
    text += [f"\\par{{\\footnotesize ({mark}) {escaped(source)}.}}" for mark, source in _sources().items()]
    head = [title.replace("%", "\\%") for title in _AGGREGATE_TITLES]
    text += ["", *tabular("llrrrr", head, _aggregates(table, labels))]
    return "\n".join(text) + "\n"


def _csv(table: _Table) -> str:
    """A row per task, policy and seed of this run, and one per published score."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["data", "task", "algorithm", "source", "beta", "setting", "seed", "success", "std", "evaluations"])
    for task, own in table.items():
        for policy, scores in own.items():
            words = [_family(task), task, policy.algorithm, "run", beta_text(policy.beta), policy.setting]
            for seed, success in zip(scores.seeds, scores.successes, strict=True):
                writer.writerow([*words, seed, f"{success:.8g}", "", scores.evaluations])
    for family, tasks in families(table).items():
        for column in published():
            for one in (*tasks, None):
                if (score := published_score(column, one, family)) is not None:
                    where = one or "mean of five tasks"
                    spread = f"{score[1]:g}" if len(score) > 1 else ""
                    words = [family, where, column.method, f"published ({column.mark})", "", "", ""]
                    writer.writerow([*words, f"{score[0]:g}", spread, ""])
    return output.getvalue()
