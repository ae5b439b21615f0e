"""Random episodes, and score models whose samples are known."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.types import Array, Spec


class Episodes(NamedTuple):
    """Transitions in the order of time, and the same in plain arrays."""

    data: table.Transitions
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    ends: np.ndarray

    @property
    def spec(self) -> Spec:
        return Spec(self.observations.shape[1], self.actions.shape[1], len(self.ends), episodes=int(self.ends.sum()))


def random_episodes(lengths: Sequence[int], observation_size: int = 3, action_size: int = 2) -> Episodes:
    """Every second one terminates; the others are cut off in a state that begins no transition."""
    random = np.random.default_rng(0)
    size = sum(lengths)
    states = [random.normal(size=(length + 1, observation_size)) for length in lengths]
    observations, following = (np.concatenate([s[part] for s in states]) for part in (slice(-1), slice(1, None)))
    actions, rewards = random.uniform(-1.0, 1.0, (size, action_size)), random.normal(size=size)
    steps_left = np.concatenate([np.arange(length)[::-1] for length in lengths])
    ends = steps_left == 0
    discounts = 1.0 - (ends & (np.cumsum(ends) % 2 == 0))
    columns = (observations, actions, rewards[:, None], following, discounts[:, None], steps_left[:, None])
    rows = np.concatenate(columns, axis=1, dtype=np.float32)
    # Rows of other datasets lie around those of this one in the table of a population.
    others = np.full((5, rows.shape[1]), np.nan, np.float32)
    spec = Spec(observation_size, action_size, columns=("steps_left",))
    where = table.Slice(jnp.int32(5), jnp.int32(size))
    data = table.Transitions(jnp.asarray(np.concatenate([others, rows, others])), where, spec)
    return Episodes(data, observations, actions, rewards, following, ends)


@struct.dataclass
class GaussianModel:
    """The behavior N(mean, std^2) in every state."""

    mean: Array
    std: float

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """See `types.ScoreModel`."""
        alpha, sigma = (x[:, None] for x in diffusion.marginal(times))
        return sigma * (noisy_actions - alpha * self.mean[None]) / (alpha**2 * self.std**2 + sigma**2)


@struct.dataclass
class PointModel:
    """The behavior that takes `action_in` of each state."""

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """See `types.ScoreModel`."""
        alpha, sigma = (x[:, None] for x in diffusion.marginal(times))
        actions = 0.9 * jnp.tanh(observations[:, : noisy_actions.shape[1]])
        return (noisy_actions - alpha * actions) / sigma

    @staticmethod
    def action_in(observations: np.ndarray, action_size: int) -> np.ndarray:
        """[B, action_size]."""
        return 0.9 * np.tanh(observations[..., :action_size])
