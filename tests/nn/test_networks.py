"""Sizes, initialization and building blocks of the published networks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrl_srpo.methods import behavior
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import kernels, networks
from jaxrl_srpo.types import Batch, Spec

# Observation and action sizes of HalfCheetah.
OBSERVATIONS, ACTIONS = jnp.zeros((1, 17)), jnp.zeros((1, 6))


@functools.cache
def score_variables(seed: int = 0) -> Any:
    return jax.jit(networks.ScoreNetwork().init)(jax.random.key(seed), ACTIONS, jnp.zeros(1), OBSERVATIONS)


def kernels_of(params: Any) -> list[jax.Array]:
    return [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "kernel"]


def count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_score_network_has_the_published_size() -> None:
    params = score_variables()["params"]
    products = sum(kernel.size for kernel in kernels_of(params))
    time, entry, blocks, output = 64 * 128 + 128 * 128, (6 + 17 + 128) * 256, 3 * 2 * 256 * 1024, 256 * 6
    assert products == time + entry + blocks + output == 1_637_632
    assert sum(name.startswith("ResidualBlock") for name in params) == 3
    # Biases of every layer, scale and bias of three LayerNorms; the Fourier frequencies are not among the parameters.
    assert count(params) == products + 128 + 128 + 256 + 3 * (1024 + 256 + 2 * 256) + 6


@pytest.mark.parametrize(
    ("network", "inputs", "expected"),
    [
        (networks.TwinQ(), (OBSERVATIONS, ACTIONS), 2 * (24 * 256 + 257 * 256 + 257)),
        (networks.Value(), (OBSERVATIONS,), 18 * 256 + 257 * 256 + 257),
        (networks.Actor(6), (OBSERVATIONS,), 18 * 256 + 257 * 256 + 257 * 6),
        (networks.Actor(6, layers=4), (OBSERVATIONS,), 18 * 256 + 3 * 257 * 256 + 257 * 6),
    ],
)
def test_parameter_counts(network: nn.Module, inputs: tuple[jax.Array, ...], expected: int) -> None:
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    assert count(shapes["params"]) == expected


@pytest.mark.parametrize("batched", [False, True])
def test_layer_norm_comes_after_each_activation(batched: bool) -> None:
    network = networks.TwinQ(8, 2, layer_norm=True)
    observations, actions = (jax.random.normal(jax.random.key(i), (5, size)) for i, size in enumerate((3, 2)))
    params: Any = network.init(jax.random.key(2), observations, actions)["params"]
    assert count(params) == 2 * (6 * 8 + 2 * 8 + 9 * 8 + 2 * 8 + 9)
    with kernels.batching(batched):
        found: Any = network.apply({"params": params}, observations, actions)
    x = np.concatenate([observations, actions], axis=-1, dtype=np.float64)
    for head in range(2):
        own = jax.tree.map(lambda leaf, head=head: np.asarray(leaf[head], np.float64), params["heads"])
        h = x
        for i in range(2):
            dense = own[f"Dense_{i}"]["Dense_0"]
            h = np.maximum(h @ dense["kernel"] + dense["bias"], 0.0)
            h = (h - h.mean(axis=-1, keepdims=True)) / np.sqrt(h.var(axis=-1, keepdims=True) + 1e-5)
        last = own["Dense_2"]["Dense_0"]
        np.testing.assert_allclose(found[:, head], (h @ last["kernel"] + last["bias"])[:, 0], rtol=1e-5, atol=1e-6)


def test_several_inputs_are_taken_side_by_side() -> None:
    network = networks.MLP(3, width=8)
    parts = [jax.random.normal(jax.random.key(i), (5, size)) for i, size in enumerate((4, 2, 1))]
    together = jnp.concatenate(parts, axis=-1)
    variables = network.init(jax.random.key(3), *parts)
    np.testing.assert_array_equal(network.apply(variables, *parts), network.apply(variables, together))


def test_the_last_hidden_layer_may_have_a_width_of_its_own() -> None:
    shapes = jax.eval_shape(networks.TwinQ(40, 3, last_width=30).init, jax.random.key(0), OBSERVATIONS, ACTIONS)
    kernels = [kernel.shape[1:] for kernel in kernels_of(shapes["params"])]
    assert sorted(kernels) == [(23, 40), (30, 1), (40, 30), (40, 40)]


def test_glorots_layers_start_uniform_and_without_bias() -> None:
    network = networks.MLP(20, width=60, layers=1, initialization="glorot")
    params = network.init(jax.random.key(0), jnp.zeros((1, 90)))["params"]
    for layer, (fan_in, features) in zip(params.values(), ((90, 60), (60, 20)), strict=True):
        bound = np.sqrt(6.0 / (fan_in + features))
        kernel = np.asarray(layer["Dense_0"]["kernel"])
        assert 0.98 * bound < np.abs(kernel).max() <= 1.000001 * bound
        assert abs(kernel.std() / bound - 1.0 / np.sqrt(3.0)) < 0.02
        assert not np.asarray(layer["Dense_0"]["bias"]).any()


@pytest.mark.parametrize("activation", [nn.gelu, networks.mish])
def test_critics_take_another_activation(activation: Any) -> None:
    network = networks.TwinQ(8, activation=activation)
    inputs = [jax.random.normal(jax.random.key(i), (5, size)) for i, size in enumerate((3, 2))]
    params = network.init(jax.random.key(2), *inputs)["params"]
    for head in range(2):
        own = jax.tree.map(lambda leaf, head=head: leaf[head], params["heads"])
        expected = networks.forward(networks.MLP(1, 8, activation=activation), own, *inputs)
        np.testing.assert_allclose(networks.forward(network, params, *inputs)[:, head], expected[:, 0], rtol=1e-5)
    plain = networks.forward(networks.TwinQ(8), params, *inputs)
    assert np.abs(plain - networks.forward(network, params, *inputs)).max() > 1e-3


def test_output_shapes() -> None:
    observations, actions = jnp.zeros((7, 17)), jnp.zeros((7, 6))

    def shape(network: nn.Module, *inputs: jax.Array) -> tuple[int, ...]:
        output: jax.ShapeDtypeStruct = jax.eval_shape(network.init_with_output, jax.random.key(0), *inputs)[0]
        return output.shape

    assert shape(networks.TwinQ(), observations, actions) == (7, 2)
    assert shape(networks.Value(), observations) == (7,)
    assert shape(networks.Actor(6), observations) == (7, 6)
    assert shape(networks.ScoreNetwork(), actions, jnp.zeros(7), observations) == (7, 6)


def test_actor_stays_in_bounds() -> None:
    params = jax.jit(networks.Actor(6, width=32).init)(jax.random.key(0), OBSERVATIONS)
    actions = networks.Actor(6, width=32).apply(params, 100.0 * jax.random.normal(jax.random.key(1), (50, 17)))
    assert np.abs(np.asarray(actions)).max() <= 1.0


def test_initialization_is_that_of_pytorch() -> None:
    params = score_variables()["params"]
    nodes = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, dict) and "kernel" in x)
    layers = [node for node in nodes if isinstance(node, dict)]
    assert len(layers) == 2 + 1 + 3 * 2 + 1
    for layer in layers:
        bound = 1.0 / np.sqrt(layer["kernel"].shape[0])
        for weights in (layer["kernel"], layer["bias"]):
            assert np.abs(weights).max() <= bound
        kernel = np.asarray(layer["kernel"])
        # Uniform: it fills the range, and its standard deviation is bound / sqrt(3).
        assert np.abs(kernel).max() > 0.98 * bound
        assert abs(kernel.std() / bound - 1.0 / np.sqrt(3.0)) < 0.02
        assert np.asarray(layer["bias"]).std() > 0.3 * bound
    for i in range(3):
        norm = params[f"ResidualBlock_{i}"]["LayerNorm_0"]
        np.testing.assert_array_equal(norm["scale"], np.ones(256))
        np.testing.assert_array_equal(norm["bias"], np.zeros(256))


def test_hidden_layers_may_start_as_rlkits() -> None:
    """Kernels within 1 / sqrt(width), whatever comes in, and biases of 0; the output layer has its own bound."""
    network = networks.GaussianActor(6, 64, 2, output_bound=1e-3, initialization="rlkit")
    mlp = jax.jit(network.init)(jax.random.key(0), OBSERVATIONS)["params"]["MLP_0"]
    for name, bound in (("Dense_0", 1.0 / 8.0), ("Dense_1", 1.0 / 8.0), ("Dense_2", 1e-3)):
        kernel = np.abs(np.asarray(mlp[name]["Dense_0"]["kernel"]))
        assert 0.95 * bound < kernel.max() <= bound
    for name in ("Dense_0", "Dense_1"):
        np.testing.assert_array_equal(mlp[name]["Dense_0"]["bias"], 0.0)
    assert np.any(np.asarray(mlp["Dense_2"]["Dense_0"]["bias"]) != 0.0)


def test_twin_qs_differ_and_are_the_same_networks_batched_and_apart() -> None:
    network = networks.TwinQ(width=16)
    params = jax.jit(network.init)(jax.random.key(0), OBSERVATIONS, ACTIONS)["params"]
    heads = networks.split_heads(params)
    assert list(heads) == ["MLP_0", "MLP_1"]
    first, second = (kernels_of(head)[0] for head in heads.values())
    assert not np.array_equal(first, second)
    jax.tree.map(np.testing.assert_array_equal, networks.join_heads(heads), params)
    x = jnp.concatenate([OBSERVATIONS, ACTIONS], axis=-1)
    expected = [networks.forward(networks.MLP(1, 16), head, x)[:, 0] for head in heads.values()]
    for batched in (False, True):
        with kernels.batching(batched):
            values = networks.forward(network, params, OBSERVATIONS, ACTIONS)
        np.testing.assert_allclose(values, np.stack(expected, axis=-1), rtol=1e-5, atol=1e-6)


def test_mish_is_its_definition() -> None:
    x = np.concatenate([np.linspace(-30.0, 30.0, 2001), [-1e30, -1e4, -200.0, 0.0, 19.99, 20.01, 200.0, 1e4, 1e30]])
    x = x.astype(np.float32)
    expected = x.astype(np.float64) * np.tanh(np.logaddexp(x.astype(np.float64), 0.0))
    np.testing.assert_allclose(networks.mish(jnp.asarray(x)), expected, rtol=2e-6, atol=1e-30)


def test_mish_derivative() -> None:
    x = np.concatenate([np.linspace(-30.0, 30.0, 2000), [-1e30, -1e4, 1e4, 1e30]]).astype(np.float32)
    x64 = x.astype(np.float64)
    t, sigmoid = np.tanh(np.logaddexp(x64, 0.0)), 0.5 * (1.0 + np.tanh(0.5 * x64))
    with np.errstate(under="ignore"):
        expected = t + x64 * (1.0 - t**2) * sigmoid
    np.testing.assert_allclose(jax.vmap(jax.grad(networks.mish))(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.998])
def test_dropout_rate(rate: float) -> None:
    x = jnp.full((400, 1000), 2.0)
    y = np.asarray(networks.dropout(jax.random.key(0), x, rate))
    kept = y != 0.0
    # Five standard deviations of 400,000 draws; the mean is kept because survivors are scaled up.
    assert abs(kept.mean() - (1.0 - rate)) <= 5.0 * np.sqrt(rate * (1.0 - rate) / y.size) + 1e-5
    np.testing.assert_allclose(y[kept], 2.0 / (1.0 - rate), rtol=1e-4)
    # Neither rows nor columns share a mask.
    assert abs(kept.mean(0) - (1.0 - rate)).max() <= 5.0 * np.sqrt(rate * (1.0 - rate) / 400) + 1e-5
    assert abs(kept.mean(1) - (1.0 - rate)).max() <= 5.0 * np.sqrt(rate * (1.0 - rate) / 1000) + 1e-5


def test_dropout_only_in_training() -> None:
    network = networks.ScoreNetwork(width=16, hidden=32)
    inputs = (jnp.ones((4, 6)), jnp.full(4, 0.5), jnp.ones((4, 17)))
    variables = jax.jit(network.init)(jax.random.key(0), *inputs)
    apply = jax.jit(network.apply, static_argnames="train")
    quiet = apply(variables, *inputs)
    np.testing.assert_array_equal(quiet, apply(variables, *inputs))
    noisy = [apply(variables, *inputs, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert not np.array_equal(noisy[0], quiet)


def test_fourier_features() -> None:
    module = networks.FourierFeatures()
    times = jnp.asarray([0.0, 0.25, 1.0])
    variables = module.init(jax.random.key(0), times)
    assert list(variables) == ["constants"]
    w = np.asarray(variables["constants"]["frequencies"], np.float64)
    angles = 2.0 * np.pi * np.asarray(times, np.float64)[:, None] * w[None]
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    # Angles reach several hundred radians, where float32 is good to a few 1e-5.
    np.testing.assert_allclose(np.asarray(module.apply(variables, times)), expected, atol=1e-4)


def test_fourier_frequencies_have_standard_deviation_30() -> None:
    wide = networks.FourierFeatures(frequencies=20000).init(jax.random.key(1), jnp.zeros(1))
    frequencies = np.asarray(wide["constants"]["frequencies"])
    assert abs(frequencies.std() - 30.0) < 0.6
    assert abs(frequencies.mean()) < 0.8


def test_fourier_frequencies_are_not_trained_and_differ_between_members() -> None:
    spec = Spec(2, 1)
    settings = with_arrays(behavior.Settings(width=8, hidden=16, blocks=1, learning_rate=0.1, weight_decay=1.0))
    init = jax.jit(behavior.init, static_argnames="spec")
    state, other = (init(jax.random.key(seed), spec, settings) for seed in (0, 1))
    batch = Batch(jnp.ones((4, 2)), jnp.zeros((4, 1)), jnp.zeros(4), jnp.ones((4, 2)), jnp.ones(4))
    after, _ = jax.jit(behavior.update)(state, batch, jax.random.key(2), settings)
    jax.tree.map(np.testing.assert_array_equal, after.constants, state.constants)
    assert not np.array_equal(jax.tree.leaves(state.constants)[0], jax.tree.leaves(other.constants)[0])
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), after.score.params, state.score.params)
    assert all(jax.tree.leaves(changed))


def test_log_deviations_are_bounded() -> None:
    free = jnp.asarray([-1e9, 0.0, 1e9])
    np.testing.assert_allclose(networks.bounded_log_std(free, "sigmoid"), [-6.0, -3.0, 0.0])
    np.testing.assert_allclose(networks.bounded_log_std(free, "clip"), [-20.0, 0.0, 2.0])


def test_times_as_sines_and_cosines() -> None:
    found = networks.sinusoidal_features(jnp.asarray([0.0, 3.0]), 4)
    exact = [np.sin(3.0), np.sin(3e-4), np.cos(3.0), np.cos(3e-4)]
    np.testing.assert_allclose(found, [[0.0, 0.0, 1.0, 1.0], exact], atol=1e-6)


def test_frequencies_are_learned_or_fixed() -> None:
    inputs = (jnp.zeros((1, 2)), jnp.zeros((1,)), jnp.zeros((1, 3)))
    fixed = networks.ScoreNetwork(8, 8, 1).init(jax.random.key(0), *inputs)
    learned = networks.ScoreNetwork(8, 8, 1, learned_frequencies=True).init(jax.random.key(0), *inputs)
    assert fixed["constants"]["FourierFeatures_0"]["frequencies"].shape == (32,)
    assert learned.keys() == {"params"}
    assert learned["params"]["FourierFeatures_0"]["frequencies"].shape == (32,)
