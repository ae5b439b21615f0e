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


OGBENCH_SOURCE = "arXiv 2502.02538, with ReLU"
"""Where the presets `ogbench` come from."""

_OGBENCH: dict[str, Any] = {
    "normalize_observations": False,
    "reward_transform": "none",
    "episodes": 50,
    "online_batch_size": 256,
}
_LONG = ("antmaze-giant", "humanoidmaze", "antsoccer")
# Inverse temperatures of IQL's weights as the released commands have them, for tasks of states and of images.
_TEMPERATURES = {"cube-single": 1.0, "cube-double": 0.3}


def ogbench(dataset: str) -> dict[str, Any]:
    """What every method's `ogbench` begins with: budgets and sizes are the methods' own flags."""
    return _OGBENCH | {"discount": 0.995 if dataset.startswith(_LONG) else 0.99}


def ogbench_temperature(dataset: str) -> float:
    """The inverse temperature of weights on actions; 10 where no other is known."""
    return next((value for start, value in _TEMPERATURES.items() if dataset.startswith(start)), 10.0)


def is_maze(family: str) -> bool:
    """Whether a dataset family has the rewards and the horizons of mazes."""
    return family in ("antmaze", "pointmaze")


def quick(family: str) -> dict[str, Any]:
    """What every method's `quick` begins with."""
    return _QUICK | ({"normalize_observations": False, "episodes": 20} if is_maze(family) else {})
