"""The exploration methods that state marginal matching is compared with, as intrinsic rewards of the same SAC.

  NoBonus         SAC alone, which maximizes the entropy of its actions (MaxEnt)
  ICM             error of a forward model in features of an inverse model (Pathak et al., arXiv 1705.05363)
  RND             error in predicting a fixed random network (Burda et al., arXiv 1810.12894)
  ForwardError    error in predicting the next state from state and action
  InverseError    error in predicting the action from state and next state
  Count           1 / sqrt(visits of the state's bin)
  PseudoCount     the same with visits inferred from what a density model learns (Bellemare et al., arXiv 1606.01868)

ICM and both counts have the sizes, rates and formulas of the released code of state marginal matching, with two
differences that all methods here share. Bonuses are computed afresh for each batch; the released code stores those of
counts with the transition. And a bonus rewards arriving in a state. RND follows Laskin et al. (arXiv 2110.15191). No
code was released for forward and inverse errors alone; their networks here have the same sizes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.exploration.densities import Density, Histogram
from jaxrl_srpo.exploration.intrinsic import Intrinsic, Reward, Visits
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.population.member import Function, call
from jaxrl_srpo.types import Array, Params, Spec


@struct.dataclass
class Settings:
    """Numbers of the reward `environment * r + bonus * b`.

    Attributes:
      bonus: coefficient of the bonus.
      environment: coefficient of the environment's own reward.
      learning_rate: of the models.
    """

    bonus: Array | float = 1.0
    environment: Array | float = 0.0
    learning_rate: Array | float = 1e-3


class Scored(NamedTuple):
    """Models one step further, and the bonus [B] of a batch, read before that step unless stated otherwise."""

    state: Any
    bonus: Array


class Bonus(Intrinsic):
    """An intrinsic reward made of a bonus and the environment's own reward.

    Attributes:
      bonus: state, visits, key, settings -> `Scored`; it declares the arguments that it takes.
    """

    bonus: Function

    def reward(self, state: Any, visits: Visits, key: Array, settings: Settings) -> Reward:
        """The weighted sum of the environment's reward and the bonus."""
        scored: Scored = call(self.bonus, state=state, visits=visits, key=key, settings=settings)
        rewards = settings.environment * visits.rewards + settings.bonus * scored.bonus
        return Reward(scored.state, rewards, {"bonus": jnp.mean(scored.bonus)})


@dataclasses.dataclass(frozen=True)
class NoBonus(Bonus):
    """The environment's own reward alone."""

    def init(self) -> tuple[()]:
        """There is nothing to learn."""
        return ()

    def bonus(self, state: tuple[()], visits: Visits) -> Scored:
        """Zeros."""
        return Scored(state, jnp.zeros_like(visits.rewards))


@dataclasses.dataclass(frozen=True)
class ForwardError(Bonus):
    """Distance of the next state from its prediction.

    Attributes:
      width: of the model's two hidden layers.
    """

    width: int = 300

    def init(self, key: Array, spec: Spec) -> Learner:
        """A fresh model."""
        inputs = jnp.zeros((1, spec.observation_size + spec.action_size))
        return Learner.create(networks.MLP(spec.observation_size, self.width), key, inputs)

    def bonus(self, state: Learner, visits: Visits, settings: Settings) -> Scored:
        """The model's error."""
        inputs = jnp.concatenate([visits.observations, visits.actions], axis=-1)
        return _descend(state, settings, prediction_loss, state, inputs, visits.next_observations)


@dataclasses.dataclass(frozen=True)
class InverseError(Bonus):
    """Distance of the action from its prediction.

    Attributes:
      width: of the model's two hidden layers.
    """

    width: int = 300

    def init(self, key: Array, spec: Spec) -> Learner:
        """A fresh model."""
        inputs = jnp.zeros((1, 2 * spec.observation_size))
        return Learner.create(networks.MLP(spec.action_size, self.width), key, inputs)

    def bonus(self, state: Learner, visits: Visits, settings: Settings) -> Scored:
        """The model's error."""
        inputs = jnp.concatenate([visits.observations, visits.next_observations], axis=-1)
        return _descend(state, settings, prediction_loss, state, inputs, visits.actions)


class _CuriosityNetworks(NamedTuple):
    features: networks.MLP
    forward: networks.MLP
    inverse: networks.MLP


@dataclasses.dataclass(frozen=True)
class ICM(Bonus):
    """Distance of the next state's features from their prediction.

    Attributes:
      width: of the two hidden layers of the feature and forward networks.
      features: their number; both the forward model and the linear inverse model shape them, as in the released code.
    """

    width: int = 300
    features: int = 300

    def init(self, key: Array, spec: Spec) -> Learner:
        """Fresh models; parameters are a dictionary of three networks."""
        own = self._networks(spec.action_size)
        sizes = (spec.observation_size, self.features + spec.action_size, 2 * self.features)
        parts = zip(own._fields, own, jax.random.split(key, 3), sizes, strict=True)
        return Learner.of({name: network.init(k, jnp.zeros((1, n)))["params"] for name, network, k, n in parts})

    def bonus(self, state: Learner, visits: Visits, settings: Settings) -> Scored:
        """The forward model's error."""
        return _descend(state, settings, icm_loss, self._networks(visits.actions.shape[-1]), visits)

    def _networks(self, action_size: int) -> _CuriosityNetworks:
        features, forward = (networks.MLP(self.features, self.width) for _ in range(2))
        return _CuriosityNetworks(features, forward, networks.MLP(action_size, layers=0))


def icm_loss(params: dict[str, Params], models: _CuriosityNetworks, visits: Visits) -> tuple[Array, Array]:
    """Squared errors of the forward and the inverse model; also the distances [B] of the forward model."""
    now = networks.forward(models.features, params["features"], visits.observations)
    after = networks.forward(models.features, params["features"], visits.next_observations)
    inputs = jnp.concatenate([now, visits.actions], axis=-1)
    loss, distances = _errors(networks.forward(models.forward, params["forward"], inputs), after)
    both = jnp.concatenate([now, after], axis=-1)
    inverse_loss, _ = _errors(networks.forward(models.inverse, params["inverse"], both), visits.actions)
    return loss + inverse_loss, distances


@struct.dataclass
class Moments:
    """Running mean and variance [...] over `count` rows."""

    mean: Array
    variance: Array
    count: Array

    def add(self, rows: Array) -> "Moments":
        """The moments with rows [B, ...] added."""
        count = self.count + rows.shape[0]
        share = rows.shape[0] / count
        change = jnp.mean(rows, axis=0) - self.mean
        variance = (1.0 - share) * self.variance + share * jnp.var(rows, axis=0) + share * (1.0 - share) * change**2
        return Moments(self.mean + share * change, variance, count)

    @property
    def std(self) -> Array:
        """Standard deviation, a little more than zero."""
        return jnp.sqrt(self.variance + 1e-8)


@struct.dataclass
class RNDState:
    """A fixed random network, its predictor, and the moments of observations and of errors."""

    target: Params
    predictor: Learner
    observations: Moments
    errors: Moments


@dataclasses.dataclass(frozen=True)
class RND(Bonus):
    """Squared error in predicting a random network, divided by the errors' running deviation.

    Observations are normalized by their running moments and clipped at 5 deviations.

    Attributes:
      width: of the two hidden layers of both networks.
      features: outputs of both networks.
    """

    width: int = 300
    features: int = 512

    def init(self, key: Array, spec: Spec) -> RNDState:
        """Fresh networks."""
        key_target, key_predictor = jax.random.split(key)
        network, inputs = networks.MLP(self.features, self.width), jnp.zeros((1, spec.observation_size))
        none = jnp.zeros(())
        return RNDState(
            network.init(key_target, inputs)["params"],
            Learner.create(network, key_predictor, inputs),
            Moments(inputs[0], jnp.zeros_like(inputs[0]), none),
            Moments(none, none, none),
        )

    def bonus(self, state: RNDState, visits: Visits, settings: Settings) -> Scored:
        """The predictor's error over the deviation of all errors so far, those of this batch included."""
        moments = state.observations.add(visits.next_observations)
        centered = (visits.next_observations - moments.mean[None]) / moments.std[None]
        inputs = jnp.clip(centered, -5.0, 5.0)
        targets = state.predictor.apply(state.target, inputs)
        predictor, errors = _descend(state.predictor, settings, rnd_loss, state.predictor, inputs, targets)
        spread = state.errors.add(errors)
        return Scored(RNDState(state.target, predictor, moments, spread), errors / spread.std)


def rnd_loss(params: Params, predictor: Learner, inputs: Array, targets: Array) -> tuple[Array, Array]:
    """Squared error, mean over the batch; also of each element [B], mean over features."""
    squares = jnp.mean((predictor.apply(params, inputs) - targets) ** 2, axis=-1)
    return jnp.mean(squares), squares


@dataclasses.dataclass(frozen=True)
class Count(Bonus):
    """1 / sqrt(N) with N the visits of the bin, at least 1; the released coefficient is 10.

    Attributes:
      histogram: which counts.
    """

    histogram: Histogram

    def init(self, key: Array) -> Array:
        """Counts [skills, bins], all zero."""
        return self.histogram.init(key)

    def observe(self, state: Array, visits: Visits) -> Array:
        """Counts with the visits added."""
        return self.histogram.observe(state, visits.next_observations, visits.skills)

    def bonus(self, state: Array, visits: Visits) -> Scored:
        """The bonus by the counts as they are now."""
        counts = state[visits.skills, self.histogram.grid.bins(visits.next_observations)]
        return Scored(state, jnp.maximum(counts, 1.0) ** -0.5)


@struct.dataclass
class PseudoCountState:
    """The density's state and how many steps it has taken."""

    density: Any
    steps: Array


@dataclasses.dataclass(frozen=True)
class PseudoCount(Bonus):
    """1 / sqrt(N) with N = 1 / (exp(PG / sqrt(steps)) - 1).

    PG, the prediction gain, is what a step on the batch adds to the log-density of the state. A density that falls
    gives no bonus.

    Attributes:
      density: the model that learns.
    """

    density: Density

    def init(self, key: Array) -> PseudoCountState:
        """A fresh density."""
        return PseudoCountState(self.density.init(key), jnp.zeros(()))

    def observe(self, state: PseudoCountState, visits: Visits) -> PseudoCountState:
        """Shows the density what was visited."""
        density = self.density.observe(state.density, visits.next_observations, visits.skills)
        return PseudoCountState(density, state.steps)

    def bonus(self, state: PseudoCountState, visits: Visits, key: Array) -> Scored:
        """The bonus of one step on the batch itself; equal noise before and after leaves the step's effect alone."""
        points, skills = visits.next_observations, visits.skills
        key_fit, key_read = jax.random.split(key)
        density = self.density.fit(state.density, key_fit, points, skills)
        before, after = (self.density.log_density(d, key_read, points, skills) for d in (state.density, density))
        steps = state.steps + 1.0
        bonus = jnp.sqrt(jnp.expm1(jnp.maximum(after - before, 0.0) / jnp.sqrt(steps)))
        return Scored(PseudoCountState(density, steps), bonus)


def prediction_loss(params: Params, model: Learner, inputs: Array, targets: Array) -> tuple[Array, Array]:
    """Squared error, mean over all elements; also Euclidean distances [B]."""
    return _errors(model.apply(params, inputs), targets)


def _errors(predicted: Array, targets: Array) -> tuple[Array, Array]:
    """Mean squared error over all elements, and Euclidean distances [B]."""
    squares = (predicted - targets) ** 2
    return jnp.mean(squares), jnp.sqrt(jnp.sum(squares, axis=-1))


def _descend(learner: Learner, settings: Settings, loss: Callable[..., tuple[Array, Array]], *arguments: Any) -> Scored:
    """One step on `loss(params, *arguments)`, and the errors [B] before it."""
    grads, errors = jax.grad(loss, has_aux=True)(learner.params, *arguments)
    return Scored(learner.apply_gradients(grads, settings.learning_rate), errors)
