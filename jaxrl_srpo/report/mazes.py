"""Trajectories drawn in their maze."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

_WALL, _FLOOR, _INK = "#3d4450", "#f6f4ef", "#22262c"
_COLORS = "plasma"
_GOAL_RADIUS = 0.45
# How much of the outer ring of walls, in cells, is left out: the paths matter.
_TRIM = 2 / 3
_STRIDE = 3
_PANELS_PER_ROW = 4


def draw_maze_trajectories(
    environment: EnvironmentSpec, panels: Mapping[str, Sequence[np.ndarray]], path: str | os.PathLike[str]
) -> None:
    """Draws a PNG with one panel of trajectories per entry; dots are starts, the star is the goal, colour is time.

    Args:
      environment: a PointMaze or AntMaze; its map is taken from the keyword arguments or, failing that, from the
        environment's registration, which needs Gymnasium-Robotics.
      panels: trajectories by panel title, each [T, 2] in metres as in the observations; a panel may be empty.
      path: where the PNG goes.

    Raises:
      UserError: there are no panels or the environment has no maze map.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    if not panels:
        raise UserError("no trajectories to draw: pass at least one panel")
    maze_map, scale = maze_of(environment), _scale(environment)
    columns = min(len(panels), _PANELS_PER_ROW)
    rows = -(-len(panels) // columns)
    aspect = (len(maze_map) - 2 * _TRIM) / (len(maze_map[0]) - 2 * _TRIM)
    figure = Figure(figsize=(3.1 * columns + 0.8, 3.1 * aspect * rows + 0.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    norm = Normalize(0, max((len(each) for group in panels.values() for each in group), default=1))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, trajectories) in zip(axes.flat, panels.items(), strict=False):
        _draw_maze(axis, maze_map, scale)
        for each in trajectories:
            axis.add_collection(_time_line(np.asarray(each, float), norm, len(trajectories)))
        _draw_starts(axis, trajectories)
        axis.set_title(title, fontsize=11, color=_INK)
    bar = figure.colorbar(ScalarMappable(norm, _COLORS), ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("time step", color=_INK)
    bar.outline.set_visible(False)
    figure.savefig(path, format="png", dpi=150, facecolor="white")


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


def _scale(environment: EnvironmentSpec) -> float:
    """Side of a cell in metres, which Gymnasium-Robotics fixes per agent."""
    return 4.0 if environment.id.startswith("AntMaze") else 1.0


def _draw_maze(axis: "Axes", maze_map: Sequence[Sequence[int | str]], scale: float) -> None:
    """Walls, the goal's area and its star, in metres with the origin in the middle."""
    from matplotlib.patches import Circle, Rectangle

    height, width = len(maze_map), len(maze_map[0])
    left, bottom = -scale * width / 2, -scale * height / 2
    axis.add_patch(Rectangle((left, bottom), scale * width, scale * height, facecolor=_FLOOR, edgecolor="none"))
    for i, row in enumerate(maze_map):
        for j, symbol in enumerate(row):
            x, y = left + scale * j, -bottom - scale * (i + 1)
            if symbol == 1:
                # The edge of the same colour closes hairlines between neighbours.
                axis.add_patch(Rectangle((x, y), scale, scale, facecolor=_WALL, edgecolor=_WALL, linewidth=0.5))
            elif symbol == "g":
                center = (x + scale / 2, y + scale / 2)
                axis.add_patch(Circle(center, scale * _GOAL_RADIUS, facecolor="#f2b705", alpha=0.25, zorder=1))
                axis.plot(*center, marker="*", markersize=17, color="#f2b705", markeredgecolor=_INK, zorder=5)
    margin = scale * _TRIM
    axis.set_xlim(left + margin, -left - margin)
    axis.set_ylim(bottom + margin, -bottom - margin)
    axis.set_aspect("equal")


def _time_line(trajectory: np.ndarray, norm: "Normalize", count: int) -> "LineCollection":
    """One trajectory [T, 2] as segments coloured by their step; thinner and paler the more there are."""
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
