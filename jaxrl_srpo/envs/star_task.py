"""The star of halls as a Gymnasium task with one goal: what was explored without reward is put to use in it."""

from typing import Any

import gymnasium
import numpy as np

from jaxrl_srpo.envs.star import GOAL_RADIUS, Star


class StarTask(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observations [2] float32, the position; actions [2] in [-1, 1], moves as in `Star`.

    The reward is 1 in the goal, a disc of `GOAL_RADIUS` around a point in the middle of a hall, where the episode ends.

    Args:
      halls: number of halls.
      length: of the halls.
      goal: hall and distance from the middle of the star; None for no goal and no reward.

    Raises:
      UserError: there is no such star.
    """

    def __init__(self, halls: int = 3, length: float = 10.0, goal: tuple[int, float] | None = None) -> None:
        self.star = Star(halls=halls, length=length).check()
        self._goal = None if goal is None else self.star.place(int(goal[0]), float(goal[1]))
        bound = np.full(2, self.star.reach, np.float32)
        self.observation_space = gymnasium.spaces.Box(-bound, bound)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._position = np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Puts the point in the middle; nothing is random."""
        super().reset(seed=seed, options=options)
        self._position = np.zeros(2, np.float32)
        return self._position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One move."""
        self._position = self.star.move(self._position, np.asarray(action, np.float32), np).astype(np.float32)
        reached = self._goal is not None and bool(in_goal(self._position, self._goal))
        return self._position, float(reached), reached, False, {"success": reached}


def in_goal(positions: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Whether positions [..., 2] are in the disc around a goal [2], bool [...]."""
    return np.sum((positions - goal) ** 2, axis=-1) <= GOAL_RADIUS**2
