"""An archive is read as NumPy reads it, and whatever is wrong with one is one line."""

import io
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data import npz
from jaxrl_srpo.errors import DatasetError


def member(values: np.ndarray, shape: tuple[int, ...] | None = None, fields: dict[str, Any] | None = None) -> bytes:
    """An array as it stands in an archive, with another shape or other fields in its header if given."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(values)
    header |= {"shape": shape or values.shape} | (fields or {})
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + values.tobytes()


def archive(
    path: pathlib.Path, content: bytes, method: int = zipfile.ZIP_DEFLATED, name: str = "a.npy"
) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(name, content)
    return path


def read(path: pathlib.Path, name: str = "a") -> np.ndarray:
    with npz.open_archive(path) as file:
        return file.read(name)


NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    "values",
    [NUMBERS, np.asfortranarray(NUMBERS), NUMBERS.astype(bool), NUMBERS.astype(">i8"), np.zeros((0, 3)), np.array(2.0)],
    ids=["floats", "columns-first", "flags", "big-endian", "empty", "number"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path: pathlib.Path, values: np.ndarray, save: Any) -> None:
    save(tmp_path / "x.npz", a=values, other=np.arange(3))
    found = read(tmp_path / "x.npz")
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    with npz.open_archive(tmp_path / "x.npz") as file:
        assert file.names == ["a", "other"]
        assert file.header("a").shape == values.shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (member(NUMBERS, (10**9, 4)), r"a has shape \(1000000000, 4\), which is 16,000,000,000 bytes; 48 are there"),
        (member(NUMBERS, (3, 3)), r"a has shape \(3, 3\), which is 36 bytes; 48 are there"),
        (member(NUMBERS, (-3, -4)), "no axis can be shorter than 0"),
        (member(NUMBERS, fields={"descr": "|O"}), "a holds object; expected real numbers"),
        (member(NUMBERS, fields={"descr": "<U2"}), "a holds <U2; expected real numbers"),
        (member(NUMBERS, fields={"descr": [("x", "<f4")]}), "expected real numbers"),
        (member(NUMBERS, fields={"descr": "<c8"}), "a holds complex64; expected real numbers"),
        (b"\x93NUMPY\x03\x00" + struct.pack("<I", 2) + b"{}", r"a is of version \(3, 0\)"),
        (b"\x93NUMPY\x01\x00\xff\xff", "a cannot be read: "),
        (b"", "a cannot be read: "),
        (b"junk" * 100, "a cannot be read: "),
    ],
    ids=[
        "long",
        "short",
        "negative",
        "pickle",
        "text",
        "fields",
        "complex",
        "version",
        "cut-header",
        "nothing",
        "junk",
    ],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    path = archive(tmp_path / "x.npz", content)
    with pytest.raises(DatasetError, match=f"^{path}: .*{message}") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_field_that_is_not_there_is_named_beside_those_that_are(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "x.npz", b=NUMBERS, c=NUMBERS)
    with pytest.raises(DatasetError, match=r"missing field a; found b, c$"):
        read(tmp_path / "x.npz")


def test_another_packing_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="a is packed by method 12; expected numpy"):
        read(archive(tmp_path / "x.npz", member(NUMBERS), zipfile.ZIP_BZIP2))


def test_a_size_that_cannot_be_packed_so_tightly_is_refused(tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "x.npz", member(NUMBERS), zipfile.ZIP_STORED)
    content = path.read_bytes()
    size = struct.pack("<I", len(member(NUMBERS)))
    # In the directory at the end, where the size comes after that of the packed bytes.
    place = content.rindex(size)
    path.write_bytes(content[:place] + struct.pack("<I", 2**31) + content[place + 4 :])
    with pytest.raises(DatasetError, match=r"a says it is 2,147,483,648 bytes, packed in 176$"):
        read(path)


def test_more_than_the_memory_is_refused_before_it_is_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "memory", lambda: 47)
    with pytest.raises(DatasetError, match="this machine has 0 GiB of memory"):
        read(archive(tmp_path / "x.npz", member(NUMBERS)))


def test_every_damaged_byte_is_found_or_changes_nothing(tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "x.npz", member(NUMBERS))
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            found = read(path)
        except DatasetError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
        else:
            np.testing.assert_array_equal(found, NUMBERS)
    assert refused > len(content) / 2


def test_every_cut_is_found(tmp_path: pathlib.Path) -> None:
    path = archive(tmp_path / "x.npz", member(NUMBERS))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DatasetError, match="is no NumPy archive"):
            read(path)
        with pytest.raises(DatasetError):
            npz.check(path)


def test_a_whole_archive_passes_the_check_of_a_download(tmp_path: pathlib.Path) -> None:
    npz.check(archive(tmp_path / "x.npz", member(NUMBERS)))
    with pytest.raises(DatasetError, match="holds no array"):
        npz.check(archive(tmp_path / "y.npz", b"text", name="text"))
    with pytest.raises(DatasetError, match="cannot be read: No such file or directory"):
        npz.check(tmp_path / "none.npz")


def test_a_pickle_is_never_loaded(tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    path = archive(tmp_path / "x.npz", buffer.getvalue() + b"\x80\x04.")
    with pytest.raises(DatasetError, match="a holds object"):
        read(path)
