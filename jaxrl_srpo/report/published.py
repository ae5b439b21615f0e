"""Published scores, to be printed beside the scores of a run.

`published.json` holds columns: one method's scores by one source, with marks that say what the numbers are. A method
may have several columns, and a column several entries where marks differ between datasets.
"""

import functools
import importlib.resources
import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

RECALLED = "r"
"""Mark of a score that was read nowhere."""


class Column(NamedTuple):
    """Whose scores: a method's by one source.

    Attributes:
      method: as the literature calls it.
      by: whose numbers they are: `paper` for the method's own, else for instance `CORL`.
    """

    method: str
    by: str

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.method if self.by == "paper" else f"{self.method} ({self.by})"


class Score(NamedTuple):
    """A published D4RL-normalized score, 0 random and 100 expert.

    Attributes:
      column: whose it is.
      mean: over seeds.
      std: over seeds, as its source has it; None where that was not read.
      marks: letters that `explain` explains.
      source: where it stands.
    """

    column: Column
    mean: float
    std: float | None
    marks: str
    source: str

    @property
    def note(self) -> str:
        """By whom, unless that is the method's paper, and the marks."""
        return ", ".join(part for part in (self.column.by if self.column.by != "paper" else "", self.marks) if part)

    def text(self) -> str:
        """As tables print it beside a score of ours."""
        spread = "" if self.std is None else f" ± {self.std:.1f}"
        return f"{self.mean:.1f}{spread} ({self.note})"

    def short(self) -> str:
        """As tables print it below a title that names its column."""
        return f"{self.mean:.1f} ({self.marks})"


@functools.cache
def _published() -> dict[str, Any]:
    """The contents of `published.json`."""
    text = importlib.resources.files("jaxrl_srpo.report").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


@functools.cache
def _scores() -> dict[str, dict[Column, Score]]:
    """All scores by dataset and column, columns that were read before those that are recalled."""
    entries = sorted(_published()["columns"], key=lambda entry: RECALLED in entry["marks"])
    found: dict[str, dict[Column, Score]] = {}
    for entry in entries:
        column = Column(entry["method"], entry["by"])
        for name, numbers in entry["scores"].items():
            score = Score(column, numbers[0], numbers[1] if len(numbers) > 1 else None, entry["marks"], entry["source"])
            found.setdefault(name, {}).setdefault(column, score)
    return found


def method_of(algorithm: str) -> str | None:
    """What the literature calls an algorithm of `evaluations.csv`; None for those that it does not score."""
    return _published()["algorithms"].get(algorithm)


def published_scores(dataset_name: str) -> dict[Column, Score]:
    """All published scores on a dataset, those that were read first.

    Args:
      dataset_name: the exact D4RL name, for instance `hopper-medium-v2`. Regenerated or renamed data have no published
        score, however similar their names.
    """
    return _scores().get(dataset_name, {})


def published_score(dataset_name: str, algorithm: str) -> Score | None:
    """The published score of an algorithm of `evaluations.csv` on a dataset: the first one that was read.

    One that is recalled stands in where none was read; None where the literature has none.
    """
    method = method_of(algorithm)
    return next((score for column, score in published_scores(dataset_name).items() if column.method == method), None)


def published_average(method: str, dataset_names: Sequence[str]) -> Score | None:
    """The mean over datasets of the first column of a method that has a score for each of them; None without one.

    Args:
      method: as the literature calls it, for instance `Diffusion-QL`.
      dataset_names: exact D4RL names.
    """
    tables = [published_scores(name) for name in dataset_names]
    columns = list(dict.fromkeys(column for table in tables for column in table if column.method == method))
    averages = [_average([table[column] for table in tables]) for column in columns if all(column in t for t in tables)]
    return min(averages, key=lambda score: RECALLED in score.marks) if averages else None


def _average(scores: Sequence[Score]) -> Score:
    marks = "".join(mark for mark in _published()["marks"] if any(mark in score.marks for score in scores))
    mean = statistics.fmean(score.mean for score in scores)
    return Score(scores[0].column, mean, None, marks, "; ".join(dict.fromkeys(score.source for score in scores)))


def published_columns(dataset_names: Iterable[str]) -> list[Column]:
    """The columns that have a score for one of these datasets, in the order of the file."""
    known = {column for name in dataset_names for column in published_scores(name)}
    listed = dict.fromkeys(Column(entry["method"], entry["by"]) for entry in _published()["columns"])
    return [column for column in listed if column in known]


def explain(scores: Iterable[Score]) -> list[str]:
    """What the marks of some scores mean and where these stand, a sentence each."""
    scores = list(scores)
    marks = {mark: text for mark, text in _published()["marks"].items() if any(mark in one.marks for one in scores)}
    sources: dict[str, dict[str, None]] = {}
    for one in scores:
        sources.setdefault(one.source, {})[one.column.title] = None
    legend = "; ".join(f"{mark}: {text}" for mark, text in marks.items())
    lines = [f"Marks of published scores: {legend}."] if marks else []
    return lines + [f"{', '.join(titles)}: {source}." for source, titles in sources.items()]
