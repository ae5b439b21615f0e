"""Arrays that NumPy runs, and policies that are none."""

import dataclasses
import io

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import archive, npz
from jaxrl_srpo.methods import fql, srpo
from tests.export import actors

PROGRAM = actors.program(srpo.METHOD, srpo.METHOD.stages[-1], actors.SPACES["uneven"])
LAYERS = [layer.activation for layer in npz.layers_of(PROGRAM)]
METADATA = actors.metadata(PROGRAM, "npz", LAYERS)


def test_a_few_lines_of_numpy_act() -> None:
    arrays = np.load(io.BytesIO(npz.write(PROGRAM, METADATA)))
    (observations,) = actors.inputs(PROGRAM, 5)
    x = (observations - arrays["observation_mean"]) / arrays["observation_std"]
    for i in range(2):
        x = np.maximum(x @ arrays[f"kernel_{i}"] + arrays[f"bias_{i}"], 0.0)
    x = np.tanh(x @ arrays["kernel_2"] + arrays["bias_2"])
    low, high = arrays["action_low"], arrays["action_high"]
    np.testing.assert_allclose(low + 0.5 * (x + 1.0) * (high - low), PROGRAM(observations), rtol=1e-5, atol=1e-5)
    assert LAYERS == ["relu", "relu", "tanh"]


def test_a_policy_that_draws_is_refused() -> None:
    program = actors.program(fql.METHOD, fql.METHOD.stages[-1], actors.SPACES["plain"])
    with pytest.raises(UserError, match=r"--format=npz: holds deterministic networks.*fql is none; give --format=onnx"):
        npz.layers_of(program)


def test_arrays_that_do_not_fit_are_refused() -> None:
    _, parts = archive.unpack(npz.write(PROGRAM, METADATA), "file")
    wide = parts | {"kernel_1.npy": archive.array_bytes(np.zeros((8, 9), np.float32))}
    with pytest.raises(UserError, match="file: shapes of its arrays do not fit"):
        npz.read(METADATA, wide, "file")
    with pytest.raises(UserError, match="file: its arrays are not those"):
        npz.read(dataclasses.replace(METADATA, layers=["relu", "tanh"]), parts, "file")
    with pytest.raises(UserError, match="file: its arrays are not those"):
        npz.read(dataclasses.replace(METADATA, layers=["relu", "relu", "exec"]), parts, "file")
