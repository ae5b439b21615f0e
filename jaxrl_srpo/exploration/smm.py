"""State Marginal Matching (Lee, Eysenbach et al., arXiv 1906.05274): exploration as a game between policy and density.

A policy whose visited states follow a target p*(s) minimizes KL(rho(s) || p*(s)). By fictitious play, in turns:
  q      <- the density of the states of all policies so far, fitted to the whole replay buffer
  policy <- best response, SAC, to r(s) = log p*(s) - log q(s)
What matches p* is the mixture of all policies, one drawn per episode (`policy_mixture.py`), not the last policy.

The mixture, SM4, has n policies conditioned on a skill z and, with a discriminator d(z | s) for p(z | s),
  r_z(s) = log p*(s) - log q(s | z) + log d(z | s) + log n.
With exact models that is log p*(s) - log q(s) for every z. The released code subtracts log d(z | s) instead, which
rewards skills that cannot be told apart; `released_sign` does the same.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_srpo.exploration.densities import Density
from jaxrl_srpo.exploration.intrinsic import Intrinsic, Reward, Visits
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.population.member import Function, call
from jaxrl_srpo.types import Array, Params, Spec

Target = Function
"""Log p* [B] up to a constant, given those of these arguments that it declares: `states` [B, observation_size], and
the environment's `rewards` [B]."""


def uniform(states: Array) -> Array:
    """A uniform target: zero everywhere."""
    return jnp.zeros(states.shape[0])


def environment_reward(rewards: Array) -> Array:
    """The target proportional to exp(reward)."""
    return rewards


@struct.dataclass
class Settings:
    """Coefficients of the four terms, all 1 in the paper, and the discriminator's learning rate.

    Attributes:
      target: coefficient of log p*.
      entropy: coefficient of -log q; rescales the reward against SAC's temperature.
      discriminability: coefficient of log d(z | s).
      latent_entropy: coefficient of log n, a constant that matters only where episodes terminate.
      discriminator_rate: learning rate.
    """

    target: Array | float = 1.0
    entropy: Array | float = 1.0
    discriminability: Array | float = 1.0
    latent_entropy: Array | float = 1.0
    discriminator_rate: Array | float = 1e-3


class Terms(NamedTuple):
    """The logarithms that the reward is made of, in nats; each is [B] but for log n, a number."""

    log_target: Array
    log_density: Array
    log_skill: Array
    log_skills: float


def combine(terms: Terms, settings: Settings, released_sign: bool = False) -> Array:
    """The reward [B] of state marginal matching from its four terms."""
    sign = -1.0 if released_sign else 1.0
    return (
        settings.target * terms.log_target
        - settings.entropy * terms.log_density
        + sign * settings.discriminability * terms.log_skill
        + settings.latent_entropy * terms.log_skills
    )


@struct.dataclass
class State:
    """The density's state, and the discriminator; None where there is a single skill."""

    density: Any
    discriminator: Learner | None


def discriminator_loss(params: Params, discriminator: Learner, states: Array, skills: Array) -> tuple[Array, Array]:
    """Cross-entropy, mean over the batch; also log d(z | s) [B] of the skills that acted."""
    logits = discriminator.apply(params, states)
    errors = optax.softmax_cross_entropy_with_integer_labels(logits, skills)
    return jnp.mean(errors), -errors


@dataclasses.dataclass(frozen=True)
class SMM(Intrinsic):
    """The intrinsic reward of state marginal matching.

    The density takes one step on each batch before its value is read, the discriminator one step after, as in the
    released code.

    Attributes:
      density: the model of q(s | z); it has `skills` conditions.
      skills: n; 1 is SMM, more is SM4.
      target: log p*.
      released_sign: whether the discriminator's term is subtracted, as the released code does.
      at_next: whether a transition's state is the one it arrived at; the released code takes the one it left.
      width: of the discriminator's two hidden layers.
    """

    density: Density
    skills: int = 1
    target: Target = uniform
    released_sign: bool = False
    at_next: bool = True
    width: int = 300

    def init(self, key: Array, spec: Spec) -> State:
        """Fresh models."""
        key_density, key_discriminator = jax.random.split(key)
        density = self.density.init(key_density)
        if self.skills == 1:
            return State(density, None)
        network, states = networks.MLP(self.skills, self.width), jnp.zeros((1, spec.observation_size))
        return State(density, Learner.create(network, key_discriminator, states))

    def observe(self, state: State, visits: Visits) -> State:
        """Shows the density what was visited."""
        return State(self.density.observe(state.density, self._states(visits), visits.skills), state.discriminator)

    def reward(self, state: State, visits: Visits, key: Array, settings: Settings) -> Reward:
        """Log p* - log q, and the terms of the skills."""
        states, (key_fit, key_read) = self._states(visits), jax.random.split(key)
        density = self.density.fit(state.density, key_fit, states, visits.skills)
        log_density = self.density.log_density(density, key_read, states, visits.skills)
        log_target = call(self.target, states=states, rewards=visits.rewards)
        log_skill, discriminator = _discriminate(state.discriminator, states, visits.skills, settings)
        terms = Terms(log_target, log_density, log_skill, math.log(self.skills))
        metrics = {"log_density": jnp.mean(log_density), "log_skill": jnp.mean(log_skill)}
        return Reward(State(density, discriminator), combine(terms, settings, self.released_sign), metrics)

    def log_skills(self, state: State, states: Array) -> Array:
        """Log d(z | s) of every skill, [B, skills], at `states` [B, observation_size]; there are several skills."""
        assert state.discriminator is not None
        return jax.nn.log_softmax(state.discriminator(states))

    def _states(self, visits: Visits) -> Array:
        return visits.next_observations if self.at_next else visits.observations


class _Discriminated(NamedTuple):
    """Log d(z | s) [B], and the discriminator after a step; None where there is a single skill."""

    log_skill: Array
    discriminator: Learner | None


def _discriminate(discriminator: Learner | None, states: Array, skills: Array, settings: Settings) -> _Discriminated:
    if discriminator is None:
        return _Discriminated(jnp.zeros(states.shape[0]), None)
    gradient = jax.grad(discriminator_loss, has_aux=True)
    grads, log_skill = gradient(discriminator.params, discriminator, states, skills)
    return _Discriminated(log_skill, discriminator.apply_gradients(grads, settings.discriminator_rate))
