"""Commands that train, up to where training begins; whole runs are in tests/integration."""

import pathlib

import pytest

from jaxrl_srpo.cli.main import main
from jaxrl_srpo.errors import UserError


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=run"], "--datasets: is required; for instance"),
        (["--datasets=hopper-medium-v2"], "--out: is required; for instance"),
        (["hopper-medium-v2"], "hopper-medium-v2: unexpected; COMMAND takes flags only"),
    ],
)
def test_a_sweep_needs_datasets_and_a_place(command: str, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("COMMAND", command)):
        main([command, *arguments])


def test_only_train_tracks(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="--track: is for train; `jaxrl-srpo export RUN_DIR --follow` does it"):
        main(["prepare", "--datasets=hopper-medium-v2", f"--out={tmp_path / 'run'}", "--track=tensorboard"])
    assert not (tmp_path / "run").exists()


def test_work_needs_a_prepared_run(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        main(["work", str(tmp_path)])
