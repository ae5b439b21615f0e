"""Names and paths find their datasets."""

import hashlib
import pathlib

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import loading
from jaxrl_srpo.data.loading import read_dataset
from jaxrl_srpo.errors import DatasetError
from tests.data.test_download import serving


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXRL_SRPO_MIRROR", raising=False)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    random = np.random.default_rng(0)
    observations = np.cumsum(random.normal(size=(50, 11)), axis=0).astype(np.float32)
    path = tmp_path / "some.hdf5"
    with h5py.File(path, "w") as content:
        content["observations"] = observations
        content["actions"] = random.uniform(-1, 1, (50, 3)).astype(np.float32)
        content["rewards"] = np.ones(50, np.float32)
        content["terminals"] = np.arange(50) == 24
        content["timeouts"] = np.zeros(50, bool)
    return path


def test_path(file: pathlib.Path) -> None:
    data = read_dataset(file)
    assert (data.name, data.source, data.size, data.family) == ("some", str(file), 49, "other")
    assert read_dataset(str(file), env="Hopper-v4").family == "locomotion"


def test_d4rl_name_is_downloaded_from_a_mirror_once(file: pathlib.Path, cache: pathlib.Path) -> None:
    with serving(plan=["cut"]) as server:
        server.content = file.read_bytes()
        data = read_dataset("hopper-medium-v2", mirror=f"{server.url}/offline", progress=False)
        assert {path for path, _ in server.asked} == {"/offline/gym_mujoco_v2/hopper_medium-v2.hdf5"}
        assert len(server.asked) == 2
        again = read_dataset("hopper-medium-v2", mirror=server.url, progress=False)
        assert len(server.asked) == 2
    assert data.source == str(cache / "gym_mujoco_v2" / "hopper_medium-v2.hdf5")
    assert (data.name, data.size, data.family) == ("hopper-medium-v2", 49, "locomotion")
    assert data.reference is not None
    assert data.reference.expert == 3234.3
    assert data.fingerprint == again.fingerprint == read_dataset(file).fingerprint


def test_mirror_by_environment_variable(
    file: pathlib.Path, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        server.content = file.read_bytes()
        monkeypatch.setenv("JAXRL_SRPO_MIRROR", server.url)
        path = loading.d4rl_file("hopper-medium-v2", progress=False)
    assert path.read_bytes() == file.read_bytes()


def test_a_mirror_may_have_no_folders(file: pathlib.Path, cache: pathlib.Path) -> None:
    with serving(folders=False) as server:
        server.content = file.read_bytes()
        path = loading.d4rl_file("hopper-medium-v2", mirror=server.url, progress=False)
        assert [path for path, _ in server.asked] == ["/gym_mujoco_v2/hopper_medium-v2.hdf5", "/hopper_medium-v2.hdf5"]
    assert path == cache / "gym_mujoco_v2" / "hopper_medium-v2.hdf5"


def test_the_checksum_of_the_first_download_holds_for_every_later_use(file: pathlib.Path, cache: pathlib.Path) -> None:
    with serving() as server:
        server.content = file.read_bytes()
        path = loading.fetch_d4rl_file("hopper-medium-v2", mirror=server.url, progress=False)
        noted = (cache / "SHA256SUMS").read_text()
        assert noted == f"{hashlib.sha256(server.content).hexdigest()}  gym_mujoco_v2/hopper_medium-v2.hdf5\n"
        with path.open("ab") as content:
            content.write(b"x")
        for use in (loading.d4rl_file, loading.fetch_d4rl_file):
            with pytest.raises(DatasetError, match=r"hopper_medium-v2.hdf5 has SHA-256 .*SHA256SUMS says .*; delete"):
                use("hopper-medium-v2", progress=False)
        path.unlink()
        server.content += b"x"
        with pytest.raises(DatasetError, match=r"what came has SHA-256"):
            loading.d4rl_file("hopper-medium-v2", mirror=server.url, progress=False)
        assert not path.exists()
        (cache / "SHA256SUMS").unlink()
        assert loading.d4rl_file("hopper-medium-v2", mirror=server.url, progress=False) == path
    assert (cache / "SHA256SUMS").read_text() != noted


def test_a_person_gives_checksums(file: pathlib.Path, cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  hopper_medium-v2.hdf5\n")
    wrong.write_text(f"{'0' * 64}  gym_mujoco_v2/hopper_medium-v2.hdf5\n")
    with serving() as server:
        server.content = file.read_bytes()
        with pytest.raises(DatasetError, match=r"what came has SHA-256 \w{64}, where .*wrong says 0{64}"):
            loading.fetch_d4rl_file("hopper-medium-v2", mirror=server.url, sums=wrong, progress=False)
        path = loading.fetch_d4rl_file("hopper-medium-v2", mirror=server.url, sums=right, progress=False)
    with pytest.raises(DatasetError, match=r"hopper_medium-v2.hdf5 has SHA-256 \w{64}, where .*wrong says 0{64}"):
        loading.fetch_d4rl_file("hopper-medium-v2", sums=wrong)
    assert loading.fetch_d4rl_file("hopper-medium-v2", sums=right) == loading.d4rl_file("hopper-medium-v2") == path


def test_a_file_put_there_by_hand_is_read_and_noted_by_data_download(file: pathlib.Path, cache: pathlib.Path) -> None:
    place = cache / "gym_mujoco_v2" / "hopper_medium-v2.hdf5"
    place.parent.mkdir(parents=True)
    place.write_bytes(file.read_bytes())
    assert loading.d4rl_file("hopper-medium-v2") == place
    assert not (cache / "SHA256SUMS").exists()
    assert loading.fetch_d4rl_file("hopper-medium-v2") == place
    assert (cache / "SHA256SUMS").exists()


def test_d4rl_name_without_downloading(cache: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match=r"hopper-medium-v2 is not at .*hopper_medium-v2\.hdf5; fetch it with"):
        read_dataset("hopper-medium-v2", fetch=False)


def test_unknown_names_show_the_closest_and_the_forms(cache: pathlib.Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read_dataset("hoper-medium-v2")
    message = str(caught.value)
    assert message.startswith("unknown dataset 'hoper-medium-v2'; closest: hopper-medium-v2")
    assert "an .hdf5 or .npz file, a D4RL name" in message
    with pytest.raises(DatasetError, match=r"unknown dataset 'xyzzy'; expected an .hdf5 or .npz file"):
        read_dataset("xyzzy")


@pytest.mark.parametrize("name", ["missing.hdf5", "missing.npz", "./missing", "/nowhere/missing.hdf5"])
def test_missing_file(name: str, cache: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match=f"no dataset file at {name}; expected"):
        read_dataset(name)


def test_minari_id_that_is_not_here(cache: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="Minari dataset 'some/where-v0' is not at"):
        read_dataset("some/where-v0")


def test_minari_id(monkeypatch: pytest.MonkeyPatch, test_data: pathlib.Path) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(test_data / "minari"))
    data = read_dataset("D4RL/door/human-v2")
    assert (data.name, data.size) == ("D4RL/door/human-v2", 6729)


def test_embedded_datasets_are_not_made_here(cache: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match=r"is not at .*make it with `jaxrl-srpo data make pointmaze/umaze`"):
        read_dataset("pointmaze/umaze")
