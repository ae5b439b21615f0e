"""StableHLO: platforms, and programs that are not run."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import archive, stablehlo
from jaxrl_srpo.methods import srpo
from tests.export import actors

PROGRAM = actors.program(srpo.METHOD, srpo.METHOD.stages[-1], actors.SPACES["plain"])
METADATA = actors.metadata(PROGRAM, "stablehlo")


def test_it_is_one_program_for_every_platform_and_batch() -> None:
    metadata, parts = archive.unpack(stablehlo.write(PROGRAM, METADATA), "file")
    exported = jax.export.deserialize(bytearray(parts[stablehlo.PART]))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(shape) for shape in exported.in_avals[0].shape] == ["batch", "3"]
    assert metadata == METADATA


def test_a_program_that_calls_other_code_is_not_run() -> None:
    decompose = jax.jit(lambda x: jnp.linalg.qr(x)[0])
    exported = jax.export.export(decompose, platforms=["cpu"])(jax.ShapeDtypeStruct((3, 3), np.float32))
    with pytest.raises(UserError, match=r"file: its StableHLO calls lapack\w+, which no exported policy does"):
        stablehlo.read(METADATA, {stablehlo.PART: bytes(exported.serialize())}, "file")


def test_what_is_no_program_is_refused() -> None:
    for parts in ({}, {stablehlo.PART: b""}, {stablehlo.PART: b"nothing that flatbuffers know" * 9}):
        with pytest.raises(UserError, match="file: its StableHLO cannot be read"):
            stablehlo.read(METADATA, parts, "file")


def test_a_program_of_other_inputs_is_refused() -> None:
    _, parts = archive.unpack(stablehlo.write(PROGRAM, METADATA), "file")
    noisy = dataclasses.replace(METADATA, noise=[{"kind": "normal", "size": 2}])
    with pytest.raises(UserError, match="does not take what its metadata say"):
        stablehlo.read(noisy, parts, "file")
