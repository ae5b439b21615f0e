"""The networks over windows of time in plain NumPy, float64: convolutions tap by tap, as PyTorch defines them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.reference import Node, concatenate, layer_norm, mish

Tree = Any


def random_params(network: Any, *inputs: Any, seed: int = 0) -> Tree:
    """Parameters for a network without compiling its initialization; scales of norms are about 1."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    random = np.random.default_rng(seed)

    def draw(path: Any, shape: Any) -> Any:
        size = 1.0 / np.sqrt(shape.shape[0]) if len(shape.shape) == 2 else 0.3
        return jnp.asarray(random.normal(path[-1].key == "scale", size, shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def reshape(x: Node, *shape: int) -> Node:
    return Node(x.value.reshape(shape), (x,), lambda g: (g.reshape(x.value.shape),))


def transpose(x: Node, axes: Sequence[int]) -> Node:
    return Node(x.value.transpose(axes), (x,), lambda g: (g.transpose(np.argsort(axes)),))


def first_steps(x: Node, count: int) -> Node:
    """[B, H, C] -> [B, count, C]."""

    def backward(g: np.ndarray) -> tuple[np.ndarray]:
        full = np.zeros_like(x.value)
        full[:, :count] = g
        return (full,)

    return Node(x.value[:, :count], (x,), backward)


def taps(x: Node, kernel: Node, pairs: Sequence[tuple[int, int, slice]], steps: int) -> Node:
    """[B, H, C] -> [B, steps, O]: for each (output, input, rows of the kernel) a product is added to the output."""
    value = np.zeros((len(x.value), steps, kernel.value.shape[1]))
    for output, source, rows in pairs:
        value[:, output] += x.value[:, source] @ kernel.value[rows]

    def backward(g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        to_x, to_kernel = np.zeros_like(x.value), np.zeros_like(kernel.value)
        for output, source, rows in pairs:
            to_x[:, source] += g[:, output] @ kernel.value[rows].T
            to_kernel[rows] += x.value[:, source].T @ g[:, output]
        return to_x, to_kernel

    return Node(value, (x, kernel), backward)


def convolve(params: Tree, x: Node, size: int, stride: int = 1) -> Node:
    """Conv1d(C, O, size, stride, padding=size // 2)."""
    inner = params["Dense_0"]
    _, steps, channels = x.value.shape
    outputs = (steps + 2 * (size // 2) - size) // stride + 1
    pairs = [
        (o, source, slice(j * channels, (j + 1) * channels))
        for o in range(outputs)
        for j in range(size)
        if 0 <= (source := o * stride + j - size // 2) < steps
    ]
    return taps(x, inner["kernel"], pairs, outputs) + inner["bias"]


def double(params: Tree, x: Node) -> Node:
    """ConvTranspose1d(C, C, 4, stride=2, padding=1), but for a bias each of the even and the odd outputs.

    Step i adds its product with tap k to output 2 i - 1 + k. The even outputs have taps 3 and 1, the odd ones 2 and 0.
    """
    _, steps, channels = x.value.shape
    lower, upper = slice(0, channels), slice(channels, 2 * channels)
    layer_of = {3: ("Dense_0", lower), 1: ("Dense_0", upper), 2: ("Dense_1", lower), 0: ("Dense_1", upper)}
    sums: dict[str, Node] = {}
    for name in ("Dense_0", "Dense_1"):
        inner = params[name]["Dense_0"]
        pairs = [
            (output, i, rows)
            for i in range(steps)
            for k, (layer, rows) in layer_of.items()
            if layer == name and 0 <= (output := 2 * i - 1 + k) < 2 * steps
        ]
        own = np.arange(2 * steps) % 2 == (0 if name == "Dense_0" else 1)
        sums[name] = (taps(x, inner["kernel"], pairs, 2 * steps) + inner["bias"]) * own[:, None].astype(float)
    return sums["Dense_0"] + sums["Dense_1"]


def group_norm(params: Tree, x: Node, groups: int = 8) -> Node:
    """Over the steps and the channels of each group, variance plus 1e-5."""
    size, steps, channels = x.value.shape
    grouped = transpose(reshape(x, size, steps, groups, channels // groups), (0, 2, 1, 3))
    normal = layer_norm(reshape(grouped, size, groups, -1), Node(1.0), Node(0.0))
    back = transpose(reshape(normal, size, groups, steps, channels // groups), (0, 2, 1, 3))
    return reshape(back, size, steps, channels) * params["scale"] + params["bias"]


def conv_block(params: Tree, x: Node) -> Node:
    return mish(group_norm(params["GroupNorm_0"], convolve(params["Dense_0"], x, 5)))


def dense(params: Tree, x: Node) -> Node:
    inner = params["Dense_0"]
    return x @ inner["kernel"] + inner["bias"]


def block(params: Tree, x: Node, time: Node) -> Node:
    shift = dense(params["Dense_0"], mish(time))
    h = conv_block(params["ConvBlock_0"], x) + reshape(shift, len(shift.value), 1, -1)
    h = conv_block(params["ConvBlock_1"], h)
    return h + (convolve(params["Dense_1"], x, 1) if "Dense_1" in params else x)


def level(params: Tree, x: Node, time: Node) -> Node:
    return block(params["TemporalBlock_1"], block(params["TemporalBlock_0"], x, time), time)


def embedding(params: Tree, times: np.ndarray) -> Node:
    half = params["Dense_1"]["Dense_0"]["kernel"].value.shape[0] // 2
    angles = times[:, None] * 10_000.0 ** (-np.arange(half) / (half - 1))
    waves = Node(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    return dense(params["Dense_0"], mish(dense(params["Dense_1"], waves)))


def unet(params: Tree, x: Node, times: np.ndarray) -> Node:
    """A `TemporalUNet` without attention, [B, H, C] -> [B, H, C]."""
    time = embedding(params["TimeEmbedding_0"], times)
    depth = (1 + sum(name.startswith("Level") for name in params)) // 2
    skips = []
    for i in range(depth):
        x = level(params[f"Level_{i}"], x, time)
        skips.append(x)
        if i < depth - 1:
            x = convolve(params[f"Halve_{i}"]["Dense_0"], x, 3, stride=2)
    x = block(params["TemporalBlock_1"], block(params["TemporalBlock_0"], x, time), time)
    for i in range(depth - 1):
        x = level(params[f"Level_{depth + i}"], concatenate([x, skips.pop()]), time)
        x = first_steps(double(params[f"Double_{i}"], x), skips[-1].value.shape[1])
    return convolve(params["Dense_0"], conv_block(params["ConvBlock_0"], x), 1)


def window_value(params: Tree, x: Node, times: np.ndarray) -> Node:
    """A `WindowValue`, [B, H, C] -> [B]."""
    time = embedding(params["TimeEmbedding_0"], times)
    depth = sum(name.startswith("Level") for name in params)
    for i in range(depth + 2):
        own = params[f"Level_{i}"] if i < depth else params[f"TemporalBlock_{i - depth}"]
        x = level(own, x, time) if i < depth else block(own, x, time)
        x = convolve(params[f"Halve_{i}"]["Dense_0"], x, 3, stride=2)
    flat = reshape(x, len(x.value), -1)
    hidden = mish(dense(params["Dense_0"], concatenate([flat, time])))
    return dense(params["Dense_1"], hidden).column(0)


def cosine_signal(steps: int) -> np.ndarray:
    """Products of 1 - beta at times 0 to T, as the released code computes them."""
    places = np.linspace(0, steps + 1, steps + 1)
    shares = np.cos((places / (steps + 1) + 0.008) / 1.008 * np.pi * 0.5) ** 2
    betas = np.clip(1.0 - shares[1:] / shares[:-1], 0.0, 0.999)
    return np.cumprod(np.concatenate([[1.0], 1.0 - betas]))
