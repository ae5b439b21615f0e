"""Dictionary observations as one vector, the same at training and at policy time.

Which entries, and in which order, is decided once, by a space and many observations of it, and kept as keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo.errors import UserError

# In the order of the vector.
_GOAL = ("achieved_goal", "observation", "desired_goal")


def flatten_observation(observation: Mapping[str, Any] | np.ndarray, keys: Sequence[str] = ()) -> np.ndarray:
    """One vector per observation.

    Args:
      observation: an array [..., n], or a dictionary of arrays [..., n_i]. Leading axes are batch axes.
      keys: entries of a dictionary in the order of the vector, `outer/inner` for one in a dictionary within; see
        `observation_keys`.

    Returns:
      [..., m] float32; an array passes through with its type changed only.

    Raises:
      UserError: a dictionary lacks an entry, or no keys say which it should have.
    """
    if not isinstance(observation, Mapping):
        return np.asarray(observation, np.float32)
    if not keys:
        raise UserError(f"a dictionary observation ({', '.join(observation)}) where the data have vectors")
    return np.concatenate([np.asarray(_entry(observation, key), np.float32) for key in keys], axis=-1)


def observation_keys(space: Any, observations: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The entries of dictionary observations that make a vector, for `flatten_observation`.

    All entries in the order of the space; but of a goal task (`observation`, `achieved_goal`, `desired_goal` as in
    Gymnasium-Robotics) `observation` and then `desired_goal`. There `achieved_goal` is left out where it repeats the
    first entries of `observation` in everything seen (PointMaze). Where it does not, it is the only place where the
    agent's position is (AntMaze), so it comes first, as in D4RL's AntMaze observations. Goals that are dictionaries
    themselves (FrankaKitchen) are constants of the task and are left out.

    Args:
      space: a `gymnasium.spaces.Dict`.
      observations: what was seen of it, entries [..., n_i]: all of a dataset, or some steps of an environment.

    Raises:
      UserError: an entry that would be part of the vector is no vector itself.
    """
    state = space.spaces.get("observation")
    if state is not None and not hasattr(state, "spaces") and set(space.spaces) <= set(_GOAL):
        keys = _goal_keys(space, observations)
    else:
        keys = tuple(_leaves(space))
    for key in keys:
        part = _subspace(space, key)
        if len(part.shape or ()) != 1 or hasattr(part, "nvec"):
            raise UserError(f"observations of space {part} at {key!r} cannot be made vectors; expected one axis")
    return keys


def goal_keys_of_width(observation: Mapping[str, Any], size: int) -> tuple[str, ...]:
    """The entries of a goal task's observation that make a vector of `size`; none if no choice of them does."""
    widths = {key: np.shape(part)[-1] for key, part in observation.items() if key in _GOAL and np.ndim(part)}
    choices = [_GOAL[start:stop] for stop in (3, 2) for start in (1, 0)]
    return next((keys for keys in choices if sum(widths.get(key, size + 1) for key in keys) == size), ())


def _goal_keys(space: Any, observations: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The entries of a goal task; see `observation_keys`."""
    keys = [key for key in _GOAL if key in space.spaces and not hasattr(space.spaces[key], "spaces")]
    if "achieved_goal" in keys and all(map(_repeats, observations)):
        keys.remove("achieved_goal")
    return tuple(keys)


def _repeats(observation: Mapping[str, Any]) -> bool:
    """Whether the achieved goal repeats the first entries of the observation."""
    state, position = np.asarray(observation["observation"]), np.asarray(observation["achieved_goal"])
    return np.array_equal(position, state[..., : position.shape[-1]], equal_nan=True)


def _leaves(space: Any, prefix: str = "") -> Iterator[str]:
    """Keys of all entries of a dictionary space, in its order."""
    for key, part in space.spaces.items():
        if isinstance(getattr(part, "spaces", None), Mapping):
            yield from _leaves(part, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}"


def _subspace(space: Any, key: str) -> Any:
    for name in key.split("/"):
        space = space.spaces[name]
    return space


def _entry(observation: Mapping[str, Any], key: str) -> Any:
    found: Any = observation
    for name in key.split("/"):
        if not isinstance(found, Mapping) or name not in found:
            raise UserError(f"a dictionary observation has no {key!r}, which the data have; it has {list(observation)}")
        found = found[name]
    return found
