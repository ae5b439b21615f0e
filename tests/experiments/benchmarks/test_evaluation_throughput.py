"""The benchmark of evaluation: what it writes, what it refuses, and that everyone plays the same."""

import csv
import pathlib

import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError

pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
evaluation_throughput = pytest.importorskip("experiments.benchmarks.evaluation_throughput")

WHO = ["one model", "Gymnasium in threads", "SyncVectorEnv", "AsyncVectorEnv"]


def test_a_small_benchmark_writes_its_three_files(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    measurements = evaluation_throughput.main(
        [f"--out={out}", "--environments=Hopper-v4", "--count=2", "--seconds=0", "--repetitions=2", "--evaluate="]
    )
    assert [one.what for one in measurements] == WHO
    rows = list(csv.DictReader((out / "evaluation_throughput.csv").read_text().splitlines()))
    assert [row["what"] for row in rows] == WHO
    assert all(0 < float(row["slowest"]) <= float(row["steps_per_second"]) <= float(row["fastest"]) for row in rows)
    assert "mujoco" in rows[0]["conditions"]
    text = (out / "evaluation_throughput.md").read_text()
    assert all(f"| Hopper-v4 | {who} |" in text for who in WHO)
    assert (out / "evaluation_throughput.png").stat().st_size > 10_000
    assert "x SyncVectorEnv" in capsys.readouterr().out


def test_environments_of_ogbench_have_the_same_contenders() -> None:
    pytest.importorskip("ogbench", reason="OGBench is not installed")
    rivals = evaluation_throughput.contenders(EnvironmentSpec("pointmaze-medium-singletask-v0"), 2)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (5, 2, 2)).astype(np.float32)
    assert list(rivals) == WHO
    for rival in rivals.values():
        assert evaluation_throughput.play(rival, actions)[1].tolist() == [-5.0, -5.0]
        rival.close()


def test_a_whole_evaluation_is_counted_and_described() -> None:
    evaluation = evaluation_throughput.evaluate(EnvironmentSpec("HalfCheetah-v4", max_episode_steps=4), 3, 2)
    assert evaluation.steps == 3 * 2 * 4
    assert 0.0 < evaluation.acting < evaluation.seconds
    assert "3 members x 2 episodes: 24 steps in" in evaluation.sentence()


def test_a_contender_that_plays_otherwise_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Still:
        def reset(self, seeds: list[int]) -> None:
            self.count = len(seeds)

        def step(self, actions: np.ndarray) -> np.ndarray:
            return np.full(self.count, float(actions[0, 0] > 2.0))

        def close(self) -> None: ...

    class Cheat(Still):
        def step(self, actions: np.ndarray) -> np.ndarray:
            return super().step(actions) + 1.0

    rivals = {"one model": Cheat(), "SyncVectorEnv": Still()}
    monkeypatch.setattr(evaluation_throughput, "contenders", lambda spec, count: rivals)
    options = evaluation_throughput.Options(("Hopper-v4",), count=2, seconds=0.0)
    with pytest.raises(UserError, match="Hopper-v4: the rewards of 'one model' are not those of SyncVectorEnv"):
        evaluation_throughput.measure(options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out: is required"),
        (["--out=x", "rest"], "rest: unexpected"),
        (["--out=x", "--environments=Hoper-v4"], "--environments=Hoper-v4: choose from Hopper-v4"),
        (["--out=x", "--evaluate=Hopper-v4,Ant-v4"], "give one environment"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluation_throughput.main(arguments)


def test_help_lists_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation_throughput.main(["--help"]) == []
    assert "--repetitions" in capsys.readouterr().out
