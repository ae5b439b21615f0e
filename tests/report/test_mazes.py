"""Pictures of trajectories: written, and drawn where the maze is."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.mazes import draw_maze_trajectories, has_map, maze_of


def test_walls_and_trajectories_are_in_the_picture(tmp_path: Path) -> None:
    spec = pointmaze.environment_spec()
    path = np.stack([np.linspace(-1.2, 1.2, 50), np.full(50, -1.0)], axis=1)
    # Far outside the picture, but as long, so that the color bar is the same.
    draw_maze_trajectories(spec, {"title": [path + 100.0]}, tmp_path / "empty.png")
    draw_maze_trajectories(spec, {"title": [path]}, tmp_path / "path.png")
    empty, drawn = (matplotlib.image.imread(tmp_path / name)[..., :3] for name in ("empty.png", "path.png"))
    walls = np.all(np.abs(empty - np.array([0x3D, 0x44, 0x50]) / 255) < 0.01, axis=-1)
    assert 0.2 < walls.mean() < 0.6
    # The path runs in the lower corridor, below the middle and off the walls.
    assert empty.shape == drawn.shape
    rows, columns = np.nonzero(np.abs(empty - drawn).max(axis=-1) > 0.1)
    assert len(rows) > 200
    assert rows.min() > 0.6 * empty.shape[0]
    assert not walls[rows, columns].any()


def test_several_panels_and_odd_trajectories_are_drawn(tmp_path: Path) -> None:
    panels = {name: [np.zeros((length, 2)) for length in (1, 2, 7)] for name in "abcde"}
    draw_maze_trajectories(pointmaze.environment_spec("pointmaze/large"), panels, tmp_path / "panels.png")
    height, width = matplotlib.image.imread(tmp_path / "panels.png").shape[:2]
    assert width > height


def test_the_map_of_a_registered_environment_is_found() -> None:
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    assert maze_of(EnvironmentSpec("AntMaze_UMaze-v4"))[1] == [1, 0, 0, 0, 1]
    with pytest.raises(UserError, match="Hopper-v4 has no maze map"):
        maze_of(EnvironmentSpec("Hopper-v4"))
    with pytest.raises(UserError, match="pass at least one panel"):
        draw_maze_trajectories(pointmaze.environment_spec(), {}, "unused.png")


def test_paths_in_a_maze_of_ogbench_are_drawn_where_they_run(tmp_path: Path) -> None:
    """Upwards along the left corridor of the medium maze: the first column of floor is at x = 0."""
    spec = EnvironmentSpec("pointmaze-medium-singletask-task1-v0", goal_task=True)
    path = np.stack([np.zeros(50), np.linspace(0.0, 4.0, 50)], axis=1)
    draw_maze_trajectories(spec, {"title": [path + 100.0]}, tmp_path / "empty.png")
    draw_maze_trajectories(spec, {"title": [path]}, tmp_path / "path.png")
    empty, drawn = (matplotlib.image.imread(tmp_path / name)[..., :3] for name in ("empty.png", "path.png"))
    walls = np.all(np.abs(empty - np.array([0x3D, 0x44, 0x50]) / 255) < 0.01, axis=-1)
    rows, columns = np.nonzero(np.abs(empty - drawn).max(axis=-1) > 0.1)
    assert len(rows) > 50
    assert rows.min() > 0.6 * empty.shape[0]
    assert columns.max() < 0.3 * empty.shape[1]
    assert not walls[rows, columns].any()


@pytest.mark.parametrize(
    ("environment_id", "goal_task", "drawn"),
    [
        ("pointmaze-medium-singletask-v0", True, True),
        ("cube-single-singletask-v0", True, False),
        ("PointMaze_UMaze-v3", True, True),
        ("PointMaze_UMaze-v3", False, False),
    ],
)
def test_where_there_is_a_map_and_a_goal(environment_id: str, goal_task: bool, drawn: bool) -> None:
    assert has_map(EnvironmentSpec(environment_id, goal_task=goal_task)) == drawn
