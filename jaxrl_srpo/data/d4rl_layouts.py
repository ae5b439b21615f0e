"""D4RL's antmaze and maze2d tasks: their maps and where their cells are, without importing a simulator.

Maps, names and coordinates are facts of Farama-Foundation/D4RL (Apache-2.0): d4rl/locomotion/maze_env.py,
d4rl/locomotion/__init__.py, d4rl/pointmaze/maze_model.py and d4rl/pointmaze/__init__.py. `d4rl_mazes.py` has the
simulators.
"""

from collections.abc import Sequence

NAMESPACE = "jaxrl_srpo/"
"""Prefix of the Gymnasium ids of these tasks; a D4RL name follows."""

ANT_CELL = 4.0
"""Side of an antmaze's cell in meters."""

POINT_OFFSET = 1.2
"""Where a maze2d's origin is in the world, on both axes; walls are placed in the world, starts and goals from here."""

GOAL_RADIUS = 0.5
"""Distance to the goal in meters within which it is reached, the bound included."""

ANT_GOAL_NOISE = (1.0, 0.5)
"""An antmaze's goal is the center of its cell plus, on each axis, two uniform numbers from 0 to these, in meters."""

MazeMap = list[list[int | str]]
"""Rows of cells: 1 is a wall, 0 free, "r" the start and "g" the goal."""

_ANT_START = (1, 1)

# Walls are # and free cells are dots. antmaze and maze2d of the same size have the same walls.
_WALLS = {
    "open": """
        #######
        #.....#
        #.....#
        #.....#
        #######""",
    "umaze": """
        #####
        #...#
        ###.#
        #...#
        #####""",
    "medium": """
        ########
        #..##..#
        #..#...#
        ##...###
        #..#...#
        #.#..#.#
        #...#..#
        ########""",
    "large": """
        ############
        #....#.....#
        #.##.#.#.#.#
        #......#...#
        #.####.###.#
        #..#.#.....#
        ##.#.#.#.###
        #..#...#...#
        ############""",
    "eval-umaze": """
        #####
        #...#
        #.###
        #...#
        #####""",
    "eval-medium": """
        ########
        #......#
        #.#.##.#
        #....#.#
        ###..###
        #......#
        #..##..#
        ########""",
    "eval-large": """
        ############
        #..#...#...#
        ##.###.#.#.#
        #..#.#.....#
        #.##.#..##.#
        #......#...#
        #.##.#.#.###
        #....#.....#
        ############""",
}

_ANT_GOALS = {"umaze": (3, 1), "medium": (6, 6), "large": (7, 9)}
_POINT_GOALS = {
    "open": (2, 3),
    "umaze": (1, 1),
    "medium": (6, 6),
    "large": (7, 9),
    "eval-umaze": (1, 3),
    "eval-medium": (1, 6),
    "eval-large": (1, 9),
}


def task_names() -> list[str]:
    """Names of all tasks: `antmaze-umaze-v2`, `maze2d-open-v0`, `maze2d-eval-large-dense-v1`.

    Where D4RL has several versions the last one counts, and `play` and `diverse` are left out: they are datasets.
    """
    points = [f"maze2d-{size}{reward}" for size in _POINT_GOALS for reward in ("", "-dense")]
    return [
        *(f"antmaze-{size}-v2" for size in _ANT_GOALS),
        *(f"{name}-v0" if "open" in name else f"{name}-v1" for name in points),
    ]


def task_of(name: str) -> str | None:
    """The task of a D4RL-like name or file stem; None if it is none of these.

    `antmaze-umaze-diverse-v0` and `antmaze_umaze-mine` are evaluated in `antmaze-umaze-v2`.
    """
    words = name.replace("_", "-") + "-"
    bases = {task.rpartition("-v")[0] + "-": task for task in task_names()}
    found = [base for base in bases if words.startswith(base)]
    return bases[max(found, key=len)] if found else None


def maze_map(task: str) -> MazeMap:
    """The map of a task."""
    kind, _, size = task.rpartition("-v")[0].removesuffix("-dense").partition("-")
    cells: MazeMap = [[int(cell == "#") for cell in row] for row in _WALLS[size].split()]
    goal = (_ANT_GOALS if kind == "antmaze" else _POINT_GOALS)[size]
    cells[goal[0]][goal[1]] = "g"
    if kind == "antmaze":
        cells[_ANT_START[0]][_ANT_START[1]] = "r"
    return cells


def cells_of(cells: Sequence[Sequence[int | str]], *symbols: int | str) -> list[tuple[int, int]]:
    """Row and column of all cells with one of the symbols, in reading order."""
    return [(i, j) for i, row in enumerate(cells) for j, symbol in enumerate(row) if symbol in symbols]


def ant_position(cell: tuple[int, int], start: tuple[int, int] = _ANT_START) -> tuple[float, float]:
    """x, y in meters of the center of an antmaze's cell (row, column): the start is the origin, x runs along rows."""
    return ANT_CELL * (cell[1] - start[1]), ANT_CELL * (cell[0] - start[0])


def point_position(cell: tuple[int, int]) -> tuple[float, float]:
    """x, y in meters of the center of a maze2d's cell (row, column), in the coordinates of its observations.

    x runs from row to row. D4RL's starts and goals are not there but at (row, column), 0.2 further on both axes.
    """
    return cell[0] + 1.0 - POINT_OFFSET, cell[1] + 1.0 - POINT_OFFSET
