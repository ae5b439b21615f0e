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


def references(file: h5py.File) -> None:
    file.create_dataset("rewards", (ROWS,), h5py.ref_dtype)[:] = [file["/"].ref] * ROWS


def varying(file: h5py.File) -> None:
    file.create_dataset("rewards", (ROWS,), h5py.vlen_dtype(np.float32))[:] = [np.ones(2, np.float32)] * ROWS


def unknown(file: h5py.File) -> None:
    """A type that NumPy has no counterpart of."""
    kind = h5py.h5t.UNIX_D32LE.copy()
    space = h5py.h5s.create_simple((ROWS,))
    h5py.h5d.create(file.id, b"rewards", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(ROWS, "<u4"), kind)


def in_part(file: h5py.File) -> None:
    file.create_dataset("rewards", (ROWS,), np.float32, chunks=(5,))[:10] = 1.0


def flag_without_values(file: h5py.File) -> None:
    file["rewards"] = np.zeros(ROWS)
    file["timeouts"] = h5py.Empty(np.float32)


def flag_group(file: h5py.File) -> None:
    file["rewards"] = np.zeros(ROWS)
    file.create_group("timeouts")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.update(rewards=np.full(ROWS, b"1.0")), r"rewards holds \|S3; expected real numbers"),
        (
            lambda file: file.update(rewards=np.zeros(ROWS, [("a", "f4")])),
            r"rewards holds \[\('a', '<f4'\)\]; expected",
        ),
        (lambda file: file.update(rewards=np.zeros(ROWS, "V4")), r"rewards holds \|V4; expected real numbers"),
        (references, "rewards holds object; expected real numbers"),
        (varying, "rewards holds object; expected real numbers"),
        (unknown, "rewards cannot be read: No NumPy equivalent"),
        (in_part, "rewards was written in part only: 2 of 4 blocks are there"),
        (flag_without_values, "timeouts is empty; expected an array of numbers"),
        (flag_group, "timeouts is a group; expected an array of numbers"),
    ],
)
def test_fields_of_other_types_are_refused(
    tmp_path: pathlib.Path, spoil: Callable[[h5py.File], None], message: str
) -> None:
    path = write(tmp_path / "data.hdf5", "rewards")
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(DatasetError, match=message):
        read_hdf5(path)


def test_damaged_values_are_named(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "data.hdf5", "rewards")
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=np.arange(ROWS), chunks=(ROWS,), compression="gzip")
        place = file["rewards"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"data\.hdf5: rewards cannot be read: "):
        read_hdf5(path)


def test_other_content_of_a_file_may_be_of_any_type(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file["infos/text"] = np.full(ROWS, b"x")
        file["infos/none"] = h5py.Empty(np.float32)
        file["infos/na\nme"] = 1.0
        file.create_dataset("infos/ragged", (ROWS,), h5py.string_dtype())[:] = "x"
        file.attrs["odd"] = np.zeros(2, [("a", "f4")])
    assert read_hdf5(path).size == ROWS - 1


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


def test_names_inside_that_are_no_text_are_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "data.hdf5")
    with h5py.File(path, "a") as file:
        file[b"na\xffme"] = 1.0
    with pytest.raises(DatasetError, match=r"data\.hdf5 cannot be read: 'utf-8' codec can't decode"):
        read_hdf5(path)
