"""Policies of exported files, ready to act; what a file is follows from its content."""

import os
import pathlib
from typing import Any

import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import archive, npz, onnx, stablehlo
from jaxrl_srpo.export.metadata import Metadata
from jaxrl_srpo.export.run import FileAct, draw
from jaxrl_srpo.io.files import errors_told
from jaxrl_srpo.runs.acting import CallablePolicy


class FilePolicy(CallablePolicy):
    """A policy of an exported file; call it with one observation or a batch of them.

    Args:
      content: of the file.
      source: its path, for messages.
      calls: how many calls have drawn noise so far; each draws by a generator of its own number.

    Attributes:
      metadata: where it comes from.

    Raises:
      UserError: the file is damaged, was changed, or is no exported policy.
    """

    def __init__(self, content: bytes, source: str, calls: int = 0) -> None:
        self._content, self._source, self._calls = content, source, calls
        self.metadata, self._run = _opened(content, source)
        self.environment = self.metadata.environment_spec
        self.observation_keys = tuple(self.metadata.observation_keys)
        self._act = self._by_own_noise

    @property
    def observation_size(self) -> int:
        """Width of one observation."""
        return self.metadata.observation_size

    def act_with(self, observations: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions [B, action_size] for observations [B, observation_size] and the noise [B, n] of the file's input."""
        inputs = [observations] if noise is None else [observations, noise]
        return self._run(*(np.asarray(one, np.float32) for one in inputs))

    def _by_own_noise(self, observations: np.ndarray) -> np.ndarray:
        if not self.metadata.noise:
            return self.act_with(observations)
        generator = np.random.default_rng(self._calls)
        self._calls += 1
        return self.act_with(observations, draw(self.metadata.columns, len(observations), generator))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the bytes of its file."""
        return FilePolicy, (self._content, self._source, self._calls)


def load_file(path: str | os.PathLike[str]) -> FilePolicy:
    """The policy of a file that `export-policy` wrote.

    Raises:
      UserError: it cannot be read, is damaged, was changed, or is no exported policy.
    """
    with errors_told():
        return FilePolicy(pathlib.Path(path).read_bytes(), str(path))


def _opened(content: bytes, source: str) -> tuple[Metadata, FileAct]:
    if content[:2] == b"PK":
        metadata, parts = archive.unpack(content, source)
        if metadata.format in ("npz", "stablehlo"):
            read = npz.read if metadata.format == "npz" else stablehlo.read
            return metadata, read(metadata, parts, source)
    elif onnx.is_model(content):
        metadata = onnx.metadata_of(content, source)
        if metadata.format == "onnx":
            return metadata, onnx.read(metadata, content, source)
    raise UserError(f"{source} is no exported policy; write one by `jaxrl-srpo export-policy RUN_DIR --out=FILE`")
