"""Typed records of a run directory's files, of this version and of earlier ones."""

import pathlib
from typing import Any

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report import records
from jaxrl_srpo.report.records import Result, TrainingMetrics, last_rows, metrics_tail, read_metrics
from tests.report import written_run

HEADER = "stage,dataset,seed,setting,beta,step,updates_per_second,loss\n"
CONTENT = HEADER + "".join(f"policy,hüpfer,{seed},,0.1,{step},50.0,1.5\n" for step in (4, 8) for seed in (0, 1))


class TestMetrics:
    def test_a_row_by_hand(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "metrics.csv").write_text(CONTENT)
        rows = read_metrics(tmp_path)
        assert rows[2] == TrainingMetrics("policy", "hüpfer", 0, "", 0.1, 8, 50.0, {"loss": 1.5})
        assert rows[2].result == Result("policy", "hüpfer", 0, "", 0.1)
        assert len(rows) == 4

    def test_a_new_column_while_the_file_is_followed(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "metrics.csv"
        path.write_text(CONTENT)
        tail = metrics_tail(tmp_path)
        before = tail.read().rows
        lines = CONTENT.splitlines()
        path.write_text("\n".join([f"{lines[0]},surprise", *(f"{line}," for line in lines[1:]), ""]))
        assert tail.read() == (before, True)
        with path.open("a") as file:
            file.write("own,hüpfer,0,,,4,50.0,,2.5\n")
        (row,) = tail.read().rows
        assert (row.stage, row.beta, row.values) == ("own", None, {"surprise": 2.5})

    def test_last_rows_by_stage_and_member(self, tmp_path: pathlib.Path) -> None:
        assert last_rows(tmp_path) == {}
        (tmp_path / "metrics.csv").write_text(CONTENT + "policy,hüpfer,0,,0.1,12,50.0,0.5\n")
        found = last_rows(tmp_path)
        assert {result: (row.step, row.values["loss"]) for result, row in found.items()} == {
            Result("policy", "hüpfer", 0, "", 0.1): (12, 0.5),
            Result("policy", "hüpfer", 1, "", 0.1): (8, 1.5),
        }

    def test_a_cell_that_is_no_number_says_where(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "metrics.csv").write_text(CONTENT.replace("1.5", "x", 1))
        with pytest.raises(UserError, match=r"metrics\.csv line 2: loss is 'x', should be a number"):
            read_metrics(tmp_path)


class TestSweep:
    def test_what_is_no_run_directory_says_why(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(UserError, match=r"nowhere is not a run directory, it does not exist; give the --out"):
            records.read_sweep(tmp_path / "nowhere")
        with pytest.raises(UserError, match=r"is not a run directory, it has no sweep\.json"):
            records.read_sweep(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", r"sweep\.json is not valid JSON"), ("{}", "no list 'datasets'"), ("[]", "no object")],
    )
    def test_damage_is_named(self, tmp_path: pathlib.Path, text: str, message: str) -> None:
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(UserError, match=message):
            records.read_sweep(tmp_path)

    def test_stages_are_those_of_the_run_in_order(self) -> None:
        sweep = {"stages": [*written_run.OWN_STAGES, *written_run.STAGES]}
        stages = records.read_stages(sweep)
        assert list(stages) == ["teacher", "pupil", "hermit", "behavior", "critic", "policy"]
        assert (stages["pupil"].online, stages["pupil"].follows) == (True, "mine")
        assert list(records.read_labels(sweep).items())[:2] == [("data", "behavior data"), ("mine", "My method")]

    def test_a_directory_of_an_earlier_version_has_the_stages_of_all_methods(self) -> None:
        stages = records.read_stages({})
        assert list(stages)[:3] == ["behavior", "critic", "policy"]
        assert [stages[name].algorithm for name in ("behavior", "critic", "policy")] == ["bc", "iql", "srpo"]
        assert stages["awac_online"].follows == "awac"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"label": None}, r"'stages' is not as train writes it \(label is None\)"),
            ({"online": 1}, r"'stages' is not as train writes it \(online is 1\)"),
        ],
    )
    def test_damaged_stages_are_named(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            records.read_stages({"stages": [{**written_run.STAGES[0], **change}]})
        with pytest.raises(UserError, match=r"'stages' is not as train writes it \('algorithm'\)"):
            records.read_stages({"stages": [{"name": "x"}]})
