"""A run directory of commit 8248fb0, trained with the smallest settings: it reports, loads and evaluates."""

import pathlib
import shutil
import zipfile
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.report import collect
from tests import synthetic

ARCHIVE = pathlib.Path(__file__).parents[1] / "old_run.zip"
OBSERVATIONS = [[0.1, 0.2, 0.3], [-0.5, 0.5, -1.0]]
# What that commit's `load_policy` answered on `OBSERVATIONS`.
ACTIONS: list[tuple[dict[str, Any], list[float]]] = [
    ({"algorithm": "srpo", "beta": 0.1}, [1.0710993, 1.5369148]),
    ({"algorithm": "srpo", "beta": 0.3}, [1.0554953, 1.5270333]),
    ({"algorithm": "iql"}, [1.0779219, 1.5504158]),
    ({"algorithm": "awac"}, [-0.0077833, -0.0199738]),
    ({"algorithm": "cloning"}, [0.0226085, 0.0284877]),
]


@pytest.fixture
def old_run(tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "old_run"


def test_it_reports_the_same_table(old_run: pathlib.Path) -> None:
    before = (old_run / "report" / "table.csv").read_text().splitlines()
    shutil.rmtree(old_run / "report")
    table = jaxrl_srpo.load_results(old_run).table
    betas = [None if np.isnan(beta) else beta for beta in table.beta]
    assert list(zip(table.algorithm, betas, strict=True)) == [
        ("data", None),
        ("bc", None),
        ("iql", None),
        ("srpo", 0.1),
        ("srpo", 0.3),
        ("cloning", None),
        ("awac", None),
    ]
    result = synthetic.run(["report", str(old_run)])
    assert result.returncode == 0, result.stderr
    # Columns that came later follow those of that commit.
    after = (old_run / "report" / "table.csv").read_text().splitlines()
    assert [line[: len(old)] for line, old in zip(after, before, strict=True)] == before
    assert {path.name for path in (old_run / "report").glob("*.png")} >= {"learning_curves.png", "losses.png"}


@pytest.mark.parametrize(("wanted", "expected"), ACTIONS)
def test_its_policies_act_as_they_did(old_run: pathlib.Path, wanted: dict[str, Any], expected: list[float]) -> None:
    policy = jaxrl_srpo.load_policy(old_run, **wanted)
    np.testing.assert_allclose(policy(OBSERVATIONS)[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_it_is_evaluated_again_with_the_same_scores(old_run: pathlib.Path) -> None:
    before = {(row.algorithm, row.beta): row.mean for row in collect(old_run)}
    rows = jaxrl_srpo.evaluate(old_run)
    assert {(row.algorithm, row.beta): row.mean for row in rows} == pytest.approx(before, rel=1e-3)
