"""The fields of archives of NumPy's are those of arrays; nothing is unpickled, and no size that is claimed believed."""

import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data import npz_columns
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.loading import read_dataset
from jaxrl_srpo.errors import DatasetError
from tests.data.swing import swing


def write(path: pathlib.Path, *without: str, **changes: Any) -> pathlib.Path:
    fields = {key: value for key, value in (swing() | changes).items() if key not in without}
    np.savez_compressed(path, **fields)
    return path


def npy(header: str, content: bytes = b"") -> bytes:
    """An array in NumPy's format whose header says what it likes."""
    text = (header + " " * (-(len(header) + 11) % 64) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def header(shape: tuple[int, ...], kind: str = "<f8") -> str:
    return str({"descr": kind, "fortran_order": False, "shape": shape})


def replace(path: pathlib.Path, name: str, content: bytes) -> None:
    """Puts other bytes in the place of a member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, kept in (members | {f"{name}.npy": content}).items():
            archive.writestr(member, kept)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_holds_the_same_as_the_arrays(tmp_path: pathlib.Path, save: Callable[..., None]) -> None:
    fields = swing() | {"observations": np.asfortranarray(swing()["observations"]), "extra": np.array({"a": 1})}
    save(tmp_path / "mine.npz", **fields)
    data, held = read_dataset(tmp_path / "mine.npz"), Dataset.from_arrays(**swing())
    assert data.fingerprint == held.fingerprint
    # A file is called by its stem.
    assert (data.name, data.source, data.environment) == ("mine", str(tmp_path / "mine.npz"), held.environment)
    (tmp_path / "mine.npz").rename(tmp_path / "mine.hdf5")
    assert read_dataset(tmp_path / "mine.hdf5").fingerprint == held.fingerprint


def test_attributes_may_be_left_out_or_named_as_in_hdf5(tmp_path: pathlib.Path) -> None:
    _, attributes = npz_columns.read_columns(write(tmp_path / "x.npz", "env", "action_low", "action_high"))
    assert tuple(vars(attributes).values()) == (None, None, None)
    _, attributes = npz_columns.read_columns(write(tmp_path / "x.npz", "env", env_id=np.array([b"Mine-v0"])))
    assert attributes.environment == "Mine-v0"


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (pathlib.Path("unpickled"),)


def test_nothing_is_unpickled(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "x.npz", rewards=np.array([Bomb()] * 200), extra=np.array([Bomb()]))
    with pytest.raises(DatasetError, match="rewards holds object; expected real numbers"):
        read_dataset(path)
    replace(path, "rewards", pickle.dumps(Bomb()))
    with pytest.raises(DatasetError, match="rewards cannot be read: the magic string is not correct"):
        read_dataset(path)
    assert not (tmp_path / "unpickled").exists()


CASES: list[tuple[Callable[[pathlib.Path], Any], str]] = [
    (lambda path: replace(path, "rewards", npy(header((200,)), bytes(1599))), "1,600 bytes; 1,599 are there"),
    (
        lambda path: replace(path, "observations", npy(header((10**12, 3)), bytes(4800))),
        r"observations has shape \(1000000000000, 3\), which is 24,000,000,000,000 bytes; 4,800 are there",
    ),
    (lambda path: replace(path, "rewards", npy(header((-200, -1)), bytes(1600))), "rewards"),
    (lambda path: replace(path, "rewards", npy("{" * 5000)), "rewards cannot be read"),
    (lambda path: replace(path, "rewards", npy(header((200,), "|V8"), bytes(1600))), r"rewards holds \|V8; expected"),
    (lambda path: replace(path, "rewards", npy(header((200,), "nonsense"))), "rewards cannot be read"),
    (lambda path: replace(path, "rewards", b"\x93NUMPY\x03\x00" + bytes(99)), r"rewards is of version \(3, 0\)"),
    (lambda path: replace(path, "rewards", b""), "rewards cannot be read"),
    (lambda path: path.write_bytes(path.read_bytes()[:-30]), r"is no NumPy archive \(\.npz\), or is cut"),
    (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)), r"is no NumPy archive \(\.npz\), or is cut"),
    (lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)), "is an empty archive"),
    (lambda path: flip(path, 300), "observations cannot be read: "),
    (lambda path: write(path, "rewards"), "missing field rewards; found observations"),
    (lambda path: np.savez(path, obs=np.zeros(3)), r"has none of the fields observations, .*; it has obs$"),
    (lambda path: write(path, env=np.zeros(3)), r"env is \(3,\) of float64; expected the Gymnasium id as text"),
    (lambda path: write(path, env="a\nb"), r"env is 'a\\nb'; expected printable text"),
    (lambda path: write(path, action_low=np.zeros(5)), "action_low and action_high must be a number"),
    (lambda path: write(path, rewards=np.zeros(199)), "rewards has 199 rows, observations has 200"),
    (lambda path: write(path, actions=np.zeros((200, 1), int)), "actions are of type int64, as discrete ones are"),
]


def flip(path: pathlib.Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x55
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("spoil", "message"), CASES)
def test_what_is_no_sound_archive_is_one_line(
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], Any], message: str
) -> None:
    path = write(tmp_path / "x.npz")
    spoil(path)
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_zeros_that_pack_well_are_refused_with_the_figure(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Header and archive agree, so only the machine's memory says no."""
    path = write(tmp_path / "x.npz")
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != "observations.npy"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("observations.npy", npy(header((200, 10**4)), bytes(16 * 10**6)))
        for name, content in kept.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 30_000
    monkeypatch.setattr("jaxrl_srpo.data.columns.memory", lambda: 2**20)
    with pytest.raises(DatasetError, match=r"200 rows need about 0 GiB of memory; this machine has 0 GiB"):
        read_dataset(path)


def test_any_damage_gives_a_dataset_or_one_line(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.npz")
    sound, random = path.read_bytes(), np.random.default_rng(0)
    whole = read_dataset(path).fingerprint
    lines: list[str] = []
    for _ in range(150):
        content = bytearray(sound)
        for place in random.integers(len(content), size=int(random.integers(1, 4))):
            content[place] ^= 1 << int(random.integers(8))
        cut = random.integers(len(content)) if random.random() < 0.5 else len(content)
        path.write_bytes(bytes(content[:cut]))
        try:
            assert read_dataset(path, allow_invalid=True).fingerprint == whole
        except DatasetError as error:
            lines.append(str(error))
    assert len(lines) > 100
    assert not any("\n" in line for line in lines)
