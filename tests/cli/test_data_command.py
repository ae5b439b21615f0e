"""`jaxrl-srpo data` on a real file; its mistakes are in `test_main`."""

import hashlib
import pathlib

import numpy as np
import pytest

from jaxrl_srpo.cli import main
from jaxrl_srpo.errors import UserError
from tests import synthetic
from tests.data.swing import swing
from tests.data.test_download import serving
from tests.data.test_recording import write_with_resets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "swing.hdf5")


def test_info_says_what_is_in_a_file(dataset: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["data", "info", str(dataset), "--env=Pendulum-v1"])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dataset", "swing"] in said
    assert ["environment", "Pendulum-v1"] in said


def test_info_reads_an_archive_of_numpy_too(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "mine.npz", **swing())
    main.main(["data", "info", str(tmp_path / "mine.npz")])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dataset", "mine"] in said
    assert ["environment", "Pendulum-v1"] in said


def test_plot_draws_it_where_it_is_told(
    dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main.main(["data", "plot", str(dataset)])
    main.main(["data", "plot", str(dataset), "--out=other.png"])
    assert capsys.readouterr().out.splitlines() == ["wrote swing.png", "wrote other.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("swing.png", "other.png"))


def test_a_picture_that_cannot_be_written_is_one_line(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for out in (tmp_path / "absent" / "x.png", tmp_path):
        with pytest.raises(UserError, match=rf"--out={out}: cannot be written: "):
            main.main(["data", "plot", str(dataset), f"--out={out}"])


def test_reset_rows_go_where_they_are_told_to(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_with_resets(tmp_path / "mine.hdf5")
    main.main(["data", "info", str(tmp_path / "mine.hdf5")])
    assert "--drop_reset_rows leaves them out" in capsys.readouterr().out
    main.main(["data", "info", str(tmp_path / "mine.hdf5"), "--drop_reset_rows"])
    assert "5 reset rows are left out" in capsys.readouterr().out


def test_download_verifies_against_a_file_of_checksums(
    dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path / "cache"))
    sums = tmp_path / "sums"
    with serving() as server:
        server.content = dataset.read_bytes()
        sums.write_text(f"{'0' * 64}  hopper_medium-v2.hdf5\n")
        command = ["data", "download", "hopper-medium-v2", f"--mirror={server.url}", f"--checksums={sums}"]
        with pytest.raises(UserError, match="what came has SHA-256"):
            main.main(command)
        sums.write_text(f"{hashlib.sha256(server.content).hexdigest()}  hopper_medium-v2.hdf5\n")
        main.main(command)
    path = tmp_path / "cache" / "gym_mujoco_v2" / "hopper_medium-v2.hdf5"
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_bytes() == dataset.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "hopper-medium-v2"], "--checksums: is for `data download` only"),
        (["download", "D4RL/door/human-v2"], "--checksums=sums: is for D4RL's files; D4RL/door/human-v2 is Minari's"),
        (["download", "hopper-medium-v2"], "sums: cannot be read as checksums: .*No such file"),
    ],
)
def test_checksums_where_they_make_no_sense(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main.main(["data", *arguments, "--checksums=sums"])
