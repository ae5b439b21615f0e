"""One zip file of named parts and metadata; what `numpy.load` opens if the parts are arrays."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from jaxrl_srpo.errors import UserError, first_line
from jaxrl_srpo.export.metadata import Metadata, seal, unseal

METADATA = "metadata.json"
# Zip's earliest; the time of writing would make equal files differ.
_DATE = (1980, 1, 1, 0, 0, 0)
_LARGEST = 1 << 32


def pack(metadata: Metadata, parts: Mapping[str, bytes]) -> bytes:
    """The bytes of a file; equal parts give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {METADATA: seal(metadata, parts.values()).encode(), **parts}.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def unpack(content: bytes, source: str) -> tuple[Metadata, dict[str, bytes]]:
    """Metadata and parts of a file.

    Raises:
      UserError: it is damaged, was changed, or is no policy.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > min(len(content), _LARGEST):
                raise UserError(f"{source}: it is packed as no exported policy is; export it again")
            parts = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{source} is damaged ({first_line(error)}); export it again") from None
    if METADATA not in parts:
        raise UserError(f"{source} is no exported policy: it has no {METADATA}; export one by export-policy")
    text = parts.pop(METADATA)
    return unseal(text, parts.values(), source), parts


def array_bytes(array: np.ndarray) -> bytes:
    """An array as an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array_of(content: bytes, source: str) -> np.ndarray:
    """The array of an `.npy` file; no pickle is read.

    Raises:
      UserError: it holds something else than float32 numbers.
    """
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise UserError(f"{source}: an array cannot be read ({first_line(error)}); export it again") from None
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise UserError(f"{source}: an array does not hold float32 numbers; export it again")
    return array
