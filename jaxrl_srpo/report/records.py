"""The plain files of a run directory, read into typed records, and files written whole or not at all."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxrl_srpo.errors import UserError

_EVALUATION_COLUMNS = frozenset(
    ("stage", "algorithm", "dataset", "seed", "setting", "beta", "step", "final", "episodes", "metric", "mean", "std")
) | {"return_mean", "success_rate"}
# The first columns of metrics.csv; what follows are numbers that differ from stage to stage.
_METRICS_COLUMNS = ("stage", "dataset", "seed", "setting", "beta", "step", "updates_per_second")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One member evaluated once: a row of `evaluations.csv`.

    Attributes:
      stage: `behavior`, `critic` or `policy`.
      algorithm: `bc`, `iql` or `srpo`.
      dataset: the dataset's name.
      seed: the member's seed.
      setting: hyperparameters that the sweep varies other than beta, as `expectile=0.9`, ';' between them; or empty.
      beta: temperature of SRPO; None for the others.
      step: updates of the stage done so far.
      final: whether it is the last evaluation of the stage.
      episodes: number of episodes.
      metric: `normalized_score`, `success_rate` or `return`.
      mean: mean of the metric over the episodes.
      std: standard deviation of the metric over the episodes.
      return_mean: mean undiscounted return.
      success_rate: fraction of episodes, 0 to 1, that reached the goal; None where there is no goal.
    """

    stage: str
    algorithm: str
    dataset: str
    seed: int
    setting: str
    beta: float | None
    step: int
    final: bool
    episodes: int
    metric: str
    mean: float
    std: float
    return_mean: float
    success_rate: float | None


@dataclasses.dataclass(frozen=True)
class TrainingMetrics:
    """One member after one chunk of updates: a row of `metrics.csv`.

    Attributes:
      stage: `behavior`, `critic` or `policy`.
      dataset: the dataset's name.
      seed: the member's seed.
      setting: as in `Evaluation`.
      beta: temperature of SRPO; None in the other stages.
      step: updates of the stage done so far.
      values: what the stage measured, losses for instance, by column name; blank cells are left out.
    """

    stage: str
    dataset: str
    seed: int
    setting: str
    beta: float | None
    step: int
    values: dict[str, float]


def read_sweep(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of `sweep.json`, which says what the run consists of.

    Raises:
      UserError: the directory, or `sweep.json` in it, is missing or unreadable.
    """
    path = pathlib.Path(run_dir) / "sweep.json"
    if not path.is_file():
        problem = "has no sweep.json" if path.parent.is_dir() else "does not exist"
        raise UserError(
            f"{path.parent} is not a run directory, it {problem}; give the --out directory of a train command"
        )
    try:
        sweep = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it or train again") from error
    if not isinstance(sweep, dict) or not isinstance(sweep.get("datasets"), list):
        raise UserError(f"{path} has no list 'datasets'; it should be the file that train wrote")
    return sweep


def read_evaluations(run_dir: str | os.PathLike[str]) -> list[Evaluation]:
    """The rows of `evaluations.csv` in the order of the file; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    path = pathlib.Path(run_dir) / "evaluations.csv"
    return [_evaluation(path, line, cells) for line, cells in _read_csv(path, _EVALUATION_COLUMNS)]


def read_metrics(run_dir: str | os.PathLike[str]) -> list[TrainingMetrics]:
    """The rows of `metrics.csv` in the order of the file; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    path = pathlib.Path(run_dir) / "metrics.csv"
    required = frozenset(_METRICS_COLUMNS) - {"updates_per_second"}
    return [_training_metrics(path, line, cells) for line, cells in _read_csv(path, required)]


def _read_csv(path: pathlib.Path, required: frozenset[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and cells of a CSV file; nothing if it is missing or empty."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    # A run killed while writing leaves a last line without its end; that line says nothing reliable.
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    missing = required.difference(reader.fieldnames or ())
    if reader.fieldnames and missing:
        raise UserError(f"{path} has no column {min(missing)!r}; it should be the file that train wrote")
    for cells in reader:
        if None in cells or None in cells.values():
            raise UserError(
                f"{path} line {reader.line_num}: expected {len(reader.fieldnames or ())} cells, as in line 1"
            )
        yield reader.line_num, cells


def _number(path: pathlib.Path, line: int, column: str, text: str) -> float:
    """A cell as a number, or a message that says where it stands."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path} line {line}: {column} is {text!r}, should be a number") from None


def _integer(path: pathlib.Path, line: int, column: str, text: str) -> int:
    """A cell as a whole number, or a message that says where it stands."""
    value = _number(path, line, column, text)
    if not (math.isfinite(value) and value == int(value)):
        raise UserError(f"{path} line {line}: {column} is {text!r}, should be a whole number")
    return int(value)


def _optional(path: pathlib.Path, line: int, column: str, text: str) -> float | None:
    """A cell as a number, None if blank."""
    return _number(path, line, column, text) if text.strip() else None


def _evaluation(path: pathlib.Path, line: int, cells: dict[str, str]) -> Evaluation:
    """One row of `evaluations.csv` from its text."""
    return Evaluation(
        stage=cells["stage"],
        algorithm=cells["algorithm"],
        dataset=cells["dataset"],
        seed=_integer(path, line, "seed", cells["seed"]),
        setting=cells["setting"],
        beta=_optional(path, line, "beta", cells["beta"]),
        step=_integer(path, line, "step", cells["step"]),
        final=_integer(path, line, "final", cells["final"]) == 1,
        episodes=_integer(path, line, "episodes", cells["episodes"]),
        metric=cells["metric"],
        mean=_number(path, line, "mean", cells["mean"]),
        std=_number(path, line, "std", cells["std"]),
        return_mean=_number(path, line, "return_mean", cells["return_mean"]),
        success_rate=_optional(path, line, "success_rate", cells["success_rate"]),
    )


def _training_metrics(path: pathlib.Path, line: int, cells: dict[str, str]) -> TrainingMetrics:
    """One row of `metrics.csv` from its text."""
    values = {
        column: _number(path, line, column, text)
        for column, text in cells.items()
        if column not in _METRICS_COLUMNS and text.strip()
    }
    return TrainingMetrics(
        stage=cells["stage"],
        dataset=cells["dataset"],
        seed=_integer(path, line, "seed", cells["seed"]),
        setting=cells["setting"],
        beta=_optional(path, line, "beta", cells["beta"]),
        step=_integer(path, line, "step", cells["step"]),
        values=values,
    )
