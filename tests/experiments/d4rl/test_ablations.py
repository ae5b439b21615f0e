"""Ablations on a small file: what is shared, what is written, what is refused."""

import csv
import pathlib

import pytest

from experiments.d4rl import ablations
from jaxrl_srpo.errors import UserError
from tests import synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("ablations")
    data = synthetic.write_pendulum(directory / "pendulum.hdf5")
    tiny = ["--budget=0.0005", "--seeds=0:2", "--beta=0.01,0.1"]
    ablations.main([f"--datasets={data}", "--ablations=noise", *tiny, f"--out={directory / 'out'}"])
    return directory / "out"


def test_variants_share_behavior_models_and_critics(results: pathlib.Path) -> None:
    stages = {path.name: sum(entry.is_dir() for entry in path.iterdir()) for path in (results / "artefacts").iterdir()}
    assert stages == {"behavior": 2, "critic": 2, "policy": 8}


def test_every_policy_has_a_row(results: pathlib.Path) -> None:
    rows = list(csv.DictReader((results / "ablations.csv").read_text().splitlines()))
    assert {(row["variant"], row["beta"], row["seed"]) for row in rows} == {
        (variant, beta, seed)
        for variant in ablations.ABLATIONS["noise"].variants
        for beta in ("0.01", "0.1")
        for seed in "01"
    }
    assert "subtracted" in (results / "ablations.md").read_text()
    assert (results / "noise.png").stat().st_size > 10_000


def test_data_that_could_be_taken_for_d4rls_are_marked(tmp_path: pathlib.Path) -> None:
    plan = ablations.Plan((), (0,), "quick", 1.0, (0.1,), tmp_path, tmp_path)
    scores = [ablations.Score("noise", "x", name, 0.1, 0, 1.0) for name in ("D4RL/door/human-v2", "hopper-medium-v2")]
    text = ablations.format_markdown(scores, plan)
    assert "| D4RL/door/human-v2 (o) |" in text
    assert "(o) D4RL/door/human-v2: Minari's conversion" in text
    assert "| hopper-medium-v2 |" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--datasets: is required"),
        (["--datasets=x.hdf5", "--beta=a"], "--beta=a: give numbers"),
        (["--datasets=x.hdf5", "--ablations=all"], "--ablations=all: choose from beta, weighting, noise, times"),
    ],
)
def test_bad_input_is_refused(flags: list[str], message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        ablations.main([*flags, f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()
