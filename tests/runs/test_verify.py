"""`verify`: everything of a run directory is looked at, and every damaged file has one line."""

import json
import pathlib
import re
import shutil
import zipfile
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.cli import main as command_line
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import iql
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.verify import verify
from tests import synthetic

OLD = pathlib.Path(__file__).parents[1] / "old_run.zip"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run with something of everything."""
    place = tmp_path_factory.mktemp("verify")
    dataset = synthetic.write_pendulum(place / "pendulum.hdf5")
    settings: dict[str, Any] = synthetic.TINY | {"algorithm": "iql", "log": lambda message: None}
    options = jaxrl_srpo.Options(artefacts=place / "shared")
    jaxrl_srpo.train(dataset, place / "run", seeds=[0], options=options, **settings)
    run = RunDirectory(place / "run")
    run.add_trajectories("pendulum", {"iql_0": np.zeros((3, 2))})
    member = run.members()[0]
    progress = run.progress(iql.STAGE, [member])
    for step in (4, 8):
        progress.save(step, {"x": np.arange(100.0) + step})
    run.save_result(iql.STAGE, "0123456789abcdef", {"x": np.arange(100.0)}, None)
    return place


@pytest.fixture
def place(whole: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(whole, tmp_path / "copy")
    sweep = tmp_path / "copy" / "run" / "sweep.json"
    content = json.loads(sweep.read_text())
    del content["sha256"]
    content["options"]["artefacts"] = str(tmp_path / "copy" / "shared")
    sweep.write_text(json.dumps(content))
    return tmp_path / "copy"


def flip(file: pathlib.Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def test_a_whole_run_has_one_line(whole: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line.main(["verify", str(whole / "run")])
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        f"{whole / 'run'} is whole: sweep.json, 2 rows of metrics.csv, 1 rows of evaluations.csv, 2 results, "
        "2 checkpoints under way"
    )


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("run/metrics.csv", "train or evaluate again"),
        ("run/evaluations.csv", "train or evaluate again"),
        ("run/checkpoints/critic/*/_METADATA", "delete .* and give the command that trained it again"),
        ("run/checkpoints/critic/*/d/*", "delete .* and give the command that trained it again"),
        ("run/checkpoints/critic/*/manifest.json", "delete .* and give the command that trained it again"),
        ("run/checkpoints/under_way/*/8/d/*", "goes on from the one before"),
        ("shared/critic/*/_METADATA", "delete .* and give the command that trained it again"),
        ("shared/critic/*.json", "delete it"),
        ("run/trajectories/pendulum.npz", "delete it or evaluate again"),
        ("run/report/table.csv", "`jaxrl-srpo report .*` writes it again"),
        ("run/report/losses.png", "`jaxrl-srpo report .*` writes it again"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(place: pathlib.Path, pattern: str, advice: str) -> None:
    file = next(path for path in sorted(place.glob(pattern)) if path.is_file())
    flip(file)
    (problem,) = verify(place / "run").problems
    assert file.name in problem or str(file.parent) in problem
    assert "\n" not in problem
    assert re.search(advice, problem), problem


def test_all_damaged_files_are_named_and_the_code_is_of_bad_input(
    place: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("metrics.csv", "report/table.md"):
        flip(place / "run" / name)
    (place / "run" / "sweep.json").write_text("[]")
    with pytest.raises(UserError, match="damaged in 3 places, which are named above"):
        command_line.main(["verify", str(place / "run")])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_files_in_the_place_of_directories_are_named(place: pathlib.Path) -> None:
    shutil.rmtree(place / "run" / "leases")
    (place / "run" / "leases").write_text("")
    (place / "run" / "checkpoints" / "critic" / "fedcba9876543210").write_text("")
    first, second = verify(place / "run").problems
    assert "fedcba9876543210 is damaged" in first
    assert "leases: is a file in the place of a directory" in second


def test_a_line_that_is_cut_short_is_named(place: pathlib.Path) -> None:
    file = place / "run" / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-3])
    (problem,) = verify(place / "run").problems
    assert problem.endswith("metrics.csv: its last line is cut short; the same command writes it again")


def test_a_run_of_an_earlier_version_can_be_read_and_it_is_said_what_that_means(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(tmp_path)
    verdict = verify(tmp_path / "old_run")
    assert verdict.problems == []
    assert "6 of the results and checkpoints are of an earlier version without manifests" in verdict.whole
    file = next((tmp_path / "old_run" / "checkpoints").glob("critic/*/_METADATA"))
    file.write_text("{")
    (problem,) = verify(tmp_path / "old_run").problems
    assert "Orbax cannot read it" in problem


def test_what_is_no_run_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        verify(tmp_path)
