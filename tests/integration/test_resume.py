"""Runs killed in the middle of a stage end bitwise where an uninterrupted run ends."""

import functools
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from jaxrl_srpo.methods import awac, srpo
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import run_comparison, synthetic
from tests.integration import kills

CHUNKS = 20
LOG_INTERVAL = 5
STEPS = CHUNKS * LOG_INTERVAL
# Evaluations between the rows of metrics.csv, so that a kill may fall between the two files.
EVALUATION_INTERVAL = 35
SETTINGS: dict[str, Any] = {
    "seeds": "0:2",
    "checkpoint_seconds": 0,
    "behavior_steps": STEPS,
    "critic_steps": STEPS,
    "policy_steps": STEPS,
    "log_interval": LOG_INTERVAL,
    "critic_evaluation_interval": EVALUATION_INTERVAL,
    "policy_evaluation_interval": EVALUATION_INTERVAL,
    "offline_steps": STEPS,
    "offline_evaluation_interval": EVALUATION_INTERVAL,
    "online_evaluation_interval": EVALUATION_INTERVAL,
}
OF_ALGORITHM: dict[str, dict[str, Any]] = {"srpo": {"beta": "0.1,0.3"}, "awac": {"online_steps": STEPS}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="module")
def uninterrupted(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """The finished run of an algorithm."""

    @functools.cache
    def run(algorithm: str) -> pathlib.Path:
        out = tmp_path_factory.mktemp("uninterrupted") / "run"
        kills.finish(command(dataset, out, algorithm), out)
        return out

    return run


@pytest.mark.parametrize(
    ("algorithm", "stage"),
    [*(("srpo", stage) for stage in srpo.METHOD.stages), ("awac", awac.STAGE), ("awac", awac.ONLINE)],
    ids=lambda value: getattr(value, "name", value),
)
def test_killed_and_started_again_it_ends_bitwise_the_same(
    algorithm: str,
    stage: Stage,
    dataset: pathlib.Path,
    uninterrupted: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
) -> None:
    whole = uninterrupted(algorithm)
    out = tmp_path / "run"
    start_before(stage, whole, out)
    dice = random.Random(f"resume {stage.name}")
    again = command(dataset, out, algorithm)
    kills.kill_in_stage(again, out, stage.name, dice.randrange(2, CHUNKS - 5), dice.uniform(0.0, 0.1))
    kills.finish(again, out)
    run_comparison.assert_same_results(out, whole)
    assert run_comparison.table(out, "metrics.csv") == run_comparison.table(whole, "metrics.csv")
    assert run_comparison.table(out, "evaluations.csv") == run_comparison.table(whole, "evaluations.csv")
    assert not list((out / "checkpoints" / "under_way").glob("*"))
    assert files(out) == files(whole)


def test_lines_and_results_lost_to_a_kill_at_the_end_come_back(
    dataset: pathlib.Path, uninterrupted: Callable[[str], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    whole = uninterrupted("srpo")
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    text = (out / "evaluations.csv").read_text()
    (out / "evaluations.csv").write_text(text[: len(text) - 9])
    with (out / "metrics.csv").open("a") as file:
        file.write("policy,pendulum,0")
    # As if it had been killed between saving the first and the second result of the last stage.
    lost = RunDirectory(out).members()[1]
    shutil.rmtree(out / "checkpoints" / "policy" / lost.address(srpo.STAGE))
    kills.finish(command(dataset, out, "srpo"), out)
    run_comparison.assert_same_results(out, whole)
    for name in ("metrics.csv", "evaluations.csv"):
        assert run_comparison.by_content(run_comparison.table(out, name)) == run_comparison.by_content(
            run_comparison.table(whole, name)
        )


def start_before(stage: Stage, finished: pathlib.Path, out: pathlib.Path) -> None:
    """A run directory that was killed right before a stage began, made of a finished one."""
    names = [own.name for own in RunDirectory(finished).members()[0].stages]
    earlier = names[: names.index(stage.name)]
    if not earlier:
        return
    out.mkdir()
    shutil.copy(finished / "sweep.json", out)
    for name in earlier:
        shutil.copytree(finished / "checkpoints" / name, out / "checkpoints" / name)
    for name in ("metrics.csv", "evaluations.csv"):
        lines = (finished / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join(line for line in lines if line.split(",")[0] in ("stage", *earlier)))


def command(dataset: pathlib.Path, out: pathlib.Path, algorithm: str) -> list[str]:
    return synthetic.train_command([dataset], out, **SETTINGS | {"algorithm": algorithm} | OF_ALGORITHM[algorithm])


def files(out: pathlib.Path) -> set[str]:
    """What lies in a run directory, down to the names of the results."""
    return {str(path.relative_to(out)) for pattern in ("*", "checkpoints/*/*") for path in out.glob(pattern)}
