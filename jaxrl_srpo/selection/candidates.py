"""The policies of a run that one can be chosen from, and how they act together."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.nn import networks, policies
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.population.vectorize import act_members
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result, load_results
from jaxrl_srpo.runs.sweep import Member, populations, stages_of, unique
from jaxrl_srpo.runs.untrainable import Untrainable
from jaxrl_srpo.types import Array

_ONE_PASS = (policies.DeterministicPolicy, policies.GaussianPolicy, policies.TanhGaussianPolicy)
_ROWS_AT_ONCE = 1024


class Candidate(NamedTuple):
    """A finished policy: the stage that trained it, of one member."""

    stage: Stage
    member: Member

    @property
    def name(self) -> str:
        """What tables call it, for instance `srpo hopper-medium-v2 seed=0 beta=0.1`."""
        return self.member.name(self.stage)

    @property
    def policy_kind(self) -> Any:
        """Shapes and types of the policy."""
        member, stage = self.member, self.stage
        result = stage.template(member.settings, member.spec)
        return jax.eval_shape(lambda result: stage.make_policy(member.settings, member.spec, result), result)

    @property
    def acts_at_cost(self) -> bool:
        """Whether one action takes more than one pass of a network."""
        return not isinstance(self.policy_kind, _ONE_PASS)


def find_candidates(run: RunDirectory, words: Sequence[str] = ()) -> list[Candidate]:
    """The policies of a run, in the order of training.

    Args:
      run: the run directory.
      words: words of policies as in `evaluations.csv`; all by default.

    Raises:
      UserError: there is no such policy, or one is not finished.
    """
    members = run.members()
    stages = [stage for stage in stages_of(members) if stage.acts]
    known = [stage.algorithm for stage in stages]
    if unknown := [name for name in words if name not in known]:
        raise UserError(f"--policies={unknown[0]}: this run has no such policies; choose from {', '.join(known)}")
    untrainable = Untrainable(run)
    wanted = [
        Candidate(stage, member)
        for stage in stages
        if not words or stage.algorithm in words
        for member in unique(members, stage)
        if untrainable.reason(stage, member) is None
    ]
    missing = [one for one in wanted if not run.has_result(*one)]
    if missing:
        raise UserError(
            f"{run.path}: {len(missing)} of {len(wanted)} policies are not trained yet, {missing[0].name} among them; "
            "continue the run with the command that started it, or name finished ones with --policies"
        )
    return wanted


def in_groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates whose policies have one shape, which act in one compiled call."""
    stages = dict.fromkeys(candidate.stage for candidate in candidates)
    return [
        [Candidate(stage, member) for member in population]
        for stage in stages
        for population in populations([one.member for one in candidates if one.stage is stage], stage)
    ]


def stacked_policies(run: RunDirectory, group: Sequence[Candidate]) -> Any:
    """The policies of a group, leaves [P, ...]."""
    stage, first = group[0]
    results = load_results(run, stage, [candidate.member for candidate in group])
    return stage.make_policy(first.settings, first.spec, results)


def keys_of(group: Sequence[Candidate]) -> Array:
    """A random key for each policy of a group, [P]."""
    return jnp.stack([jax.random.key(candidate.member.seed_of(candidate.stage)) for candidate in group])


def actions_at(group: Sequence[Candidate], acting: Any, observations: np.ndarray) -> np.ndarray:
    """What every policy of a group does in the same states.

    Args:
      group: P candidates.
      acting: their policies, leaves [P, ...].
      observations: [n, observation_size] as networks see them.

    Returns:
      [P, n, action_size] in [-1, 1].
    """
    keys, parts = keys_of(group), []
    for number, begin in enumerate(range(0, len(observations), _ROWS_AT_ONCE)):
        part = observations[begin : begin + _ROWS_AT_ONCE]
        # One shape, one program.
        padded = np.concatenate([part, np.zeros((_ROWS_AT_ONCE - len(part), part.shape[1]), part.dtype)])
        inputs = jnp.broadcast_to(padded, (len(group), *padded.shape))
        folded = jax.vmap(functools.partial(jax.random.fold_in, data=number))(keys)
        parts.append(np.asarray(act_members(group[0].stage.act, acting, inputs, folded))[:, : len(part)])
    return np.concatenate(parts, axis=1)


def critic_of(run: RunDirectory, candidate: Candidate) -> policies.QFunction | None:
    """The critic that a policy was trained with: that of its own result, else of the earlier ones that it stands on.

    None where the method has none, or keeps none of it.
    """
    stage, member = candidate
    for each in (stage, *stage.needs[::-1]):
        for part in jax.tree.leaves(load_result(run, each, member), is_leaf=_is_critic):
            if isinstance(part, policies.QFunction):
                return part
            if isinstance(part, Learner):
                return policies.QFunction(part.params, part.network)
    return None


def _is_critic(part: Any) -> bool:
    learns_q = isinstance(part, Learner) and isinstance(part.network, networks.TwinQ)
    return learns_q or isinstance(part, policies.QFunction)
