"""Files that are no HDF5 are named for what they are."""

import gzip
import io
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from jaxrl_srpo.data.formats import other_format


def archive(*names: str) -> bytes:
    """A zip archive of files of these names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"1234")
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, observations=np.zeros((3, 2)))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("x"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind", "advice"),
    [
        ("x.npz", npz(), "a NumPy archive (.npz)", "load_dataset and --datasets read it by its path"),
        ("x.npz", npz()[:50], "an archive that cannot be read", "get it again"),
        ("x.hdf5", b"\x93NUMPY" + bytes(40), "a NumPy array (.npy)", "write its arrays"),
        ("x.pt", archive("archive/data.pkl"), "a PyTorch file", "where you trust it"),
        ("x.zip", archive("a.hdf5"), "a zip archive", "unpack it first"),
        (
            "x.hdf5",
            pickle.dumps({"rewards": [1.0]}),
            "a pickle, which is not read because it can run code",
            "where you",
        ),
        ("x.pkl", pickle.dumps({"rewards": [1.0]}, protocol=0), "a pickle", "where you trust it"),
        ("x.hdf5", b"PAR1....PAR1", "Parquet", "pyarrow.parquet.read_table"),
        ("x.hdf5", b"ARROW1" + bytes(40), "Arrow", "pyarrow"),
        ("x.csv", b"a,b\n1,2\n", "CSV", "write its arrays to an .npz file"),
        ("x.json", b"{}", "JSON", "write its arrays"),
        ("x.hdf5.gz", gzip.compress(b"x", mtime=0), "packed with gzip", "unpack it first"),
        ("x.tar", tar(), "a tar archive", "unpack it first"),
        ("x.hdf5", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        ("x.hdf5", b"<!DOCTYPE html>", "a web page", "download the file itself"),
    ],
)
def test_a_format_is_named_with_the_way_out(
    tmp_path: pathlib.Path, name: str, content: bytes, kind: str, advice: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    said = other_format(str(path))
    assert said.startswith(f"is {kind}")
    assert ", not HDF5; " in said
    assert advice in said


@pytest.mark.parametrize("content", [b"", b"nothing known", b"\x80 text"])
def test_what_is_unknown_is_not_named(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "x.hdf5").write_bytes(content)
    assert other_format(str(tmp_path / "x.hdf5")) == ""
    assert other_format(str(tmp_path / "absent")) == ""
    assert other_format(str(tmp_path)) == ""
