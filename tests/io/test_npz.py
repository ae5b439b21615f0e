"""Archives that NumPy reads, written in pieces."""

import pathlib
import time

import numpy as np
import pytest

from jaxrl_srpo.io.npz import Column, write_npz

ARRAYS = {
    "observations": np.arange(24.0, dtype=np.float32).reshape(8, 3),
    "terminals": np.arange(8) % 4 == 3,
    "button_states": np.arange(16).reshape(8, 2),
}


def in_pieces(*sizes: int) -> dict[str, Column]:
    bounds = np.cumsum(sizes)[:-1]
    return {name: Column(array.shape, array.dtype, np.split(array, bounds)) for name, array in ARRAYS.items()}


def test_numpy_reads_what_was_written(tmp_path: pathlib.Path) -> None:
    write_npz(tmp_path / "x.npz", in_pieces(3, 5))
    with np.load(tmp_path / "x.npz") as archive:
        assert list(archive) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert archive[name].dtype == array.dtype
            np.testing.assert_array_equal(archive[name], array)


def test_bytes_depend_on_neither_the_time_nor_the_pieces(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "x.npz", in_pieces(8))
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_npz(tmp_path / "y.npz", in_pieces(1, 4, 3))
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_an_array_without_rows_stays_one(tmp_path: pathlib.Path) -> None:
    write_npz(tmp_path / "x.npz", {"actions": Column((0, 5), np.dtype(np.float32), [])})
    assert np.load(tmp_path / "x.npz")["actions"].shape == (0, 5)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([np.zeros((2, 3), np.float32)], "x: 2 rows instead of 4"),
        ([np.zeros((4, 3))], r"x: float64 \(4, 3\) in float32 \(4, 3\)"),
        ([np.zeros((4, 2), np.float32)], r"x: float32 \(4, 2\) in float32 \(4, 3\)"),
    ],
)
def test_pieces_must_make_the_array(tmp_path: pathlib.Path, pieces: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        write_npz(tmp_path / "x.npz", {"x": Column((4, 3), np.dtype(np.float32), pieces)})
