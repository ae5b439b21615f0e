"""Mixtures of past policies: one of the stored policies is drawn for each episode (historical averaging).

In the game of state marginal matching (arXiv 1906.05274) only the mixture of all policies so far approaches the target;
each policy alone chases what the others left. The mixture is over episodes, never over parameters or single steps.
Weights are equal in the paper; the released code gives a policy 1.2 times the weight of its predecessor.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.units import Units
from jaxrl_srpo.envs import functional
from jaxrl_srpo.envs.episodes import MemberEnvironments
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import intrinsic
from jaxrl_srpo.io import checkpoint
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import sac
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.member import stack
from jaxrl_srpo.types import Array, Spec


@struct.dataclass
class PolicyMixture:
    """A mixture of K policies with n skills each.

    Attributes:
      policies: leaves [K, ...], the oldest first.
      log_weights: [K], up to a constant.
      skills: n; a skill is drawn uniformly with the policy.
    """

    policies: TanhGaussianPolicy
    log_weights: Array
    skills: int = struct.field(pytree_node=False, default=1)

    def draw(self, key: Array) -> tuple[Array, Array]:
        """The policy, int32 [], and the skill, one-hot [skill size], that act in one episode."""
        key_policy, key_skill = jax.random.split(key)
        skill = jax.random.randint(key_skill, (), 0, self.skills)
        one_hot = jax.nn.one_hot(skill, intrinsic.skill_size(self.skills))
        return jax.random.categorical(key_policy, self.log_weights).astype(jnp.int32), one_hot

    def policy(self, index: Array | int) -> TanhGaussianPolicy:
        """One of the policies."""
        return jax.tree.map(lambda x: jnp.asarray(x)[index], self.policies)


def mix(
    snapshots: Sequence[TanhGaussianPolicy], skills: int = 1, growth: float = 1.0, on_policy_prob: float = 0.0
) -> PolicyMixture:
    """A mixture whose weights grow geometrically.

    Args:
      snapshots: the policies, the oldest first.
      skills: see `PolicyMixture`.
      growth: ratio of a policy's weight to its predecessor's.
      on_policy_prob: share of episodes reserved for the newest policy, on top of its weight in the others.
    """
    weights = np.float64(growth) ** np.arange(len(snapshots))
    weights *= (1.0 - on_policy_prob) / weights.sum()
    weights[-1] += on_policy_prob
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    return PolicyMixture(stack(snapshots), jnp.asarray(log_weights, jnp.float32), skills)


def released(
    snapshots: Sequence[TanhGaussianPolicy], seed: int, skills: int = 1, size: int = 10, on_policy_prob: float = 0.1
) -> PolicyMixture:
    """The mixture of the released code's `test_ha.json`: the newest policy and `size - 1` others, equally likely.

    The others are drawn without replacement; each is 1.2 times as likely as its predecessor.

    Args:
      snapshots: the policies, the oldest first; at least `size`.
      seed: determines the draw.
      skills: see `PolicyMixture`.
      size: number of policies in the mixture.
      on_policy_prob: see `mix`.

    Raises:
      UserError: fewer than `size` policies.
    """
    if not 1 <= size <= len(snapshots):
        raise UserError(f"size={size}: {len(snapshots)} policies were stored; choose 1 to {len(snapshots)}")
    weights = 1.2 ** np.arange(len(snapshots) - 1)
    random = np.random.default_rng(seed)
    drawn = random.choice(len(weights), size - 1, replace=False, p=weights / weights.sum())
    own = [snapshots[i] for i in sorted(drawn.tolist())]
    return mix([*own, snapshots[-1]], skills, on_policy_prob=on_policy_prob)


def rollouts(environment: functional.Environment, mixture: PolicyMixture, episodes: int, key: Array) -> Array:
    """Observations [episodes, steps, observation_size] after each step of a mixture's episodes; actions are sampled.

    Episodes run to the environment's time limit, past any termination.
    """
    key_draw, key_reset, key_act = jax.random.split(key, 3)
    which, skills = jax.vmap(mixture.draw)(jax.random.split(key_draw, episodes))

    def step(states: Any, key: Array) -> tuple[Any, Array]:
        inputs = jnp.concatenate([jax.vmap(environment.observe)(states), skills], axis=-1)
        # Every policy acts for all episodes: one large product is much faster than a policy's weights for each episode.
        actions = jax.lax.map(lambda policy: intrinsic.sample(policy, inputs, key), mixture.policies)
        states = jax.vmap(environment.step)(states, actions[which, jnp.arange(episodes)]).state
        return states, jax.vmap(environment.observe)(states)

    first = jax.vmap(environment.reset)(jax.random.split(key_reset, episodes))
    keys = jax.random.split(key_act, environment.max_episode_steps)
    return jnp.swapaxes(jax.lax.scan(step, first, keys)[1], 0, 1)


def play(
    environment: EnvironmentSpec, mixtures: PolicyMixture, environments: int, steps: int, seed: int = 0
) -> np.ndarray:
    """Observations [M, steps, environments, observation_size] after each step of mixtures in a Gymnasium environment.

    Actions are sampled. When an episode ends, the next begins with a new policy and skill.

    Args:
      environment: where to play.
      mixtures: M of them, leaves [M, ...].
      environments: number of environments of each mixture.
      steps: number of steps of each environment.
      seed: determines everything random.

    Raises:
      UserError: see `envs.episodes.MemberEnvironments`.
    """
    members, key = len(mixtures.log_weights), jax.random.key(seed)
    simulator = MemberEnvironments([environment] * members, [Units()] * members, [[seed]] * members, environments)
    with contextlib.closing(simulator):
        observations, arrived = simulator.reset(), []
        which, skills = _draw(mixtures, environments, key)
        for _ in range(steps):
            key, key_draw, key_act = jax.random.split(key, 3)
            actions = _act(mixtures, which, skills, observations, key_act)
            outcome = simulator.step(np.asarray(actions))
            arrived.append(outcome.next_observations)
            observations = outcome.observations
            if outcome.ended.any():
                drawn = _draw(mixtures, environments, key_draw)
                which = jnp.where(outcome.ended, drawn[0], which)
                skills = jnp.where(outcome.ended[..., None], drawn[1], skills)
    return np.stack(arrived, axis=1)


@functools.partial(jax.jit, static_argnums=1)
def _draw(mixtures: PolicyMixture, episodes: int, key: Array) -> tuple[Array, Array]:
    """Policies int32 [M, episodes] and skills [M, episodes, skill size] of new episodes."""
    keys = jax.random.split(key, (len(mixtures.log_weights), episodes))
    which, skills = jax.vmap(lambda mixture, keys: jax.vmap(mixture.draw)(keys))(mixtures, keys)
    return which, skills


@jax.jit
def _act(mixtures: PolicyMixture, which: Array, skills: Array, observations: Array, key: Array) -> Array:
    """Actions [M, episodes, action_size] of the policies `which` [M, episodes]; see `rollouts`."""
    inputs = jnp.concatenate([observations, skills], axis=-1)

    def act(policies: TanhGaussianPolicy, which: Array, inputs: Array, key: Array) -> Array:
        actions = jax.lax.map(lambda policy: intrinsic.sample(policy, inputs, key), policies)
        return actions[which, jnp.arange(len(which))]

    return jax.vmap(act)(mixtures.policies, which, inputs, jax.random.split(key, len(which)))


def save(directory: pathlib.Path, mixture: PolicyMixture) -> None:
    """Writes a mixture to a directory: `policies/`, an Orbax checkpoint, and `mixture.json`, its sizes."""
    sizes = {
        "policies": len(mixture.log_weights),
        "skills": mixture.skills,
        "observation_size": _input_size(mixture) - intrinsic.skill_size(mixture.skills),
        "action_size": mixture.policies.action_size,
        "width": mixture.policies.network.width,
        "layers": mixture.policies.network.layers,
    }
    checkpoint.save(directory / "policies", {"params": mixture.policies.params, "log_weights": mixture.log_weights})
    write_atomically(directory / "mixture.json", json.dumps(sizes, indent=1) + "\n")


def load(directory: pathlib.Path) -> PolicyMixture:
    """Reads what `save` wrote.

    Raises:
      UserError: there is no mixture in the directory.
    """
    path = directory / "mixture.json"
    if not path.is_file():
        raise UserError(f"{directory}: holds no policy mixture; expected a file mixture.json")
    sizes = json.loads(path.read_text())
    settings = sac.Settings(width=sizes["width"], layers=sizes["layers"])
    spec = Spec(sizes["observation_size"] + intrinsic.skill_size(sizes["skills"]), sizes["action_size"])
    network, observations = sac.actor_network(spec, settings), jnp.zeros((1, spec.observation_size))
    one = jax.eval_shape(network.init, jax.random.key(0), observations)["params"]
    count = sizes["policies"]
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), one)
    template = {"params": params, "log_weights": jax.ShapeDtypeStruct((count,), jnp.float32)}
    saved = checkpoint.load(directory / "policies", template)
    return PolicyMixture(TanhGaussianPolicy(saved["params"], network), saved["log_weights"], sizes["skills"])


class MixturePlayer:
    """Plays a mixture in environments on the host: call `begin_episode`, then the player with each observation.

    Args:
      mixture: the policies.
      seed: determines policies, skills and actions.
    """

    def __init__(self, mixture: PolicyMixture, seed: int = 0) -> None:
        self._mixture, self._key = mixture, jax.random.key(seed)
        self._draw, self._sample = jax.jit(mixture.draw), jax.jit(intrinsic.sample)
        self.begin_episode()

    def begin_episode(self) -> None:
        """Draws the policy and the skill of the next episode."""
        index, self._skill = self._draw(self._next_key())
        self._policy = self._mixture.policy(index)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """An action [action_size] in [-1, 1] for an observation [observation_size]."""
        inputs = np.concatenate([np.asarray(observation, np.float32), np.asarray(self._skill)])
        return np.asarray(self._sample(self._policy, inputs[None], self._next_key())[0])

    def _next_key(self) -> Array:
        self._key, key = jax.random.split(self._key)
        return key


def _input_size(mixture: PolicyMixture) -> int:
    """Input size of the policies; the first layer's kernel is [K, input, width]."""
    return next(x.shape[1] for x in jax.tree.leaves(mixture.policies.params) if x.ndim == 3)
