"""Episodes of policies in their environment, several at once, each of another policy."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.envs.rollouts import Rollouts, Scores, scores
from jaxrl_srpo.population.vectorize import act_members
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import acting_device
from jaxrl_srpo.selection.candidates import Candidate, in_groups, keys_of, stacked_policies

FIRST_START = 10_000
"""Seed of the reset of a policy's first pull, beyond those of evaluations."""


class Player:
    """Plays episodes of the policies of one dataset.

    The k-th episode of every policy starts from one seed, so that policies are compared on the same starts; returns do
    not depend on what is played beside.

    Args:
      run: where the results lie.
      facts: of the dataset, whose environment can be made here.
      candidates: the policies.
      at_once: environments, the most episodes of a round.
    """

    def __init__(self, run: RunDirectory, facts: DatasetFacts, candidates: Sequence[Candidate], at_once: int) -> None:
        assert facts.environment_spec is not None
        self._facts, self._at_once = facts, at_once
        self._played = np.zeros(len(candidates), np.int64)
        self._device = acting_device()
        self._groups = [_Group(run, group, candidates, self._device) for group in in_groups(candidates)]
        self._rollouts = Rollouts([facts.environment_spec], at_once, FIRST_START)

    def play(self, arms: Sequence[int]) -> Scores:
        """One more episode of each of `arms`, numbers of candidates, a policy perhaps several times; [len(arms)]."""
        count = len(arms)
        # Environments that are not needed play the last one again, unseen.
        slots = np.array([*arms, *[arms[-1]] * (self._at_once - count)])
        numbers = self._numbers(arms)
        numbers = np.concatenate([numbers, np.repeat(numbers[-1:], self._at_once - count)])
        writers = [one for group in self._groups if (one := group.acting(slots, numbers)) is not None]
        units = self._facts.units

        def act(observations: np.ndarray) -> np.ndarray:
            inputs = units.normalize_observations(observations[0])
            actions = np.zeros((self._at_once, self._facts.action_size), np.float32)
            for write in writers:
                write(inputs, actions)
            return units.denormalize_actions(actions)[None]

        episodes = self._rollouts.run(act, seeds=(FIRST_START + numbers)[None])
        found = scores(episodes, 0, self._facts.reference_returns)
        return Scores(found.metric, found.values[:count])

    def _numbers(self, arms: Sequence[int]) -> np.ndarray:
        """Which episode of its policy each one is."""
        numbers = []
        for arm in arms:
            numbers.append(self._played[arm])
            self._played[arm] += 1
        return np.array(numbers)

    def __enter__(self) -> "Player":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rollouts.close()


class _Group:
    """Policies of one shape.

    Args:
      run: where the results lie.
      group: the policies.
      candidates: all policies, by whose numbers they are asked for.
      device: where they act.
    """

    def __init__(
        self, run: RunDirectory, group: Sequence[Candidate], candidates: Sequence[Candidate], device: jax.Device
    ) -> None:
        numbers = {candidate: i for i, candidate in enumerate(candidates)}
        self._places = {numbers[candidate]: i for i, candidate in enumerate(group)}
        self._act, self._device = group[0].stage.act, device
        self._policies = jax.device_put(stacked_policies(run, group), device)
        self._keys = jax.device_put(keys_of(group), device)

    def acting(self, slots: np.ndarray, numbers: np.ndarray) -> Callable[[np.ndarray, np.ndarray], None] | None:
        """What writes the actions of its own policies into those of all slots; None where none is its own.

        Args:
          slots: [S], number of the policy that acts in each environment.
          numbers: [S], which episode of that policy it is.
        """
        own = np.flatnonzero([slot in self._places for slot in slots])
        if not len(own):
            return None
        # Sizes of powers of two, so that few programs are compiled.
        padded = np.resize(own, 1 << (len(own) - 1).bit_length())
        rows = np.array([self._places[slots[slot]] for slot in padded])
        policies = jax.tree.map(lambda x: x[rows], self._policies)
        keys = _fold_each(self._keys[rows], jnp.asarray(numbers[padded]))
        batched = self._device.platform != "cpu"
        steps = 0

        def write(inputs: np.ndarray, actions: np.ndarray) -> None:
            nonlocal steps
            steps += 1
            placed = jax.device_put(inputs[padded][:, None], self._device)
            found: Any = act_members(self._act, policies, placed, _fold_all(keys, steps), batched)
            actions[own] = np.asarray(found)[: len(own), 0]

        return write


_fold_each = jax.jit(jax.vmap(jax.random.fold_in))
_fold_all = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))
