"""Policies as ONNX, through jax2onnx: for ONNX Runtime and whatever else reads it, without JAX.

The metadata stand in the model's `metadata_props`; the SHA-256 is of all other fields of the file.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.export
import numpy as np

from jaxrl_srpo.errors import UserError, first_line
from jaxrl_srpo.export.metadata import KEY, Metadata, seal, unseal
from jaxrl_srpo.export.program import Program
from jaxrl_srpo.export.run import FileAct
from jaxrl_srpo.export.unrolled import unrolled

INPUTS = ("observations", "noise")
OUTPUT = "actions"
OPSET = 21
_PROPERTIES = 14
"""The number of the field `metadata_props` of ONNX's ModelProto."""
_VARINT, _BYTES = 0, 2
# Graph optimizers may round otherwise; a policy is so small that they save little.


def write(program: Program, metadata: Metadata) -> bytes:
    """The bytes of a file.

    Raises:
      UserError: jax2onnx is missing, or has no operation for what the policy does.
    """
    try:
        from jax2onnx import to_onnx
    except ModuleNotFoundError:
        raise UserError("--format=onnx: needs jax2onnx; pip install 'jaxrl-srpo[onnx]'") from None
    (batch,) = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
    shapes = program.shapes(batch)
    flat = unrolled(program, *shapes)

    def act(*inputs: jax.Array) -> jax.Array:
        (actions,) = jax.core.eval_jaxpr(flat.jaxpr, flat.consts, *inputs)
        return actions

    names = list(INPUTS[: len(shapes)])
    try:
        with _quiet():
            model: Any = to_onnx(
                act, shapes, model_name="policy", opset=OPSET, input_names=names, output_names=[OUTPUT]
            )
    except NotImplementedError as error:
        raise UserError(
            f"--format=onnx: {program.stage.algorithm} does what jax2onnx cannot write ({first_line(error)}); "
            "give --format=stablehlo"
        ) from None
    del model.metadata_props[:]
    payload = model.SerializeToString(deterministic=True)
    return payload + _property(KEY, seal(metadata, _without_properties(payload, "")))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps jax2onnx from telling which of its plugins need other versions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def is_model(content: bytes) -> bool:
    """Whether bytes may be an ONNX file: protocol buffers that begin with the version of the format."""
    return content[:1] == b"\x08"


def metadata_of(content: bytes, source: str) -> Metadata:
    """The metadata of a file, which is compared with them.

    Raises:
      UserError: it is damaged, was changed, or is no exported policy.
    """
    found = [value for number, _, value in _fields(content, source) if number == _PROPERTIES]
    for entry in found:
        pair = {number: value for number, _, value in _fields(entry, source)}
        if pair.get(1) == KEY.encode() and 2 in pair:
            return unseal(pair[2], _without_properties(content, source), source)
    raise UserError(f"{source} is no exported policy: an ONNX model without the metadata of export-policy")


def read(metadata: Metadata, content: bytes, source: str) -> FileAct:
    """What acts, out of a file.

    Raises:
      UserError: onnxruntime is missing, or cannot run it.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"{source}: needs onnxruntime; pip install 'jaxrl-srpo[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{source}: ONNX Runtime cannot read it ({first_line(error)}); export it again") from None
    names = [one.name for one in session.get_inputs()]
    if names != list(INPUTS[: 2 if metadata.noise else 1]) or [one.name for one in session.get_outputs()] != [OUTPUT]:
        raise UserError(f"{source}: its model does not take what its metadata say; export it again")

    def act(*arrays: np.ndarray) -> np.ndarray:
        (actions,) = session.run([OUTPUT], dict(zip(names, arrays, strict=True)))
        return np.asarray(actions)

    return act


def _without_properties(content: bytes, source: str) -> list[bytes]:
    return [content[where] for number, where, _ in _fields(content, source) if number != _PROPERTIES]


def _fields(content: bytes, source: str) -> Iterator[tuple[int, slice, bytes]]:
    """Number, place and value of every field of a message of protocol buffers; values of numbers are empty."""
    at = 0
    while at < len(content):
        start = at
        tag, at = _varint(content, at, source)
        if tag & 7 == _BYTES:
            size, at = _varint(content, at, source)
            value, at = content[at : at + size], at + size
        elif tag & 7 == _VARINT:
            value, (_, at) = b"", _varint(content, at, source)
        else:
            raise UserError(f"{source} is no ONNX file, or is damaged; export it again")
        if at > len(content):
            raise UserError(f"{source} is damaged: it ends too early; export it again")
        yield tag >> 3, slice(start, at), value


def _varint(content: bytes, at: int, source: str) -> tuple[int, int]:
    """A number and the place behind it."""
    value = 0
    for i, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise UserError(f"{source} is damaged: it ends too early; export it again")


def _property(key: str, value: str) -> bytes:
    """An entry of `metadata_props`; fields of protocol buffers may be appended."""
    entry = _field(1, key.encode()) + _field(2, value.encode())
    return _field(_PROPERTIES, entry)


def _field(number: int, value: bytes) -> bytes:
    return _written(number << 3 | _BYTES) + _written(len(value)) + value


def _written(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])
