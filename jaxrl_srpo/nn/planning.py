"""Plans: windows [a | s] of steps that a diffusion model samples from where the agent is, perhaps guided by a value.

B is the number of plans, H that of their steps.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.nn import networks, policies, samplers
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.nn.schedules import Discrete
from jaxrl_srpo.types import Array, Params


@struct.dataclass
class Network:
    """Averaged weights, and the network that they are of."""

    params: Params
    network: nn.Module = struct.field(pytree_node=False)

    def __call__(self, windows: Array, time: Array | float) -> Array:
        """Its output for windows [B, H, action_size + observation_size], all at one time."""
        return evaluate(self.network, self.params, windows, jnp.full(windows.shape[:1], time, jnp.float32))


def evaluate(network: nn.Module, params: Params, windows: Array, times: Array) -> Array:
    """A network's output for windows [B, H, width] at `times` [B]; it counts them from 0."""
    return networks.forward(network, params, windows, times - 1.0)


def impose(windows: Array, states: Array) -> Array:
    """Windows [B, H, width] whose first states are `states` [B, observation_size]."""
    return windows.at[:, 0, windows.shape[-1] - states.shape[-1] :].set(states)


@struct.dataclass
class Cloning:
    """Diffuser without a value: the first action of one plan as the data have it.

    Attributes:
      model: of windows.
      horizon: H.
      action_size: width of one action.
      schedule: of the noise.
    """

    model: Network
    horizon: int = struct.field(pytree_node=False)
    action_size: int = struct.field(pytree_node=False)
    schedule: Discrete = struct.field(pytree_node=False)

    def noise(self, states: Array, key: Array) -> Array:
        """What plans from `states` [B, observation_size] begin as, [B, H, width]."""
        return jax.random.normal(key, (len(states), self.horizon, self.action_size + states.shape[-1]))

    def act(self, observations: Array, key: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        key_start, key_steps = jax.random.split(key)
        plans = samplers.ddpm(
            self.schedule,
            self.model,
            self.noise(observations, key_start),
            Keyed(key_steps),
            self.schedule.times(),
            before=lambda windows, time: impose(windows, observations),
        )
        return jnp.clip(plans[:, 0, : self.action_size], -1.0, 1.0)


@struct.dataclass
class Planner:
    """Diffuser: the first action of the best of several guided plans.

    Attributes:
      prior: gives plans as the data have them.
      value: of noisy windows.
      plans: of each observation.
      scale: of the value's gradient.
      guide_steps: ascents before each diffusion step.
      stop_guide: last diffusion steps without ascents.
    """

    prior: Cloning
    value: Network
    plans: int = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False)
    guide_steps: int = struct.field(pytree_node=False)
    stop_guide: int = struct.field(pytree_node=False)

    def act(self, observations: Array, key: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        key_start, key_steps = jax.random.split(key)
        states = policies.repeated(observations, self.plans)
        schedule = self.prior.schedule

        def guide(windows: Array, time: Array) -> Array:
            known = impose(windows, states)
            return jax.lax.cond(time > self.stop_guide, self.climb, lambda x, *_: x, known, time, states)

        noise = self.prior.noise(states, key_start)
        windows = samplers.ddpm(
            schedule, self.prior.model, noise, Keyed(key_steps), schedule.times()[:-1], before=guide
        )
        # Plans are ranked as they go into the last diffusion step, which adds no noise.
        windows = impose(windows, states)
        actions = self.prior.model(windows, 1.0)[:, 0, : self.prior.action_size]
        return jnp.clip(policies.best(actions, self.value(windows, 1.0), self.plans), -1.0, 1.0)

    def climb(self, windows: Array, time: Array, states: Array) -> Array:
        """Windows [B, H, width] after the ascents of V, in units of the posterior's variance."""
        step = self.scale * posterior_variance(self.prior.schedule, time)
        for _ in range(self.guide_steps):
            gradient = jax.grad(lambda windows: jnp.sum(self.value(windows, time)))(windows)
            windows = impose(windows + step * gradient, states)
        return windows


def posterior_variance(schedule: Discrete, time: Array) -> Array:
    """The variance of x_{t-1} given x_t and x."""
    now, after = schedule.marginal(time), schedule.marginal(time - 1.0)
    added = -jnp.expm1(2.0 * (schedule.log_alpha(time) - schedule.log_alpha(time - 1.0)))
    return added * (after.sigma / now.sigma) ** 2
