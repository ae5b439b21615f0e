"""Dictionary observations of goal tasks as one vector, the same at training and at policy time."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def flatten_observation(observation: Mapping[str, Any] | np.ndarray) -> np.ndarray:
    """One vector per observation: `observation` and then `desired_goal`.

    `achieved_goal` is left out where it repeats the first entries of `observation` (PointMaze). Where it does not, it
    is the only place where the agent's position is (AntMaze), so it comes first, as in D4RL's AntMaze observations.
    Goals that are dictionaries themselves (FrankaKitchen) are constants of the task and are left out.

    Args:
      observation: an array [..., n], or a mapping with `observation` [..., n], `achieved_goal` and `desired_goal`
        [..., g] as in Gymnasium-Robotics' goal environments. Leading axes are batch axes.

    Returns:
      [..., m] float32; an array passes through with its type changed only.

    Raises:
      KeyError: the mapping has no `observation`.
    """
    if not isinstance(observation, Mapping):
        return np.asarray(observation, np.float32)
    state = np.asarray(observation["observation"])
    parts = [state]
    desired = observation.get("desired_goal")
    if desired is not None and not isinstance(desired, Mapping):
        parts.append(np.asarray(desired))
    achieved = observation.get("achieved_goal")
    if achieved is not None and not isinstance(achieved, Mapping):
        position = np.asarray(achieved)
        if not np.array_equal(position, state[..., : position.shape[-1]], equal_nan=True):
            parts.insert(0, position)
    return np.concatenate([part.astype(np.float32) for part in parts], axis=-1)
