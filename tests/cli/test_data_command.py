"""`jaxrl-srpo data` on a real file; its mistakes are in `test_main`."""

import pathlib

import pytest

from jaxrl_srpo.cli import main
from tests import synthetic


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
