"""Flax modules of SRPO with the sizes and the initialization of the published PyTorch code.

B is the batch size. All widths that are not arguments are those of the published networks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_srpo.nn import precision
from jaxrl_srpo.types import Array, Params

Mean = Literal["tanh", "linear"]
LogStd = Literal["sigmoid", "clip"]
Initialization = Literal["pytorch", "rlkit"]


def mish(x: Array) -> Array:
    """Mish, x tanh(log(1 + e^x)), by one exponential instead of three transcendental functions."""
    # tanh(softplus(x)) = n / (n + 2) with n = e^x (e^x + 2); above 20 the ratio is 1 in float32.
    wide = x.astype(jnp.float32)
    exp = jnp.exp(jnp.minimum(wide, 20.0))
    n = exp * (exp + 2.0)
    return (wide * (n / (n + 2.0))).astype(x.dtype)


def forward(network: nn.Module, params: Params, *inputs: Array) -> Array:
    """The output of a network whose only variables are its parameters."""
    return cast(Array, network.apply({"params": params}, *inputs))


class Dense(nn.Module):
    """Affine layer that starts uniform in +-`bound`, by default PyTorch's 1/sqrt(fan_in) for kernel and bias.

    rlkit's hidden layers start within 1/sqrt(features) and without bias; its output layers have a `bound`.

    Its result has the type of hidden activations, float32 or bfloat16 (see `precision`); float32 if `hidden` is False.
    """

    features: int
    hidden: bool = True
    bound: float | None = None
    initialization: Initialization = "pytorch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., fan_in] -> [..., features]."""
        rlkit = self.initialization == "rlkit" and self.bound is None
        bound = self.bound or 1.0 / math.sqrt(self.features if rlkit else x.shape[-1])

        def uniform(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        dtype = precision.hidden_dtype() if self.hidden else jnp.float32
        product = precision.dot_general
        bias = nn.initializers.zeros if rlkit else uniform
        return nn.Dense(self.features, dtype=dtype, kernel_init=uniform, bias_init=bias, dot_general=product)(x)


class MLP(nn.Module):
    """`layers` hidden layers of `width` with an activation between them, then a linear output."""

    output_size: int
    width: int = 256
    layers: int = 2
    activation: Callable[[Array], Array] = nn.relu
    output_bound: float | None = None
    initialization: Initialization = "pytorch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., input] -> [..., output_size]."""
        for _ in range(self.layers):
            x = self.activation(Dense(self.width, initialization=self.initialization)(x))
        return Dense(self.output_size, hidden=False, bound=self.output_bound)(x)


class Actor(nn.Module):
    """Deterministic policy a = tanh(MLP(s)); 2 hidden layers in locomotion, 4 in mazes."""

    action_size: int
    width: int = 256
    layers: int = 2

    @nn.compact
    def __call__(self, observations: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in (-1, 1)."""
        return jnp.tanh(MLP(self.action_size, self.width, self.layers)(observations))


class GaussianActor(nn.Module):
    """Mean and log standard deviation of a diagonal Gaussian whose deviation is the same in every state.

    The mean's network is `MLP_0`, as in `Actor`.
    """

    action_size: int
    width: int = 256
    layers: int = 2
    mean: Mean = "tanh"
    log_std: LogStd = "sigmoid"
    output_bound: float | None = None
    initialization: Initialization = "pytorch"

    @nn.compact
    def __call__(self, observations: Array) -> tuple[Array, Array]:
        """[B, observation_size] -> [B, action_size], [action_size]."""
        sizes = (self.action_size, self.width, self.layers)
        network = MLP(*sizes, output_bound=self.output_bound, initialization=self.initialization)
        mean = network(observations)
        free = self.param("log_std", nn.initializers.zeros, (self.action_size,), jnp.float32)
        return jnp.tanh(mean) if self.mean == "tanh" else mean, bounded_log_std(free, self.log_std)


def bounded_log_std(free: Array, form: LogStd) -> Array:
    """Log standard deviations of free parameters: within (-6, 0) by a sigmoid, or clipped to [-20, 2]."""
    return 6.0 * jax.nn.sigmoid(free) - 6.0 if form == "sigmoid" else jnp.clip(free, -20.0, 2.0)


class TwinQ(nn.Module):
    """Two independent action-value networks."""

    width: int = 256
    layers: int = 2
    output_bound: float | None = None
    initialization: Initialization = "pytorch"

    @nn.compact
    def __call__(self, observations: Array, actions: Array) -> Array:
        """[B, observation_size], [B, action_size] -> [B, 2]."""
        x = jnp.concatenate([observations, actions], axis=-1)
        sizes, bound = (1, self.width, self.layers), self.output_bound
        heads = [MLP(*sizes, output_bound=bound, initialization=self.initialization)(x) for _ in range(2)]
        return jnp.concatenate(heads, axis=-1)


class Value(nn.Module):
    """State value V(s)."""

    width: int = 256
    layers: int = 2

    @nn.compact
    def __call__(self, observations: Array) -> Array:
        """[B, observation_size] -> [B]."""
        return MLP(1, self.width, self.layers)(observations)[..., 0]


class FourierFeatures(nn.Module):
    """Random features of the diffusion time: sin and cos of 2 pi t W, W ~ N(0, 30^2) fixed at initialization."""

    frequencies: int = 32
    scale: float = 30.0

    @nn.compact
    def __call__(self, times: Array) -> Array:
        """[B] -> [B, 2 frequencies]."""

        def draw() -> Array:
            return self.scale * jax.random.normal(self.make_rng("params"), (self.frequencies,))

        frequencies = self.variable("constants", "frequencies", draw).value
        angles = (2.0 * jnp.pi) * times[:, None] * frequencies[None, :]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def dropout(key: Array, x: Array, rate: float) -> Array:
    """Inverted dropout from 16-bit random words, half the random numbers of a float mask.

    The kept share is exact to 1/65536; the scale uses the share that is really kept.
    """
    threshold = round(rate * 65536)
    keep = jax.random.bits(key, x.shape, jnp.uint16) >= jnp.uint16(threshold)
    return jnp.where(keep, x * (65536.0 / (65536 - threshold)), 0.0)


class ResidualBlock(nn.Module):
    """x + Dense(Mish(Dense(LayerNorm(dropout(x)))))."""

    hidden: int
    dropout_rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, width] -> [B, width]."""
        h = dropout(self.make_rng("dropout"), x, self.dropout_rate) if train and self.dropout_rate > 0.0 else x
        h = nn.LayerNorm(epsilon=1e-5)(h)
        return x + Dense(x.shape[-1], hidden=False)(mish(Dense(self.hidden)(h)))


class ScoreNetwork(nn.Module):
    """Noise prediction eps(a_t | s, t) of the behavior diffusion model."""

    width: int = 256
    hidden: int = 1024
    blocks: int = 3
    dropout_rate: float = 0.1

    @nn.compact
    def __call__(self, noisy_actions: Array, times: Array, observations: Array, train: bool = False) -> Array:
        """[B, action_size], [B], [B, observation_size] -> [B, action_size]; dropout only if `train`."""
        time = Dense(128, hidden=False)(mish(Dense(128)(FourierFeatures()(times))))
        x = Dense(self.width, hidden=False)(jnp.concatenate([noisy_actions, observations, time], axis=-1))
        for _ in range(self.blocks):
            x = ResidualBlock(self.hidden, self.dropout_rate)(x, train)
        return Dense(noisy_actions.shape[-1], hidden=False)(mish(x))
