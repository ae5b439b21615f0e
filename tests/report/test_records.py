"""CSV files read while another process appends to them, cuts them short or replaces them."""

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.records import Result, TrainingMetrics, metrics_tail, read_metrics

HEADER = "stage,dataset,seed,setting,beta,step,updates_per_second,loss\n"
CONTENT = HEADER + "".join(f"policy,hüpfer,{seed},,0.1,{step},50.0,1.5\n" for step in (4, 8) for seed in (0, 1))


def test_a_row_by_hand(tmp_path: pathlib.Path) -> None:
    (tmp_path / "metrics.csv").write_text(CONTENT)
    rows = read_metrics(tmp_path)
    assert rows[2] == TrainingMetrics("policy", "hüpfer", 0, "", 0.1, 8, 50.0, {"loss": 1.5})
    assert rows[2].result == Result("policy", "hüpfer", 0, "", 0.1)
    assert len(rows) == 4


@given(cuts=st.lists(st.integers(0, len(CONTENT.encode())), max_size=5))
def test_rows_come_once_wherever_the_file_ends_when_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    content, path = CONTENT.encode(), tmp_path_factory.mktemp("tail") / "metrics.csv"
    tail = metrics_tail(path.parent)
    assert tail.read().rows == []
    rows, restarts = [], 0
    with path.open("ab", buffering=0) as file:
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(content)], strict=True):
            file.write(content[start:end])
            news = tail.read()
            rows += news.rows
            restarts += news.restarted
    assert rows == read_metrics(path.parent)
    assert len(rows) == 4
    assert restarts == 1


def test_a_file_that_was_replaced_is_read_from_its_start(tmp_path: pathlib.Path) -> None:
    path, lines = tmp_path / "metrics.csv", CONTENT.splitlines(keepends=True)
    path.write_text(CONTENT)
    tail = metrics_tail(tmp_path)
    tail.read()
    assert tail.read() == ([], False)
    (tmp_path / "new.csv").write_text("".join(lines[:3]))
    (tmp_path / "new.csv").rename(path)
    news = tail.read()
    assert ([row.step for row in news.rows], news.restarted) == ([4, 4], True)
    with path.open("a") as file:
        file.write(lines[3])
    assert [row.step for row in tail.read().rows] == [8]


def test_a_damaged_row_is_named_by_its_line_and_read_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CONTENT)
    tail = metrics_tail(tmp_path)
    tail.read()
    # What a network file system shows of an append that has not arrived yet: zeros.
    row = "policy,hüpfer,0,,0.1,12,50.0,1.5\n"
    path.write_bytes(CONTENT.encode() + bytes(9) + b"\n")
    with pytest.raises(UserError, match=r"metrics.csv line 6: expected 8 cells"):
        tail.read()
    path.write_text(CONTENT + row)
    assert [row.step for row in tail.read().rows] == [12]
