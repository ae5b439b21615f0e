"""A policy as one function of arrays in the environment's units, which the formats write down."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.units import Units
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.nn.noise import Columns, Drawing, Given, columns_of
from jaxrl_srpo.population.member import call
from jaxrl_srpo.types import Array

MOST_NOISE = 10_000
"""Random numbers that a file may ask for with each observation."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What acts.

    Attributes:
      stage: of the policy.
      policy: a pytree.
      units: of the environment.
      observation_size: width of an observation.
      action_size: width of an action.
      columns: the noise that it acts by; empty if it draws nothing.
    """

    stage: Stage
    policy: Any
    units: Units
    observation_size: int
    action_size: int
    columns: Sequence[Columns]

    @property
    def widths(self) -> list[int]:
        """Columns of each input: of observations and, for a policy that draws, of noise."""
        noise = sum(one.size for one in self.columns)
        return [self.observation_size, noise] if noise else [self.observation_size]

    def __call__(self, observations: Array | np.ndarray, noise: Array | np.ndarray | None = None) -> Array:
        """Actions within their bounds.

        Args:
          observations: [B, observation_size] in the environment's units.
          noise: [B, n], see `columns`.

        Returns:
          [B, action_size] in the environment's units.
        """
        units = self.units
        mean, std, low, high = (
            jnp.asarray(x, jnp.float32).reshape(1, -1)
            for x in (units.observation_mean, units.observation_std, units.action_low, units.action_high)
        )
        seen = (observations - mean) / std
        if noise is None:
            actions = call(self.stage.act, policy=self.policy, observations=seen, key=None)
        else:
            actions = self.policy.act_with(seen, Given(jnp.asarray(noise)))
        return jnp.clip(low + 0.5 * (actions + 1.0) * (high - low), low, high)

    def shapes(self, batch: Any) -> list[jax.ShapeDtypeStruct]:
        """The inputs for a batch, whose size may be symbolic."""
        return [jax.ShapeDtypeStruct((batch, width), jnp.float32) for width in self.widths]


def program_of(stage: Stage, policy: Any, units: Units, observation_size: int, action_size: int) -> Program:
    """A policy as a program.

    Raises:
      UserError: it draws by a key alone, or more numbers than a file should ask for.
    """
    policy = jax.tree.map(np.asarray, jax.device_get(policy))
    columns = columns_of(policy, observation_size) if isinstance(policy, Drawing) else []
    if not columns and _needs_key(stage, policy, observation_size):
        raise UserError(
            f"--algorithm={stage.algorithm}: its policy draws by a key alone; a file needs one that has "
            "`act_with(observations, noise)`, see docs/exporting.md"
        )
    if (size := sum(one.size for one in columns)) > MOST_NOISE:
        raise UserError(
            f"--algorithm={stage.algorithm}: its policy draws {size:,} numbers for each observation, at most "
            f"{MOST_NOISE:,} can be an input; act by `jaxrl_srpo.load_policy(RUN_DIR)`"
        )
    return Program(stage, policy, units, observation_size, action_size, columns)


def _needs_key(stage: Stage, policy: Any, observation_size: int) -> bool:
    """Whether what it does depends on a key."""
    observations = jnp.zeros((1, observation_size))

    def act(key: Array) -> Array:
        actions: Array = call(stage.act, policy=policy, observations=observations, key=key)
        return actions

    program = jax.make_jaxpr(act)(jax.random.key(0)).jaxpr
    return any(variable is program.invars[0] for equation in program.eqns for variable in equation.invars)
