"""`jaxrl-srpo select` as a person gives it."""

import pathlib
import shutil

import pytest
from absl import flags

import jaxrl_srpo
from jaxrl_srpo.cli import main
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.selection.choosing import SETTINGS
from tests import synthetic


def test_the_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["select", "--help"])
    text = capsys.readouterr().out
    assert all(f"--{flag}" in text or f"--[no]{flag}" in text for flag in SETTINGS)
    assert max(map(len, text.splitlines())) <= 120
    main.main(["--help"])
    assert "jaxrl-srpo select RUN_DIR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], r"select: takes exactly one RUN_DIR; none was given"),
        (["RUN", "RUN"], r"select: takes exactly one RUN_DIR; 2 were given"),
        (["RUN", "--by=luck"], r"--by=luck: choose one of"),
        (["RUN", "--episodes=-3"], r"--episodes=-3: must be at least 0"),
        (["RUN"], r"run is not a run directory"),
    ],
)
def test_mistakes_get_one_line(tmp_path: pathlib.Path, arguments: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        main.main(["select", *(argument.replace("RUN", str(tmp_path / "run")) for argument in arguments)])


def test_a_setting_of_another_type_is_refused() -> None:
    with pytest.raises(flags.Error, match="fqe_steps"):
        main.main(["select", "runs/x", "--fqe_steps=many"])


def test_a_run_gets_its_table(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = synthetic.write_pendulum(tmp_path / "one.hdf5")
    out = tmp_path / "run"
    options = jaxrl_srpo.Options(evaluate=False)
    jaxrl_srpo.train(str(dataset), out, range(2), options=options, algorithm="iql", **synthetic.TINY)
    fitted = ["--fqe_steps=8", "--fqe_width=8", "--fqe_batch_size=16", "--nofqe_layer_norm"]
    main.main(["select", str(out), *fitted, "--by=one_step"])
    text = capsys.readouterr().out
    assert "chosen: iql seed=" in text
    assert "the highest one_step" in text
    first = (out / "selection.csv").read_text()
    # As after a kill between two results.
    shutil.rmtree(next(path for path in (out / "checkpoints" / "fqe_critic").iterdir() if path.is_dir()))
    main.main(["select", str(out), *fitted, "--by=one_step"])
    assert capsys.readouterr().out == text
    assert (out / "selection.csv").read_text() == first
