"""Run directories compared: the same rows, and the same results to the last bit."""

import pathlib
import socket
from collections.abc import Sequence

import jax
import numpy as np

from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result


def table(out: pathlib.Path, name: str) -> list[dict[str, str]]:
    """Rows of a CSV file, without the one column that the clock writes."""
    rows = csv_log.read_rows(out / name)
    return [{key: value for key, value in row.items() if key != "updates_per_second"} for row in rows]


def by_content(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return sorted(tuple(row.values()) for row in rows)


def assert_same_results(out: pathlib.Path, other: pathlib.Path, methods: Sequence[Method] = ()) -> None:
    """Every result of every member is the same to the last bit; `methods` are those of a user's own."""
    run, reference = RunDirectory(out, methods=methods), RunDirectory(other, methods=methods)
    assert run.members() == reference.members()
    for member in run.members():
        for stage in member.stages:
            ours, theirs = (load_result(directory, stage, member) for directory in (run, reference))
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def assert_same_but_for_order(out: pathlib.Path, other: pathlib.Path) -> None:
    """The same results, the same table to the last byte, and the same rows, each once."""
    assert (out / "report" / "table.csv").read_bytes() == (other / "report" / "table.csv").read_bytes()
    for name in ("metrics.csv", "evaluations.csv"):
        assert by_content(table(out, name)) == by_content(table(other, name))
    assert_same_results(out, other)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
