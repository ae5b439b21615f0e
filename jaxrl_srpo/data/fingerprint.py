"""Equal fingerprints mean equal training data."""

import hashlib

import numpy as np


def fingerprint(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    next_observations: np.ndarray,
    terminals: np.ndarray,
    action_low: np.ndarray,
    action_high: np.ndarray,
) -> str:
    """SHA-256 in hex over shapes and bytes of everything that training sees."""
    return _digest(observations, actions, rewards, next_observations, terminals, action_low, action_high)


def inputs_fingerprint(
    observations: np.ndarray,
    actions: np.ndarray,
    next_observations: np.ndarray,
    action_low: np.ndarray,
    action_high: np.ndarray,
) -> str:
    """SHA-256 in hex over what the tasks of a dataset have in common: all but rewards and terminals."""
    return _digest(observations, actions, next_observations, action_low, action_high)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
