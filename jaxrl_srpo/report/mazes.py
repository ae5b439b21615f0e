"""Trajectories drawn in their maze."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_srpo.data import d4rl_layouts as layouts
from jaxrl_srpo.data import ogbench_mazes, ogbench_tasks
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

_WALL, _FLOOR, _INK = "#3d4450", "#f6f4ef", "#22262c"
_COLORS = "plasma"
# How much of the outer ring of walls, in cells, is left out: the paths matter.
_TRIM = 2 / 3
_STRIDE = 3
_PANELS_PER_ROW = 4


class _Places(NamedTuple):
    """Where a maze's cells are, in meters as in the observations.

    Attributes:
      cell: side of a cell.
      center: x, y of the center of a cell by row and column.
      goal_offset: how far, on both axes, the middle of the goal's area is from its cell's center.
      goal_radius: radius of that area.
    """

    cell: float
    center: Callable[[int, int], tuple[float, float]]
    goal_offset: float
    goal_radius: float


class _Scene(NamedTuple):
    """What trajectories are drawn in.

    Attributes:
      low: lower left corner [2] of the part that is shown.
      high: upper right corner [2].
      draw: draws floor, walls and goal.
    """

    low: np.ndarray
    high: np.ndarray
    draw: Callable[["Axes"], None]


def has_map(environment: EnvironmentSpec) -> bool:
    """Whether pictures show where policies go: in mazes, where there is a goal; not in OGBench's tasks on a table."""
    on_a_table = environment.id in ogbench_tasks.environment_ids() and ogbench_mazes.find(environment.id) is None
    return environment.goal_task and not on_a_table


def draw_maze_trajectories(
    environment: EnvironmentSpec, panels: Mapping[str, Sequence[np.ndarray]], path: str | os.PathLike[str]
) -> None:
    """Draws a PNG with one panel of trajectories per entry; dots are starts, the star is the goal, color is time.

    Args:
      environment: a PointMaze or AntMaze, of Gymnasium-Robotics, D4RL's or OGBench's, or a star; a maze's map is known
        here, taken from the keyword arguments or, failing that, from the registration, which needs Gymnasium.
      panels: trajectories by panel title, each [T, 2] in meters as in the observations; a panel may be empty.
      path: where the PNG goes.

    Raises:
      UserError: there are no panels or the environment has no maze map.
    """
    # Drawing is imported late: a run that is only trained should not pay for it.
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    from jaxrl_srpo.report.drawing import save

    if not panels:
        raise UserError("no trajectories to draw: pass at least one panel")
    scene = _scene(environment)
    low, high = scene.low, scene.high
    columns = min(len(panels), _PANELS_PER_ROW)
    rows = -(-len(panels) // columns)
    aspect = (high[1] - low[1]) / (high[0] - low[0])
    figure = Figure(figsize=(3.1 * columns + 0.8, 3.1 * aspect * rows + 0.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    norm = Normalize(0, max((len(each) for group in panels.values() for each in group), default=1))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, trajectories) in zip(axes.flat, panels.items(), strict=False):
        scene.draw(axis)
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        for each in trajectories:
            axis.add_collection(_time_line(np.asarray(each, float), norm, len(trajectories)))
        _draw_starts(axis, trajectories)
        axis.set_title(title, fontsize=11, color=_INK)
    bar = figure.colorbar(ScalarMappable(norm, _COLORS), ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("time step", color=_INK)
    bar.outline.set_visible(False)
    save(figure, pathlib.Path(path))


def _scene(environment: EnvironmentSpec) -> _Scene:
    from jaxrl_srpo.envs.make import STAR

    if environment.id == STAR:
        return _star(**environment.kwargs)
    if (maze := ogbench_mazes.find(environment.id)) is not None:
        maze_map, places = maze.cells, _Places(ogbench_mazes.CELL, ogbench_mazes.center, 0.0, maze.radius)
    else:
        maze_map = maze_of(environment)
        places = _places(environment.id, maze_map)
    return _Scene(*_view(maze_map, places), functools.partial(_draw_maze, maze_map=maze_map, places=places))


def _star(goal: tuple[int, float] | None = None, **shape: Any) -> _Scene:
    """A star of halls and the goal in one of them."""
    from matplotlib.patches import Circle, Polygon, Rectangle

    from jaxrl_srpo.envs.star import GOAL_RADIUS, Star

    star = Star(**shape)
    side = star.reach + star.width

    def draw(axis: "Axes") -> None:
        axis.add_patch(Rectangle((-side, -side), 2.0 * side, 2.0 * side, facecolor=_WALL, zorder=0.1))
        axis.add_patch(Circle((0.0, 0.0), star.radius, facecolor=_FLOOR, zorder=0.5))
        for hall in range(star.halls):
            end = star.place(hall, star.reach)
            across = 0.5 * star.width / star.reach * np.array([-end[1], end[0]])
            axis.add_patch(Polygon([across, end + across, end - across, -across], facecolor=_FLOOR, zorder=0.5))
        if goal is not None:
            _draw_goal(axis, star.place(*goal), GOAL_RADIUS)

    return _Scene(np.full(2, -side), np.full(2, side), draw)


def maze_of(environment: EnvironmentSpec) -> list[list[int | str]]:
    """The maze map of an environment: rows of 1 (wall), 0 (free), "r" (start), "g" (goal), "c" (either).

    Raises:
      UserError: it has none.
    """
    maze_map = environment.kwargs.get("maze_map")
    if maze_map is None:
        from jaxrl_srpo.envs.make import find_registered

        maze_map = find_registered(environment.id).kwargs.get("maze_map")
    if maze_map is None:
        raise UserError(f"environment {environment.id} has no maze map; trajectories are drawn for mazes only")
    return maze_map


def _places(environment_id: str, maze_map: Sequence[Sequence[int | str]]) -> _Places:
    """The coordinates of D4RL's two mazes, or of Gymnasium-Robotics, whose origin is in the middle."""
    height, width = len(maze_map), len(maze_map[0])
    if environment_id.startswith(layouts.NAMESPACE + "antmaze"):
        start = layouts.cells_of(maze_map, "r")[0]
        reach = sum(layouts.ANT_GOAL_NOISE) / 2
        return _Places(
            layouts.ANT_CELL, lambda i, j: layouts.ant_position((i, j), start), reach, reach + layouts.GOAL_RADIUS
        )
    if environment_id.startswith(layouts.NAMESPACE):
        offset = layouts.POINT_OFFSET - 1.0
        return _Places(1.0, lambda i, j: layouts.point_position((i, j)), offset, layouts.GOAL_RADIUS)
    cell = 4.0 if environment_id.startswith("AntMaze") else 1.0
    return _Places(cell, lambda i, j: (cell * (j + 0.5 - width / 2), cell * (height / 2 - i - 0.5)), 0.0, 0.45 * cell)


def _view(maze_map: Sequence[Sequence[int | str]], places: _Places) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner [2] of the part of the maze that is shown."""
    corners = np.array([places.center(0, 0), places.center(len(maze_map) - 1, len(maze_map[0]) - 1)])
    margin = places.cell * (0.5 - _TRIM)
    return corners.min(axis=0) - margin, corners.max(axis=0) + margin


def _draw_maze(axis: "Axes", maze_map: Sequence[Sequence[int | str]], places: _Places) -> None:
    """Floor, walls and goal."""
    from matplotlib.patches import Rectangle

    for i, row in enumerate(maze_map):
        for j, symbol in enumerate(row):
            center = places.center(i, j)
            corner = (center[0] - places.cell / 2, center[1] - places.cell / 2)
            # The edge of the same color closes hairlines between neighbors.
            color, order = (_WALL, 1.0) if symbol == 1 else (_FLOOR, 0.5)
            axis.add_patch(
                Rectangle(
                    corner, places.cell, places.cell, facecolor=color, edgecolor=color, linewidth=0.5, zorder=order
                )
            )
            if symbol == "g":
                _draw_goal(axis, np.asarray(center) + places.goal_offset, places.goal_radius)


def _draw_goal(axis: "Axes", middle: np.ndarray, radius: float) -> None:
    """The goal's area and its star."""
    from matplotlib.patches import Circle

    axis.add_patch(Circle((middle[0], middle[1]), radius, facecolor="#f2b705", alpha=0.25, zorder=1.5))
    axis.plot(*middle, marker="*", markersize=17, color="#f2b705", markeredgecolor=_INK, zorder=5)


def _time_line(trajectory: np.ndarray, norm: "Normalize", count: int) -> "LineCollection":
    """One trajectory [T, 2] as segments colored by their step; thinner and paler the more there are."""
    from matplotlib.collections import LineCollection

    # Longer segments, because transparent ones overlap at their ends.
    steps = np.append(np.arange(0, len(trajectory) - 1, _STRIDE), len(trajectory) - 1)
    points = trajectory[steps]
    segments = np.stack([points[:-1], points[1:]], axis=1)
    width, alpha = np.interp(count, [5, 30], [1.6, 0.9]), np.interp(count, [5, 30], [0.95, 0.7])
    line = LineCollection(list(segments), cmap=_COLORS, norm=norm, linewidths=width, alpha=alpha, zorder=2)
    line.set_array(steps[:-1])
    return line


def _draw_starts(axis: "Axes", trajectories: Sequence[np.ndarray]) -> None:
    starts = np.array([each[0] for each in trajectories if len(each)]).reshape(-1, 2)
    axis.scatter(starts[:, 0], starts[:, 1], s=16, color="white", edgecolors=_INK, linewidths=0.9, zorder=4)
