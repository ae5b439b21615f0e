"""Rows of policies: their order, files, table, and the calls that load them."""

import csv
import json
import math
import pathlib

import pytest

from jaxrl_srpo.io import sealed
from jaxrl_srpo.selection.records import EPISODES, Row, Selection, format_selection, ranked, write_selection


def row(dataset: str = "one", seed: int = 0, **values: float) -> Row:
    return Row(dataset, "srpo", seed, "expectile=0.9", 0.1, **values)  # type: ignore[arg-type]


ROWS = (
    row(fqe=1.0, fqe_low=0.5, fqe_high=1.5, ess=0.2, mean=3.0, episodes=4),
    row(seed=1),
    row(seed=2, fqe=2.0, mean=1.0, episodes=2),
    row("two", fqe=-1.0),
)


@pytest.mark.parametrize(("by", "seeds"), [("fqe", [2, 0, 1]), ("ess", [0, 1, 2]), (EPISODES, [0, 2, 1])])
def test_the_best_comes_first_and_what_has_no_score_last(by: str, seeds: list[int]) -> None:
    found = ranked(ROWS, by)
    assert [one.seed for one in found if one.dataset == "one"] == seeds
    assert found[-1].dataset == "two"


def test_a_row_says_how_its_policy_is_loaded() -> None:
    expected = 'jaxrl_srpo.load_policy("runs/x", "one", seed=0, beta=0.1, expectile=0.9, algorithm="srpo")'
    assert row().call("runs/x") == expected
    assert row().name == "srpo seed=0 beta=0.1 expectile=0.9"
    plain = Row("one", "awac", 3, "", None)
    assert plain.call("runs/x") == 'jaxrl_srpo.load_policy("runs/x", "one", seed=3, algorithm="awac")'


def test_the_files_hold_all_rows_and_what_was_chosen(tmp_path: pathlib.Path) -> None:
    selection = Selection(tmp_path, tuple(ranked(ROWS, "fqe")), "fqe")
    table, facts = write_selection(selection, {"by": "fqe", "settings": {"fqe_steps": 3}})
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(one["dataset"], one["rank"], one["seed"]) for one in rows] == [
        ("one", "1", "2"),
        ("one", "2", "0"),
        ("one", "3", "1"),
        ("two", "1", "0"),
    ]
    assert rows[2]["fqe"] == ""
    kept = sealed.read(facts)
    assert kept == {key: value for key, value in json.loads(facts.read_text()).items() if key != sealed.SEAL}
    assert kept["chosen"]["one"]["policy"] == "srpo seed=2 beta=0.1 expectile=0.9"
    assert kept["settings"]["settings"] == {"fqe_steps": 3}


def test_the_table_names_the_chosen_one_of_each_dataset() -> None:
    noted = Row("one", "bc", 7, "", None, note="diverged")
    text = format_selection(Selection(pathlib.Path("runs/x"), (*ranked(ROWS, "fqe"), noted), "fqe"))
    lines = text.splitlines()
    assert "chosen: srpo seed=2 beta=0.1 expectile=0.9, the highest fqe" in lines
    assert text.count("chosen: ") == 2
    assert "bc seed=7: diverged" in lines
    assert text.count("  a guess, ") == 2
    assert any("1 [0.5, 1.5]" in line for line in lines)
    played = format_selection(Selection(pathlib.Path("runs/x"), ROWS[:1], EPISODES))
    assert "the highest mean of its episodes" in played
    assert "a guess" not in played
    assert math.isnan(noted.fqe)
