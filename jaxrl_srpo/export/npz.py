"""Policies as arrays: deterministic networks of affine layers, which NumPy alone can run."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import archive
from jaxrl_srpo.export.metadata import Metadata
from jaxrl_srpo.export.program import Program
from jaxrl_srpo.export.run import FileAct
from jaxrl_srpo.nn import networks, policies
from jaxrl_srpo.types import Params

ACTIVATIONS = ("relu", "tanh", "clip")
"""max(x, 0); tanh(x); x within [-1, 1]."""


class Layer(NamedTuple):
    """An affine layer: kernel [fan_in, features], bias [features], and one of `ACTIVATIONS` behind it."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: str


def layers_of(program: Program) -> list[Layer]:
    """The layers of a deterministic policy.

    Raises:
      UserError: it is none of affine layers.
    """
    policy = program.policy
    if program.stage.act is policies.act:
        match policy:
            case policies.DeterministicPolicy():
                return _layers(policy.params["MLP_0"], "tanh")
            case policies.GaussianPolicy():
                return _layers(policy.params["MLP_0"], policy.network.mean.replace("linear", "clip"))
            case policies.TanhGaussianPolicy() if (
                policy.network.activation is nn.relu and not policy.network.layer_norm
            ):
                *hidden, last = _layers(policy.params, "tanh")
                size = program.action_size
                return [*hidden, Layer(last.kernel[:, :size], last.bias[:size], "tanh")]
    raise UserError(
        f"--format=npz: holds deterministic networks of affine layers, and {program.stage.algorithm} is none; "
        "give --format=onnx or --format=stablehlo"
    )


def _plain(network: networks.MLP) -> bool:
    return network.activation is nn.relu and not network.layer_norm


def _layers(params: Params, last: str) -> list[Layer]:
    dense = [params[f"Dense_{i}"]["Dense_0"] for i in range(len(params))]
    activations = ["relu"] * (len(dense) - 1) + [last]
    return [
        Layer(np.asarray(one["kernel"]), np.asarray(one["bias"]), activation)
        for one, activation in zip(dense, activations, strict=True)
    ]


def write(program: Program, metadata: Metadata) -> bytes:
    """The bytes of a file."""
    units, width = program.units, program.observation_size
    parts = {
        "observation_mean": np.broadcast_to(np.float32(units.observation_mean), width),
        "observation_std": np.broadcast_to(np.float32(units.observation_std), width),
        "action_low": np.broadcast_to(np.float32(units.action_low), program.action_size),
        "action_high": np.broadcast_to(np.float32(units.action_high), program.action_size),
    }
    for i, layer in enumerate(layers_of(program)):
        parts |= {f"kernel_{i}": layer.kernel, f"bias_{i}": layer.bias}
    return archive.pack(metadata, {f"{name}.npy": archive.array_bytes(array) for name, array in parts.items()})


def read(metadata: Metadata, parts: dict[str, bytes], source: str) -> FileAct:
    """What acts, out of a file.

    Raises:
      UserError: its arrays do not fit each other.
    """
    arrays = {name.removesuffix(".npy"): archive.array_of(content, source) for name, content in parts.items()}
    names = ["observation_mean", "observation_std", "action_low", "action_high"]
    names += [f"{what}_{i}" for i in range(len(metadata.layers)) for what in ("kernel", "bias")]
    if set(names) != set(arrays) or not set(metadata.layers) <= set(ACTIVATIONS):
        raise UserError(f"{source}: its arrays are not those of its metadata {json.dumps(metadata.layers)}")
    layers = [Layer(arrays[f"kernel_{i}"], arrays[f"bias_{i}"], one) for i, one in enumerate(metadata.layers)]
    _require_fit(metadata, arrays, layers, source)
    mean, std, low, high = (arrays[name] for name in names[:4])

    def act(observations: np.ndarray) -> np.ndarray:
        actions = forward(layers, (observations - mean) / std)
        return np.clip(low + np.float32(0.5) * (actions + np.float32(1.0)) * (high - low), low, high)

    return act


def _require_fit(metadata: Metadata, arrays: dict[str, np.ndarray], layers: Sequence[Layer], source: str) -> None:
    widths = [metadata.observation_size, *(layer.bias.size for layer in layers)]
    fitting = all(
        layer.kernel.shape == (fan_in, features) and layer.bias.shape == (features,)
        for layer, fan_in, features in zip(layers, widths, widths[1:], strict=False)
    )
    bounds = {arrays[name].shape for name in ("action_low", "action_high")}
    seen = {arrays[name].shape for name in ("observation_mean", "observation_std")}
    if (
        not fitting
        or bounds != {(metadata.action_size,)}
        or seen != {(widths[0],)}
        or widths[-1] != metadata.action_size
    ):
        raise UserError(f"{source}: shapes of its arrays do not fit each other; export it again")


def forward(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """[B, fan_in] -> [B, features] of the last layer."""
    for layer in layers:
        x = x @ layer.kernel + layer.bias
        match layer.activation:
            case "relu":
                x = np.maximum(x, 0.0)
            case "tanh":
                x = np.tanh(x)
            case "clip":
                x = np.clip(x, -1.0, 1.0)
    return x
