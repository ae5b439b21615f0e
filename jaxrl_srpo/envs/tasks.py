"""Observations, rewards and ends of Gymnasium's locomotion tasks and of PointMaze, for many environments at once.

Every formula keeps the order of operations and the number types of Gymnasium's own, so that results are the same to
the last bit. A control cost is float32, because actions are.
"""

import dataclasses
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

_LOCOMOTION = {
    f"gymnasium.envs.mujoco.{module}_{version}:{name}Env": (name, version)
    for module, name in (
        ("hopper", "Hopper"),
        ("half_cheetah", "HalfCheetah"),
        ("walker2d", "Walker2d"),
        ("ant", "Ant"),
    )
    for version in ("v4", "v5")
}
_POINT_MAZE = "gymnasium_robotics.envs.maze.point_maze:PointMazeEnv"
_MAZE_ARGUMENTS = {"maze_map", "reward_type", "continuing_task", "reset_target"}
OBSERVATION_KEYS = ((), ("observation", "desired_goal"))
"""Keys of the observations that these tasks give: vectors, and those of PointMaze."""
_GOAL_RADIUS = 0.45
_SPEED_LIMIT = 5.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The needs of a task from the physics.

    Attributes:
      body: number of the body whose horizontal position is kept.
      forces: keep the external forces on all bodies.
      settle: evaluate the dynamics before each step, with the last controls, as Gymnasium's `set_state` does.
    """

    body: int | None = None
    forces: bool = False
    settle: bool = False


class Physics(Protocol):
    """N simulations of one model; see `batched.ModelCopies`."""

    qpos: np.ndarray
    qvel: np.ndarray
    places: np.ndarray
    forces: np.ndarray
    seconds_per_step: float

    def step(self, rows: np.ndarray, controls: np.ndarray) -> None:
        """Steps `rows` [n] with controls [n, nu]."""


class Outcome(NamedTuple):
    """Rewards [n] float64, true terminations [n] bool and reported successes [n] bool of a step."""

    rewards: np.ndarray
    terminated: np.ndarray
    successes: np.ndarray


class Task(Protocol):
    """The part of a Gymnasium environment that is not physics: observations, rewards and ends.

    Attributes:
      recipe: its needs from the physics.
    """

    @property
    def recipe(self) -> Recipe: ...  # noqa: D102

    def start(self, rows: np.ndarray, environment: Any) -> bool:
        """Takes over a reset's state outside MuJoCo for the environments `rows`; returns whether it reports success."""

    def step(self, physics: Physics, rows: np.ndarray, actions: np.ndarray) -> Outcome:
        """Steps the environments `rows` [n] with actions [n, action_size] float32."""

    def observe(self, physics: Physics, rows: np.ndarray) -> np.ndarray:
        """Observations [n, observation_size] float64 of the environments `rows` [n]."""


def find(entry_point: str, arguments: Mapping[str, Any], environment: Any, count: int) -> Task | None:
    """The task of a Gymnasium class, or None where the class or one of its arguments is not covered.

    Args:
      entry_point: `module:class` as registered.
      arguments: the keyword arguments it was made with.
      environment: one unwrapped environment.
      count: number of environments.
    """
    if entry_point == _POINT_MAZE:
        covered = set(arguments) <= _MAZE_ARGUMENTS and environment.reward_type in ("sparse", "dense")
        moving_goal = environment.continuing_task and environment.reset_target
        return PointMaze(environment, count) if covered and not moving_goal else None
    if entry_point not in _LOCOMOTION:
        return None
    signature = inspect.signature(type(environment).__init__).parameters.values()
    defaults = {one.name: one.default for one in signature if one.default is not one.empty}
    if not set(arguments) <= set(defaults):
        return None
    return _locomotion(*_LOCOMOTION[entry_point], {**defaults, **arguments}, environment)


def _locomotion(name: str, version: str, given: dict[str, Any], environment: Any) -> Task:
    """The task of a class by its name and version, with the arguments `given`, defaults included."""
    common = {
        "forward_weight": given.get("forward_reward_weight", 1.0),
        "control_weight": given["ctrl_cost_weight"],
        "bonus": given.get("healthy_reward", 0.0),
        "terminates": given.get("terminate_when_unhealthy", False),
        "bonus_at_end": version == "v4",
        "hides_place": given["exclude_current_positions_from_observation"],
    }
    if name == "Ant":
        return _ant(version, given, common, environment)
    return Planar(
        **common,
        velocity_limit=math.inf if name == "HalfCheetah" else 10.0,
        height=given.get("healthy_z_range"),
        angle=given.get("healthy_angle_range"),
        state=given.get("healthy_state_range"),
    )


def _ant(version: str, given: dict[str, Any], common: dict[str, Any], environment: Any) -> "Ant":
    low, high = given["contact_force_range"]
    uses_forces = version == "v5" or given["use_contact_forces"]
    observed = given["include_cfrc_ext_in_observation"] if version == "v5" else uses_forces
    body = environment.data.body(given.get("main_body", "torso")).id
    return Ant(
        **common,
        recipe=Recipe(body, forces=uses_forces and not low == high == 0.0),
        height=given["healthy_z_range"],
        contact_weight=given["contact_cost_weight"],
        force_range=(low, high),
        # The first body is the world, on which v4 reports forces too.
        observed_bodies=slice(int(version == "v5"), environment.model.nbody if observed else 0),
    )


def simulation(environment: Any) -> Any:
    """The part of an unwrapped environment that holds the MuJoCo model."""
    return getattr(environment, "point_env", environment)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Locomotion(ABC):
    """Forward speed plus a bonus for being healthy, less costs.

    Attributes:
      recipe: see `Recipe`.
      forward_weight: reward per m/s.
      control_weight: cost per squared control.
      bonus: reward of a healthy step.
      bonus_at_end: the step that ends an episode gets it too.
      terminates: an episode ends when the robot is not healthy.
      hides_place: observations leave out where the robot is.
    """

    recipe: Recipe = Recipe()
    forward_weight: float
    control_weight: float
    bonus: float
    bonus_at_end: bool
    terminates: bool
    hides_place: bool

    def start(self, rows: np.ndarray, environment: Any) -> bool:
        """Locomotion keeps nothing outside MuJoCo and knows no success."""
        return False

    def step(self, physics: Physics, rows: np.ndarray, actions: np.ndarray) -> Outcome:
        """See `Task`."""
        before = self._place(physics, rows)
        physics.step(rows, actions)
        velocity = (self._place(physics, rows) - before) / physics.seconds_per_step
        healthy = self._healthy(physics.qpos[rows], physics.qvel[rows])
        paid = healthy | (self.bonus_at_end and self.terminates)
        rewards = self.forward_weight * velocity + paid * self.bonus - self._costs(physics, rows, actions)
        return Outcome(rewards, ~healthy & self.terminates, np.zeros(len(rows), bool))

    def _place(self, physics: Physics, rows: np.ndarray) -> np.ndarray:
        """Forward position [n] in meters."""
        return physics.qpos[rows, 0]

    def _costs(self, physics: Physics, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Costs [n] of the controls."""
        costs: np.ndarray = self.control_weight * np.sum(np.square(actions), axis=1)
        return costs

    @abstractmethod
    def _healthy(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """[n] bool for positions [n, nq] and velocities [n, nv]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planar(_Locomotion):
    """Hopper, HalfCheetah and Walker2d.

    Attributes:
      velocity_limit: bound of velocities in observations.
      height, angle, state: healthy ranges of qpos[1], of qpos[2], and of qpos[2:] and velocities; None where there is
        no condition.
    """

    velocity_limit: float
    height: tuple[float, float] | None
    angle: tuple[float, float] | None
    state: tuple[float, float] | None

    def observe(self, physics: Physics, rows: np.ndarray) -> np.ndarray:
        """See `Task`."""
        velocities = np.clip(physics.qvel[rows], -self.velocity_limit, self.velocity_limit)
        return np.concatenate([physics.qpos[rows, int(self.hides_place) :], velocities], axis=1)

    def _healthy(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        parts = [(qpos[:, 1:2], self.height), (qpos[:, 2:3], self.angle), (qpos[:, 2:], self.state), (qvel, self.state)]
        healthy = np.ones(len(qpos), bool)
        for values, bounds in parts:
            if bounds is not None:
                healthy &= ((bounds[0] < values) & (values < bounds[1])).all(axis=1)
        return healthy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ant(_Locomotion):
    """Ant, with or without contact forces.

    Attributes:
      height: healthy range of qpos[2], bounds included.
      contact_weight: cost per squared contact force.
      force_range: bounds of the forces.
      observed_bodies: whose forces are observed.
    """

    height: tuple[float, float]
    contact_weight: float
    force_range: tuple[float, float]
    observed_bodies: slice

    def observe(self, physics: Physics, rows: np.ndarray) -> np.ndarray:
        """See `Task`."""
        position = physics.qpos[rows, 2 * int(self.hides_place) :]
        # Forces that the range holds at zero are not kept; their zeros are observed all the same.
        forces = np.clip(physics.forces[rows, self.observed_bodies], *self.force_range)
        return np.concatenate([position, physics.qvel[rows], forces.reshape(len(rows), -1)], axis=1)

    def _place(self, physics: Physics, rows: np.ndarray) -> np.ndarray:
        # Gymnasium reads the body's position, which lags behind qpos: it is that of the last dynamics evaluated.
        return physics.places[rows, 0]

    def _costs(self, physics: Physics, rows: np.ndarray, actions: np.ndarray) -> np.ndarray:
        costs = super()._costs(physics, rows, actions)
        if not self.recipe.forces:
            return costs
        forces = np.clip(physics.forces[rows], *self.force_range).reshape(len(rows), -1)
        return costs + self.contact_weight * np.sum(np.square(forces), axis=1)

    def _healthy(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        finite = np.isfinite(qpos).all(axis=1) & np.isfinite(qvel).all(axis=1)
        return finite & (self.height[0] <= qpos[:, 2]) & (qpos[:, 2] <= self.height[1])


class PointMaze:
    """Gymnasium-Robotics' PointMaze whose goals stay where a reset puts them.

    Args:
      environment: one of the environments, unwrapped.
      count: their number.
    """

    recipe = Recipe(settle=True)

    def __init__(self, environment: Any, count: int) -> None:
        self._dense = environment.reward_type == "dense"
        self._terminates = not environment.continuing_task
        self._goals = np.zeros((count, 2))

    def start(self, rows: np.ndarray, environment: Any) -> bool:
        """See `Task`; keeps the goal."""
        self._goals[rows] = environment.goal
        return bool(np.linalg.norm(environment.data.qpos[:2] - environment.goal) <= _GOAL_RADIUS)

    def step(self, physics: Physics, rows: np.ndarray, actions: np.ndarray) -> Outcome:
        """See `Task`."""
        physics.qvel[rows] = np.clip(physics.qvel[rows], -_SPEED_LIMIT, _SPEED_LIMIT)
        physics.step(rows, np.clip(actions, -1.0, 1.0))
        away = physics.qpos[rows, :2] - self._goals[rows]
        # Gymnasium-Robotics computes the distance in two ways, whose last bits may differ.
        distances = np.linalg.norm(away, axis=1)
        reached = np.sqrt(np.vecdot(away, away)) <= _GOAL_RADIUS
        rewards = np.exp(-distances) if self._dense else (distances <= _GOAL_RADIUS).astype(np.float64)
        return Outcome(rewards, reached & self._terminates, reached)

    def observe(self, physics: Physics, rows: np.ndarray) -> np.ndarray:
        """See `Task`."""
        return np.concatenate([physics.qpos[rows], physics.qvel[rows], self._goals[rows]], axis=1)
