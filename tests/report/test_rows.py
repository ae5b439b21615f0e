"""Rows of the table from run files written by hand."""

import csv
import io
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report import write_table
from jaxrl_srpo.report.records import read_evaluations
from jaxrl_srpo.report.rows import best_betas, collect
from tests.report import written_run
from tests.report.written_run import EVALUATIONS, HEADER, HOPPER


def test_rows_by_hand(tmp_path: pathlib.Path) -> None:
    write_table(written_run.write(tmp_path))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report" / "table.csv").read_text())))
    assert list(rows[0]) == [
        *("dataset", "algorithm", "beta", "seeds", "episodes", "mean", "std", "published"),
        *("metric", "setting", "return_mean", "best_mean", "worst_seed", "diverged", "success_rate", "unfinished"),
        *("effective_sample_size", "regret", "label", "online", "shared", "not_trained", "origin", "published_note"),
    ]
    assert [(row["algorithm"], row["beta"]) for row in rows] == [
        ("data", ""),
        ("bc", ""),
        ("iql", ""),
        ("srpo", "0.05"),
        ("srpo", "0.2"),
    ]
    data, bc, iql, _, srpo = rows
    assert (data["mean"], data["std"], data["seeds"], data["episodes"]) == ("44.5", "3.25", "", "7")
    assert (bc["mean"], bc["std"], bc["seeds"], bc["published"]) == ("44", "0", "1", "")
    assert (iql["mean"], iql["std"], iql["published"]) == ("50", f"{np.sqrt(18):.8g}", "67.53")
    assert (srpo["mean"], srpo["std"], srpo["published"]) == ("50", f"{np.sqrt(200):.8g}", "95.5")
    # The last evaluations are 60 and 40, the best ones 80 and 40.
    assert (srpo["best_mean"], srpo["worst_seed"], srpo["return_mean"]) == ("60", "40", "500")
    assert (srpo["seeds"], srpo["episodes"], srpo["unfinished"]) == ("2", "10", "0")
    assert [(row["label"], row["online"]) for row in rows[:2]] == [("behavior data", "0"), ("behavior cloning", "0")]


def test_repeated_evaluations_after_a_resume_count_once(tmp_path: pathlib.Path) -> None:
    again = f"policy,srpo,{HOPPER},1,,0.20,1000,1,10,normalized_score,42,1,420,2,300,\n"
    row = collect(written_run.write(tmp_path, EVALUATIONS + again))[-1]
    assert (row.seeds, row.mean) == (2, 51.0)


def test_a_line_cut_by_a_kill_is_ignored(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path, EVALUATIONS + f"policy,srpo,{HOPPER},0,,0.2,1500,1,10,normalized_score,6")
    assert len(read_evaluations(run_dir)) == 9
    assert collect(run_dir)[-1].mean == 50.0


def test_unfinished_rows_are_not_the_best(tmp_path: pathlib.Path) -> None:
    unfinished = EVALUATIONS.replace(",0.05,1000,1,", ",0.05,1000,0,")
    assert {row.beta for row in best_betas(collect(written_run.write(tmp_path, unfinished)))} == {0.2}


def test_success_rates_and_settings(tmp_path: pathlib.Path) -> None:
    lines = "".join(
        f"policy,srpo,maze,{seed},expectile={tau},0.1,10,1,20,success_rate,{rate},0.1,70,2,300,{rate}\n"
        for seed, tau, rate in [(0, 0.9, 0.9), (1, 0.9, 1.0), (0, 0.7, 0.5)]
    )
    maze = written_run.dataset("maze", "success_rate", data_mean=0.4, data_success_rate=0.4)
    rows = collect(written_run.write(tmp_path, HEADER + lines, datasets=[maze]))
    assert [row.setting for row in rows] == ["", "expectile=0.7", "expectile=0.9"]
    assert rows[2].mean == rows[2].success_rate == pytest.approx(0.95)
    assert rows[0].success_rate == 0.4
    assert "**0.950 ± 0.071**" in written_run.markdown(tmp_path)


def test_published_scores_stay_away_from_other_data_and_metrics(tmp_path: pathlib.Path) -> None:
    regenerated = EVALUATIONS.replace(HOPPER, "hopper_medium-regen")
    rows = collect(written_run.write(tmp_path, regenerated, datasets=[written_run.dataset("hopper_medium-regen")]))
    assert all(row.published is None for row in rows)
    returns = EVALUATIONS.replace("normalized_score", "return")
    rows = collect(written_run.write(tmp_path, returns, datasets=[written_run.dataset(metric="return")]))
    assert all(row.published is None for row in rows)


@pytest.mark.parametrize("old", [False, True], ids=["objects", "strings of earlier versions"])
def test_diverged_members_are_counted_and_named(tmp_path: pathlib.Path, old: bool) -> None:
    def entry(stage: str, algorithm: str, dataset: str, seed: int, beta: str = "") -> Any:
        cells = {"stage": stage, "dataset": dataset, "seed": seed, "setting": "", "beta": beta, "update": 300}
        return f"{algorithm} {dataset} seed={seed}{f' beta={beta}' if beta else ''}" if old else cells

    diverged = [
        entry("policy", "srpo", HOPPER, 1, "0.2"),
        # Diverged before its first evaluation.
        entry("policy", "srpo", HOPPER, 2, "0.2"),
        entry("critic", "iql", HOPPER, 0),
        entry("behavior", "bc", f"d4rl/{HOPPER}", 0),
        entry("policy", "srpo", "other", 0, "0.05"),
    ]
    members = [{"dataset": HOPPER, "seed": seed} for seed in range(3)]
    rows = collect(written_run.write(tmp_path, diverged=diverged, members=members))
    assert [(row.algorithm, row.beta, row.diverged) for row in rows] == [
        ("data", None, 0),
        ("bc", None, 0),
        ("iql", None, 1),
        ("srpo", 0.05, 0),
        ("srpo", 0.2, 2),
    ]
    update = "" if old else " at update 300"
    assert f"`srpo {HOPPER} seed=1 beta=0.2{update}`" in written_run.markdown(tmp_path)
    assert "14.1 (d)" in written_run.markdown(tmp_path)


def test_members_that_were_not_trained_are_counted_and_named(tmp_path: pathlib.Path) -> None:
    def entry(seed: int, beta: str) -> dict[str, Any]:
        cells = {"stage": "policy", "dataset": HOPPER, "seed": seed, "setting": "", "beta": beta}
        return cells | {"because": "critic", "update": 57}

    # Two of three seeds have scores at 0.2; at 0.7 nobody has.
    rows = collect(written_run.write(tmp_path, not_trained=[entry(2, "0.2"), entry(0, "0.7"), entry(1, "0.7")]))
    found = [(row.algorithm, row.beta, row.seeds, row.not_trained) for row in rows]
    assert found == [
        ("data", None, None, 0),
        ("bc", None, 1, 0),
        ("iql", None, 2, 0),
        ("srpo", 0.05, 2, 0),
        ("srpo", 0.2, 2, 1),
        ("srpo", 0.7, 0, 2),
    ]
    assert np.isnan(rows[-1].mean)
    assert rows[-1].label == "SRPO"
    text = written_run.markdown(tmp_path)
    assert "14.1 (n)" in text
    assert "not trained (n)" in text
    assert f"`srpo {HOPPER} seed=2 beta=0.2 (its critic diverged at update 57)`" in text
    assert "nan" not in text


def test_a_method_of_ones_own_has_labeled_rows_in_the_order_of_its_stages(tmp_path: pathlib.Path) -> None:
    own = written_run.own_evaluations()
    maze = written_run.dataset("maze", "success_rate", data_mean=0.2)
    rows = collect(written_run.write(tmp_path, own, datasets=[maze], stages=written_run.OWN_STAGES))
    assert [(row.title, row.online) for row in rows] == [
        ("behavior data", False),
        ("My method", False),
        ("My method, online", True),
        ("Hermit", True),
    ]
    # Of the evaluations after the first: 1 - (0.7 + 0.9) / 2 and 1 - 0.2.
    assert [row.regret for row in rows] == [None, None, pytest.approx(0.2), pytest.approx(0.8)]


def test_an_algorithm_that_no_stage_has_comes_last_under_its_own_name(tmp_path: pathlib.Path) -> None:
    rows = collect(written_run.write(tmp_path, stages=written_run.STAGES[1:]))
    assert [row.title for row in rows] == ["behavior data", "IQL actor", "SRPO", "SRPO", "bc"]


def test_a_dataset_without_its_scores_is_named(tmp_path: pathlib.Path) -> None:
    entry = written_run.dataset()
    del entry["data_std"]
    with pytest.raises(UserError, match="dataset 'hopper-medium-v2' has no 'data_std'"):
        collect(written_run.write(tmp_path, datasets=[entry]))
