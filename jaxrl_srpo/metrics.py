"""The CSV files of a run directory: appended row by row, safe against a kill at any instant."""

import csv
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxrl_srpo.files import write_atomically

METRICS_COLUMNS = (
    "stage",
    "dataset",
    "seed",
    "setting",
    "beta",
    "step",
    "updates_per_second",
    "loss",
    "value_loss",
    "q_loss",
    "actor_loss",
    "value",
    "q",
    "regularizer_norm",
    "q_gradient_norm",
)
EVALUATION_COLUMNS = (
    "stage",
    "algorithm",
    "dataset",
    "seed",
    "setting",
    "beta",
    "step",
    "final",
    "episodes",
    "metric",
    "mean",
    "std",
    "return_mean",
    "return_std",
    "length_mean",
    "success_rate",
)


class CsvLog:
    """A CSV file with fixed columns; rows are dictionaries of strings.

    A last line cut short by a kill is dropped when the file is opened again.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if not whole:
            write_atomically(path, self._format([dict(zip(self.columns, self.columns, strict=True))]))
        elif whole != text:
            write_atomically(path, whole)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows in one write; columns that a row lacks stay empty."""
        with self.path.open("a") as file:
            file.write(self._format(rows))
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, str]]:
        """All rows in order."""
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def keep(self, predicate: Callable[[dict[str, str]], bool]) -> None:
        """Drops the rows that do not satisfy the predicate, atomically."""
        rows = self.rows()
        kept = [row for row in rows if predicate(row)]
        if len(kept) < len(rows):
            header = dict(zip(self.columns, self.columns, strict=True))
            write_atomically(self.path, self._format([header, *kept]))

    def _format(self, rows: Iterable[Mapping[str, Any]]) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return buffer.getvalue()
