"""A dataset in Minari's store is whole, and says what it is, before Minari reads it."""

import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import h5py
import pytest

from jaxrl_srpo.data import minari_files
from jaxrl_srpo.data.minari_source import read_minari
from jaxrl_srpo.errors import DatasetError
from tests.data.test_minari_source import edit, make


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def test_a_store_is_listed_without_being_made(store: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("made/walk-v0", [3])
    make("run-v0", [3])
    (store / ".made-half.partial" / "data").mkdir(parents=True)
    (store / ".made-half.partial" / "data" / "metadata.json").write_text("{}")
    assert minari_files.local_ids() == ["made/walk-v0", "run-v0"]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(store / "absent"))
    assert minari_files.local_ids() == []
    assert not (store / "absent").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_episodes": 3}, "the metadata say 3 episodes, main_data.hdf5 has 2; copy the whole dataset again"),
        ({"total_episodes": 1}, "the metadata say 1 episodes, main_data.hdf5 has 2"),
        ({"total_episodes": 10**18}, "the metadata say 1000000000000000000 episodes, main_data.hdf5 has 2"),
        ({"total_episodes": -1}, "total_episodes of the metadata is -1; expected a number"),
        ({"total_episodes": "2"}, "total_episodes of the metadata is '2'; expected a number"),
        ({"total_steps": None}, "total_steps of the metadata is None; expected a number"),
        ({"data_format": "zarr"}, "data_format of the metadata is 'zarr'; expected one of hdf5, arrow, parquet"),
        ({"data_format": ["hdf5"]}, r"data_format of the metadata is \['hdf5'\]; expected one of"),
        (
            {"env_spec": json.dumps({"id": "A\nB-v0"})},
            r"the id in env_spec of the metadata is 'A\\nB-v0'; expected pri",
        ),
        ({"env_spec": json.dumps({"id": "A-v0", "entry_point": "\ud800"})}, "the entry_point in env_spec"),
        ({"observation_space": "{}"}, "cannot be read: 'type'"),
        ({"minari_version": "99.0"}, "cannot be read: The installed Minari version"),
    ],
)
def test_metadata_are_checked_before_anything_is_read(
    store: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    make("made/odd-v0", [4, 4])
    edit(store, "made/odd-v0", lambda metadata: metadata | change)
    with pytest.raises(DatasetError, match=message):
        read_minari("made/odd-v0")


def without_episode(folder: pathlib.Path) -> None:
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        file.move("episode_1", "episode_2")


def without_column(folder: pathlib.Path) -> None:
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]


def cut(folder: pathlib.Path) -> None:
    os.truncate(folder / "main_data.hdf5", (folder / "main_data.hdf5").stat().st_size // 2)


def emptied(folder: pathlib.Path) -> None:
    (folder / "main_data.hdf5").write_bytes(b"")


def in_part(folder: pathlib.Path) -> None:
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        file["episode_1/rewards"].resize((4000,))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_episode, "episode 1 is missing in main_data.hdf5; copy the whole dataset again"),
        (without_column, "episode 1: rewards is missing"),
        (cut, "cannot be read: .*truncated file"),
        (emptied, "cannot be read: "),
        (in_part, "episode 1: rewards was written in part only"),
        (lambda folder: (folder / "main_data.hdf5").unlink(), "cannot be read: .*No such file"),
        (lambda folder: (folder / "metadata.json").unlink(), "cannot be read: No data found"),
        (lambda folder: (folder / "metadata.json").write_bytes(b"{\xff"), "cannot be read as JSON"),
        (lambda folder: (folder / "metadata.json").write_text("[" * 100_000), "cannot be read as JSON"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(
    store: pathlib.Path, spoil: Callable[[pathlib.Path], Any], message: str
) -> None:
    make("made/odd-v0", [4, 4])
    spoil(store / "made/odd-v0" / "data")
    with pytest.raises(DatasetError, match=message):
        read_minari("made/odd-v0")


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_folders_of_pyarrow_are_refused_in_one_line(store: pathlib.Path, data_format: str) -> None:
    pytest.importorskip("pyarrow", reason="extra `arrow` is not installed")
    make("made/odd-v0", [4, 4], data_format=data_format)
    (file,) = (store / "made/odd-v0" / "data" / "1").glob(f"*.{data_format}")
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DatasetError, match="cannot be read: "):
        read_minari("made/odd-v0")
    shutil.rmtree(file.parent)
    with pytest.raises(DatasetError, match=rf"the metadata say 2 episodes, .*, in {data_format}, has 1"):
        read_minari("made/odd-v0")


def test_without_pyarrow_the_package_is_named(store: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("made/odd-v0", [4])
    edit(store, "made/odd-v0", lambda metadata: metadata | {"data_format": "parquet"})
    (store / "made/odd-v0" / "data" / "0").mkdir()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.dataset", None)
    with pytest.raises(DatasetError, match=r"in parquet need pyarrow .* pip install 'minari\[arrow\]'"):
        read_minari("made/odd-v0")


def test_what_memory_cannot_hold_is_refused(store: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("made/large-v0", [400])
    monkeypatch.setattr(minari_files, "memory", lambda: 30_000)
    with pytest.raises(DatasetError, match="'made/large-v0' needs about 0 GiB of memory; this machine has 0 GiB"):
        read_minari("made/large-v0")
