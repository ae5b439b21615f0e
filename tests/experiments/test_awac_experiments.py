"""The tables of the AWAC experiments from evaluations written by hand, and the data that Pendulum is learnt from."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import awac_finetune
import awac_pendulum
from jaxrl_srpo.data.d4rl_files import read_hdf5
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.records import Evaluation
from jaxrl_srpo.report.rows import Row


def evaluation(
    algorithm: str,
    step: int,
    mean: float,
    seed: int = 0,
    setting: str = "",
    dataset: str = "pendulum",
    metric: str = "return",
) -> Evaluation:
    stage, final = algorithm, step in (5_000, 10_000)
    return Evaluation(stage, algorithm, dataset, seed, setting, None, step, final, 10, metric, mean, 1.0, mean, None)


def pendulum(cloning: float = -1_100.0, dip: float = 20.0, weakest: float = -300.0) -> list[Evaluation]:
    """Two seeds of a run that passes every check unless a number is replaced."""
    rows = []
    for seed in (0, 1):
        rows.append(evaluation("cloning", 10_000, cloning, seed))
        for value, mean in ((0.1, -150.0), (0.3, -200.0), (1.0, weakest)):
            setting = f"awac_lambda={value:g}"
            rows.append(evaluation("awac", 10_000, mean, seed, setting))
            lowest = mean - dip * seed
            online = [(0, mean), (500, lowest), (1_000, mean), (4_000, mean - 500.0), (5_000, mean)]
            rows += [evaluation("awac_online", step, score, seed, setting) for step, score in online]
    return rows


def failed(rows: list[Evaluation], exp: float = -210.0) -> list[str]:
    found = awac_pendulum.checks(rows, [evaluation("awac", 10_000, exp, seed) for seed in (0, 1)])
    return [check.name for check in found if not check.passed]


def test_a_run_as_it_should_be_passes_every_check() -> None:
    assert failed(pendulum()) == []


@pytest.mark.parametrize(
    ("rows", "exp", "names"),
    [
        (pendulum(cloning=-700.0), -210.0, ["cloning, 10k updates", "AWAC minus cloning"]),
        (pendulum(dip=61.0), -210.0, ["largest dip of a seed in the first 1k steps"]),
        (pendulum(weakest=-199.0), -210.0, ["AWAC lambda 0.1 minus lambda 1"]),
        (pendulum(), -231.0, ["softmax and clipped exp apart"]),
    ],
)
def test_what_should_not_be_is_named(rows: list[Evaluation], exp: float, names: list[str]) -> None:
    assert failed(rows, exp) == names


def test_the_summary_has_every_figure_that_was_asked_for() -> None:
    rows = pendulum()
    found = awac_pendulum.checks(rows, [evaluation("awac", 10_000, -210.0)])
    text = awac_pendulum.summarize(found, rows, [-140.0, -150.0])
    assert "| cloning, 10k updates | -1100 | at most -1000 | yes |" in text
    assert "| awac awac_lambda=0.3 |  |  | -200 (-200, -200) | -200 (-200, -200) | -200 (-200, -200) |" in text
    assert "return -145 on average" in text


def test_the_data_are_whole_episodes_ended_by_the_time_limit(tmp_path: Path) -> None:
    path = tmp_path / "pendulum_mixed.hdf5"
    returns = awac_pendulum.write_data(path, lambda observation: np.zeros(1, np.float32), good=1, random=2)
    data = read_hdf5(path)
    assert len(returns) == 1
    assert data.episode_returns[0] == pytest.approx(returns[0], rel=1e-5)
    assert (len(data.episode_returns), data.timeouts, int(data.terminals.sum())) == (3, 3, 0)
    assert data.environment is not None
    assert data.environment.id == "Pendulum-v1"
    assert (data.action_low, data.action_high) == (-2.0, 2.0)


def row(algorithm: str, mean: float, dataset: str = "hopper", **more: Any) -> Row:
    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(Row)}
    return Row(**values | {"dataset": dataset, "algorithm": algorithm, "mean": mean, "std": 1.5, "setting": ""} | more)


def test_fine_tuning_has_the_score_before_and_each_seeds_lowest_early_one() -> None:
    scores = {0: (50.0, 30.0), 1_000: (45.0, 20.0), 2_000: (40.0, 35.0), 5_000: (1.0, 1.0), 20_000: (70.0, 60.0)}
    online = [
        evaluation("awac_online", step, mean, seed, dataset="hopper", metric="normalized_score")
        for step, means in scores.items()
        for seed, mean in enumerate(means)
    ]
    (one,) = awac_finetune.fine_tuned([row("awac", 40.0), row("awac_online", 65.0, regret=0.6, unfinished=1)], online)
    assert (one.before, one.early, one.after, one.steps, one.seeds) == (40.0, 30.0, 65.0, 20_000, 2)
    line = awac_finetune.fine_tuning_table([one]).splitlines()[-1]
    assert line == "| hopper | AWAC, online |  | 2 | 20,000 | 40.0 | 30.0 | 65.0 ± 1.5 (unfinished) | 0.600 |  |"


def test_published_scores_name_the_file_that_they_are_of() -> None:
    rows = [row("awac", 3.0, dataset="D4RL/door/human-v2", seeds=4, effective_sample_size=0.25)]
    line = awac_finetune.offline_table(rows).splitlines()[-1]
    assert line == "| D4RL/door/human-v2 | AWAC |  | 4 | 3.0 ± 1.5 | 2.39 (door-human-v1) | 0.250 |"


def test_a_directory_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        awac_finetune.main([f"--run={tmp_path / 'none'}", f"--out={tmp_path / 'out'}"])
