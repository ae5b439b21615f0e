"""ONNX: names of inputs, metadata inside, and files that are refused."""

import dataclasses

import onnx as onnx_library
import onnxruntime
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import onnx
from jaxrl_srpo.export.metadata import KEY
from jaxrl_srpo.methods import fql, srpo
from tests.export import actors

PROGRAM = actors.program(srpo.METHOD, srpo.METHOD.stages[-1], actors.SPACES["plain"])
METADATA = actors.metadata(PROGRAM, "onnx")


@pytest.fixture(scope="module")
def content() -> bytes:
    return onnx.write(PROGRAM, METADATA)


def test_other_programs_read_it_and_its_metadata(content: bytes) -> None:
    model = onnx_library.load_from_string(content)
    onnx_library.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    assert entry.key == KEY
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map[KEY] == entry.value
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [("observations", [3])]
    assert onnx.metadata_of(content, "file") == METADATA


def test_noise_is_the_second_input() -> None:
    program = actors.program(fql.METHOD, fql.METHOD.stages[-1], actors.SPACES["plain"])
    session = onnxruntime.InferenceSession(onnx.write(program, actors.metadata(program, "onnx")))
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [("observations", [3]), ("noise", [2])]


def test_truncated_and_edited_files_are_refused(content: bytes) -> None:
    for end in range(1, len(content), 97):
        with pytest.raises(UserError, match=r"^file "):
            onnx.metadata_of(content[:end], "file")
    for at in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[at] ^= 1
        with pytest.raises(UserError, match=r"^file"):
            onnx.metadata_of(bytes(damaged), "file")


def test_models_of_others_are_refused(content: bytes) -> None:
    model = onnx_library.load_from_string(content)
    del model.metadata_props[:]
    with pytest.raises(UserError, match="file is no exported policy: an ONNX model without the metadata"):
        onnx.metadata_of(model.SerializeToString(), "file")
    with pytest.raises(UserError, match="file: ONNX Runtime cannot read it"):
        onnx.read(METADATA, content[:100], "file")
    noisy = dataclasses.replace(METADATA, noise=[{"kind": "normal", "size": 2}])
    with pytest.raises(UserError, match="file: its model does not take what its metadata say"):
        onnx.read(noisy, content, "file")
