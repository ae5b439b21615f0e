"""Published scores, whose averages are those that the papers print."""

import json
import statistics
from importlib.resources import files

import pytest

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.methods import METHODS
from jaxrl_srpo.report.published import (
    RECALLED,
    Column,
    explain,
    method_of,
    published_average,
    published_columns,
    published_score,
    published_scores,
)

CONTENT = json.loads(files("jaxrl_srpo.report").joinpath("published.json").read_text(encoding="utf-8"))
LOCOMOTION = [name for name in d4rl.PAPER if not name.startswith("antmaze")]
ANTMAZE = [name for name in d4rl.PAPER if name.startswith("antmaze")]


@pytest.mark.parametrize(
    ("name", "algorithm", "text"),
    [
        ("hopper-medium-v2", "srpo", "95.5 (l)"),
        ("antmaze-large-diverse-v2", "srpo", "53.6 (l)"),
        # What was read comes before what is recalled.
        ("hopper-medium-v2", "iql", "67.5 ± 3.8 (CORL, l)"),
        ("hopper-medium-v2", "td3_bc", "60.4 ± 3.5 (CORL, l)"),
        ("hopper-medium-v2", "rebrac", "102.3 ± 0.2 (CORL, l)"),
        ("door-human-v1", "awac", "2.4 (CORL, l)"),
        ("walker2d-medium-v2", "diffusion_ql", "87.0 (o)"),
        ("antmaze-umaze-v2", "diffusion_ql", "93.4 (o0)"),
        ("antmaze-umaze-v2", "qgpo", "96.4 (lsu)"),
        ("hopper-medium-v2", "diffuser", "74.3 ± 1.4 (released, p)"),
        ("hopper-medium-v0", "bcq", "52.5 ± 22.8 (d3rlpy, l)"),
        ("antmaze-umaze-v0", "bear", "73.0 (D4RL, lr)"),
    ],
)
def test_scores_by_algorithm_name(name: str, algorithm: str, text: str) -> None:
    score = published_score(name, algorithm)
    assert score is not None
    assert score.text() == text


@pytest.mark.parametrize("algorithm", ["bc", "data", "sac_offline", ""])
def test_other_algorithms_have_none(algorithm: str) -> None:
    assert published_score("hopper-medium-v2", algorithm) is None
    assert method_of(algorithm) is None


def test_bcq_and_bear_have_scores_on_the_first_version_of_the_data_alone() -> None:
    for algorithm in ("bcq", "bear"):
        assert published_score("hopper-medium-v2", algorithm) is None
        assert published_score("hopper-medium-v0", algorithm) is not None


@pytest.mark.parametrize(
    "name", ["hopper_medium-regen", "hopper-medium-regen", "hopper_medium-v2", "hopper-medium-v1", "pointmaze/umaze"]
)
def test_only_exact_names_count(name: str) -> None:
    assert published_score(name, "srpo") is None
    assert published_columns([name]) == []


# The averages that the papers and CORL print are an independent check of every column.
@pytest.mark.parametrize(
    ("method", "by", "locomotion", "antmaze"),
    [
        ("TD3+BC", "paper", 75.3, 27.3),
        ("IQL", "paper", 77.0, 63.0),
        ("SfBC", "paper", 75.6, 74.2),
        ("Diffusion-QL", "paper", 87.9, 69.6),
        ("QGPO", "paper", 86.6, 78.3),
        ("IDQL", "paper", 82.1, 79.1),
        ("SRPO", "paper", 87.1, 73.7),
        ("TD3+BC", "CORL", 76.45, 19.33),
        ("CQL", "CORL", 78.28, 50.71),
        ("IQL", "CORL", 81.63, 57.17),
        ("ReBRAC", "CORL", 89.74, 78.42),
        ("AWAC", "CORL", 79.39, 18.58),
        ("Diffuser", "paper", 75.3, None),
        ("Diffuser", "released", 77.5, None),
    ],
)
def test_averages_agree_with_the_published_ones(method: str, by: str, locomotion: float, antmaze: float | None) -> None:
    for names, average in ((LOCOMOTION, locomotion), (ANTMAZE, antmaze)):
        scores = [published_scores(name).get(Column(method, by)) for name in names]
        if average is None:
            assert scores == [None] * len(names)
        else:
            assert statistics.fmean(one.mean for one in scores if one) == pytest.approx(average, abs=0.06)


def test_an_average_is_of_one_column_and_of_one_that_was_read_if_there_is_one() -> None:
    td3_bc, diffuser = (published_average(method, LOCOMOTION) for method in ("TD3+BC", "Diffuser"))
    assert td3_bc is not None
    assert diffuser is not None
    assert (td3_bc.column.by, diffuser.column.by) == ("CORL", "released")
    assert published_average("Diffuser", ["hopper-medium-v2", "antmaze-umaze-v2"]) is None
    both = published_average("Diffusion-QL", [*LOCOMOTION, *ANTMAZE])
    assert both is not None
    assert both.marks == "o0"
    assert both.short() == f"{(87.911 * 9 + 69.633 * 6) / 15:.1f} (o0)"


def test_marks_are_explained_and_what_is_recalled_has_its_own() -> None:
    for entry in CONTENT["columns"]:
        assert entry["marks"]
        assert set(entry["marks"]) <= set(CONTENT["marks"])
        assert ("recalled" in entry["source"]) <= (RECALLED in entry["marks"])
    scores = [one for name in LOCOMOTION for one in published_scores(name).values()]
    legend, *sources = explain(scores)
    assert "r: recalled, not read" in legend
    assert any("2310.07297" in source for source in sources)
    assert explain([]) == []


def test_every_method_of_ours_that_the_literature_scores_is_known_by_its_word() -> None:
    words = {stage.algorithm for method in METHODS for stage in method.stages if stage.acts}
    named = {entry["method"] for entry in CONTENT["columns"]}
    assert {method_of(word) for word in ("srpo", "iql", "awac", "td3_bc", "rebrac")} <= named
    assert {"srpo", "iql", "awac", "td3_bc", "rebrac"} <= words
