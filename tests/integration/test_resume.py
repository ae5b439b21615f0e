"""Runs killed in the middle of a stage end bitwise where an uninterrupted run ends."""

import functools
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from jaxrl_srpo.methods.settings import StageName
from jaxrl_srpo.methods.stages import ALGORITHMS, STAGES, Stage
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import run_comparison, synthetic

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
LIMIT = 240.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="module")
def uninterrupted(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """The finished run of an algorithm."""

    @functools.cache
    def run(algorithm: str) -> pathlib.Path:
        out = tmp_path_factory.mktemp("uninterrupted") / "run"
        finish(dataset, out, algorithm)
        return out

    return run


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [*(("srpo", name) for name in ALGORITHMS["srpo"]), ("awac", "awac"), ("awac", "awac_online")],
)
def test_killed_and_started_again_it_ends_bitwise_the_same(
    algorithm: str,
    name: StageName,
    dataset: pathlib.Path,
    uninterrupted: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
) -> None:
    whole = uninterrupted(algorithm)
    stage = STAGES[name]
    out = tmp_path / "run"
    start_before(stage, whole, out)
    dice = random.Random(f"resume {name}")
    kill_in_stage(dataset, out, algorithm, stage, dice.randrange(2, CHUNKS - 5), dice.uniform(0.0, 0.1))
    finish(dataset, out, algorithm)
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
    shutil.rmtree(out / "checkpoints" / "policy" / lost.address(STAGES["policy"]))
    finish(dataset, out, "srpo")
    run_comparison.assert_same_results(out, whole)
    for name in ("metrics.csv", "evaluations.csv"):
        assert run_comparison.by_content(run_comparison.table(out, name)) == run_comparison.by_content(
            run_comparison.table(whole, name)
        )


def start_before(stage: Stage, finished: pathlib.Path, out: pathlib.Path) -> None:
    """A run directory that was killed right before a stage began, made of a finished one."""
    names = [str(own.name) for own in RunDirectory(finished).members()[0].stages]
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


def kill_in_stage(
    dataset: pathlib.Path, out: pathlib.Path, algorithm: str, stage: Stage, rows: int, delay: float
) -> None:
    """Starts the run and kills it `delay` seconds after `metrics.csv` shows that many chunks of a stage."""
    process, log = launch(dataset, out, algorithm)
    try:
        deadline = time.monotonic() + LIMIT
        while chunks_of(out, stage) < rows:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    finished = out / "checkpoints" / stage.name
    assert not finished.exists() or not any(p.name.isalnum() for p in finished.iterdir()), "it was killed too late"
    assert list((out / "checkpoints" / "under_way").glob(f"{stage.name}-*/*")), "it had no checkpoint to continue from"


def finish(dataset: pathlib.Path, out: pathlib.Path, algorithm: str) -> None:
    """Runs the same command to its end."""
    process, log = launch(dataset, out, algorithm)
    try:
        assert process.wait(LIMIT) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def launch(dataset: pathlib.Path, out: pathlib.Path, algorithm: str) -> tuple[subprocess.Popen[bytes], pathlib.Path]:
    log = out.parent / "log.txt"
    settings = SETTINGS | {"algorithm": algorithm} | OF_ALGORITHM[algorithm]
    with log.open("wb") as file:
        return synthetic.start(synthetic.train_command([dataset], out, **settings), file), log


def chunks_of(out: pathlib.Path, stage: Stage) -> int:
    """Chunks of a stage in `metrics.csv`, of the first seed and temperature."""
    path = out / "metrics.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    steps = [line.split(",")[5] for line in lines if line.startswith(f"{stage.name},") and line.count(",") > 5]
    return len(set(steps))


def files(out: pathlib.Path) -> set[str]:
    """What lies in a run directory, down to the names of the results."""
    return {str(path.relative_to(out)) for pattern in ("*", "checkpoints/*/*") for path in out.glob(pattern)}
