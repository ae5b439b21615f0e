"""The Fetch manipulation task of State Marginal Matching (arXiv 1906.05274): a robot arm and a block on a table.

Gymnasium-Robotics' FetchPickAndPlace, of which only the 25 numbers of `observation` are seen: the gripper's position is
0:3, the block's 3:6, in meters. An episode takes 50 steps and begins with the block in the middle of the table; it
terminates when the block falls off. It differs from the released code (`manipulation_env.py`) in two things:
  - the time limit is a truncation, which there is stored as a terminal state;
  - "off the table" includes a block that has sunk below its top; there only its x and y count.
"""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium_robotics.envs.fetch.pick_and_place import MujocoFetchPickAndPlaceEnv

from jaxrl_srpo.errors import UserError

GoalPrior = Literal["uniform", "half"]

TABLE_LOW, TABLE_HIGH = (1.0, 0.34), (1.6, 1.12)
HEIGHT = 0.42
MIDDLE = (1.3, 0.75)
GOAL_RADIUS = 0.1
_NEAR = 0.1
_SUNK = 0.05
GRIPPER, BLOCK = slice(0, 3), slice(3, 6)


class Manipulation(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observations [25] float64, actions [4] in [-1, 1]: 5 cm per step along x, y and z, and the gripper's opening.

    The reward is -20 where the block is off the table, 0.1 where it is within 0.1 m of the gripper, less 0.1 times the
    action's squared norm, and 1 at the goal: within 0.1 m of `goal`, or anywhere on the left half (larger y) if the
    prior is "half".

    Args:
      goal_prior: "half" pays for the left half, so that exp(reward) prefers it e to 1; "uniform" pays for no place.
      goal: x, y, z in meters; None for none. `info["success"]` says whether the block is there.
      render_mode: as in Gymnasium-Robotics.

    Raises:
      UserError: an unknown prior, or a goal of other than three numbers.
    """

    metadata = MujocoFetchPickAndPlaceEnv.metadata

    def __init__(
        self,
        goal_prior: GoalPrior = "uniform",
        goal: tuple[float, float, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if goal_prior not in ("uniform", "half"):
            raise UserError(f"goal_prior={goal_prior!r}: choose uniform or half")
        if goal is not None and len(goal) != 3:
            raise UserError(f"goal={goal}: give x, y and z in meters")
        self._robot = MujocoFetchPickAndPlaceEnv(reward_type="sparse", render_mode=render_mode)
        self._prior, self._goal, self.render_mode = goal_prior, goal, render_mode
        self.observation_space = self._robot.observation_space["observation"]
        self.action_space = self._robot.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the block in the middle of the table, below the gripper; nothing is random."""
        super().reset(seed=seed)
        self._robot.reset(seed=seed, options=options)
        joint = self._robot.data.joint("object0:joint")
        joint.qpos[:2] = MIDDLE
        self._robot._mujoco.mj_forward(self._robot.model, self._robot.data)
        return self._robot._get_obs()["observation"], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One of 25 steps per second."""
        action = np.clip(action, -1.0, 1.0)
        observation = self._robot.step(action)[0]["observation"]
        block, gripper = observation[BLOCK], observation[GRIPPER]
        fallen = off_table(block)
        near = np.linalg.norm(block - gripper) < _NEAR
        at_goal = self._at_goal(block)
        reward = -20.0 * fallen + 0.1 * near - 0.1 * float(np.square(action).sum()) + 1.0 * at_goal
        return observation, float(reward), bool(fallen), False, {"success": bool(at_goal)}

    def _at_goal(self, block: np.ndarray) -> bool:
        if self._goal is not None:
            return bool(np.linalg.norm(block - np.asarray(self._goal)) < GOAL_RADIUS)
        return self._prior == "half" and bool(block[1] > 0.5 * (TABLE_LOW[1] + TABLE_HIGH[1]))

    def render(self) -> Any:
        """See Gymnasium-Robotics."""
        return self._robot.render()

    def close(self) -> None:
        """Closes the simulation."""
        self._robot.close()


def off_table(block: np.ndarray) -> bool:
    """Whether a block's position [3] in meters is beside the table's top or below it."""
    inside = np.all((block[:2] >= TABLE_LOW) & (block[:2] <= TABLE_HIGH))
    return not inside or bool(block[2] < HEIGHT - _SUNK)
