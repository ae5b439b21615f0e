"""The plain files of a run directory, read into typed records, also while another process writes them."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from jaxrl_srpo.errors import UserError

_EVALUATION_COLUMNS = frozenset(
    ("stage", "algorithm", "dataset", "seed", "setting", "beta", "step", "final", "episodes", "metric", "mean", "std")
) | {"return_mean", "success_rate"}
# The first columns of metrics.csv; what follows are numbers that differ from stage to stage.
_METRICS_COLUMNS = ("stage", "dataset", "seed", "setting", "beta", "step", "updates_per_second")

Record = TypeVar("Record")


class Result(NamedTuple):
    """A stage of a member, as the first columns of both files name it; members that share the result share the name."""

    stage: str
    dataset: str
    seed: int
    setting: str
    beta: float | None


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

    @property
    def result(self) -> Result:
        """The stage of the member that the row is about."""
        return Result(self.stage, self.dataset, self.seed, self.setting, self.beta)


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
      updates_per_second: of all members of its population together; None if the file does not say.
      values: what the stage measured, losses for instance, by column name; blank cells are left out.
    """

    stage: str
    dataset: str
    seed: int
    setting: str
    beta: float | None
    step: int
    updates_per_second: float | None
    values: dict[str, float]

    @property
    def result(self) -> Result:
        """The stage of the member that the row is about."""
        return Result(self.stage, self.dataset, self.seed, self.setting, self.beta)


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
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it or train again") from error
    if not isinstance(sweep, dict) or not isinstance(sweep.get("datasets"), list):
        raise UserError(f"{path} has no list 'datasets'; it should be the file that train wrote")
    return sweep


class News(NamedTuple, Generic[Record]):
    """Rows that were completed since the file was last read; `restarted` if they replace all earlier ones."""

    rows: list[Record]
    restarted: bool


class Tail(Generic[Record]):
    """A CSV file of rows that another process may be appending to, or replacing with a shorter one.

    Args:
      path: of the file, which need not exist yet.
      required: columns that it must have.
      parse: makes a record of a path, a line number and the line's cells.

    Attributes:
      written: when the file was last written, in seconds since the epoch; None while there is none.
    """

    def __init__(
        self,
        path: pathlib.Path,
        required: frozenset[str],
        parse: Callable[[pathlib.Path, int, dict[str, str]], Record],
    ) -> None:
        self.written: float | None = None
        self._path, self._required, self._parse = path, required, parse
        self._inode, self._offset, self._line = -1, 0, 0
        self._columns: list[str] | None = None

    def read(self) -> News[Record]:
        """The rows completed since the last call; a last line without its end waits for a later one.

        Raises:
          UserError: the file cannot be read, a column is missing, or a cell is not what its column should hold; the
            next call reads it again.
        """
        try:
            # Opened anew each time, since that is what makes a network file system look at the server's copy.
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                restarted = state.st_ino != self._inode or state.st_size < self._offset
                offset, line, columns = (0, 0, None) if restarted else (self._offset, self._line, self._columns)
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return News([], restarted=False)
        except OSError as error:
            raise UserError(f"{self._path} cannot be read ({error.strerror})") from None
        whole = content[: content.rfind(b"\n") + 1]
        reader = csv.DictReader(io.StringIO(self._decode(whole)), columns)
        rows = [self._parse(self._path, *item) for item in self._lines(reader, line)]
        self.written, self._inode, self._offset = state.st_mtime, state.st_ino, offset + len(whole)
        self._columns, self._line = list(reader.fieldnames or ()) or None, line + reader.line_num
        return News(rows, restarted)

    def _decode(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self._path} is not UTF-8 text ({error}); restore it or train again") from None

    def _lines(self, reader: "csv.DictReader[str]", before: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Line numbers in the file and cells."""
        columns = reader.fieldnames or ()
        missing = self._required.difference(columns)
        if columns and missing:
            raise UserError(f"{self._path} has no column {min(missing)!r}; it should be the file that train wrote")
        for cells in reader:
            line = before + reader.line_num
            if None in cells or None in cells.values():
                raise UserError(f"{self._path} line {line}: expected {len(columns)} cells, as in line 1")
            yield line, cells


def evaluations_tail(run_dir: str | os.PathLike[str]) -> Tail[Evaluation]:
    """Follows the rows of `evaluations.csv`."""
    return Tail(pathlib.Path(run_dir) / "evaluations.csv", _EVALUATION_COLUMNS, _evaluation)


def metrics_tail(run_dir: str | os.PathLike[str]) -> Tail[TrainingMetrics]:
    """Follows the rows of `metrics.csv`."""
    required = frozenset(_METRICS_COLUMNS) - {"updates_per_second"}
    return Tail(pathlib.Path(run_dir) / "metrics.csv", required, _training_metrics)


def read_evaluations(run_dir: str | os.PathLike[str]) -> list[Evaluation]:
    """The rows of `evaluations.csv` in the order of the file; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    return evaluations_tail(run_dir).read().rows


def read_metrics(run_dir: str | os.PathLike[str]) -> list[TrainingMetrics]:
    """The rows of `metrics.csv` in the order of the file; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    return metrics_tail(run_dir).read().rows


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
        updates_per_second=_optional(path, line, "updates_per_second", cells.get("updates_per_second", "")),
        values=values,
    )
