"""The experiment on a small run of Pendulum, from playing it to its files."""

import csv
import pathlib
import shutil

import pytest

import jaxrl_srpo
from experiments.selection import selection, truth
from jaxrl_srpo.errors import UserError
from tests import synthetic


def test_a_run_gets_tables_and_a_picture_and_is_played_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = synthetic.write_pendulum(tmp_path / "one.hdf5")
    options = jaxrl_srpo.Options(evaluate=False)
    jaxrl_srpo.train(
        str(dataset), tmp_path / "run", range(3), options=options, algorithm="iql", log=print, **synthetic.TINY
    )
    settings = "--settings=fqe_steps=8,fqe_width=8,fqe_batch_size=16"
    monkeypatch.setattr(selection, "BUDGETS", (4, 8))
    monkeypatch.setattr(truth, "AT_ONCE", 6)
    arguments = [f"--run={tmp_path / 'run'}", "--episodes=2", "--repeats=2", settings, f"--out={tmp_path / 'out'}"]
    selection.main(arguments)
    text = (tmp_path / "out" / "selection.md").read_text()
    assert "3 policies, 2 episodes each; return" in text
    with (tmp_path / "out" / "selection.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows[:6]] == ["supported", "fqe", "one_step", "critic", "cloning", "ess"]
    assert len(rows) == 6 + 5 * 2
    assert (tmp_path / "out" / "selection.png").stat().st_size > 1000
    monkeypatch.setattr(truth, "_play", None)
    selection.main(arguments)
    assert (tmp_path / "out" / "selection.md").read_text() == text

    shutil.rmtree(tmp_path / "run" / "checkpoints" / "critic")
    with pytest.raises(UserError, match="3 of 3 policies are not trained yet"):
        selection.main(arguments)


def test_mistakes_get_one_line(tmp_path: pathlib.Path) -> None:
    out = f"--out={tmp_path}"
    with pytest.raises(UserError, match="--run: is required"):
        selection.main([out])
    with pytest.raises(UserError, match="--settings=fqe_width=wide: give NAME=NUMBER"):
        selection.main(["--run=x", "--settings=fqe_width=wide", out])
