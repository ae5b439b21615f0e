"""Exploring the star and finding its goals, from the command line to its tables and pictures."""

import csv
import pathlib

import numpy as np
import pytest

from experiments.exploration import star, star_goals
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import policy_mixture

# The default star has a bin that it only touches, and a visit there breaks the sum below; this one has none.
STAR = ("--halls=4", "--length=3")


def test_it_trains_measures_and_writes(tmp_path: pathlib.Path) -> None:
    flags = [f"--out={tmp_path}", "--variants=sm4", "--seeds=0:2", "--steps=2000", *STAR]
    markdown = star.main(flags)
    assert markdown == (tmp_path / "star.md").read_text()
    with (tmp_path / "star.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["seed"], row["source"]) for row in rows] == [
        ("sm4", seed, source) for source in star.SOURCES for seed in "01"
    ]
    bins = Star(halls=4, length=3.0).reachable().sum()
    for row in rows:
        # Uniform target: divergence and entropy add up, as every visit is to a reachable bin.
        assert float(row["entropy"]) + float(row["kl"]) == pytest.approx(np.log(bins), abs=1e-3)
        assert 0.0 < float(row["coverage"]) <= 1.0
        assert float(row["halls"]) in (0.0, 1.0, 2.0, 3.0, 4.0)
    for picture in ("visits.png", "curves.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert len(policy_mixture.load(tmp_path / "policies" / "sm4" / "1").log_weights) == star.CHUNKS // 2
    _search_for_goals(tmp_path)


def _search_for_goals(trained: pathlib.Path) -> None:
    """What `star_goals.py` makes of the saved policies."""
    out = trained / "goals"
    markdown = star_goals.main([f"--star={trained}", f"--out={out}", *STAR, "--episodes=8", "--searches=2"])
    assert markdown == (out / "star_goals.md").read_text()
    with (out / "star_goals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    priors = ("adapts", "uniform")
    assert [(row["prior"], row["seed"], row["goal"], row["search"]) for row in rows] == [
        (prior, seed, goal, search) for prior in priors for seed in "01" for goal in "0123" for search in "01"
    ]
    for row in rows:
        assert (int(row["first"]) == 9) == (int(row["successes"]) == 0)
        assert int(row["steps_in_goal"]) >= int(row["successes"])
    assert (out / "star_goals.png").read_bytes().startswith(b"\x89PNG")


def test_a_directory_without_policies_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"holds no policies/VARIANT/SEED; give what star.py wrote"):
        star_goals.main([f"--star={tmp_path}", f"--out={tmp_path / 'out'}"])
    with pytest.raises(UserError, match="--star: is required"):
        star_goals.main([f"--out={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--variants=sm5", "--variants=sm5: choose from smm"), ("--halls=20", "20 halls"), ("--seeds=x", "--seeds=x")],
)
def test_bad_input_is_one_line(tmp_path: pathlib.Path, flag: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        star.main([f"--out={tmp_path / 'out'}", flag])
    assert not (tmp_path / "out").exists()
