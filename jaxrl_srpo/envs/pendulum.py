"""Gymnasium's Pendulum-v1 in pure JAX: swing up a pendulum with a motor that is too weak to lift it at once."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_srpo.envs.functional import Step
from jaxrl_srpo.types import Array, Spec

_GRAVITY = 10.0
_SECONDS_PER_STEP = 0.05
_MAX_TORQUE = 2.0
_MAX_SPEED = 8.0


class State(NamedTuple):
    """Angle [] in rad, 0 upright, and its speed [] in rad/s."""

    angle: Array
    speed: Array


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """A rod of 1 m and 1 kg; an action in [-1, 1] is a torque in [-2, 2] N m. It never terminates.

    Attributes:
      max_episode_steps: Gymnasium's time limit.
    """

    max_episode_steps: int = 200

    @property
    def spec(self) -> Spec:
        """Sizes of observation and action."""
        return Spec(observation_size=3, action_size=1)

    def reset(self, key: Array) -> State:
        """Any angle, and a speed in [-1, 1]."""
        angle, speed = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return State(jnp.pi * angle, speed)

    def observe(self, state: State) -> Array:
        """Cosine and sine of the angle, and the speed: [3]."""
        return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.speed])

    def step(self, state: State, action: Array) -> Step:
        """The cost is of the state before the step and of the torque, as in Gymnasium."""
        torque = _MAX_TORQUE * jnp.clip(action[0], -1.0, 1.0)
        away = (state.angle + jnp.pi) % (2.0 * jnp.pi) - jnp.pi
        cost = away**2 + 0.1 * state.speed**2 + 0.001 * torque**2
        acceleration = 1.5 * _GRAVITY * jnp.sin(state.angle) + 3.0 * torque
        speed = jnp.clip(state.speed + acceleration * _SECONDS_PER_STEP, -_MAX_SPEED, _MAX_SPEED)
        return Step(State(state.angle + speed * _SECONDS_PER_STEP, speed), -cost, jnp.zeros((), bool))
