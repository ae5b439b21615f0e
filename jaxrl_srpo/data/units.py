"""The units that networks see: observations of about unit size, actions in [-1, 1], rewards of the transform."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrl_srpo.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Units:
    """Converts between an environment's units and those of the networks; by default both are the same.

    Attributes:
      observation_mean: [observation_size] float32, or one number.
      observation_std: likewise.
      reward_scale: factor of rewards.
      reward_shift: added after scaling.
      action_low: [action_size] float32, or one number; the action that networks call -1.
      action_high: likewise, for 1.

    All fields may have leading axes, which broadcast against those of the values; see `stack`.
    """

    observation_mean: np.ndarray | float = 0.0
    observation_std: np.ndarray | float = 1.0
    reward_scale: np.ndarray | float = 1.0
    reward_shift: np.ndarray | float = 0.0
    action_low: np.ndarray | float = -1.0
    action_high: np.ndarray | float = 1.0

    def normalize_observations(self, observations: np.ndarray) -> np.ndarray:
        """Observations [..., observation_size] as networks see them."""
        normalized: np.ndarray = (observations - self.observation_mean) / self.observation_std
        return normalized

    def normalize_actions(self, actions: np.ndarray) -> np.ndarray:
        """The environment's actions [..., action_size] in [-1, 1]; bounds of +-1 change no bit, equal ones give 0."""
        low, high = self.action_low, self.action_high
        if np.all(low == -1.0) and np.all(high == 1.0):
            return actions
        constant = low == high
        scaled = 2.0 * (actions - low) / np.where(constant, 1.0, high - low) - 1.0
        return np.where(constant, 0.0, scaled).astype(np.float32)

    def denormalize_actions(self, actions: np.ndarray) -> np.ndarray:
        """Actions [..., action_size] in [-1, 1] in the environment's units."""
        low, high = self.action_low, self.action_high
        scaled: np.ndarray = low + 0.5 * (actions + 1.0) * (high - low)
        return scaled

    def scale_rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards [...] as learners are paid, float32."""
        scaled: np.ndarray = self.reward_scale * rewards.astype(np.float32) + self.reward_shift
        return scaled


def measure_units(dataset: Dataset, *, normalize_observations: bool = False) -> Units:
    """The units of a dataset's observations and actions; rewards stay as they are.

    Args:
      dataset: gives the bounds of actions.
      normalize_observations: whether to take mean and standard deviation of its observations, the latter raised by
        0.001 as in TD3+BC; otherwise they are 0 and 1.
    """
    size = dataset.observation_size
    mean, std = np.zeros(size, np.float32), np.ones(size, np.float32)
    if normalize_observations:
        observations = dataset.observations.astype(np.float64)
        mean, std = observations.mean(0).astype(np.float32), (observations.std(0) + 1e-3).astype(np.float32)
    return Units(mean, std, action_low=dataset.action_low, action_high=dataset.action_high)


def stack(units: Sequence[Units], observation_size: int, action_size: int, repeat: int = 1) -> Units:
    """The units of several members as one, each `repeat` times in a row.

    Args:
      units: of M members.
      observation_size: width of an observation.
      action_size: width of an action.
      repeat: n.

    Returns:
      Units of float32 fields: [M n, observation_size], [M n] for rewards, and [M n, action_size].
    """

    def rows(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = [np.broadcast_to(np.asarray(getattr(one, name), np.float32), shape) for one in units]
        return np.repeat(values, repeat, axis=0)

    return Units(
        rows("observation_mean", (observation_size,)),
        rows("observation_std", (observation_size,)),
        rows("reward_scale", ()),
        rows("reward_shift", ()),
        rows("action_low", (action_size,)),
        rows("action_high", (action_size,)),
    )
