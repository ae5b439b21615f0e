"""CSV files written by several processes, and read while others append to them, cut them short or replace them."""

import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.csv_log import CsvLog, News, Tail, read_rows
from tests import synthetic

COLUMNS = ("name", "value")
CONTENT = "name,value\n" + "".join(f"hüpfer,{value}\n" for value in range(4))

APPEND_AND_DROP = """
import pathlib, sys
from jaxrl_srpo.io.csv_log import CsvLog
log = CsvLog(pathlib.Path(sys.argv[1]), ("worker", "row"))
for row in range(40):
    log.append([{"worker": sys.argv[2], "row": row}])
    log.keep(lambda other: other["worker"] != sys.argv[2] or int(other["row"]) > row - 20)
"""

APPEND_NEW_COLUMNS = """
import pathlib, sys
from jaxrl_srpo.io.csv_log import CsvLog
log, worker = CsvLog(pathlib.Path(sys.argv[1]), ("worker", "row")), sys.argv[2]
for row in range(60):
    log.append([{"worker": worker, "row": row, f"{worker}_{row // 20}": row}])
"""


def tail_of(path: pathlib.Path) -> Tail[dict[str, str]]:
    return Tail(path, frozenset(COLUMNS), lambda path, line, cells: cells)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=synthetic.environment(), text=True)


class TestCsvLog:
    @pytest.mark.parametrize("torn", ["b", "b,", "b,2", '"b', "b,2.5e"])
    def test_a_torn_last_line_is_dropped_and_written_again(self, tmp_path: pathlib.Path, torn: str) -> None:
        path = tmp_path / "log.csv"
        CsvLog(path, COLUMNS).append([{"name": "a", "value": 1}])
        with path.open("a") as file:
            file.write(torn)
        log = CsvLog(path, COLUMNS)
        assert log.rows() == [{"name": "a", "value": "1"}]
        log.append([{"name": "b", "value": 2}])
        assert path.read_text() == "name,value\na,1\nb,2\n"

    @pytest.mark.parametrize("content", ["", "nam", "name,value"])
    def test_a_torn_header_is_replaced(self, tmp_path: pathlib.Path, content: str) -> None:
        path = tmp_path / "log.csv"
        path.write_text(content)
        assert CsvLog(path, COLUMNS).rows() == []
        assert path.read_text() == "name,value\n"

    def test_rows_are_dropped_by_choice(self, tmp_path: pathlib.Path) -> None:
        log = CsvLog(tmp_path / "log.csv", COLUMNS)
        log.append([{"name": f"a,{i}", "value": i} for i in range(3)])
        log.keep(lambda row: row["value"] != "1")
        assert [row["name"] for row in log.rows()] == ["a,0", "a,2"]

    @pytest.mark.parametrize("rows", [[], [{"name": "a", "value": 1}]])
    def test_a_file_with_fewer_columns_gets_the_new_ones_first(
        self, tmp_path: pathlib.Path, rows: list[dict[str, object]]
    ) -> None:
        path = tmp_path / "log.csv"
        CsvLog(path, COLUMNS).append(rows)
        log = CsvLog(path, ("name", "added", "value"))
        log.append([{"name": "b", "value": 2, "added": 3}])
        assert path.read_text() == "name,added,value\n" + "a,,1\n" * len(rows) + "b,3,2\n"

    def test_unknown_columns_follow_the_others_and_are_blank_in_older_rows(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        log = CsvLog(path, COLUMNS)
        log.append([{"name": "a", "value": 1}])
        log.append([{"name": "b", "loss": 2}, {"name": "c", "norm, squared": 3}])
        log.append([{"name": "d", "value": 4}])
        assert path.read_text() == 'name,value,loss,"norm, squared"\na,1,,\nb,,2,\nc,,,3\nd,4,,\n'
        # Nothing is lost where the directory is opened again.
        assert CsvLog(path, COLUMNS).rows() == read_rows(path)
        assert path.read_text().startswith('name,value,loss,"norm, squared"\n')

    def test_a_log_learns_the_columns_that_another_one_added(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        first, second = CsvLog(path, COLUMNS), CsvLog(path, COLUMNS)
        first.append([{"name": "a", "loss": 1}])
        second.append([{"name": "b", "norm": 2}])
        first.append([{"name": "c", "loss": 3}])
        first.keep(lambda row: row["name"] != "a")
        assert path.read_text() == "name,value,loss,norm\nb,,,2\nc,,3,\n"

    def test_processes_append_to_and_rewrite_one_file_without_losing_a_row(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        processes = [start(APPEND_AND_DROP, path, name) for name in ("a", "b", "c")]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        assert sorted((row["worker"], int(row["row"])) for row in read_rows(path)) == [
            (name, row) for name in ("a", "b", "c") for row in range(20, 40)
        ]
        assert path.read_text().startswith("worker,row\n")

    def test_two_processes_add_columns_to_one_file_while_a_third_follows_it(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        tail: Tail[dict[str, str]] = Tail(path, frozenset(("worker", "row")), lambda path, line, cells: cells)
        followed: list[dict[str, str]] = []
        processes = [start(APPEND_NEW_COLUMNS, path, name) for name in ("a", "b")]
        running = True
        while running:
            running = any(process.poll() is None for process in processes)
            news = tail.read()
            followed = [*([] if news.restarted else followed), *news.rows]
        assert [process.wait() for process in processes] == [0, 0]
        rows = read_rows(path)
        assert set(rows[0]) == {"worker", "row", *(f"{name}_{i}" for name in "ab" for i in range(3))}
        for name in "ab":
            own = [row for row in rows if row["worker"] == name]
            assert [int(row["row"]) for row in own] == list(range(60))
            for row in own:
                cells = {column: value for column, value in row.items() if value and column not in ("worker", "row")}
                assert cells == {f"{name}_{int(row['row']) // 20}": row["row"]}
        # Rows read before a column came lack its blank cell; they have all others.
        assert [{k: v for k, v in row.items() if v} for row in followed] == [
            {k: v for k, v in row.items() if v} for row in rows
        ]


class TestChecks:
    COLUMNS = ("name", "check", "value")

    def test_every_flipped_bit_is_named_or_changes_no_row(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        CsvLog(path, self.COLUMNS).append([{"name": "hüpfer", "value": 0.25}, {"name": "b", "value": None}])
        whole, rows = path.read_bytes(), read_rows(path)
        assert rows == [{"name": "hüpfer", "value": "0.25"}, {"name": "b", "value": ""}]
        messages = []
        for bit in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(flipped))
            try:
                found = read_rows(path)
            except UserError as error:
                messages.append(str(error))
            else:
                # A last line without its end counts as cut short; a column of blanks may have any name.
                assert [list(row.values()) for row in found] in (
                    [list(row.values()) for row in rows],
                    [list(row.values()) for row in rows[:-1]],
                )
        assert len(messages) > 8 * len(whole) * 0.9
        assert not any("\n" in message for message in messages)

    def test_rows_of_earlier_versions_get_theirs_when_they_are_written_again(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        path.write_text(CONTENT)
        before = read_rows(path)
        CsvLog(path, self.COLUMNS)
        assert path.read_text().startswith("name,check,value\nhüpfer,")
        assert read_rows(path) == before
        path.write_text(path.read_text().replace(",3\n", ",4\n"))
        with pytest.raises(UserError, match=r"line 5 is damaged: it is not what was written"):
            read_rows(path)

    def test_new_columns_do_not_change_what_older_rows_are(self, tmp_path: pathlib.Path) -> None:
        log = CsvLog(tmp_path / "log.csv", self.COLUMNS)
        log.append([{"name": "a", "value": 1}])
        log.append([{"name": "b", "loss": 2}])
        assert log.rows() == [{"name": "a", "value": "1", "loss": ""}, {"name": "b", "value": "", "loss": "2"}]

    @pytest.mark.parametrize("content", ["no line", "\0" * 50, "value,name"])
    def test_what_is_no_log_is_not_emptied(self, tmp_path: pathlib.Path, content: str) -> None:
        (tmp_path / "log.csv").write_text(content)
        with pytest.raises(UserError, match="has no line of its own kind"):
            CsvLog(tmp_path / "log.csv", self.COLUMNS)
        assert (tmp_path / "log.csv").read_text() == content

    def test_two_columns_of_one_name_are_refused(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "log.csv").write_text("name,value,name\na,1,b\n")
        with pytest.raises(UserError, match="two columns of one name"):
            read_rows(tmp_path / "log.csv")

    def test_a_cell_without_an_end_is_named(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "log.csv").write_text('name,value\n"' + "x" * 200_000 + "\n")
        with pytest.raises(UserError, match=r"log\.csv line \d+: is no row of a CSV file"):
            read_rows(tmp_path / "log.csv")

    def test_an_append_that_fails_leaves_the_file_as_it_was(self, tmp_path: pathlib.Path) -> None:
        code = """
import pathlib, resource, sys
from jaxrl_srpo.io.csv_log import CsvLog
log = CsvLog(pathlib.Path(sys.argv[1]), ("name", "check", "value"))
log.append([{"name": "a", "value": 1}])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    log.append([{"name": "b" * 100, "value": i} for i in range(50)])
except OSError as error:
    print(error.filename)
"""
        path = tmp_path / "log.csv"
        assert synthetic.python("-c", code, str(path)).stdout == f"{path}\n"
        assert read_rows(path) == [{"name": "a", "value": "1"}]


class TestTail:
    @given(cuts=st.lists(st.integers(0, len(CONTENT.encode())), max_size=5))
    def test_rows_come_once_wherever_the_file_ends_when_it_is_read(
        self, tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
    ) -> None:
        content, path = CONTENT.encode(), tmp_path_factory.mktemp("tail") / "log.csv"
        tail = tail_of(path)
        assert tail.read() == News([], restarted=False)
        rows, restarts = [], 0
        with path.open("ab", buffering=0) as file:
            for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(content)], strict=True):
                file.write(content[begin:end])
                news = tail.read()
                rows += news.rows
                restarts += news.restarted
        assert rows == read_rows(path)
        assert len(rows) == 4
        assert restarts == 1

    def test_a_file_that_was_replaced_is_read_from_its_start(self, tmp_path: pathlib.Path) -> None:
        path, lines = tmp_path / "log.csv", CONTENT.splitlines(keepends=True)
        path.write_text(CONTENT)
        tail = tail_of(path)
        tail.read()
        assert tail.read() == News([], restarted=False)
        (tmp_path / "new.csv").write_text("".join(lines[:3]))
        (tmp_path / "new.csv").rename(path)
        news = tail.read()
        assert ([row["value"] for row in news.rows], news.restarted) == (["0", "1"], True)
        with path.open("a") as file:
            file.write(lines[3])
        assert tail.read() == News([{"name": "hüpfer", "value": "2"}], restarted=False)

    @pytest.mark.parametrize(
        "content",
        ["name,value,loss\n" + "a,1,\n" * 20, "name,value\n" + "hüpfer,9\n" * 20],
        ids=["another header", "other rows"],
    )
    def test_a_longer_file_with_the_number_of_the_old_one_is_read_from_its_start(
        self, tmp_path: pathlib.Path, content: str
    ) -> None:
        """A file system may give the number of a file that was just replaced to the next one."""
        path = tmp_path / "log.csv"
        path.write_text(CONTENT)
        tail = tail_of(path)
        tail.read()
        number = path.stat().st_ino
        path.write_text(content)
        assert path.stat().st_ino == number
        news = tail.read()
        assert (news.rows, news.restarted) == (read_rows(path), True)
        assert len(news.rows) == 20

    def test_a_damaged_row_is_named_by_its_line_and_read_again(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "log.csv"
        path.write_text(CONTENT)
        tail = tail_of(path)
        tail.read()
        # What a network file system shows of an append that has not arrived yet: zeros.
        path.write_bytes(CONTENT.encode() + bytes(9) + b"\n")
        with pytest.raises(UserError, match=r"log\.csv line 6: expected 2 cells"):
            tail.read()
        path.write_text(CONTENT + "hüpfer,5\n")
        assert tail.read() == News([{"name": "hüpfer", "value": "5"}], restarted=False)

    def test_a_missing_column_is_named(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "log.csv").write_text("name\na\n")
        with pytest.raises(UserError, match=r"log\.csv has no column 'value'"):
            tail_of(tmp_path / "log.csv").read()

    def test_other_encodings_are_refused(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "log.csv").write_bytes("name,value\nhüpfer,1\n".encode("latin-1"))
        with pytest.raises(UserError, match=r"log\.csv is not UTF-8 text"):
            tail_of(tmp_path / "log.csv").read()
