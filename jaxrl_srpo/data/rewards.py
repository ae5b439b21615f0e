"""Reward transforms by name, as the published results use them."""

import numpy as np

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.errors import DatasetError, UserError

TRANSFORMS = ("d4rl-locomotion", "d4rl-antmaze", "none", "cql-antmaze", "x100", "standardize")
"""`d4rl-locomotion`: r * 1000 / (best - worst return); `d4rl-antmaze`: r - 1; `none`: r; `cql-antmaze`: 4 (r - 0.5);
`x100`: 100 r; `standardize`: (r - mean) / standard deviation of the dataset's rewards."""

# Scale and shift of those that do not look at the data.
_FIXED = {"none": (1.0, 0.0), "d4rl-antmaze": (1.0, -1.0), "cql-antmaze": (4.0, -2.0), "x100": (100.0, 0.0)}

_DEFAULTS = {"locomotion": "d4rl-locomotion", "antmaze": "d4rl-antmaze", "pointmaze": "d4rl-antmaze"}


def default_transform(family: str) -> str:
    """The name of the transform that a dataset family gets unless one is chosen; see `TRANSFORMS`."""
    return _DEFAULTS.get(family, "none")


def return_range(rewards: np.ndarray, terminals: np.ndarray, max_episode_steps: int = 1000) -> tuple[float, float]:
    """The smallest and the largest return, counted as IQL's and SRPO's published code does.

    A running sum over the transitions ends at a terminal or when it is `max_episode_steps` long, whatever the time-outs
    of the file say. `qlearning_dataset` drops the last step of an episode that timed out, so episodes of 1000 steps
    come as 999 and the windows drift across them; published rewards are scaled by this range, so it is kept as it is.
    The last, unfinished sum does not count unless it is the only one.

    Args:
      rewards: [N] untransformed rewards of the transitions.
      terminals: [N] bool.
      max_episode_steps: length at which a sum is closed.

    Returns:
      (smallest, largest) return.
    """
    rows = np.arange(len(rewards))
    after_terminal = np.concatenate([[0], np.where(terminals[:-1], rows[1:], 0)])
    position = rows - np.maximum.accumulate(after_terminal)
    ends = np.asarray(terminals, bool) | (position % max_episode_steps == max_episode_steps - 1)
    starts = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1]) if ends.any() else np.array([0])
    stop = int(np.flatnonzero(ends)[-1]) + 1 if ends.any() else len(rewards)
    returns = np.add.reduceat(np.asarray(rewards[:stop], np.float64), starts)
    return float(returns.min()), float(returns.max())


def transform_rewards(dataset: Dataset, name: str) -> np.ndarray:
    """The rewards of a dataset under a named transform.

    Args:
      dataset: N transitions with untransformed rewards.
      name: one of `TRANSFORMS`.

    Returns:
      [N] float32.

    Raises:
      UserError: there is no such transform.
      DatasetError: `d4rl-locomotion` on data whose returns are all equal, `standardize` on data whose rewards are, or
        rewards that become infinite.
    """
    _require_known(name)
    rewards = np.asarray(dataset.rewards, np.float32)
    if name == "none":
        return rewards
    if name in _FIXED:
        return _finite(dataset, name, *_FIXED[name])
    if name == "standardize":
        return _finite(dataset, name, *_standardizing(dataset))
    return _scaled(dataset, _spread_of_returns(dataset))


def reward_scale_and_shift(dataset: Dataset, name: str) -> tuple[float, float]:
    """Scale and shift of a named transform, for rewards that come later: scale * reward + shift.

    Args:
      dataset: N transitions with untransformed rewards.
      name: one of `TRANSFORMS`.

    Returns:
      (scale, shift).

    Raises:
      UserError: there is no such transform.
      DatasetError: as `transform_rewards`.
    """
    _require_known(name)
    if name == "d4rl-locomotion":
        spread = _spread_of_returns(dataset)
        _scaled(dataset, spread)
        return 1000.0 / spread, 0.0
    scale, shift = _standardizing(dataset) if name == "standardize" else _FIXED[name]
    _finite(dataset, name, scale, shift)
    return scale, shift


def _require_known(name: str) -> None:
    if name not in TRANSFORMS:
        raise UserError(f"unknown reward transform {name!r}; choose one of {', '.join(TRANSFORMS)}")


def _spread_of_returns(dataset: Dataset) -> float:
    """The best return less the worst, by which rewards are divided in float32."""
    if dataset.goes_on_after_terminals:
        raise DatasetError(
            f"{dataset.name}: reward transform d4rl-locomotion counts episodes by their terminations, but here they go "
            "on after terminals; choose d4rl-antmaze or none"
        )
    low, high = return_range(np.asarray(dataset.rewards, np.float32), dataset.terminals)
    with np.errstate(over="ignore"):
        divisible = 0.0 < np.float32(high - low) < np.inf
    if not divisible:
        found = f"every episode returns {low:.6g}" if low == high else f"returns are {low:.6g} to {high:.6g}"
        raise DatasetError(
            f"{dataset.name}: reward transform d4rl-locomotion divides by the range of returns, but {found}; choose "
            "d4rl-antmaze or none"
        )
    return high - low


def _standardizing(dataset: Dataset) -> tuple[float, float]:
    """Scale and shift to mean 0 and sample standard deviation 1."""
    rewards = np.asarray(dataset.rewards, np.float64)
    deviation = float(rewards.std(ddof=1)) if len(rewards) > 1 else 0.0
    if deviation == 0.0:
        raise DatasetError(
            f"{dataset.name}: reward transform standardize divides by the rewards' deviation, but all are "
            f"{rewards[0]:.6g}; choose none"
        )
    return 1.0 / deviation, -float(rewards.mean()) / deviation


def _scaled(dataset: Dataset, spread: float) -> np.ndarray:
    """Rewards [N] float32 in thousandths of the range of returns."""
    rewards = np.asarray(dataset.rewards, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = rewards / np.float32(spread) * np.float32(1000.0)
    _require_finite(dataset, "d4rl-locomotion", scaled)
    return scaled


def _finite(dataset: Dataset, name: str, scale: float, shift: float) -> np.ndarray:
    """Rewards times `scale` plus `shift`, [N] float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = np.asarray(dataset.rewards, np.float32) * np.float32(scale) + np.float32(shift)
    _require_finite(dataset, name, scaled)
    return scaled


def _require_finite(dataset: Dataset, name: str, scaled: np.ndarray) -> None:
    if lost := int((np.isfinite(np.asarray(dataset.rewards, np.float32)) & ~np.isfinite(scaled)).sum()):
        raise DatasetError(
            f"{dataset.name}: reward transform {name} makes {lost} rewards larger than float32 holds; choose "
            "d4rl-antmaze or none"
        )
