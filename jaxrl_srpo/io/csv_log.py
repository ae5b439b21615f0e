"""The CSV files of a run directory: appended row by row by any number of processes, safe against kills."""

import contextlib
import csv
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from jaxrl_srpo.io.files import locked, write_atomically

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
    "advantage",
    "advantage_std",
    "effective_sample_size",
    "max_weight",
    "policy_std",
    "entropy",
    "temperature",
    "temperature_loss",
    "episodes",
    "episode_return",
    "episode_length",
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

    Processes that write take turns. A last line cut short by a kill is dropped before the next one is written.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)
        with self._opened():
            rows = self.rows()
            # A directory of an earlier version has fewer columns.
            if rows and tuple(rows[0]) != self.columns:
                write_atomically(self.path, self._format([self._header(), *rows]))

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows in one write; columns that a row lacks stay empty."""
        with self._opened() as file:
            file.write(self._format(rows).encode())
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, str]]:
        """All whole rows in order."""
        text = self.path.read_text()
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))

    def keep(self, predicate: Callable[[dict[str, str]], bool]) -> None:
        """Drops the rows that do not satisfy the predicate, atomically."""
        with self._opened():
            rows = self.rows()
            kept = [row for row in rows if predicate(row)]
            if len(kept) < len(rows):
                write_atomically(self.path, self._format([self._header(), *kept]))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file, for this process alone, with a header and without a torn line; writes go to its end."""
        with locked(self.path), self.path.open("a+b") as file:
            _drop_torn_line(file)
            if file.seek(0, os.SEEK_END) == 0:
                file.write(self._format([self._header()]).encode())
                file.flush()
            yield file

    def _header(self) -> dict[str, str]:
        return dict(zip(self.columns, self.columns, strict=True))

    def _format(self, rows: Iterable[Mapping[str, Any]]) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return buffer.getvalue()


def _drop_torn_line(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
