"""What experiments share: command lines, and cells of tables."""

import math
import pathlib
from typing import Any

import pytest
from absl import flags

from experiments import common
from jaxrl_srpo.errors import UserError


def command_line() -> common.CommandLine:
    line = common.CommandLine("d4rl.example", "Does nothing.", required="--datasets=NAME")
    line.define_datasets()
    line.define_seeds("0:3")
    line.define_preset("quick", ["paper", "quick"])
    line.define_betas(None, "Betas.")
    line.define_artefacts()
    line.whole("steps", 10, "Steps.", 1)
    line.switch("dry_run", "Say what would be done.")
    return line


def test_a_command_gives_values_and_the_rest_stays_at_its_defaults(tmp_path: pathlib.Path) -> None:
    line = command_line()
    out = line.parse([f"--out={tmp_path}", "--datasets=a,b", "--beta=0.1,1", "--dry_run"])
    assert out == tmp_path
    assert (line.datasets, line.seeds, line.betas, line.artefacts) == (("a", "b"), (0, 1, 2), (0.1, 1.0), None)
    assert (line.values.preset, line.values.steps, line.values.dry_run) == ("quick", 10, True)


def test_help_says_how_it_is_run_and_asks_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line().parse(["--help"]) is None
    text = capsys.readouterr().out
    assert text.startswith(
        "usage: python -m experiments.d4rl.example --datasets=NAME --out=DIRECTORY [--FLAG=VALUE ...]\n\nDoes nothing."
    )
    for name in ("--out", "--datasets", "--seeds", "--preset", "--beta", "--artefacts", "--steps", "--[no]dry_run"):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out: is required; for instance --out=docs/results/d4rl/example"),
        (["--out=x", "more"], "more: unexpected"),
    ],
)
def test_bad_commands_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command_line().parse(arguments)


def test_bad_values_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(flags.Error):
        command_line().parse([f"--out={tmp_path}", "--steps=0"])
    line = command_line()
    line.parse([f"--out={tmp_path}", "--seeds=x", "--beta=warm"])
    with pytest.raises(UserError, match="--datasets: is required"):
        _ = line.datasets
    with pytest.raises(UserError, match="--seeds=x"):
        _ = line.seeds
    with pytest.raises(UserError, match="--beta=warm: give numbers"):
        _ = line.betas


def test_tables_as_csv_and_as_markdown() -> None:
    rows: list[dict[str, Any]] = [{"name": "a", "value": 1 / 3, "count": 2}, {"name": "b", "value": None, "count": 10}]
    assert common.format_csv(("name", "value", "count"), rows) == "name,value,count\na,0.33333,2\nb,,10\n"
    assert common.format_csv(("name", "value", "count"), rows[:1], digits=None).endswith(f"\na,{1 / 3!r},2\n")
    assert common.markdown_table(["name", "of", "value"], [["a|b", "c", "1"]], words=2) == [
        "| name | of | value |",
        "|---|---|--:|",
        "| a\\|b | c | 1 |",
    ]


def test_cells_have_a_spread_where_there_are_several_values() -> None:
    values = [1.0, 2.0, 6.0]
    assert common.deviation(values) == pytest.approx(math.sqrt(7.0))
    assert common.mean_cell(values, common.deviation(values), 1) == "3.0 ± 2.6"
    assert common.mean_cell([2.0], common.deviation([2.0]), 2) == "2.00"
