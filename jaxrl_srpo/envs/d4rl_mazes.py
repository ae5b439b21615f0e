"""D4RL's antmaze and maze2d environments, rebuilt on Gymnasium's ant and Gymnasium-Robotics' point.

Gymnasium-Robotics' own mazes cannot evaluate policies that were learned from D4RL's files: their observations hold the
goal, their origin is the middle of the maze, their y axis points the other way, and their ant is another one.

Sources are files of Farama-Foundation/D4RL: d4rl/locomotion/ (ant.py, maze_env.py, goal_reaching_env.py, wrappers.py,
assets/ant.xml) and d4rl/pointmaze/maze_model.py. Reproduced are observations, coordinates, walls, masses, actuators,
contact parameters, time steps, the distributions of starts and goals, rewards, ends and time limits.

What differs from D4RL:

* The simulator is MuJoCo 3, not 2.1 or older under mujoco-py. Two changes since then are undone (the masses of
  capsules, quaternions that are not normalized at the start); changes of collisions and of the solver cannot be.
  Trajectories do not agree step by step, and it has not been measured yet whether scores agree.
* Random numbers come from the environment's own generator, so a seed gives other starts and goals than D4RL's.
* antmaze-*-v0 and -v1 draw one goal when they are made and keep it. Here, as in -v2, every episode draws its own.
* Textures are left out; they take longer to build than all the rest.
"""

import importlib.util
import pathlib
from abc import ABC, abstractmethod
from typing import Any
from xml.etree import ElementTree

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv, mujoco_env

from jaxrl_srpo.data import d4rl_layouts as layouts
from jaxrl_srpo.data.d4rl_layouts import MazeMap

_RENDER_MODES = ["human", "rgb_array", "depth_array", "rgbd_tuple"]
_WALL_COLOR, _GOAL_COLOR = "0.7 0.5 0.3 1", "0.6 0.3 0.3 1"


class Maze(MujocoEnv, ABC):
    """A body in a maze, whose first two coordinates are to come within `layouts.GOAL_RADIUS` of `goal`.

    Observations are positions and then velocities, as MuJoCo has them; `info["success"]` of a step says whether the
    goal is reached now.

    Args:
      file: XML file of the body.
      frame_skip: physics steps per action.
      maze_map: rows of cells, see `layouts.MazeMap`.
      kwargs: what `MujocoEnv` takes, for instance `render_mode`.
    """

    def __init__(self, file: pathlib.Path, frame_skip: int, maze_map: MazeMap, **kwargs: Any) -> None:
        self.maze_map = maze_map
        self.goal = np.zeros(2)
        """x, y of the goal in meters, in the coordinates of the observations."""
        super().__init__(str(file), frame_skip, None, **kwargs)
        size = self.model.nq + self.model.nv
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)

    def observe(self) -> np.ndarray:
        """Positions [nq] and velocities [nv] in one vector."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def distance(self) -> float:
        """Metres from the body to the goal."""
        return float(np.linalg.norm(self.data.qpos[:2] - self.goal))

    def _initialize_simulation(self) -> tuple[Any, Any]:
        """Compiles the body's file with its changes; no file is written."""
        tree = ElementTree.parse(self.fullpath)
        _remove_textures(tree)
        self._edit(tree)
        model = mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), encoding="unicode"))
        screen = model.vis.global_
        screen.offwidth, screen.offheight = max(screen.offwidth, self.width), max(screen.offheight, self.height)
        return model, mujoco.MjData(model)

    @abstractmethod
    def _edit(self, tree: Any) -> None:
        """Makes the body D4RL's and puts it into the maze."""

    def _show_goal(self, position: tuple[float, float, float]) -> None:
        """Moves the mark of the goal, which only pictures show."""
        self.model.site("goal").pos = position


class AntMaze(Maze):
    """antmaze: a four-legged ant walks from one cell to another; the episode ends there with the only reward, 1.

    Observations are 29 numbers: x, y, z, a quaternion (w, x, y, z) and eight joint angles, then six velocities of the
    torso and eight of the joints. Falling over ends nothing. One action lasts 0.1 s.
    """

    metadata = {"render_modes": _RENDER_MODES, "render_fps": 10}  # noqa: RUF012

    def __init__(self, maze_map: MazeMap, **kwargs: Any) -> None:
        file = pathlib.Path(mujoco_env.__file__).parent / "assets" / "ant.xml"
        self._start, self._goal_cell = layouts.cells_of(maze_map, "r")[0], layouts.cells_of(maze_map, "g")[0]
        super().__init__(file, 5, maze_map, **kwargs)

    def reset_model(self) -> np.ndarray:
        """Draws a goal, a pose near the upright one and velocities; returns the observation."""
        center = layouts.ant_position(self._goal_cell, self._start)
        noise = sum(self.np_random.uniform(0.0, width, 2) for width in layouts.ANT_GOAL_NOISE)
        self.goal = np.maximum(np.asarray(center) + noise, 0.0)
        self._show_goal((*self.goal, 0.5))
        position = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        # Before version 3.2 MuJoCo did this itself, so that all of D4RL's observations hold unit quaternions.
        position[3:7] /= np.linalg.norm(position[3:7])
        self.set_state(position, self.init_qvel + 0.1 * self.np_random.standard_normal(self.model.nv))  # type: ignore[no-untyped-call]
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Takes torques [8] from -1 to 1; see `gymnasium.Env.step`."""
        self.do_simulation(action, self.frame_skip)
        reached = self.distance() <= layouts.GOAL_RADIUS
        return self.observe(), float(reached), reached, False, {"success": reached}

    def _initialize_simulation(self) -> tuple[Any, Any]:
        model, data = super()._initialize_simulation()
        _weigh_capsules_as_before(model)
        return model, data

    def _edit(self, tree: Any) -> None:
        _find(tree, "option").set("timestep", "0.02")
        _find(tree, "default/geom").attrib.update(solref="0.02 1", solimp="0.8 0.8 0.01")
        for motor in tree.iter("motor"):
            # D4RL has a gear of 1 and stretches actions from [-1, 1] to [-30, 30]: the same torques.
            motor.attrib.update(gear="30", ctrlrange="-1 1")
        half, height = layouts.ANT_CELL / 2, layouts.ANT_CELL / 4
        for cell in layouts.cells_of(self.maze_map, 1):
            _add_wall(tree, (*layouts.ant_position(cell, self._start), height), (half, half, height))
        _add_goal(tree)


class PointMaze(Maze):
    """maze2d: a ball, pushed by forces on two axes, has a fixed goal and stays there until the time limit.

    Observations are 4 numbers: x, y and their velocities. Starts are all free cells. One action lasts 0.01 s.

    Args:
      maze_map: rows of cells, see `layouts.MazeMap`.
      dense: the reward is exp(-distance in meters) instead of 1 within `layouts.GOAL_RADIUS` and 0 elsewhere.
      kwargs: what `MujocoEnv` takes.
    """

    metadata = {"render_modes": _RENDER_MODES, "render_fps": 100}  # noqa: RUF012

    def __init__(self, maze_map: MazeMap, dense: bool = False, **kwargs: Any) -> None:
        super().__init__(_point_file(), 1, maze_map, **kwargs)
        self._dense = dense
        self._starts = np.array(layouts.cells_of(maze_map, 0, "g"), np.float64)
        self.goal = np.array(layouts.cells_of(maze_map, "g")[0], np.float64)
        self._show_goal((*(self.goal + layouts.POINT_OFFSET), 0.0))

    def reset_model(self) -> np.ndarray:
        """Draws a free cell, a place near D4RL's point of it and velocities; returns the observation."""
        cell = self._starts[self.np_random.integers(len(self._starts))]
        position = cell + self.np_random.uniform(-0.1, 0.1, 2)
        self.set_state(position, self.init_qvel + 0.1 * self.np_random.standard_normal(2))  # type: ignore[no-untyped-call]
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Takes forces [2] from -1 to 1; see `gymnasium.Env.step`."""
        self.set_state(self.data.qpos, np.clip(self.data.qvel, -5.0, 5.0))  # type: ignore[no-untyped-call]
        self.do_simulation(action, self.frame_skip)
        distance = self.distance()
        reached = distance <= layouts.GOAL_RADIUS
        reward = float(np.exp(-distance)) if self._dense else float(reached)
        return self.observe(), reward, False, False, {"success": reached}

    def _edit(self, tree: Any) -> None:
        _find(tree, "worldbody/body").set("pos", _text((layouts.POINT_OFFSET, layouts.POINT_OFFSET, 0.0)))
        for row, column in layouts.cells_of(self.maze_map, 1):
            _add_wall(tree, (row + 1.0, column + 1.0, 0.0), (0.5, 0.5, 0.2))
        _add_goal(tree)


def _point_file() -> pathlib.Path:
    """Gymnasium-Robotics' point, found without importing Gymnasium-Robotics, which prints notices."""
    package = importlib.util.find_spec("gymnasium_robotics")
    if package is None or package.origin is None:
        raise gymnasium.error.DependencyNotInstalled("Gymnasium-Robotics is not installed")
    return pathlib.Path(package.origin).parent / "envs" / "assets" / "point" / "point.xml"


def _weigh_capsules_as_before(model: Any) -> None:
    """Gives bodies made of one capsule the mass and inertia that MuJoCo computed before version 2.1.1.

    It took a capsule for a cylinder that is longer by half a radius at either end (MuJoCo's changelog, 2.1.1). Without
    this, D4RL's ant would weigh 3.7% more.
    """
    capsules = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
    radius, half = model.geom_size[capsules, :2].T
    height, bodies = 2.0 * half + radius, model.geom_bodyid[capsules]
    mass = model.body_mass[bodies] * height / (2.0 * half + 4.0 / 3.0 * radius)
    across, along = mass * (3.0 * radius**2 + height**2) / 12.0, mass * radius**2 / 2.0
    model.body_mass[bodies] = mass
    model.body_inertia[bodies] = np.stack([across, across, along], axis=1)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _remove_textures(tree: Any) -> None:
    """Takes textures and materials out; colors stay."""
    for asset in tree.iter("asset"):
        asset.clear()
    for geom in tree.iter("geom"):
        geom.attrib.pop("material", None)


def _add_wall(tree: Any, position: tuple[float, float, float], size: tuple[float, float, float]) -> None:
    """Adds a box at `position` with half sides `size`, all in meters of the world."""
    ElementTree.SubElement(
        _find(tree, "worldbody"),
        "geom",
        {"type": "box", "pos": _text(position), "size": _text(size), "conaffinity": "1", "rgba": _WALL_COLOR},
    )


def _add_goal(tree: Any) -> None:
    """Adds the mark of the goal, which takes no part in the physics."""
    size = _text((layouts.GOAL_RADIUS,))
    ElementTree.SubElement(_find(tree, "worldbody"), "site", {"name": "goal", "size": size, "rgba": _GOAL_COLOR})


def _find(tree: Any, path: str) -> Any:
    """The first element at a path, which the body's file must have."""
    element = tree.find(path)
    assert element is not None, f"the model has no {path}"
    return element


def _text(numbers: tuple[float, ...]) -> str:
    return " ".join(map(repr, map(float, numbers)))
