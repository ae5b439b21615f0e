"""Files that reach beyond themselves, or claim more than there is, are refused before anything is read."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import hdf5
from jaxrl_srpo.data.d4rl_files import read_hdf5
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.processors import memory

ROWS = 20


def write(path: pathlib.Path, leave_out: str = "") -> pathlib.Path:
    """A sound file but for a field that is left out."""
    random = np.random.default_rng(0)
    fields = {
        "observations": random.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": random.uniform(-1.0, 1.0, (ROWS, 2)).astype(np.float32),
        "rewards": random.normal(size=ROWS).astype(np.float32),
        "terminals": np.arange(ROWS) % 5 == 4,
    }
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            if name != leave_out:
                file.create_dataset(name, data=values, chunks=name == "observations" or None)
    return path


def linked(path: pathlib.Path, secret: pathlib.Path) -> None:
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.ExternalLink(str(secret), "/rewards")


def soft(path: pathlib.Path, secret: pathlib.Path) -> None:
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.SoftLink("/terminals")


def raw(path: pathlib.Path, secret: pathlib.Path) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (ROWS,), np.float32, external=[(str(secret), 0, 4 * ROWS)])


def virtual(path: pathlib.Path, secret: pathlib.Path) -> None:
    layout = h5py.VirtualLayout((ROWS,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "rewards", (ROWS,))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("rewards", layout)


def hidden(path: pathlib.Path, secret: pathlib.Path) -> None:
    """Not among the fields that are read."""
    with h5py.File(path, "a") as file:
        file["rewards"] = np.zeros(ROWS)
        file.create_group("infos").create_group("deep")["x"] = h5py.ExternalLink(str(secret), "/rewards")


def unwritten(path: pathlib.Path, secret: pathlib.Path) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (ROWS,), np.float32, chunks=(5,))


CASES: list[tuple[Callable[[pathlib.Path, pathlib.Path], None], str]] = [
    (linked, r"/rewards is a link to .*secret\.hdf5:/rewards; only data in the file itself are read"),
    (soft, r"/rewards is a link to /terminals; only data in the file itself are read"),
    (raw, r"/rewards is stored in secret\.hdf5; only data in the file itself are read"),
    (virtual, r"/rewards is put together from other files; only data in the file itself are read"),
    (hidden, r"/infos/deep/x is a link to .*secret\.hdf5:/rewards"),
    (unwritten, r"/rewards has a shape, \(20,\), but was never written"),
]


@pytest.mark.parametrize(("spoil", "message"), CASES)
def test_a_file_that_refers_to_others_is_refused(
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path, pathlib.Path], None], message: str
) -> None:
    secret, path = write(tmp_path / "secret.hdf5"), write(tmp_path / "data.hdf5", "rewards")
    spoil(path, secret)
    with pytest.raises(DatasetError, match=message):
        read_hdf5(path)


def test_a_sound_file_and_a_loop_of_hard_links_are_read(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file.create_group("infos")["around"] = file["/"]
    assert read_hdf5(path).size == ROWS - 1


def test_lengths_are_compared_before_anything_is_read(tmp_path: pathlib.Path) -> None:
    """Compressed, a terabyte of zeros is a file of a few kilobytes."""
    path = write(tmp_path / "data.hdf5", "observations")
    with h5py.File(path, "a") as file:
        large = file.create_dataset("observations", (10**9, 3), np.float32, chunks=(1000, 3), compression="gzip")
        large[:1000] = 1.0
    assert os.path.getsize(path) < 100_000
    with pytest.raises(DatasetError, match=r"actions has 20 rows, observations has 1000000000"):
        read_hdf5(path)


def test_what_memory_cannot_hold_is_refused_with_the_figure(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "data.hdf5", "observations")
    rows = memory() // 4
    with h5py.File(path, "a") as file:
        large = file.create_dataset("observations", (rows, 3), np.float32, chunks=(1000, 3), compression="gzip")
        large[:1000] = 1.0
    with pytest.raises(DatasetError, match=rf"/observations says it is \({rows}, 3\), [\d,]+ GiB; this machine has"):
        read_hdf5(path)
    with pytest.raises(OSError, match=r"file signature not found"), hdf5.open_contained(__file__):
        pass


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("storage", [{}, {"chunks": (7, 3)}, {"chunks": (7, 3), "compression": "gzip"}])
def test_a_file_that_was_cut_is_no_file(tmp_path: pathlib.Path, storage: dict[str, Any], version: str) -> None:
    """HDF5 keeps where a file must end, so that a download whose length nobody told is seen to be cut."""
    with h5py.File(tmp_path / "whole", "w", libver=version) as file:
        file.create_dataset("rewards", data=np.random.default_rng(0).normal(size=(100, 3)), **storage)
    hdf5.check(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for length in (len(content) - 1, len(content) // 2, 100):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(DatasetError, match="what came is a cut or damaged HDF5 file: "):
            hdf5.check(tmp_path / "cut")
    for begin in (b"", content[:5], b"<html>"):
        (tmp_path / "none").write_bytes(begin)
        with pytest.raises(DatasetError, match="what came is no HDF5 file, it begins with b'"):
            hdf5.check(tmp_path / "none")
