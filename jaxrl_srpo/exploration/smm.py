"""State Marginal Matching (Lee, Eysenbach et al., arXiv 1906.05274): exploration as a game between policy and density.

A policy whose visited states follow a target p*(s) minimises KL(rho(s) || p*(s)). By fictitious play, in turns:
  q      <- the density of the states of all policies so far, fitted to the whole replay buffer
  policy <- best response, SAC, to r(s) = log p*(s) - log q(s)
What matches p* is the historical average of the policies, one drawn per episode (`historical.py`), not the last one.

The mixture, SM4, has n policies conditioned on a skill z and, with a discriminator d(z | s) for p(z | s),
  r_z(s) = log p*(s) - log q(s | z) + log d(z | s) + log n.
With exact models that is log p*(s) - log q(s) for every z. The released code adds - log d(z | s) instead, which rewards
skills that cannot be told apart; `released_sign` does as it does.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_srpo.exploration.densities import Density
from jaxrl_srpo.exploration.intrinsic import Reward, Visits
from jaxrl_srpo.methods.iql import Learner
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Params, Spec

Target = Callable[[Array, Array], Array]
"""Log p* [B] up to a constant, of states [B, observation_size] and the environment's rewards [B]."""


def uniform(states: Array, rewards: Array) -> Array:
    """A uniform target: zero everywhere."""
    del rewards
    return jnp.zeros(states.shape[0])


def environment_reward(states: Array, rewards: Array) -> Array:
    """The target proportional to exp(reward)."""
    del states
    return rewards


class LogDensity(NamedTuple):
    """A target given by a function of the states alone, [B, observation_size] -> [B]."""

    function: Callable[[Array], Array]

    def __call__(self, states: Array, rewards: Array, /) -> Array:
        """The function's value."""
        del rewards
        return self.function(states)


@struct.dataclass
class Hyper:
    """Coefficients of the four terms, all 1 in the paper, and the discriminator's learning rate.

    Attributes:
      target: of log p*.
      entropy: of -log q; rescales the reward against SAC's temperature.
      discriminability: of log d(z | s).
      latent_entropy: of log n, a constant that matters only where episodes terminate.
      discriminator_rate: learning rate.
    """

    target: Array | float = 1.0
    entropy: Array | float = 1.0
    discriminability: Array | float = 1.0
    latent_entropy: Array | float = 1.0
    discriminator_rate: Array | float = 1e-3


class Terms(NamedTuple):
    """The logarithms, each [B], that the reward is made of; log n is a number."""

    log_target: Array
    log_density: Array
    log_skill: Array
    log_skills: float


def combine(terms: Terms, hyper: Hyper, released_sign: bool = False) -> Array:
    """The reward [B] of state marginal matching from its four terms."""
    sign = -1.0 if released_sign else 1.0
    return (
        hyper.target * terms.log_target
        - hyper.entropy * terms.log_density
        + sign * hyper.discriminability * terms.log_skill
        + hyper.latent_entropy * terms.log_skills
    )


@struct.dataclass
class State:
    """The density's state and the discriminator; the latter is None without skills."""

    density: Any
    discriminator: Learner | None


class SMM(NamedTuple):
    """The intrinsic reward of state marginal matching, satisfying `intrinsic.Intrinsic`.

    The density takes one step on each batch, before its value is read; the discriminator one after, as released.

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
        params = self._discriminator.init(key_discriminator, jnp.zeros((1, spec.observation_size)))["params"]
        return State(density, Learner(params, optimizers.init(params)))

    def observe(self, state: State, visits: Visits) -> State:
        """The density sees what was visited."""
        return State(self.density.observe(state.density, self._states(visits), visits.skills), state.discriminator)

    def reward(self, state: State, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """Log p* - log q, and the terms of the skills."""
        states, (key_fit, key_read) = self._states(visits), jax.random.split(key)
        density = self.density.fit(state.density, key_fit, states, visits.skills)
        log_density = self.density.log_density(density, key_read, states, visits.skills)
        log_target = self.target(states, visits.rewards)
        log_skill, discriminator = self._discriminate(state.discriminator, states, visits.skills, hyper)
        terms = Terms(log_target, log_density, log_skill, math.log(self.skills))
        metrics = {"log_density": jnp.mean(log_density), "log_skill": jnp.mean(log_skill)}
        return Reward(State(density, discriminator), combine(terms, hyper, self.released_sign), metrics)

    def log_skills(self, state: State, states: Array) -> Array:
        """Log d(z | s) of every skill [B, skills]."""
        assert state.discriminator is not None
        return jax.nn.log_softmax(networks.forward(self._discriminator, state.discriminator.params, states))

    def _discriminate(
        self, learner: Learner | None, states: Array, skills: Array, hyper: Hyper
    ) -> tuple[Array, Learner | None]:
        """Log d(z | s) [B] and the discriminator after a step of cross-entropy."""
        if learner is None:
            return jnp.zeros(states.shape[0]), None

        def loss(params: Params) -> tuple[Array, Array]:
            logits = networks.forward(self._discriminator, params, states)
            errors = optax.softmax_cross_entropy_with_integer_labels(logits, skills)
            return jnp.mean(errors), -errors

        grads, log_skill = jax.grad(loss, has_aux=True)(learner.params)
        step = optimizers.adam(learner.params, learner.opt_state, grads, hyper.discriminator_rate)
        return log_skill, Learner(*step)

    def _states(self, visits: Visits) -> Array:
        return visits.next_observations if self.at_next else visits.observations

    @property
    def _discriminator(self) -> networks.MLP:
        return networks.MLP(self.skills, self.width)
