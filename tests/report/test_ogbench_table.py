"""The table of OGBench's tasks, made from stored evaluations whose means can be computed by hand."""

import csv
import io
import json
import pathlib

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.ogbench_table import Policy, best_policies, published, read_table, write_ogbench_table
from tests.report import written_run

TASKS = ("cube-single-play-singletask-task1-v0", "cube-single-play-singletask-task2-v0")
# Success of the last evaluations of two seeds: the first counts no more, as only the last three do.
IQL: dict[tuple[str, int], list[float]] = {
    (TASKS[0], 0): [0.9, 0.1, 0.2, 0.3],
    (TASKS[0], 1): [0.9, 0.4, 0.4, 0.4],
    (TASKS[1], 0): [0.8],
    (TASKS[1], 1): [1.0],
}
SRPO = {
    (TASKS[0], "0.05"): 0.5,
    (TASKS[1], "0.05"): 0.5,
    (TASKS[0], "0.1"): 0.2,
    (TASKS[1], "0.1"): 0.9,
}


def line(stage: str, algorithm: str, task: str, seed: int, beta: str, step: int, success: float) -> str:
    row = [stage, algorithm, task, seed, "", beta, step, 0, 50, "success_rate", success, 0.1, -9, 1, 9, success]
    return ",".join(map(str, row))


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    lines = [
        line("critic", "iql", task, seed, "", 100 * (number + 1), success)
        for (task, seed), successes in IQL.items()
        for number, success in enumerate(successes)
    ]
    lines += [line("policy", "srpo", task, 0, beta, 100, success) for (task, beta), success in SRPO.items()]
    return write_run(tmp_path / "run", TASKS, lines)


def write_run(path: pathlib.Path, names: tuple[str, ...], lines: list[str]) -> pathlib.Path:
    facts = {"transitions": 9, "episodes": 3, "fingerprint": "ab", "reward_transform": "none", "environment": None}
    datasets = [{"name": name, "metric": "success_rate", "family": "ogbench", **facts} for name in names]
    about = {"versions": {"jax": "0.10.2"}, "commit": "0123abc", "created": "2026-01-02", "command": ["x"]}
    path.mkdir()
    (path / "sweep.json").write_text(json.dumps({"datasets": datasets, "stages": written_run.STAGES, **about}))
    (path / "evaluations.csv").write_text(written_run.HEADER + "\n".join([*lines, ""]))
    return path


def test_a_seed_counts_with_the_mean_of_its_last_three_evaluations(run: pathlib.Path) -> None:
    scores = read_table(run)[TASKS[0]][Policy("iql", "", None)]
    np.testing.assert_allclose(scores.successes, [20.0, 40.0])
    assert (scores.seeds, scores.evaluations, scores.step) == ((0, 1), 3, 400)
    assert read_table(run)[TASKS[1]][Policy("iql", "", None)].evaluations == 1


def test_one_setting_of_an_algorithm_serves_all_tasks_of_a_family(run: pathlib.Path) -> None:
    best = best_policies(read_table(run), TASKS)
    assert best == [Policy("iql", "", None), Policy("srpo", "", 0.1)]


def test_published_columns_stand_beside_with_their_marks(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    paths = write_ogbench_table(run, tmp_path / "out")
    text, rows, latex = (path.read_text() for path in paths)
    titles, *cells = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")
    ][:4]
    found = {row[1]: dict(zip(titles, row, strict=True)) for row in cells}
    assert found["task 1"]["IQL actor"] == "30 ± 14"
    assert found["task 1"]["IQL (t)"] == ""
    assert found["task 2 (default)"]["IQL (t)"] == "85 ± 8"
    assert found["mean of 2"]["SRPO"] == "55"
    assert found["mean of 2"]["SRPO (r)"] == "80"
    assert "SRPO (beta=0.1) is the best of 2 settings by these same evaluations" in text
    assert "recalled from arXiv 2502.02538 and confirmed nowhere" in text
    assert "confirmed nowhere" in latex
    table = list(csv.DictReader(io.StringIO(rows)))
    ours = [row for row in table if row["source"] == "run" and row["algorithm"] == "iql" and row["task"] == TASKS[0]]
    assert [(row["seed"], float(row["success"])) for row in ours] == [
        ("0", pytest.approx(20)),
        ("1", pytest.approx(40)),
    ]
    recalled = [row for row in table if row["source"] == "published (r)"]
    assert {row["algorithm"] for row in recalled} == {column.method for column in published() if column.mark == "r"}


def test_a_run_of_other_data_is_refused(tmp_path: pathlib.Path) -> None:
    run = write_run(tmp_path / "run", ("hopper-medium-v2",), [line("critic", "iql", "hopper-medium-v2", 0, "", 1, 0.5)])
    with pytest.raises(UserError, match=r"run: has no evaluation of a task of OGBench; see its report/table\.md"):
        write_ogbench_table(run, tmp_path / "out")
