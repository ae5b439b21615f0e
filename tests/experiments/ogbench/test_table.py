"""The sweep over OGBench's tasks: names, data that are missing, and the whole command on a few rows."""

import pathlib

import pytest

from experiments.ogbench import table
from jaxrl_srpo.data import ogbench
from jaxrl_srpo.errors import UserError
from tests.data import ogbench_files


def test_families_and_tasks_make_names(tmp_path: pathlib.Path) -> None:
    assert table.names_of(["scene-play"], ["1", "4"]) == [f"scene-play-singletask-task{i}-v0" for i in (1, 4)]
    assert table.names_of(["scene-play"], ["1"], str(tmp_path)) == [str(tmp_path / "scene-play-singletask-task1-v0")]
    with pytest.raises(UserError, match=r"scene-play-singletask-task6-v0 is no task of OGBench"):
        table.names_of(["scene-play"], ["6"])
    with pytest.raises(UserError, match=r"--families=hopper"):
        table.names_of(["hopper"], ["1"])


def test_settings_are_names_and_values() -> None:
    given = ["critic_width=256", "awr_temperature=0.5", "critic_layer_norm=false", "weighting=one"]
    expected = {"critic_width": 256, "awr_temperature": 0.5, "critic_layer_norm": False, "weighting": "one"}
    assert table.settings_of(given) == expected
    with pytest.raises(UserError, match=r"--settings=wide: give NAME=VALUE, such as critic_width=256"):
        table.settings_of(["wide"])


def test_each_missing_file_is_named_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ogbench.DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    names = table.names_of(["scene-play", "cube-single-play"], ["1", "2"])
    assert table.missing(names) == ["scene-play-v0", "cube-single-play-v0"]
    ogbench_files.write(tmp_path / "scene-play-v0.npz", ogbench_files.solved_tasks("scene", "play"))
    assert table.missing(names) == ["cube-single-play-v0"]


def test_the_command_trains_and_writes_the_table(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ogbench", reason="OGBench is not installed")
    name = "pointmaze-medium"
    ogbench_files.write(tmp_path / f"{name}-stitch-v0.npz", ogbench_files.solved_tasks(name, "stitch"))
    arguments = [f"--families={name}-stitch", f"--folder={tmp_path}", "--tasks=2,3", "--seeds=0"]
    arguments += ["--algorithm=iql,rebrac"]
    arguments += ["--preset=quick", "--budget=0.0001", "--settings=episodes=1", f"--out={tmp_path / 'run'}"]
    table.main(arguments)
    said = capsys.readouterr().out
    assert "| data | task | IQL actor | ReBRAC |" in said
    assert "| pointmaze-medium-stitch | mean of 2 | 0 | 0 |" in said
    assert (tmp_path / "run" / "report" / "ogbench_table.tex").is_file()
