"""NumPy's compressed archives, written in pieces so that no array is ever in memory as a whole."""

import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

# Zip's earliest; the time of writing would make equal archives differ.
_DATE = (1980, 1, 1, 0, 0, 0)


class Column(NamedTuple):
    """An array in pieces.

    Attributes:
      shape: of the whole array.
      dtype: of its entries.
      pieces: arrays that follow each other along the first axis; they are read once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]


def write_npz(path: str | os.PathLike[str], columns: Mapping[str, Column]) -> None:
    """Writes what `numpy.savez_compressed` would write; equal columns give equal bytes.

    Args:
      path: of the archive; one that is there is overwritten.
      columns: by name, in the order in which they are stored.

    Raises:
      ValueError: pieces of another type, or that do not add up to the shape.
      OSError: the file cannot be written.
    """
    with zipfile.ZipFile(pathlib.Path(path), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, column in columns.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                head = {
                    "descr": np.lib.format.dtype_to_descr(column.dtype),
                    "fortran_order": False,
                    "shape": column.shape,
                }
                np.lib.format.write_array_header_1_0(file, head)
                rows = 0
                for piece in column.pieces:
                    if piece.dtype != column.dtype or piece.shape[1:] != column.shape[1:]:
                        raise ValueError(f"{name}: {piece.dtype} {piece.shape} in {column.dtype} {column.shape}")
                    file.write(piece.tobytes())
                    rows += len(piece)
                if rows != column.shape[0]:
                    raise ValueError(f"{name}: {rows} rows instead of {column.shape[0]}")
