"""Every policy of a run is compared in every format that can hold it."""

import pathlib
import zipfile

from experiments.benchmarks.export_agreement import Compared, compared, row
from jaxrl_srpo.export.writing import Agreement
from jaxrl_srpo.runs.run_directory import RunDirectory

ARCHIVE = pathlib.Path(__file__).parents[2] / "old_run.zip"


def test_policies_of_a_run_in_every_format(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    found = list(compared(RunDirectory(tmp_path / "old_run"), 20))
    assert all(one.agreement.holds for one in found)
    assert {one.algorithm for one in found} == {"bc", "iql", "srpo", "cloning", "awac"}
    assert {one.algorithm for one in found if one.format == "npz"} == {"iql", "srpo", "cloning", "awac"}


def test_a_row() -> None:
    one = Compared("idql", "onnx", Agreement(largest=3e-7, tolerance=1e-6, elsewhere=0.001))
    assert row(one) == "| idql | onnx | 3.0e-07 | 1.0e-06 | 0.10% |"
