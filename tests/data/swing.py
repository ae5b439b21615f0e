"""Arrays with the sizes of Pendulum-v1, for tests of every way in which arrays are given."""

from typing import Any

import numpy as np


def swing(seed: int = 0, episodes: int = 4, steps: int = 50) -> dict[str, Any]:
    """The arguments of `Dataset.from_arrays` for a random policy's data, each episode ended by a time limit."""
    random = np.random.default_rng(seed)
    size = episodes * steps
    angles = np.cumsum(random.normal(0.0, 0.2, (episodes, steps)), axis=1).reshape(size)
    return {
        "observations": np.stack([np.cos(angles), np.sin(angles), random.uniform(-1.0, 1.0, size)], axis=1),
        "actions": random.uniform(-2.0, 2.0, (size, 1)),
        "rewards": -(angles**2),
        "terminals": np.zeros(size, bool),
        "timeouts": np.arange(size) % steps == steps - 1,
        "action_low": -2.0,
        "action_high": 2.0,
        "name": "my-data",
        "env": "Pendulum-v1",
    }
