"""Commands on a run directory that was written by hand."""

import pathlib
import sys

import pytest

from jaxrl_srpo.cli.main import main
from jaxrl_srpo.errors import UserError
from tests.report import written_run


def test_report_prints_the_table_and_what_it_wrote(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = written_run.write(tmp_path / "run", metrics=written_run.METRICS)
    main(["report", str(run_dir)])
    printed = capsys.readouterr().out
    assert "IQL actor" in printed
    for name in ("table.csv", "table.md", "learning_curves.png", "losses.png"):
        assert f"wrote {run_dir / 'report' / name}\n" in printed
        assert (run_dir / "report" / name).stat().st_size > 0


@pytest.mark.parametrize("command", ["report", "watch", "export", "verify"])
def test_what_is_no_run_directory(command: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"is not a run directory, it has no sweep\.json"):
        main([command, str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_export_looks_at_the_run_before_it_asks_for_extras(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="is not a run directory"):
        main(["export", str(tmp_path), "--to=wandb"])
