"""The exploration methods that state marginal matching is compared with, as intrinsic rewards of the same SAC.

  Nothing         SAC alone: what remains is the entropy of its actions (MaxEnt)
  ICM             error of a forward model in features of an inverse model (Pathak et al., arXiv 1705.05363)
  RND             error in predicting a fixed random network (Burda et al., arXiv 1810.12894)
  ForwardError    error in predicting the next state from state and action
  InverseError    error in predicting the action from state and next state
  Count           1 / sqrt(visits of the state's bin)
  PseudoCount     the same with visits read off what a density model learns (Bellemare et al., arXiv 1606.01868)

Sizes, rates and formulas of ICM and both counts are those of the released code of state marginal matching, with two
differences that all methods here share: bonuses are computed afresh for each batch, where that code stores those of
counts with the transition; and they are for arriving in a state. RND follows Laskin et al. (arXiv 2110.15191). Released
code has no model of forward and inverse errors alone; theirs are networks of the same sizes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.exploration.densities import Density, Histogram
from jaxrl_srpo.exploration.intrinsic import Reward, Visits
from jaxrl_srpo.methods.iql import Learner
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Params, Spec

Errors = Callable[[Params], tuple[Array, Array]]


@struct.dataclass
class Hyper:
    """Numbers of the reward `environment * r + bonus * b`; scalars of one member.

    Attributes:
      bonus: coefficient of the bonus.
      environment: coefficient of the environment's own reward.
      learning_rate: of the models.
    """

    bonus: Array | float = 1.0
    environment: Array | float = 0.0
    learning_rate: Array | float = 1e-3


class Nothing(NamedTuple):
    """No bonus."""

    def init(self, key: Array, spec: Spec) -> tuple[()]:
        """There is nothing to learn."""
        del key, spec
        return ()

    def observe(self, state: tuple[()], visits: Visits) -> tuple[()]:
        """Nothing is remembered."""
        del visits
        return state

    def reward(self, state: tuple[()], visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The environment's share alone."""
        del key
        return _reward(state, jnp.zeros_like(visits.rewards), visits, hyper)


class ForwardError(NamedTuple):
    """Distance of the next state from its prediction, by a network of `width` with two hidden layers."""

    width: int = 300

    def init(self, key: Array, spec: Spec) -> Learner:
        """A fresh model."""
        inputs = jnp.zeros((1, spec.observation_size + spec.action_size))
        return _learner(networks.MLP(spec.observation_size, self.width), key, inputs)

    def observe(self, state: Learner, visits: Visits) -> Learner:
        """Models learn from batches only."""
        del visits
        return state

    def reward(self, state: Learner, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The error before the step that lowers it."""
        del key
        network = networks.MLP(visits.observations.shape[-1], self.width)
        inputs = jnp.concatenate([visits.observations, visits.actions], axis=-1)

        def errors(params: Params) -> tuple[Array, Array]:
            return _errors(networks.forward(network, params, inputs), visits.next_observations)

        return _reward(*_descend(state, errors, hyper), visits, hyper)


class InverseError(NamedTuple):
    """Distance of the action from its prediction, by a network of `width` with two hidden layers."""

    width: int = 300

    def init(self, key: Array, spec: Spec) -> Learner:
        """A fresh model."""
        return _learner(networks.MLP(spec.action_size, self.width), key, jnp.zeros((1, 2 * spec.observation_size)))

    def observe(self, state: Learner, visits: Visits) -> Learner:
        """Models learn from batches only."""
        del visits
        return state

    def reward(self, state: Learner, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The error before the step that lowers it."""
        del key
        network = networks.MLP(visits.actions.shape[-1], self.width)
        inputs = jnp.concatenate([visits.observations, visits.next_observations], axis=-1)

        def errors(params: Params) -> tuple[Array, Array]:
            return _errors(networks.forward(network, params, inputs), visits.actions)

        return _reward(*_descend(state, errors, hyper), visits, hyper)


class ICM(NamedTuple):
    """Distance of the next state's features from their prediction.

    Attributes:
      width: of the two hidden layers of the feature and forward networks.
      features: their number; both the inverse model, linear, and the forward model shape them, as released.
    """

    width: int = 300
    features: int = 300

    def init(self, key: Array, spec: Spec) -> Learner:
        """Fresh models."""
        keys = jax.random.split(key, 3)
        inputs = (spec.observation_size, self.features + spec.action_size, 2 * self.features)
        models = zip(("features", "forward", "inverse"), self._networks(spec.action_size), keys, inputs, strict=True)
        params = {name: network.init(key, jnp.zeros((1, n)))["params"] for name, network, key, n in models}
        return Learner(params, optimizers.init(params))

    def observe(self, state: Learner, visits: Visits) -> Learner:
        """Models learn from batches only."""
        del visits
        return state

    def reward(self, state: Learner, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The forward model's error before the step that lowers it."""
        del key
        features, forward, inverse = self._networks(visits.actions.shape[-1])

        def errors(params: Params) -> tuple[Array, Array]:
            now = networks.forward(features, params["features"], visits.observations)
            after = networks.forward(features, params["features"], visits.next_observations)
            inputs = jnp.concatenate([now, visits.actions], axis=-1)
            loss, distances = _errors(networks.forward(forward, params["forward"], inputs), after)
            both = jnp.concatenate([now, after], axis=-1)
            inverse_loss, _ = _errors(networks.forward(inverse, params["inverse"], both), visits.actions)
            return loss + inverse_loss, distances

        return _reward(*_descend(state, errors, hyper), visits, hyper)

    def _networks(self, action_size: int) -> tuple[networks.MLP, networks.MLP, networks.MLP]:
        shape = (self.features, self.width)
        return networks.MLP(*shape), networks.MLP(*shape), networks.MLP(action_size, layers=0)


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


class RND(NamedTuple):
    """Squared error in predicting `features` outputs of a random network, over the errors' running deviation.

    Observations are normalised by their running moments and clipped at 5 deviations.
    """

    width: int = 300
    features: int = 512

    def init(self, key: Array, spec: Spec) -> RNDState:
        """Fresh networks."""
        key_target, key_predictor = jax.random.split(key)
        inputs = jnp.zeros((1, spec.observation_size))
        none = jnp.zeros(())
        return RNDState(
            self._network.init(key_target, inputs)["params"],
            _learner(self._network, key_predictor, inputs),
            Moments(inputs[0], jnp.zeros_like(inputs[0]), none),
            Moments(none, none, none),
        )

    def observe(self, state: RNDState, visits: Visits) -> RNDState:
        """Models learn from batches only."""
        del visits
        return state

    def reward(self, state: RNDState, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The error before the step that lowers it."""
        del key
        moments = state.observations.add(visits.next_observations)
        centered = (visits.next_observations - moments.mean[None]) / moments.std[None]
        inputs = jnp.clip(centered, -5.0, 5.0)
        wanted = networks.forward(self._network, state.target, inputs)

        def errors(params: Params) -> tuple[Array, Array]:
            squares = jnp.mean((networks.forward(self._network, params, inputs) - wanted) ** 2, axis=-1)
            return jnp.mean(squares), squares

        predictor, squares = _descend(state.predictor, errors, hyper)
        spread = state.errors.add(squares)
        return _reward(RNDState(state.target, predictor, moments, spread), squares / spread.std, visits, hyper)

    @property
    def _network(self) -> networks.MLP:
        return networks.MLP(self.features, self.width)


class Count(NamedTuple):
    """1 / sqrt(N) of the bin, at least one visit; released coefficient 10."""

    histogram: Histogram

    def init(self, key: Array, spec: Spec) -> Array:
        """Counts, none."""
        del spec
        return self.histogram.init(key)

    def observe(self, state: Array, visits: Visits) -> Array:
        """Counts with the visits added."""
        return self.histogram.observe(state, visits.next_observations, visits.skills)

    def reward(self, state: Array, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The bonus by the counts as they are now."""
        del key
        counts = state[visits.skills, self.histogram.grid.bins(visits.next_observations)]
        return _reward(state, jnp.maximum(counts, 1.0) ** -0.5, visits, hyper)


@struct.dataclass
class PseudoCountState:
    """The density's state and how many steps it has taken."""

    density: Any
    steps: Array


class PseudoCount(NamedTuple):
    """1 / sqrt(N) with N = 1 / (exp(PG / sqrt(steps)) - 1), PG what a step adds to the density of the state.

    A density that falls gives no bonus.
    """

    density: Density

    def init(self, key: Array, spec: Spec) -> PseudoCountState:
        """A fresh density."""
        del spec
        return PseudoCountState(self.density.init(key), jnp.zeros(()))

    def observe(self, state: PseudoCountState, visits: Visits) -> PseudoCountState:
        """The density sees what was visited."""
        density = self.density.observe(state.density, visits.next_observations, visits.skills)
        return PseudoCountState(density, state.steps)

    def reward(self, state: PseudoCountState, visits: Visits, key: Array, hyper: Hyper) -> Reward:
        """The bonus of one step on the batch itself; the same noise before and after, so that only the step counts."""
        points, skills = visits.next_observations, visits.skills
        key_fit, key_read = jax.random.split(key)
        density = self.density.fit(state.density, key_fit, points, skills)
        before, after = (self.density.log_density(d, key_read, points, skills) for d in (state.density, density))
        steps = state.steps + 1.0
        bonus = jnp.sqrt(jnp.expm1(jnp.maximum(after - before, 0.0) / jnp.sqrt(steps)))
        return _reward(PseudoCountState(density, steps), bonus, visits, hyper)


def _learner(network: networks.MLP, key: Array, inputs: Array) -> Learner:
    params = network.init(key, inputs)["params"]
    return Learner(params, optimizers.init(params))


def _errors(predicted: Array, wanted: Array) -> tuple[Array, Array]:
    """Mean squared error over all elements, and Euclidean distances [B]."""
    squares = (predicted - wanted) ** 2
    return jnp.mean(squares), jnp.sqrt(jnp.sum(squares, axis=-1))


def _descend(learner: Learner, errors: Errors, hyper: Hyper) -> tuple[Learner, Array]:
    """One step of Adam on a loss, and the errors [B] before it."""
    grads, before = jax.grad(errors, has_aux=True)(learner.params)
    return Learner(*optimizers.adam(learner.params, learner.opt_state, grads, hyper.learning_rate)), before


def _reward(state: Any, bonus: Array, visits: Visits, hyper: Hyper) -> Reward:
    rewards = hyper.environment * visits.rewards + hyper.bonus * bonus
    return Reward(state, rewards, {"bonus": jnp.mean(bonus)})
