"""Minari's store: downloads that fail, are cut or are whole."""

import pathlib
import warnings

import minari
import pytest

from jaxrl_srpo.data import minari_source, minari_store
from jaxrl_srpo.errors import DatasetError
from tests.data.test_minari_source import make


@pytest.fixture
def datasets(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def test_download_without_its_remote(datasets: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_REMOTE", "nowhere://x")
    with pytest.raises(DatasetError, match=r"cannot download Minari dataset mine/walk-v0: .*by hand"):
        minari_store.download_minari("mine/walk-v0")


def test_an_interrupted_download_is_continued_and_a_whole_one_kept(
    datasets: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("mine/walk-v0", [3])
    file = datasets / "mine" / "walk-v0" / "data" / "main_data.hdf5"
    content, forced = file.read_bytes(), []

    def fetch(dataset_id: str, force_download: bool = False) -> None:
        print("Downloading")
        forced.append(force_download)
        if force_download:
            file.write_bytes(content)
        else:
            warnings.warn("Skipping Download. Dataset found locally.\n", UserWarning, stacklevel=1)

    monkeypatch.setattr(minari, "download_dataset", fetch)
    minari_store.download_minari("mine/walk-v0")
    file.unlink()
    minari_store.download_minari("mine/walk-v0")
    assert forced == [False, True]
    assert minari_source.read_minari("mine/walk-v0").size == 3
    assert capsys.readouterr().out == ""
    content = b"no HDF5"
    file.unlink()
    with pytest.raises(DatasetError, match="'mine/walk-v0' cannot be read: "):
        minari_store.download_minari("mine/walk-v0")
