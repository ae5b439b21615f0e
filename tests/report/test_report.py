"""All that `report` writes for a run directory, and when it writes nothing."""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import manifest
from jaxrl_srpo.report import collect, format_table, write_maze_pictures, write_report, write_table
from jaxrl_srpo.report.curves import draw_learning_curves, write_curves
from tests.report import written_run
from tests.report.written_run import METRICS


def test_the_same_run_gives_the_same_bytes(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path, metrics=METRICS)
    paths = write_report(run_dir)
    first = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == ["table.csv", "table.md", "learning_curves.png", "losses.png", "index.html"]
    assert write_report(run_dir) == paths
    assert [path.read_bytes() for path in paths] == first
    assert {path.name for path in (run_dir / "report").iterdir()} == {"manifest.json", *(path.name for path in paths)}
    assert manifest.problem(run_dir / "report") == ""


def test_training_without_an_environment_lists_what_was_trained(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path, evaluations=None, metrics=METRICS)
    rows = collect(run_dir)
    trained = [(row.algorithm, row.beta, row.seeds) for row in rows]
    assert trained == [("data", None, None), ("bc", None, 1), ("iql", None, 1), ("srpo", 0.05, 2), ("srpo", 0.2, 1)]
    assert [np.isfinite(row.mean) for row in rows] == [True, False, False, False, False]
    for text in (format_table(rows), written_run.markdown(run_dir)):
        assert "44.5" in text
        assert text.count("not evaluated") == 5
        assert "`jaxrl-srpo evaluate RUN_DIR` scores what is trained" in text
    assert [path.name for path in write_report(run_dir)] == ["table.csv", "table.md", "losses.png", "index.html"]
    assert draw_learning_curves(run_dir) is None


def test_a_stage_without_a_policy_has_no_row(tmp_path: pathlib.Path) -> None:
    stages = [{**one, "acts": one["name"] != "behavior"} for one in written_run.STAGES]
    run_dir = written_run.write(tmp_path, evaluations=None, metrics=METRICS, stages=stages)
    assert [row.algorithm for row in collect(run_dir)] == ["data", "iql", "srpo", "srpo"]


def test_a_run_that_has_just_begun(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path, evaluations="", metrics=METRICS.splitlines(keepends=True)[0])
    assert [path.name for path in write_report(run_dir)] == ["table.csv", "table.md", "index.html"]
    unscored: dict[str, Any] = {key: None for key in ("data_mean", "data_std")}
    assert collect(written_run.write(tmp_path, evaluations="", datasets=[written_run.dataset(**unscored)])) == []
    write_report(run_dir)
    assert format_table([]) == "no scores yet"
    assert "No scores yet." in written_run.markdown(run_dir)


@pytest.mark.parametrize("command", [collect, write_table, write_curves, write_maze_pictures, write_report])
def test_not_a_run_directory(tmp_path: pathlib.Path, command: Callable[[pathlib.Path], object]) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a run directory, it does not exist; give the --out"):
        command(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run directory, it has no sweep\.json"):
        command(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_maze_trajectories_reach_the_painter(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    maze = {"id": "PointMaze_UMaze-v3", "kwargs": {}, "max_episode_steps": 300, "goal_task": True}
    entry = written_run.dataset("pointmaze/umaze", environment=maze)
    run_dir = written_run.write(tmp_path, evaluations="", datasets=[entry])
    assert write_maze_pictures(run_dir) == []
    (run_dir / "trajectories").mkdir()
    path = np.linspace([-1.0, -1.0], [1.0, -1.0], 20)
    names = ("data_0", "data_1", "bc_0", "iql_0", "srpo_0", "srpo_10", "srpo_2", "unknown_0")
    with open(run_dir / "trajectories" / "pointmaze_umaze.npz", "wb") as file:
        np.savez(file, **{name: path + 0.01 * i for i, name in enumerate(names)})  # type: ignore[arg-type]
    written = write_maze_pictures(run_dir)
    assert [path.name for path in written] == ["trajectories_pointmaze_umaze.png"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert list((run_dir / "report").iterdir()) == written


def test_damaged_trajectories_say_which_file(tmp_path: pathlib.Path) -> None:
    maze = {"id": "PointMaze_UMaze-v3"}
    entry = written_run.dataset("pointmaze/umaze", environment=maze)
    run_dir = written_run.write(tmp_path, evaluations="", datasets=[entry])
    (run_dir / "trajectories").mkdir()
    (run_dir / "trajectories" / "pointmaze_umaze.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match=r"pointmaze_umaze\.npz cannot be read"):
        write_maze_pictures(run_dir)


def test_reports_never_touch_pyplot(tmp_path: pathlib.Path) -> None:
    write_report(written_run.write(tmp_path, metrics=METRICS))
    import jaxrl_srpo.report.curves as curves

    assert "pyplot" not in vars(curves)
    assert "gymnasium" not in vars(sys.modules["jaxrl_srpo.report"])
