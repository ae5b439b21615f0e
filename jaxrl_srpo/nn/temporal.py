"""Networks over windows of time: Diffuser's temporal U-net, and half of one that values a window (arXiv 2205.09991).

A window is [H, width], one row per step; B is the batch size. Convolutions along time are dense layers on each step and
its neighbors side by side: members of a population then share one batched product, where a convolution whose kernels
differ would become a grouped one.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_srpo.nn import precision
from jaxrl_srpo.nn.networks import Dense, mish
from jaxrl_srpo.types import Array

GROUPS = 8
"""Of every GroupNorm: all widths of these networks are multiples of it."""

_KERNEL = 5
_HEADS, _HEAD_SIZE = 4, 32


def neighbors(x: Array, size: int, stride: int = 1) -> Array:
    """[B, H, C] -> [B, ceil(H / stride), size C]: every `stride`-th step amid `size` steps, zeros beyond the ends."""
    steps, around = x.shape[1], size // 2
    padded = jnp.pad(x, ((0, 0), (around, around), (0, 0)))
    return jnp.concatenate([padded[:, i : i + steps : stride] for i in range(size)], axis=-1)


def sinusoids(times: Array, size: int) -> Array:
    """Sines and cosines [B, size] of `times` [B], whose frequencies fall geometrically from 1 to 1/10000."""
    frequencies = jnp.exp(jnp.linspace(0.0, -math.log(10_000.0), size // 2))
    angles = times[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """What all blocks know of the diffusion time."""

    size: int

    @nn.compact
    def __call__(self, times: Array) -> Array:
        """[B] -> [B, size]."""
        return Dense(self.size, hidden=False)(Dense(4 * self.size, mish)(sinusoids(times, self.size)))


class ConvBlock(nn.Module):
    """Convolution of 5 steps, GroupNorm, Mish."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, C] -> [B, H, features]."""
        x = Dense(self.features)(neighbors(x, _KERNEL))
        wide = x.astype(jnp.float32)
        return mish(nn.GroupNorm(GROUPS, epsilon=1e-5, use_fast_variance=False)(wide).astype(x.dtype))


class TemporalBlock(nn.Module):
    """Two convolutional blocks with a shortcut past them; the time is added between them."""

    features: int

    @nn.compact
    def __call__(self, x: Array, time: Array) -> Array:
        """[B, H, C], [B, size] -> [B, H, features]."""
        h = ConvBlock(self.features)(x) + Dense(self.features)(mish(time))[:, None, :]
        h = ConvBlock(self.features)(h)
        return h + (x if x.shape[-1] == self.features else Dense(self.features)(x))


class LinearAttention(nn.Module):
    """x + attention over the steps of LayerNorm(x), linear in their number (arXiv 1812.01243): 4 heads of 32."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, C] -> [B, H, C]."""
        size, steps, channels = x.shape
        inner = _HEADS * _HEAD_SIZE
        bound = 1.0 / math.sqrt(channels)

        def uniform(key: Array, shape: Sequence[int]) -> Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        kernel = self.param("kernel", uniform, (channels, 3 * inner))
        normal = nn.LayerNorm(epsilon=1e-5)(x.astype(jnp.float32))
        mixed = precision.affine(normal, kernel, jnp.zeros(3 * inner), precision.hidden_dtype())
        query, key, value = jnp.moveaxis(mixed.reshape(size, steps, 3, _HEADS, _HEAD_SIZE), 2, 0)
        context = jnp.einsum("bnhd,bnhe->bhde", jax.nn.softmax(key, axis=1), value)
        attended = jnp.einsum("bhde,bnhd->bnhe", context, query * _HEAD_SIZE**-0.5)
        return x + Dense(channels)(attended.reshape(size, steps, inner))


class Halve(nn.Module):
    """Convolution of 3 steps at every second step."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, C] -> [B, ceil(H / 2), C]."""
        return Dense(x.shape[-1])(neighbors(x, 3, stride=2))


class Double(nn.Module):
    """Transposed convolution of 4 at stride 2: every step becomes two, each made of it and the neighbor on its side."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, C] -> [B, 2 H, C]."""
        size, steps, channels = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        pairs = jnp.concatenate([padded[:, :-1], padded[:, 1:]], axis=-1)
        bound = 1.0 / math.sqrt(4 * channels)
        first, second = (Dense(channels, bound=bound)(own) for own in (pairs[:, :-1], pairs[:, 1:]))
        return jnp.stack([first, second], axis=2).reshape(size, 2 * steps, channels)


class Level(nn.Module):
    """Two blocks of one width, and perhaps attention."""

    features: int
    attention: bool = False

    @nn.compact
    def __call__(self, x: Array, time: Array) -> Array:
        """[B, H, C], [B, size] -> [B, H, features]."""
        for _ in range(2):
            x = TemporalBlock(self.features)(x, time)
        return LinearAttention()(x) if self.attention else x


class TemporalUNet(nn.Module):
    """A U-net along time, each level of half as many steps as the one before, with skips from the way down to that up.

    Attributes:
      width: of the time's embedding, and the unit of the others.
      multipliers: widths of the levels in that unit.
      attention: whether linear attention follows the blocks of each level.
    """

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    attention: bool = False

    @nn.compact
    def __call__(self, x: Array, times: Array) -> Array:
        """[B, H, C], [B] -> [B, H, C], of any H."""
        channels, time = x.shape[-1], TimeEmbedding(self.width)(times)
        *outer, innermost = (self.width * multiplier for multiplier in self.multipliers)
        skips = []
        for features in outer:
            skips.append(Level(features, self.attention)(x, time))
            x = Halve()(skips[-1])
        skips.append(Level(innermost, self.attention)(x, time))
        x = TemporalBlock(innermost)(skips[-1], time)
        x = LinearAttention()(x) if self.attention else x
        x = TemporalBlock(innermost)(x, time)
        for features in reversed(outer):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = Level(features, self.attention)(x, time)
            # An odd number of steps was halved to one more than half.
            x = Double()(x)[:, : skips[-1].shape[1]]
        return Dense(channels, hidden=False)(ConvBlock(self.width)(x))


class WindowValue(nn.Module):
    """A number for each window: the way down of a U-net, two narrower levels, and an MLP that sees the time again."""

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 8)

    @nn.compact
    def __call__(self, x: Array, times: Array) -> Array:
        """[B, H, C], [B] -> [B]."""
        time = TimeEmbedding(self.width)(times)
        widths = [self.width * multiplier for multiplier in self.multipliers]
        for features in widths:
            x = Halve()(Level(features)(x, time))
        for features in (widths[-1] // 2, widths[-1] // 4):
            x = Halve()(TemporalBlock(features)(x, time))
        flat = x.reshape(len(x), -1)
        hidden = Dense(flat.shape[-1] // 2, mish)(jnp.concatenate([flat, time.astype(flat.dtype)], axis=-1))
        return Dense(1, hidden=False)(hidden)[:, 0]
