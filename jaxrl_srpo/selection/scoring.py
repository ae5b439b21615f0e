"""All scores of all policies of a dataset, from what they do in its states."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.selection import scores
from jaxrl_srpo.selection.candidates import Candidate, actions_at, critic_of, in_groups, stacked_policies
from jaxrl_srpo.selection.evaluation import Evaluations
from jaxrl_srpo.selection.records import Row

MOST_ROWS = 4096
"""States in which policies are compared with the data."""
MOST_STARTS = 2048
"""First states of episodes at which they are valued."""


class States(NamedTuple):
    """States of a dataset as networks see them, spread over it evenly.

    Attributes:
      starts: [E, observation_size], first states of episodes.
      observations: [n, observation_size].
      actions: [n, action_size] in [-1, 1], what the data did in those.
      width: of the kernel on actions, see `scores.bandwidth`.
    """

    starts: np.ndarray
    observations: np.ndarray
    actions: np.ndarray
    width: float


def states_of(dataset: Dataset, facts: DatasetFacts) -> States:
    """The states at which the policies of a dataset are scored."""
    units = facts.units
    starts = np.append(0, np.flatnonzero(dataset.episode_ends)[:-1] + 1)
    first, rows = _spread(starts, MOST_STARTS), _spread(np.arange(dataset.size), MOST_ROWS)
    observations = np.asarray(units.normalize_observations(dataset.observations), np.float32)
    actions = np.asarray(units.normalize_actions(dataset.actions[rows]), np.float32)
    return States(observations[first], observations[rows], actions, scores.bandwidth(actions))


def score_all(
    run: RunDirectory, candidates: Sequence[Candidate], states: States, evaluations: Evaluations
) -> list[Row]:
    """A row for each policy of one dataset, in their order.

    Args:
      run: where the policies lie.
      candidates: P policies.
      states: of their dataset.
      evaluations: of the policies, trained.
    """
    data_q = evaluations.value_of_data(candidates[0].member)
    rows: dict[Candidate, Row] = {}
    for group in in_groups(candidates):
        policies = stacked_policies(run, group)
        at_starts = actions_at(group, policies, states.starts)
        at_states = actions_at(group, policies, states.observations)
        for candidate, first, actions in zip(group, at_starts, at_states, strict=True):
            row = _score(run, candidate, states, evaluations, first, actions)
            gain = math.nan
            if data_q is not None:
                gain = scores.one_step_gain(_on_host(data_q), states.observations, actions, states.actions)
            rows[candidate] = dataclasses.replace(row, one_step=gain)
    found = [rows[candidate] for candidate in candidates]
    believed = scores.supported(np.array([row.fqe for row in found]), np.array([row.ess for row in found]))
    return [dataclasses.replace(row, supported=float(value)) for row, value in zip(found, believed, strict=True)]


def row_of(candidate: Candidate) -> Row:
    """The row of a policy, without scores."""
    stage, member = candidate
    named = member.row(stage)
    return Row(member.dataset, stage.algorithm, member.seed, named["setting"], member.result(stage).beta)


def _score(
    run: RunDirectory,
    candidate: Candidate,
    states: States,
    evaluations: Evaluations,
    at_starts: np.ndarray,
    at_states: np.ndarray,
) -> Row:
    """The scores of a policy that acts by `at_starts` [E, action_size] and `at_states` [n, action_size]."""
    value, critic = evaluations.value_of(candidate), critic_of(run, candidate)
    fitted = own = scores.Interval(math.nan, math.nan, math.nan)
    if value is not None:
        fitted = scores.value_at_starts(_on_host(value), states.starts, at_starts)
    if critic is not None:
        smaller = jax.jit(lambda s, a: jnp.min(critic.q_values(s, a), axis=-1))
        own = scores.value_at_starts(_on_host(smaller), states.starts, at_starts)
    notes = ["diverged"] if run.diverged_at(*candidate) is not None else []
    notes += ["its evaluation diverged"] if evaluations.diverged(candidate) else []
    return dataclasses.replace(
        row_of(candidate),
        fqe=fitted.mean,
        fqe_low=fitted.low,
        fqe_high=fitted.high,
        critic=own.mean,
        cloning=-scores.cloning_distance(at_states, states.actions),
        ess=scores.effective_sample_size(at_states, states.actions, states.width),
        note="; ".join(notes),
    )


def _on_host(q: Callable[..., Any]) -> scores.Q:
    return lambda observations, actions: np.asarray(q(jnp.asarray(observations), jnp.asarray(actions)))


def _spread(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of some numbers, evenly spread."""
    return numbers if len(numbers) <= most else numbers[np.linspace(0, len(numbers) - 1, most).astype(np.int64)]
