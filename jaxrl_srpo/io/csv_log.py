"""The CSV files of a run directory: appended and followed by any number of processes, safe against kills.

A row with a cell `check` carries the CRC-32 of its other cells, so that a damaged one is told from what was written.
"""

import csv
import io
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import FileIO
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import errors_of, locked, write_atomically

CHECK = "check"
METRICS_COLUMNS = ("stage", "dataset", "seed", "setting", "beta", "step", "updates_per_second", CHECK)
"""The first columns of `metrics.csv`; whatever the stages measure follows."""
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
    "again",
    CHECK,
)

Record = TypeVar("Record")


class News(NamedTuple, Generic[Record]):
    """Rows that were completed since the file was last read; `restarted` if they replace all earlier ones."""

    rows: list[Record]
    restarted: bool


class Tail(Generic[Record]):
    """A CSV file that other processes may be appending to, or replacing by one with other rows or more columns.

    Args:
      path: of the file, which need not exist yet.
      required: columns that it must have.
      parse: makes a record of a path, a line number and the line's cells.

    Attributes:
      written: when the file was last written, in seconds since the epoch; None while there is no file.
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
        self._first_line, self._last_line = b"", b""

    def read(self) -> News[Record]:
        """The rows completed since the last call; a last line without its end waits for a later one.

        Raises:
          UserError: the file cannot be read, a column is missing, a cell is not what its column should hold, or a row
            is not what was written; the next call reads it again.
        """
        try:
            # Opening the file again is what makes a network file system look at the server's copy.
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                restarted = state.st_ino != self._inode or not self._continues(file, state.st_size)
                offset, line, columns = (0, 0, None) if restarted else (self._offset, self._line, self._columns)
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return News([], restarted=False)
        except OSError as error:
            raise UserError(f"{self._path} cannot be read ({error.strerror})") from None
        whole = content[: content.rfind(b"\n") + 1]
        reader = csv.DictReader(io.StringIO(_decode(self._path, whole)), columns)
        try:
            rows = [self._parse(self._path, *item) for item in self._lines(reader, line)]
        except csv.Error as error:
            raise UserError(f"{self._path} line {line + reader.line_num}: is no row of a CSV file ({error})") from None
        self.written, self._inode, self._offset = state.st_mtime, state.st_ino, offset + len(whole)
        self._columns, self._line = list(reader.fieldnames or ()) or None, line + reader.line_num
        if restarted:
            self._first_line, self._last_line = whole[: whole.find(b"\n") + 1], b""
        if whole:
            self._last_line = whole[whole[:-1].rfind(b"\n") + 1 :]
        return News(rows, restarted)

    def _continues(self, file: BinaryIO, size: int) -> bool:
        """Whether the file still holds what was read; a file that replaces another may get its inode number."""
        if size < self._offset:
            return False
        first = file.read(len(self._first_line))
        file.seek(self._offset - len(self._last_line))
        return (first, file.read(len(self._last_line))) == (self._first_line, self._last_line)

    def _lines(self, reader: "csv.DictReader[str]", before: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Line numbers in the file and cells."""
        columns = reader.fieldnames or ()
        missing = self._required.difference(columns)
        if columns and missing:
            raise UserError(f"{self._path} has no column {min(missing)!r}; it should be the file that train wrote")
        if len(set(columns)) < len(columns):
            raise UserError(f"{self._path} has two columns of one name; it should be the file that train wrote")
        for cells in reader:
            line = before + reader.line_num
            if None in cells or None in cells.values():
                raise UserError(f"{self._path} line {line}: expected {len(columns)} cells, as in line 1")
            if before + reader.line_num == 2 and CHECK not in cells and (name := _check_column(cells)):
                raise UserError(f"{self._path} line 1 is damaged: {name!r} should be {CHECK!r}; restore the file")
            check = cells.pop(CHECK, "")
            if check and check != _checksum(cells):
                raise UserError(
                    f"{self._path} line {line} is damaged: it is not what was written ({CHECK} differs); "
                    "restore the file, or delete the line and train or evaluate again"
                )
            yield line, cells


def read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    """All whole rows of a CSV file in order, as text by column; none if there is no such file.

    Raises:
      UserError: the file cannot be read, a line has too few or too many cells, or is not what was written.
    """
    return Tail(path, frozenset(), lambda path, line, cells: cells).read().rows


class CsvLog:
    """A CSV file that gains a column whenever a row brings a new one; rows are dictionaries.

    Processes that write take turns. A last line cut short by a kill is dropped before the next one is written.

    Args:
      path: of the file, which is made if there is none, in a directory that exists.
      columns: its first columns; with `CHECK` among them, every row that is written gets its checksum.

    Raises:
      UserError: the file is damaged.
      OSError: it cannot be written.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)
        with locked(self.path):
            self._repair()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows in one write; cells that a row lacks stay blank, as do those of new columns in older rows.

        Raises:
          UserError: the file is damaged.
          OSError: it cannot be written, and is as it was.
        """
        rows = list(rows)
        with locked(self.path):
            columns = self._repair(name for row in rows for name in row)
            with self.path.open("ab", buffering=0) as file, errors_of(self.path):
                _append(file, _format(columns, rows).encode())

    def rows(self) -> list[dict[str, str]]:
        """All whole rows in order, as text by column."""
        return read_rows(self.path)

    def keep(self, predicate: Callable[[dict[str, str]], bool]) -> None:
        """Drops the rows that do not satisfy the predicate, atomically."""
        with locked(self.path):
            columns = self._repair()
            rows = self.rows()
            kept = [row for row in rows if predicate(row)]
            if len(kept) < len(rows):
                self._write(columns, kept)

    def _repair(self, names: Iterable[str] = ()) -> list[str]:
        """Drops a torn last line and adds the columns that the header lacks; returns the header.

        The file is read again each time, because other processes extend the header too.
        """
        with self.path.open("a+b") as file:
            if not _drop_torn_line(file, ",".join(self.columns).encode()):
                raise UserError(f"{self.path} has no line of its own kind; it should be the file that train wrote")
            file.seek(0)
            header = next(csv.reader([_decode(self.path, file.readline())]), [])
        columns = list(dict.fromkeys((*self.columns, *header, *names)))
        if columns != header:
            self._write(columns, self.rows())
        return columns

    def _write(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        header = dict(zip(columns, columns, strict=True))
        write_atomically(self.path, _format(columns, [header, *rows]))


def _format(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writerows(_checked(row) if CHECK in columns else row for row in rows)
    return buffer.getvalue()


def _checked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with its checksum; a header as it is."""
    return row if row.get(CHECK) == CHECK else {**row, CHECK: _checksum(row)}


def _checksum(row: Mapping[str, Any]) -> str:
    """CRC-32 of the cells that are not blank, with their columns, whose order may change."""
    cells = {name: "" if value is None else str(value) for name, value in row.items() if name != CHECK}
    text = "\n".join(f"{name}={cells[name]}" for name in sorted(cells) if cells[name])
    return f"{zlib.crc32(text.encode()):08x}"


def _check_column(row: Mapping[str, str]) -> str:
    """The column that holds a row's checksum under another name; "" if none does."""
    found = (name for name, cell in row.items() if cell == _checksum({**row, name: ""}))
    return next(found, "")


def _decode(path: pathlib.Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); restore it or train again") from None


def _append(file: FileIO, content: bytes) -> None:
    """Appends all of the content, or nothing."""
    size = file.seek(0, os.SEEK_END)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(size)
        raise


def _drop_torn_line(file: BinaryIO, header: bytes) -> bool:
    """Drops a last line without its end; False where it is the only one and not the beginning of the header."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    if file.read() == b"\n":
        return True
    file.seek(0)
    content = file.read()
    end = content.rfind(b"\n") + 1
    if end == 0 and not header.startswith(content):
        return False
    file.truncate(end)
    return True
