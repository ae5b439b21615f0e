"""Equal fingerprints mean equal training data."""

import hashlib

import numpy as np

from jaxrl_srpo.data.dataset import Dataset


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


def fingerprint_of(dataset: Dataset) -> str:
    """The fingerprint of the transitions that a dataset has now."""
    return fingerprint(
        dataset.observations,
        dataset.actions,
        dataset.rewards,
        dataset.next_observations,
        dataset.terminals,
        dataset.action_low,
        dataset.action_high,
    )


def inputs_fingerprint_of(dataset: Dataset) -> str:
    """Likewise of all but rewards and terminals."""
    return inputs_fingerprint(
        dataset.observations, dataset.actions, dataset.next_observations, dataset.action_low, dataset.action_high
    )
