"""Maps of OGBench's mazes (arXiv 2410.20092) and where their goals are, for pictures of where policies go."""

from typing import NamedTuple

from jaxrl_srpo.data import ogbench_tasks

CELL = 4.0
"""Side of a cell in meters."""
_CORNER = 4.0
"""How far the center of the first cell is from the origin, in meters, on both axes and to the negative."""

_MAPS = {
    "medium": "######## #..##..# #..#...# ##...### #..#...# #.#..#.# #...#..# ########",
    "large": (
        "############ #....#.....# #.##.#.#.#.# #......#...# #.####.###.# #..#.#.....# ##.#.#.#.### #..#...#...# "
        "############"
    ),
    "giant": (
        "################ #.#......##....# #.#.##.#.#..##.# #...#..#...#...# #.###.######.#.# #...#...#....#.# "
        "###.#.#..#.#.### #...#..#...#...# #.#.#.######.#.# #.###...#...##.# #.....#...#....# ################"
    ),
    "teleport": (
        "############ #.....#.#..# ##.#...#..## ##.###.....# #....#.#.#.# #.##.#.#.#.# #.##.#.#.#.# #....#...#.# "
        "############"
    ),
}


class Maze(NamedTuple):
    """A task in a maze.

    Attributes:
      cells: rows of 1 (wall), 0 (free) and "g" (the goal); the first row has the smallest y.
      radius: distance in meters from the goal's center within which it is reached.
    """

    cells: list[list[int | str]]
    radius: float


def find(environment_id: str) -> Maze | None:
    """The maze of one of OGBench's single tasks; None on a table, with a ball, and for others' ids."""
    name = ogbench_tasks.parse_environment(environment_id)
    body, _, which = name.environment.partition("-") if name else ("", "", "")
    if name is None or not body.endswith("maze"):
        return None
    task = ogbench_tasks.find_task(name)
    assert task.place is not None
    cells: list[list[int | str]] = [[int(cell == "#") for cell in row] for row in _MAPS[which].split()]
    column, row = (round((at + _CORNER) / CELL) for at in task.place)
    cells[row][column] = "g"
    return Maze(cells, task.radius)


def center(row: int, column: int) -> tuple[float, float]:
    """The x and y of the center of a cell, in meters."""
    return column * CELL - _CORNER, row * CELL - _CORNER
