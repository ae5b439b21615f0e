"""The reference computation's own gradients, by finite differences."""

from typing import Any

import numpy as np
import pytest

from tests import reference


def assert_gradient(loss: Any, params: Any) -> None:
    _, gradient = reference.value_and_grad(loss, params)
    for name, leaf in params.items():
        numeric = np.zeros_like(leaf)
        for index in np.ndindex(*leaf.shape):
            values = []
            for step in (1e-5, -1e-5):
                moved = {key: array.copy() for key, array in params.items()}
                moved[name][index] += step
                values.append(reference.value_and_grad(loss, moved)[0])
            numeric[index] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradient[name], numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("function", [reference.relu, reference.tanh, reference.mish, reference.gelu])
def test_functions(function: Any) -> None:
    x = {"x": np.linspace(-3.1, 3.2, 11)}
    assert_gradient(lambda p: (function(p["x"]) * np.arange(11.0)).sum(), x)


@pytest.mark.parametrize("function", [reference.exp, reference.sqrt, reference.absolute])
def test_functions_of_positive_numbers(function: Any) -> None:
    x = {"x": np.linspace(0.3, 2.2, 11)}
    assert_gradient(lambda p: (function(p["x"]) * np.arange(11.0)).sum(), x)


def test_a_clip_stops_gradients_outside() -> None:
    x = {"x": np.linspace(-1.9, 1.8, 12)}
    assert_gradient(lambda p: (reference.clip(p["x"], -1.0, 0.5) * np.arange(12.0)).sum(), x)


def test_layers() -> None:
    random = np.random.default_rng(0)
    params = {
        "x": random.normal(size=(4, 3)),
        "kernel": random.normal(size=(3, 5)),
        "scale": random.normal(size=5),
        "bias": random.normal(size=5),
    }
    weights = random.normal(size=(4, 10))

    def loss(p: Any) -> Any:
        h = p["x"] @ p["kernel"] + p["bias"]
        h = reference.layer_norm(h, p["scale"], p["bias"])
        return (reference.concatenate([h, h * h]) * weights).mean(-1).sum() + h.column(2).mean()

    assert_gradient(loss, params)
