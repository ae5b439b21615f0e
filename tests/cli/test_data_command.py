"""`jaxrl-srpo data` on a real file; its mistakes are in `test_main`."""

import pathlib

import h5py
import numpy as np
import pytest

from jaxrl_srpo.cli import main
from tests import synthetic
from tests.data.test_recording import with_resets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "swing.hdf5")


def test_info_says_what_is_in_a_file(dataset: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["data", "info", str(dataset), "--env=Pendulum-v1"])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dataset", "swing"] in said
    assert ["environment", "Pendulum-v1"] in said


def test_plot_draws_it_where_it_is_told(
    dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main.main(["data", "plot", str(dataset)])
    main.main(["data", "plot", str(dataset), "--out=other.png"])
    assert capsys.readouterr().out.splitlines() == ["wrote swing.png", "wrote other.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("swing.png", "other.png"))


def test_reset_rows_go_where_they_are_told_to(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = with_resets()
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        file["observations"], file["rewards"], file["terminals"] = rows.observations, rows.rewards, rows.ends
        file["actions"] = np.zeros((len(rows.ends), 1), np.float32)
    main.main(["data", "info", str(tmp_path / "mine.hdf5")])
    assert "--drop_reset_rows leaves them out" in capsys.readouterr().out
    main.main(["data", "info", str(tmp_path / "mine.hdf5"), "--drop_reset_rows"])
    assert "5 reset rows are left out" in capsys.readouterr().out
