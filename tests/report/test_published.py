"""Published scores, whose averages are those that the papers print."""

import json
from importlib.resources import files

import pytest

from jaxrl_srpo.report.published import published_average, published_score, published_source


def test_scores_by_algorithm_name() -> None:
    assert published_score("hopper-medium-v2", "srpo") == 95.5
    assert published_score("hopper-medium-v2", "iql") == 66.3
    assert published_score("antmaze-large-diverse-v2", "srpo") == 53.6
    assert published_score("hopper-medium-v2", "awac") == 63.02
    assert published_score("door-human-v1", "awac") == 2.39
    assert published_score("door-human-v1", "srpo") is None
    assert published_score("hopper-medium-v2", "td3_bc") == 59.3


@pytest.mark.parametrize("algorithm", ["bc", "data", "sac_offline", ""])
def test_other_algorithms_have_none(algorithm: str) -> None:
    assert published_score("hopper-medium-v2", algorithm) is None


@pytest.mark.parametrize(
    "name", ["hopper_medium-regen", "hopper-medium-regen", "hopper_medium-v2", "hopper-medium-v0", "pointmaze/umaze"]
)
def test_only_exact_names_count(name: str) -> None:
    assert published_score(name, "srpo") is None


# The averages that the papers print are an independent check of every column.
@pytest.mark.parametrize(
    ("method", "locomotion", "antmaze"),
    [
        ("TD3+BC", 75.3, 27.3),
        ("IQL", 77.0, 63.0),
        ("SfBC", 75.6, 74.2),
        ("Diffusion-QL", 87.9, 69.6),
        ("QGPO", 86.6, 78.3),
        ("IDQL", 82.1, 79.1),
        ("SRPO", 87.1, 73.7),
    ],
)
def test_averages_agree_with_the_published_ones(method: str, locomotion: float, antmaze: float) -> None:
    scores = json.loads(files("jaxrl_srpo.report").joinpath("published.json").read_text(encoding="utf-8"))["scores"]
    names = [name for name in scores if method in scores[name]]
    assert len(names) == 15
    mazes = published_average(method, [name for name in names if name.startswith("antmaze")])
    others = published_average(method, [name for name in names if not name.startswith("antmaze")])
    assert (others, mazes) == (pytest.approx(locomotion, abs=0.06), pytest.approx(antmaze, abs=0.06))


def test_diffuser_has_no_antmaze_scores() -> None:
    scores = json.loads(files("jaxrl_srpo.report").joinpath("published.json").read_text(encoding="utf-8"))["scores"]
    assert "Diffuser" not in scores["antmaze-umaze-v2"]
    assert published_average("Diffuser", ["hopper-medium-v2", "antmaze-umaze-v2"]) is None
    assert scores["hopper-medium-v2"]["Diffuser"] == 58.5


def test_source_names_the_paper() -> None:
    assert "2310.07297" in published_source()
