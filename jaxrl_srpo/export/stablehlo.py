"""Policies as StableHLO of `jax.export`: one program for CPU, CUDA and TPU, of any batch size."""

import re

import jax
import jax.export
import numpy as np

from jaxrl_srpo.errors import UserError, first_line
from jaxrl_srpo.export import archive
from jaxrl_srpo.export.metadata import Metadata
from jaxrl_srpo.export.program import Program
from jaxrl_srpo.export.run import FileAct

PART = "policy.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
# What JAX itself needs for batches of any size and for the best of several; no other code may be named by a file.
_TARGETS = {"shape_assertion", "stablehlo.dynamic_reduce_window", "mhlo.topk", "TopK"}


def write(program: Program, metadata: Metadata) -> bytes:
    """The bytes of a file."""
    (batch,) = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
    exported = jax.export.export(jax.jit(lambda *inputs: program(*inputs)), platforms=PLATFORMS)
    return archive.pack(metadata, {PART: bytes(exported(*program.shapes(batch)).serialize())})


def read(metadata: Metadata, parts: dict[str, bytes], source: str) -> FileAct:
    """What acts, out of a file.

    Raises:
      UserError: it is no program that `write` gives.
    """
    try:
        exported = jax.export.deserialize(bytearray(parts[PART]))
        targets = set(re.findall(r"custom_call\s+@([\w.]+)", exported.mlir_module()))
    except Exception as error:
        raise UserError(f"{source}: its StableHLO cannot be read ({first_line(error)}); export it again") from None
    if unknown := sorted(targets - _TARGETS):
        raise UserError(f"{source}: its StableHLO calls {unknown[0]}, which no exported policy does; it is not run")
    inputs = 2 if metadata.noise else 1
    if len(exported.in_avals) != inputs or len(exported.out_avals) != 1:
        raise UserError(f"{source}: its StableHLO does not take what its metadata say; export it again")
    run = jax.jit(exported.call)
    device = jax.local_devices(backend="cpu")[0]

    def act(*arrays: np.ndarray) -> np.ndarray:
        return np.asarray(run(*(jax.device_put(array, device) for array in arrays)))

    return act
