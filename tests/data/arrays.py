"""Datasets of random numbers, for tests of what is done with them."""

from typing import Any

import numpy as np

from jaxrl_srpo.data.dataset import Dataset


def random_dataset(
    size: int,
    seed: int = 0,
    low: float = -1.0,
    high: float = 1.0,
    observation_size: int = 3,
    action_size: int = 2,
    **fields: Any,
) -> Dataset:
    """N = `size` transitions in episodes of five, every other one terminated, with uniform actions between the bounds.

    `fields` replace others of the dataset.
    """
    random = np.random.default_rng(seed)
    ends = np.arange(size) % 5 == 4
    ends[-1] = True
    terminals = ends & (np.arange(size) // 5 % 2 == 0)
    rewards = random.normal(size=size).astype(np.float32)
    starts = np.append(0, np.flatnonzero(ends)[:-1] + 1)
    content: dict[str, Any] = {
        "name": "x",
        "source": "x.hdf5",
        "observations": random.normal(2.0, 3.0, (size, observation_size)).astype(np.float32),
        "actions": random.uniform(low, high, (size, action_size)).astype(np.float32),
        "rewards": rewards,
        "next_observations": random.normal(2.0, 3.0, (size, observation_size)).astype(np.float32),
        "terminals": terminals,
        "episode_ends": ends,
        "episode_returns": np.add.reduceat(rewards.astype(np.float64), starts),
        "episode_lengths": np.diff(np.append(starts, size)),
        "timeouts": int((ends & ~terminals).sum()),
        "action_low": np.full(action_size, low, np.float32),
        "action_high": np.full(action_size, high, np.float32),
        "fingerprint": "0" * 64,
    }
    return Dataset(**(content | fields))
