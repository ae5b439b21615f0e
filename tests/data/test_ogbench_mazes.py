"""OGBench's mazes: maps and goals as its environments have them."""

import numpy as np
import pytest

from jaxrl_srpo.data import ogbench_mazes, ogbench_tasks

MAZES = ("medium", "large", "giant", "teleport")


@pytest.mark.parametrize("which", MAZES)
def test_maps_and_goals_are_those_of_the_package(which: str) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("ogbench", reason="extra `ogbench` is not installed")
    for number in (1, 3):
        environment_id = f"pointmaze-{which}-singletask-task{number}-v0"
        theirs = gymnasium.make(environment_id, disable_env_checker=True).unwrapped
        ours = ogbench_mazes.find(environment_id)
        assert ours is not None
        assert [[int(cell == 1) for cell in row] for row in ours.cells] == np.asarray(theirs.maze_map).tolist()
        ((row, column),) = np.argwhere(np.array(ours.cells, object) == "g").tolist()
        assert ogbench_mazes.center(row, column) == tuple(theirs.task_infos[number - 1]["goal_xy"])
        assert ogbench_mazes.center(0, 2) == tuple(theirs.ij_to_xy((0, 2)))
        theirs.close()


@pytest.mark.parametrize("body", ["pointmaze", "antmaze", "humanoidmaze"])
def test_every_goal_is_on_the_floor(body: str) -> None:
    for which in MAZES:
        for task in range(1, ogbench_tasks.TASKS + 1):
            name = ogbench_tasks.parse(f"{body}-{which}-navigate-singletask-task{task}-v0")
            maze = ogbench_mazes.find(f"{body}-{which}-singletask-task{task}-v0")
            assert name is not None
            assert maze is not None
            assert sum(cell == "g" for row in maze.cells for cell in row) == 1
            assert maze.radius == ogbench_tasks.find_task(name).radius


@pytest.mark.parametrize("environment_id", ["cube-single-singletask-v0", "antsoccer-arena-singletask-v0", "Hopper-v4"])
def test_others_have_no_map(environment_id: str) -> None:
    assert ogbench_mazes.find(environment_id) is None
