"""Score Regularized Policy Optimization (arXiv 2310.07297): a deterministic actor between a critic and a score.

The gradient that reaches the action a = pi(s) is (eq. 14 and 15, with the released code's place for beta)

    regularization * omega(t) (eps(a_t | s, t) - eps) - beta * grad_a Q(s, a),   a_t = alpha_t a + sigma_t eps,

averaged over t ~ U(0.02, 0.98) and eps ~ N(0, I). It takes one forward pass of the frozen score network and never a
backward pass through it. `beta` multiplies the Q gradient: larger is greedier, and the paper's 1/beta is
`regularization` at `beta` 1.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_srpo.methods.iql import Policy
from jaxrl_srpo.nn import diffusion, networks, optimizers
from jaxrl_srpo.types import Array, Batch, Critic, Metrics, Params, ScoreModel, Spec

Weighting = Literal["sigma2", "one", "alpha_over_sigma"]
QGradient = Literal["raw", "sample", "batch"]


class Config(NamedTuple):
    """What changes shapes or the program; the defaults are the published ones.

    Attributes:
      batch_size: B.
      width: of the actor's hidden layers.
      layers: of the actor; 2 in locomotion, 4 in mazes.
      weighting: omega(t): "sigma2" is sigma_t^2 ("VDS" in the released code), "one" is 1 ("stable"),
        "alpha_over_sigma" is alpha_t / sigma_t ("score").
      minus_noise: subtract eps from the noise prediction; same expectation, less variance. Advised by the paper, off
        in the released code.
      q_gradient: "raw" leaves grad_a Q alone; "sample" divides it by its root mean square over the action dimensions
        of each sample ("regq" of the released code, used in mazes); "batch" by its root mean square over the batch.
      weight_average: decay per step of an exponential moving average of the actor's weights, which then becomes the
        result; 0 keeps no average.
    """

    batch_size: int = 256
    width: int = 256
    layers: int = 2
    weighting: Weighting = "sigma2"
    minus_noise: bool = False
    q_gradient: QGradient = "raw"
    weight_average: float = 0.0


@struct.dataclass
class Hyper:
    """Numbers that a sweep may vary; scalars of one member. The rate falls as a cosine over `total_steps`."""

    beta: Array | float = 0.05
    regularization: Array | float = 1.0
    learning_rate: Array | float = 3e-4
    time_min: Array | float = 0.02
    time_max: Array | float = 0.98
    total_steps: Array | float = 1e6


@struct.dataclass
class Frozen:
    """Results of the earlier stages; `initial_actor` holds the parameters to start from, None for fresh ones."""

    behavior: ScoreModel
    critic: Critic
    initial_actor: Params | None = None


@struct.dataclass
class State:
    """Training state of one member."""

    params: Params
    average: Params | None
    opt_state: optax.OptState
    step: Array
    spec: Spec = struct.field(pytree_node=False)
    config: Config = struct.field(pytree_node=False)

    @property
    def policy(self) -> Policy:
        """The result of the stage."""
        params = self.params if self.average is None else self.average
        return Policy(params, self.spec.action_size, self.config.width, self.config.layers)


def init(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Frozen) -> State:
    """Fresh state of one member."""
    del hyper
    params = frozen.initial_actor
    if params is None:
        network = networks.Actor(spec.action_size, config.width, config.layers)
        params = network.init(key, jnp.zeros((1, spec.observation_size)))["params"]
    average = jax.tree.map(jnp.copy, params) if config.weight_average else None
    return State(params, average, optimizers.init(params), jnp.zeros((), jnp.int32), spec, config)


def omega(times: Array, weighting: Weighting) -> Array:
    """The weight of the regulariser at each diffusion time, of the shape of `times`."""
    alpha, sigma = diffusion.marginal(times)
    match weighting:
        case "sigma2":
            return sigma**2
        case "one":
            return jnp.ones_like(times)
        case "alpha_over_sigma":
            return alpha / sigma


def q_action_gradient(critic: Critic, observations: Array, actions: Array, form: QGradient) -> Array:
    """grad_a of the mean of the target Qs, [B, action_size], normalised as `form` says."""
    gradient = jax.grad(lambda a: jnp.sum(jnp.mean(critic.q_values(observations, a), axis=-1)))(actions)
    # The floor only matters where Q is flat, where 0 / 0 would freeze the member.
    match form:
        case "raw":
            return gradient
        case "sample":
            return gradient / jnp.maximum(jnp.sqrt(jnp.mean(gradient**2, axis=-1, keepdims=True)), 1e-12)
        case "batch":
            return gradient / jnp.maximum(jnp.sqrt(jnp.mean(gradient**2)), 1e-12)


def update(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Frozen) -> tuple[State, Metrics]:
    """One step of the actor; of the batch it reads the observations only."""
    config = state.config
    network = networks.Actor(state.spec.action_size, config.width, config.layers)
    key_time, key_noise = jax.random.split(key)
    size = batch.observations.shape[0]
    times = jax.random.uniform(key_time, (size,), minval=hyper.time_min, maxval=hyper.time_max)
    noise = jax.random.normal(key_noise, (size, state.spec.action_size))

    def loss_fn(params: Params) -> tuple[Array, Metrics]:
        actions = networks.forward(network, params, batch.observations)
        fixed = jax.lax.stop_gradient(actions)
        predicted = frozen.behavior.noise_prediction(diffusion.diffuse(fixed, noise, times), times, batch.observations)
        error = predicted - noise if config.minus_noise else predicted
        regularizer = omega(times, config.weighting)[:, None] * error
        q_gradient = q_action_gradient(frozen.critic, batch.observations, fixed, config.q_gradient)
        gradient = hyper.regularization * regularizer - hyper.beta * q_gradient
        loss = jnp.mean(jnp.sum(jax.lax.stop_gradient(gradient) * actions, axis=-1))
        metrics = {
            "regularizer_norm": jnp.mean(jnp.linalg.norm(regularizer, axis=-1)),
            "q_gradient_norm": jnp.mean(jnp.linalg.norm(q_gradient, axis=-1)),
        }
        return loss, metrics

    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    learning_rate = hyper.learning_rate * optimizers.cosine(state.step, hyper.total_steps)
    params, opt_state = optimizers.adam(state.params, state.opt_state, grads, learning_rate)
    average = state.average
    if average is not None:
        average = optimizers.polyak(average, params, 1.0 - config.weight_average)
    state = dataclasses.replace(state, params=params, average=average, opt_state=opt_state, step=state.step + 1)
    return state, {"loss": loss, **metrics}


def act(policy: Policy, observations: Array) -> Array:
    """Actions [B, action_size] in (-1, 1): one forward pass."""
    return policy.act(observations)
