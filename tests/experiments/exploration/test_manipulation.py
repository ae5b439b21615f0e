"""Exploring Gymnasium environments, from the command line to its tables and pictures, on small environments."""

import csv
import dataclasses
import math
import pathlib

import pytest

from experiments.exploration import manipulation
from experiments.exploration.manipulation_methods import PRESETS
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import policy_mixture

SLICE = ["--task=Pendulum-v1", "--axes=0,2", "--low=-1,-8", "--high=1,8", "--bin=1"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of seconds."""
    budget = PRESETS["short"]
    learner = dataclasses.replace(budget.learner, batch_size=16, width=8)
    monkeypatch.setitem(PRESETS, "short", budget._replace(steps=400, snapshots=4, learner=learner))


@pytest.mark.usefixtures("small")
def test_it_explores_measures_and_writes(tmp_path: pathlib.Path) -> None:
    flags = [f"--out={tmp_path}", *SLICE, "--explorers=random,sm4", "--seeds=0:2", "--episodes=2"]
    markdown = manipulation.main(flags)
    assert markdown == (tmp_path / "explore.md").read_text()
    assert "`state`: 2 x 16 bins of 1, at most 3.47 nats" in markdown
    with (tmp_path / "explore.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["explorer"], row["source"]) for row in rows}
    assert found == {("random", "buffer"), ("sm4", "buffer"), ("sm4", "average"), ("sm4", "last")}
    assert len(rows) == 2 * len(found)
    for row in rows:
        # The target is uniform, so divergence and entropy add up.
        assert float(row["entropy"]) + float(row["kl"]) == pytest.approx(math.log(32), abs=1e-3)
        assert 0.0 < float(row["coverage"]) <= 1.0
    for picture in ("visits.png", "curves.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    mixture = policy_mixture.load(tmp_path / "policies" / "sm4" / "1")
    assert (len(mixture.log_weights), mixture.skills) == (2, 4)


@pytest.mark.usefixtures("small")
def test_the_manipulation_task_measures_block_and_gripper(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    markdown = manipulation.main(
        [f"--out={tmp_path}", "--task=fetch-half", "--explorers=random", "--seeds=0", "--episodes=2"]
    )
    assert "`block`: 12 x 16 x 8 bins of 0.05" in markdown
    assert "`gripper`: 12 x 16 x 8 bins of 0.05" in markdown
    with (tmp_path / "explore.csv").open(newline="") as file:
        block = next(row for row in csv.DictReader(file) if row["slice"] == "block")
    # Log p* of half of the bins is 1, of the others 0, less the logarithm of what exp of it sums to.
    most = math.log(768 * (math.e + 1))
    assert most - 1 <= float(block["entropy"]) + float(block["kl"]) <= most


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task=Pendulum-v1"], "--task=Pendulum-v1: give --axes, --low and --high"),
        ([*SLICE, "--axes=0,3"], "--axes=0,3: Pendulum-v1 has observations of 3 numbers, from 0 on"),
        ([*SLICE, "--low=1,-8"], "--low=1,-8: must be below --high=1,8 on every axis"),
        ([*SLICE, "--explorers=ngu"], "--explorers=ngu: choose from random"),
        ([*SLICE, "--steps=55"], "--steps=55: give a multiple of 10"),
        (["--task=Nothing-v0", *SLICE[1:]], "unknown environment 'Nothing-v0'"),
    ],
)
def test_bad_input_is_one_line(flags: list[str], message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        manipulation.main([f"--out={tmp_path / 'out'}", *flags])
    assert not (tmp_path / "out").exists()
