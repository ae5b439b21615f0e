"""The networks over windows of time: their sizes, and what they compute against convolutions written out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrl_srpo.nn import networks, temporal
from tests import reference, temporal_reference
from tests.reference import Node


def shapes(network: nn.Module, horizon: int, channels: int = 14) -> tuple[tuple[int, ...], int]:
    """Of the output for three windows, and the number of parameters."""
    given = (jnp.zeros((3, horizon, channels)), jnp.zeros(3))
    output: Any
    output, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), *given)
    return output.shape, sum(leaf.size for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("horizon", [1, 4, 5, 13])
def test_windows_may_have_any_number_of_steps(horizon: int) -> None:
    assert shapes(temporal.TemporalUNet(8, (1, 2, 4), attention=True), horizon)[0] == (3, horizon, 14)
    assert shapes(temporal.WindowValue(8, (1, 2, 4)), horizon)[0] == (3,)


def test_networks_have_the_published_sizes() -> None:
    """Layer by layer for Hopper; the doubling layers have a bias more than the transposed convolutions."""

    def conv(inputs: int, outputs: int, size: int) -> int:
        return (inputs * size + 1) * outputs

    def block(inputs: int, outputs: int) -> int:
        first, second = (conv(wide, outputs, 5) + 2 * outputs for wide in (inputs, outputs))
        return first + second + conv(32, outputs, 1) + (conv(inputs, outputs, 1) if inputs != outputs else 0)

    def level(inputs: int, outputs: int) -> int:
        return block(inputs, outputs) + block(outputs, outputs)

    widths = [32, 64, 128, 256]
    down = sum(level(*pair) for pair in zip([14, *widths], widths, strict=False))
    time = conv(32, 128, 1) + conv(128, 32, 1)
    halves = [conv(wide, wide, 3) for wide in (*widths, 128, 64)]
    up = sum(level(2 * wide, half) + 4 * half**2 + 2 * half for wide, half in zip(widths[1:], widths, strict=False))
    last = conv(32, 32, 5) + 2 * 32 + conv(32, 14, 1)
    unet = time + down + sum(halves[:3]) + 2 * block(256, 256) + up + last
    assert shapes(temporal.TemporalUNet(), 32) == ((3, 32, 14), unet)
    narrower = block(256, 128) + block(128, 64)
    value = time + down + sum(halves) + narrower + conv(64 + 32, 32, 1) + conv(32, 1, 1)
    assert shapes(temporal.WindowValue(), 32) == ((3,), value)


@pytest.mark.parametrize(
    ("network", "written_out"),
    [
        (temporal.TemporalUNet(8, (1, 2)), temporal_reference.unet),
        (temporal.WindowValue(8, (4,)), temporal_reference.window_value),
    ],
)
def test_they_agree_with_convolutions_written_out(network: nn.Module, written_out: Any) -> None:
    """Of 5 steps, which do not halve evenly."""
    windows, times = jax.random.normal(jax.random.key(0), (2, 5, 3)), jnp.asarray([0.0, 7.0])
    params = temporal_reference.random_params(network, windows, times)
    found = jax.jit(functools.partial(networks.forward, network))(params, windows, times)
    nodes = reference.tree_map(lambda x: Node(np.asarray(x, np.float64)), params)
    expected = written_out(nodes, Node(windows), np.asarray(times, np.float64))
    np.testing.assert_allclose(found, expected.value, rtol=0, atol=1e-5)


def test_times_are_told_by_sines_and_cosines() -> None:
    found = temporal.sinusoids(jnp.asarray([0.0, 3.0]), 6)
    angles = 3.0 * np.asarray([1.0, 0.01, 0.0001])
    np.testing.assert_allclose(found, [[0, 0, 0, 1, 1, 1], [*np.sin(angles), *np.cos(angles)]], rtol=1e-5)


def test_attention_mixes_the_steps_by_heads() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    found, variables = jax.jit(temporal.LinearAttention().init_with_output)(jax.random.key(1), x)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    own = np.asarray(x[0], np.float64)
    normal = (own - own.mean(1, keepdims=True)) / np.sqrt(own.var(1, keepdims=True) + 1e-5)
    mixed = normal @ params["kernel"]
    heads = []
    for head in range(4):
        query, key, value = (mixed[:, 128 * part + 32 * head : 128 * part + 32 * (head + 1)] for part in range(3))
        weights = np.exp(key) / np.exp(key).sum(0)
        heads.append(query / np.sqrt(32.0) @ (weights.T @ value))
    last = params["Dense_0"]["Dense_0"]
    expected = own + np.concatenate(heads, axis=1) @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
