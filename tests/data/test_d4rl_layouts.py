"""Maps and coordinates of D4RL's mazes; `tests/envs/test_d4rl_mazes.py` compares the walls with D4RL's own maps."""

import pytest

from jaxrl_srpo.data import d4rl_layouts as layouts


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("antmaze-medium-play-v1", "antmaze-medium-v2"),
        ("antmaze_umaze-mine", "antmaze-umaze-v2"),
        ("maze2d-large-sparse-v1", "maze2d-large-v1"),
        ("maze2d_umaze_dense", "maze2d-umaze-dense-v1"),
        ("antmaze-ultra-play-v2", None),
        ("antmaze-eval-umaze-v0", None),
        ("bullet-maze2d-umaze-v0", None),
        ("antmaze-umazes", None),
        ("kitchen-mixed-v0", None),
    ],
)
def test_tasks_of_names(name: str, task: str | None) -> None:
    assert layouts.task_of(name) == task


def test_every_task_has_walls_around_one_goal() -> None:
    assert len(layouts.task_names()) == 3 + 2 * 7
    for task in layouts.task_names():
        cells = layouts.maze_map(task)
        assert len({len(row) for row in cells}) == 1
        border = [*cells[0], *cells[-1], *(row[0] for row in cells), *(row[-1] for row in cells)]
        assert set(border) == {1}
        assert len(layouts.cells_of(cells, "g")) == 1
        assert len(layouts.cells_of(cells, "r")) == (1 if task.startswith("antmaze") else 0)


def test_cells_come_in_reading_order() -> None:
    assert layouts.cells_of([[1, 0], ["g", 0]], 0, "g") == [(0, 1), (1, 0), (1, 1)]


def test_ant_cells_are_four_meters_apart_and_the_start_is_the_origin() -> None:
    assert layouts.ant_position((1, 1)) == (0.0, 0.0)
    assert layouts.ant_position((3, 2)) == (4.0, 8.0)


def test_point_cells_are_one_meter_apart_and_x_runs_from_row_to_row() -> None:
    assert layouts.point_position((1, 1)) == pytest.approx((0.8, 0.8))
    assert layouts.point_position((3, 1)) == pytest.approx((2.8, 0.8))
