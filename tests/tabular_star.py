"""State marginal matching on a star-shaped graph, where occupancies and best responses are exact.

Plain NumPy, written from the equations and not from the package. Halls of ten cells lead away from a center. There are
as many actions as halls. In the center action h enters hall h; in a hall action 0 moves inward, action 1 outward, and
the others stay. An episode starts in the center and visits 25 states.
"""

from typing import NamedTuple

import numpy as np

HALL = 10
HORIZON = 25
SMOOTHING = 1e-3


class Play(NamedTuple):
    """Occupancies [1 + iterations, states] of the policies of fictitious play, the uniform policy first."""

    occupancies: np.ndarray

    def averages(self) -> np.ndarray:
        """Occupancies [1 + iterations, states] of the uniform mixture of the policies up to each iteration."""
        counts = np.arange(1, len(self.occupancies) + 1)
        return np.cumsum(self.occupancies, axis=0) / counts[:, None]


def star(halls: int) -> np.ndarray:
    """Successors [1 + HALL halls, halls] int of every state and action."""
    successors = np.tile(np.arange(1 + HALL * halls)[:, None], (1, halls))
    successors[0] = 1 + HALL * np.arange(halls)
    for state in range(1, len(successors)):
        depth = (state - 1) % HALL
        successors[state, 0] = 0 if depth == 0 else state - 1
        successors[state, 1] = state if depth == HALL - 1 else state + 1
    return successors


def occupancy(successors: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """Share of the visits of each state [states] under a policy [HORIZON, states, actions]."""
    total = np.zeros(len(successors))
    now: np.ndarray = np.eye(len(successors))[0]
    for probabilities in policy:
        total += now
        now = np.bincount(successors.ravel(), (now[:, None] * probabilities).ravel(), len(now))
    return total / HORIZON


def uniform_policy(successors: np.ndarray) -> np.ndarray:
    """Every action as likely as any other."""
    return np.full((HORIZON, *successors.shape), 1.0 / successors.shape[1])


def best_response(successors: np.ndarray, reward: np.ndarray, temperature: float = 0.0) -> np.ndarray:
    """The policy [HORIZON, states, actions] of the largest sum of rewards [states], plus temperature times entropy."""
    policy = np.zeros((HORIZON, *successors.shape))
    values = np.zeros(len(successors))
    for time in reversed(range(HORIZON)):
        q = values[successors]
        if temperature == 0.0:
            policy[time] = np.eye(q.shape[1])[q.argmax(1)]
            values = reward + q.max(1)
        else:
            top = q.max(1, keepdims=True)
            weights = np.exp((q - top) / temperature)
            policy[time] = weights / weights.sum(1, keepdims=True)
            values = reward + top[:, 0] + temperature * np.log(weights.sum(1))
    return policy


def fictitious_play(
    successors: np.ndarray, iterations: int, *, averaged: bool = True, temperature: float = 0.0
) -> Play:
    """Best responses to minus the log-density, from that of the uniform policy on.

    Args:
      successors: the graph.
      iterations: number of best responses.
      averaged: whether the density is that of all policies so far, as fictitious play wants it, or of the last alone.
      temperature: of the best response.
    """
    occupancies = [occupancy(successors, uniform_policy(successors))]
    for _ in range(iterations):
        density = np.mean(occupancies, axis=0) if averaged else occupancies[-1]
        policy = best_response(successors, -np.log(smooth(density)), temperature)
        occupancies.append(occupancy(successors, policy))
    return Play(np.stack(occupancies))


def smooth(density: np.ndarray) -> np.ndarray:
    """A density [..., states] without zeros."""
    return (density + SMOOTHING) / (1.0 + SMOOTHING * density.shape[-1])


def kl_to_uniform(density: np.ndarray) -> np.ndarray:
    """KL(density [..., states] || uniform) in nats, [...]."""
    logarithms = np.log(np.where(density > 0.0, density, 1.0))
    return np.log(density.shape[-1]) + np.sum(density * logarithms, axis=-1)
