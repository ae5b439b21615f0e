"""Values that presets of several methods share."""

from typing import Any

# The recipe for small budgets; docs/quick.md gives the measurement behind each value.
_QUICK: dict[str, Any] = {
    "normalize_observations": True,
    "episodes": 10,
    "offline_steps": 20_000,
    "offline_evaluation_interval": 2_500,
    "online_batch_size": 256,
    "online_warmup_steps": 0,
    "online_evaluation_interval": 1_000,
    "log_interval": 500,
}


def is_maze(family: str) -> bool:
    """Whether a dataset family has the rewards and the horizons of mazes."""
    return family in ("antmaze", "pointmaze")


def quick(family: str) -> dict[str, Any]:
    """What every method's `quick` begins with."""
    return _QUICK | ({"normalize_observations": False, "episodes": 20} if is_maze(family) else {})
