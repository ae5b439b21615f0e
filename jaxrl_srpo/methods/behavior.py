"""Behaviour cloning by diffusion: the score network eps(a_t | s, t) that regularises SRPO (arXiv 2310.07297, sec. 2.2).

loss = E |eps(a_t | s, t) - eps|^2 summed over action dimensions, with t ~ U(0.001, 1) and eps ~ N(0, I).
"""

import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_srpo.nn import diffusion, networks, optimizers
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


class Config(NamedTuple):
    """What changes shapes or the program; the defaults are the published ones.

    `weight_average` is the decay per step of an exponential moving average of the weights, which then becomes the
    result of the stage; 0 keeps no average.
    """

    batch_size: int = 2048
    width: int = 256
    hidden: int = 1024
    blocks: int = 3
    dropout_rate: float = 0.1
    cosine: bool = False
    weight_average: float = 0.0


@struct.dataclass
class Hyper:
    """Numbers that a sweep may vary; scalars of one member."""

    learning_rate: Array | float = 3e-4
    weight_decay: Array | float = 0.01
    total_steps: Array | float = 2e6


@struct.dataclass
class Model:
    """The trained behaviour distribution mu(a | s), satisfying `types.ScoreModel`.

    Attributes:
      params: trained weights of the score network.
      constants: its fixed Fourier frequencies.
      config: sizes of the network.
    """

    params: Params
    constants: Params
    config: Config = struct.field(pytree_node=False)

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """eps(a_t | s, t) [B, action_size] without dropout."""
        return _predict(self.config, self.params, self.constants, noisy_actions, times, observations)


@struct.dataclass
class State:
    """Training state of one member."""

    params: Params
    average: Params | None
    constants: Params
    opt_state: optax.OptState
    step: Array
    config: Config = struct.field(pytree_node=False)

    @property
    def model(self) -> Model:
        """The result of the stage."""
        return Model(self.params if self.average is None else self.average, self.constants, self.config)


def _network(config: Config) -> networks.ScoreNetwork:
    return networks.ScoreNetwork(config.width, config.hidden, config.blocks, config.dropout_rate)


def _predict(
    config: Config,
    params: Params,
    constants: Params,
    noisy_actions: Array,
    times: Array,
    observations: Array,
    dropout_key: Array | None = None,
) -> Array:
    """eps(a_t | s, t) [B, action_size]; with dropout if there is a key for it."""
    variables = {"params": params, "constants": constants}
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    train = dropout_key is not None
    output = _network(config).apply(variables, noisy_actions, times, observations, train=train, rngs=rngs)
    return cast(Array, output)


def init(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Any = None) -> State:
    """Fresh state of one member; behaviour cloning has no earlier stage, so `frozen` is unused."""
    del hyper, frozen
    inputs = (jnp.zeros((1, spec.action_size)), jnp.zeros((1,)), jnp.zeros((1, spec.observation_size)))
    variables = _network(config).init(key, *inputs)
    params = variables["params"]
    average = jax.tree.map(jnp.copy, params) if config.weight_average else None
    return State(params, average, variables["constants"], optimizers.init(params), jnp.zeros((), jnp.int32), config)


def update(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Any = None) -> tuple[State, Metrics]:
    """One step of denoising score matching."""
    del frozen
    key_time, key_noise, key_dropout = jax.random.split(key, 3)
    times = jax.random.uniform(key_time, batch.rewards.shape, minval=diffusion.TIME_MIN, maxval=1.0)
    noise = jax.random.normal(key_noise, batch.actions.shape)
    noisy_actions = diffusion.diffuse(batch.actions, noise, times)

    def loss_fn(params: Params) -> Array:
        inputs = (noisy_actions, times, batch.observations)
        predicted = _predict(state.config, params, state.constants, *inputs, dropout_key=key_dropout)
        return jnp.mean(jnp.sum((predicted - noise) ** 2, axis=-1))

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    schedule = optimizers.cosine(state.step, hyper.total_steps) if state.config.cosine else 1.0
    learning_rate = hyper.learning_rate * schedule
    params, opt_state = optimizers.adam(state.params, state.opt_state, grads, learning_rate, hyper.weight_decay)
    average = state.average
    if average is not None:
        average = optimizers.polyak(average, params, 1.0 - state.config.weight_average)
    state = dataclasses.replace(state, params=params, average=average, opt_state=opt_state, step=state.step + 1)
    return state, {"loss": loss}


def act(model: Model, observations: Array, key: Array, action_size: int, steps: int = 15) -> Array:
    """Actions [B, action_size] in [-1, 1] sampled from mu(. | s): the behaviour-cloning baseline."""
    return diffusion.sample(model, key, observations, action_size, steps)
