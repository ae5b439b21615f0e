"""What explorers visited, and the mixtures of the policies that they learned."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.exploration import intrinsic, policy_mixture
from jaxrl_srpo.exploration.policy_mixture import PolicyMixture
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.member import Members, make_members
from jaxrl_srpo.population.online import OnlineRun
from jaxrl_srpo.types import Spec


def one_member_per_seed(seeds: Sequence[int], settings: intrinsic.Settings) -> Members:
    """Members that differ in their seeds alone, each a group of its own."""
    return make_members([jax.random.key(seed) for seed in seeds], [settings] * len(seeds), groups=len(seeds))


def mixtures(snapshots: Sequence[TanhGaussianPolicy], skills: int, members: int) -> list[PolicyMixture]:
    """The uniform mixture of the snapshots, leaves [members, ...], of each member."""

    def own(policy: TanhGaussianPolicy, member: int) -> TanhGaussianPolicy:
        return jax.tree.map(lambda x: x[member], policy)

    return [policy_mixture.mix([own(each, member) for each in snapshots], skills) for member in range(members)]


def arrivals(run: OnlineRun, skills: int) -> np.ndarray:
    """All observations that actions led to, in order, [members, steps, observation_size], without the skill.

    Args:
      run: its members are groups of one, and their buffers hold every step.
      skills: number of skills.
    """
    rows = run.replay.rows[:, 0, : run.steps]
    spec = Spec((rows.shape[-1] - run.action_size - 2) // 2, run.action_size)
    arrived = jax.vmap(lambda own: table.unpack(own, spec).next_observations)(jnp.asarray(rows))
    return np.asarray(arrived[..., : spec.observation_size - intrinsic.skill_size(skills)])


def count_visits(grid: Grid, states: np.ndarray) -> np.ndarray:
    """How often each bin was visited, [members, states, observation_size] -> [members, bins]."""
    return np.asarray(jax.vmap(grid.counts)(jnp.asarray(states)))
