"""A run's files as data frames."""

import pathlib
import sys

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.frames import frame, load_results
from tests.report import written_run


@pytest.fixture(params=["pandas", "numpy"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pandas":
        pytest.importorskip("pandas")
    else:
        monkeypatch.setitem(sys.modules, "pandas", None)
    return str(request.param)


def test_the_frames_hold_what_the_files_say(tmp_path: pathlib.Path, library: str) -> None:
    results = load_results(written_run.write(tmp_path, metrics=written_run.METRICS))
    table, evaluations, metrics = results.table, results.evaluations, results.metrics
    assert type(table).__module__.split(".")[0] == library
    assert list(table.algorithm) == ["data", "bc", "iql", "srpo", "srpo"]
    np.testing.assert_array_equal(np.asarray(table.beta, float), [np.nan, np.nan, np.nan, 0.05, 0.2])
    last = evaluations[(evaluations.algorithm == "srpo") & (evaluations.beta == 0.2) & evaluations.final]
    assert sorted(last["mean"]) == [40.0, 60.0]
    assert len(metrics) == 7
    np.testing.assert_array_equal(metrics.q_loss, [np.nan, np.nan, 900.0, 1.5, np.nan, np.nan, np.nan])
    assert metrics.step.dtype.kind == "i"


def test_a_run_that_has_just_begun_has_empty_frames(tmp_path: pathlib.Path, library: str) -> None:
    results = load_results(written_run.write(tmp_path, evaluations=None))
    assert [len(one) for one in (results.table, results.evaluations, results.metrics)] == [1, 0, 0]


def test_columns_that_some_records_lack(library: str) -> None:
    found = frame([{"name": "a", "x": 1}, {"name": "b", "y": 2.5, "x": 3}])
    assert list(found.name) == ["a", "b"]
    assert found.x.dtype.kind == "i"
    np.testing.assert_array_equal(found.y, [np.nan, 2.5])


def test_not_a_run_directory(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        load_results(tmp_path)
