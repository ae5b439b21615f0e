"""Gymnasium tasks of a user's own, none of them known to the package."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env[Any, np.ndarray]):
    """A point on a line that is pushed; its goal is at 1.

    Args:
      kind: of observations: `vector`, `entries` (a dictionary of any names) or `goal` (a goal task, whose position
        is equal to the first entry of its observation at the start only).
      array: whether rewards are arrays of one number.
    """

    def __init__(self, kind: str = "vector", array: bool = False) -> None:
        unbounded = {size: spaces.Box(-np.inf, np.inf, (size,), np.float32) for size in (1, 3)}
        goal: dict[str, spaces.Space[Any]] = {
            "observation": unbounded[3],
            "achieved_goal": unbounded[1],
            "desired_goal": unbounded[1],
        }
        entries = spaces.Dict([("position", unbounded[1]), ("past", spaces.Dict({"velocity": unbounded[1]}))])
        self.observation_space = {"vector": unbounded[3], "entries": entries, "goal": spaces.Dict(goal)}[kind]
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self._kind, self._array = kind, array
        self._x = self._v = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._x = self._v = 0.0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._v = 0.9 * self._v + 0.1 * float(np.clip(action, -2.0, 2.0)[0])
        self._x += 0.1 * self._v
        reward = -abs(self._x - 1.0)
        return self._observe(), np.array([reward]) if self._array else reward, False, False, {}

    def _observe(self) -> Any:
        x, v = np.array([self._x], np.float32), np.array([self._v], np.float32)
        if self._kind == "entries":
            return {"position": x, "past": {"velocity": v}}
        if self._kind == "goal":
            state = np.concatenate([v, x, v])
            return {"observation": state, "achieved_goal": x, "desired_goal": np.ones(1, np.float32)}
        return np.concatenate([x, v, np.ones(1, np.float32)])


def register() -> None:
    """Registers the tasks: `LineVector-v0`, `LineEntries-v0`, `LineGoal-v0`, `LineArray-v0` and `LineEndless-v0`."""
    kwargs: dict[str, dict[str, Any]] = {
        "LineVector-v0": {},
        "LineEntries-v0": {"kind": "entries"},
        "LineGoal-v0": {"kind": "goal"},
        "LineArray-v0": {"array": True},
        "LineEndless-v0": {},
    }
    for name, own in kwargs.items():
        if name not in gymnasium.registry:
            limit = None if "Endless" in name else 20
            gymnasium.register(name, entry_point="tests.own_tasks:Line", max_episode_steps=limit, kwargs=own)


register()
