"""Flax modules of SRPO with the sizes and the initialization of the published PyTorch code.

B is the batch size. All widths that are not arguments are those of the published networks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.nn import kernels, precision
from jaxrl_srpo.types import Array, Params

Mean = Literal["tanh", "linear"]
LogStd = Literal["sigmoid", "clip"]
Initialization = Literal["pytorch", "rlkit", "glorot"]


def mish(x: Array) -> Array:
    """Mish, x tanh(log(1 + e^x)), by one exponential and one division, its derivative too."""
    # A function of its own, for networks that hold it are pickled.
    return _mish(x)


@jax.custom_jvp
def _mish(x: Array) -> Array:
    return _mish_and_slope(x).value.astype(x.dtype)


@_mish.defjvp
def _mish_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    return mish(x), (_mish_and_slope(x).slope * tangent.astype(jnp.float32)).astype(x.dtype)


class _ValueAndSlope(NamedTuple):
    value: Array
    slope: Array


def _mish_and_slope(x: Array) -> _ValueAndSlope:
    # tanh(log(1 + e^x)) = n / (n + 2) with n = e^x (e^x + 2); above 20 it is 1 in float32.
    wide = x.astype(jnp.float32)
    capped = jnp.minimum(wide, 20.0)
    exp = jnp.exp(capped)
    n = exp * (exp + 2.0)
    inverse = 1.0 / (n + 2.0)
    ratio = n * inverse
    return _ValueAndSlope(wide * ratio, ratio + capped * (4.0 * exp * (exp + 1.0) * inverse) * inverse)


def forward(network: nn.Module, params: Params, *inputs: Array) -> Array:
    """The output of a network whose only variables are its parameters."""
    return cast(Array, network.apply({"params": params}, *inputs))


class Dense(nn.Module):
    """Affine layer and its activation; it starts uniform in +-`bound`, by default PyTorch's 1/sqrt(fan_in).

    rlkit's hidden layers start within 1/sqrt(features) and without bias; its output layers have a `bound`. Glorot's
    layers start within sqrt(6 / (fan_in + features)) and without bias.

    Its result has the type of hidden activations, float32 or bfloat16 (see `precision`); float32 if `hidden` is False.
    """

    features: int
    activation: Callable[[Array], Array] | None = None
    hidden: bool = True
    bound: float | None = None
    initialization: Initialization = "pytorch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., fan_in] -> [..., features]."""
        bound = self.bound or _initial_bound(self.initialization, x.shape[-1], self.features)

        def uniform(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        unbiased = self.initialization != "pytorch" and self.bound is None
        bias_init = nn.initializers.zeros if unbiased else uniform
        dtype = precision.hidden_dtype() if self.hidden else jnp.float32
        return _Affine(self.features, uniform, bias_init, dtype, self.activation, name="Dense_0")(x)


def _initial_bound(initialization: Initialization, fan_in: int, features: int) -> float:
    match initialization:
        case "pytorch":
            return 1.0 / math.sqrt(fan_in)
        case "rlkit":
            return 1.0 / math.sqrt(features)
        case "glorot":
            return math.sqrt(6.0 / (fan_in + features))


class _Affine(nn.Module):
    """`flax.linen.Dense` with the products of `precision`."""

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer
    dtype: Any
    activation: Callable[[Array], Array] | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., fan_in] -> [..., features]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return precision.affine(x, kernel, bias, self.dtype, self.activation)


class MLP(nn.Module):
    """`layers` hidden layers of `width` with an activation and perhaps a LayerNorm after each, then a linear output.

    The last hidden layer has `last_width` unless that is 0.
    """

    output_size: int
    width: int = 256
    layers: int = 2
    activation: Callable[[Array], Array] = nn.relu
    output_bound: float | None = None
    initialization: Initialization = "pytorch"
    layer_norm: bool = False
    last_width: int = 0

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        """One or several inputs [..., n], side by side -> [..., output_size]."""
        x = jnp.concatenate(inputs, axis=-1)
        for i in range(self.layers):
            width = self.last_width or self.width if i + 1 == self.layers else self.width
            x = Dense(width, self.activation, initialization=self.initialization)(x)
            if self.layer_norm:
                x = _layer_norm(x)
        # Whoever wants rlkit's small outputs gives their bound.
        last: Initialization = "glorot" if self.initialization == "glorot" else "pytorch"
        return Dense(self.output_size, hidden=False, bound=self.output_bound, initialization=last)(x)


def _layer_norm(x: Array) -> Array:
    """`LayerNorm` of the network that is called, with statistics in float32; the type of `x` stays."""
    return nn.LayerNorm(epsilon=1e-5)(x.astype(jnp.float32)).astype(x.dtype)


class Actor(nn.Module):
    """Deterministic policy a = tanh(MLP(s)); 2 hidden layers in locomotion, 4 in mazes."""

    action_size: int
    width: int = 256
    layers: int = 2
    output_bound: float | None = None

    @nn.compact
    def __call__(self, observations: Array) -> Array:
        """[B, observation_size] -> [B, action_size] in (-1, 1)."""
        network = MLP(self.action_size, self.width, self.layers, output_bound=self.output_bound)
        return jnp.tanh(network(observations))


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
    """Two independent action-value networks; their parameters are those of one `MLP` with a leading axis of two.

    On accelerators they are one batched product (see `kernels`), half the launches of two.
    """

    width: int = 256
    layers: int = 2
    output_bound: float | None = None
    initialization: Initialization = "pytorch"
    layer_norm: bool = False
    activation: Callable[[Array], Array] = nn.relu
    last_width: int = 0

    @nn.compact
    def __call__(self, observations: Array, actions: Array) -> Array:
        """[B, observation_size], [B, action_size] -> [B, 2]."""
        x = jnp.concatenate([observations, actions], axis=-1)
        form = (self.activation, self.output_bound, self.initialization, self.layer_norm, self.last_width)
        network = MLP(1, self.width, self.layers, *form, parent=None)

        def heads(key: Array) -> Params:
            drawn = [network.init(jax.random.fold_in(key, i), x)["params"] for i in range(2)]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)

        params = self.param("heads", heads)
        if kernels.batched():
            return jax.vmap(lambda head: forward(network, head, x)[..., 0], out_axes=-1)(params)
        outputs = [forward(network, jax.tree.map(lambda leaf, i=i: leaf[i], params), x) for i in range(2)]
        return jnp.concatenate(outputs, axis=-1)


_HEADS = ("MLP_0", "MLP_1")


def split_heads(tree: Any) -> Any:
    """A tree of parameters with the two networks of every `TwinQ` apart, as 0.1 saved them."""

    def split(node: Any) -> Any:
        if not _is_twin(node):
            return node
        return {name: jax.tree.map(lambda x, i=i: _row(x, i), node["heads"]) for i, name in enumerate(_HEADS)}

    return jax.tree.map(split, tree, is_leaf=_is_twin)


def join_heads(tree: Any) -> Any:
    """Undoes `split_heads`."""

    def is_pair(node: Any) -> bool:
        return isinstance(node, Mapping) and tuple(node) == _HEADS

    def join(node: Any) -> Any:
        pair = [node[name] for name in _HEADS] if is_pair(node) else None
        return {"heads": jax.tree.map(lambda *leaves: np.stack(leaves), *pair)} if pair else node

    return jax.tree.map(join, tree, is_leaf=is_pair)


def _is_twin(node: Any) -> bool:
    return isinstance(node, Mapping) and tuple(node) == ("heads",)


def _row(x: Any, i: int) -> Any:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x[i]


class Value(nn.Module):
    """State value V(s)."""

    width: int = 256
    layers: int = 2
    layer_norm: bool = False

    @nn.compact
    def __call__(self, observations: Array) -> Array:
        """[B, observation_size] -> [B]."""
        return MLP(1, self.width, self.layers, layer_norm=self.layer_norm)(observations)[..., 0]


class FourierFeatures(nn.Module):
    """Features of the diffusion time: sin and cos of 2 pi t W, W ~ N(0, scale^2) fixed at initialization or learned."""

    frequencies: int = 32
    scale: float = 30.0
    learned: bool = False

    @nn.compact
    def __call__(self, times: Array) -> Array:
        """[B] -> [B, 2 frequencies]."""

        def draw() -> Array:
            return self.scale * jax.random.normal(self.make_rng("params"), (self.frequencies,))

        if self.learned:
            initializer = nn.initializers.normal(self.scale)
            frequencies = self.param("frequencies", initializer, (self.frequencies,), jnp.float32)
        else:
            frequencies = self.variable("constants", "frequencies", draw).value
        angles = (2.0 * jnp.pi) * times[:, None] * frequencies[None, :]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def dropout(key: Array, x: Array, rate: float) -> Array:
    """Inverted dropout of x [B, width], whose masks take a byte of a random word for each element.

    A byte is compared with 256 rate, rounded up or down at random for each row, so that every element is dropped with
    probability `rate` to 24 bits.
    """
    rows, width = x.shape
    quarter = -(-width // 4)
    key_words, key_rows = jax.random.split(key)
    # The barrier keeps XLA from drawing a word again for each of its bytes.
    words = jax.lax.optimization_barrier(jax.random.bits(key_words, (rows, quarter), jnp.uint32))
    random = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(rows, 4 * quarter)[:, :width]
    threshold = jnp.floor(256.0 * rate + jax.random.uniform(key_rows, (rows, 1))).astype(jnp.int32)
    return jnp.where(random.astype(jnp.int32) >= threshold, x * (1.0 / (1.0 - rate)), 0.0)


class ResidualBlock(nn.Module):
    """x + Dense(Mish(Dense(LayerNorm(dropout(x)))))."""

    hidden: int
    dropout_rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, width] -> [B, width]."""
        h = dropout(self.make_rng("dropout"), x, self.dropout_rate) if train and self.dropout_rate > 0.0 else x
        h = _layer_norm(h)
        return x + Dense(x.shape[-1])(Dense(self.hidden, mish)(h))


class ScoreNetwork(nn.Module):
    """Noise prediction eps(a_t | s, t) of the behavior diffusion model.

    The frequencies of the time are SRPO's, fixed, or IDQL's, learned and for whole steps 0, 1 ... in place of [0, 1].
    """

    width: int = 256
    hidden: int = 1024
    blocks: int = 3
    dropout_rate: float = 0.1
    learned_frequencies: bool = False

    @nn.compact
    def __call__(self, noisy_actions: Array, times: Array, observations: Array, train: bool = False) -> Array:
        """[B, action_size], [B], [B, observation_size] -> [B, action_size]; dropout only if `train`."""
        features = FourierFeatures(scale=0.2, learned=True) if self.learned_frequencies else FourierFeatures()
        time = Dense(128, hidden=False)(Dense(128, mish)(features(times)))
        x = Dense(self.width)(jnp.concatenate([noisy_actions, observations, time], axis=-1))
        for _ in range(self.blocks):
            x = ResidualBlock(self.hidden, self.dropout_rate)(x, train)
        return Dense(noisy_actions.shape[-1], hidden=False)(mish(x))


def sinusoidal_features(steps: Array, size: int) -> Array:
    """Sines and cosines of `steps` [B] at frequencies from 1 down to 1/10000, [B, size]."""
    half = size // 2
    frequencies = jnp.exp(-math.log(10_000.0) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = steps[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class NoiseMLP(nn.Module):
    """Noise prediction eps(a_t | s, t) of Diffusion-QL: a plain network with Mish; t counts steps from 0."""

    width: int = 256
    layers: int = 3
    time_size: int = 16

    @nn.compact
    def __call__(self, noisy_actions: Array, steps: Array, observations: Array) -> Array:
        """[B, action_size], [B], [B, observation_size] -> [B, action_size]."""
        hidden = Dense(2 * self.time_size, mish)(sinusoidal_features(steps, self.time_size))
        x = jnp.concatenate([noisy_actions, Dense(self.time_size, hidden=False)(hidden), observations], axis=-1)
        return MLP(noisy_actions.shape[-1], self.width, self.layers, mish)(x)


class Energy(nn.Module):
    """Energy f(a_t, s, t) of a noisy action, whose gradient guides a diffusion model."""

    width: int = 256
    layers: int = 4

    @nn.compact
    def __call__(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """[B, action_size], [B], [B, observation_size] -> [B]."""
        time = Dense(32, hidden=False)(FourierFeatures(frequencies=16)(times))
        x = jnp.concatenate([noisy_actions, time, observations], axis=-1)
        return MLP(1, self.width, self.layers, nn.silu)(x)[..., 0]
