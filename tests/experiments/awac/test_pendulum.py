"""What Pendulum should show, from evaluations written by hand, and the data that it is learned from."""

from pathlib import Path

import numpy as np
import pytest

from experiments.awac import pendulum as experiment
from jaxrl_srpo.data.d4rl_files import read_hdf5
from jaxrl_srpo.report.records import Evaluation
from tests.experiments.awac.evaluations import evaluation


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
    found = experiment.checks(rows, [evaluation("awac", 10_000, exp, seed) for seed in (0, 1)])
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
    found = experiment.checks(rows, [evaluation("awac", 10_000, -210.0)])
    text = experiment.summarize(found, rows, [-140.0, -150.0])
    assert "| cloning, 10k updates | -1100 | at most -1000 | yes |" in text
    assert "| awac awac_lambda=0.3 |  |  | -200 (-200, -200) | -200 (-200, -200) | -200 (-200, -200) |" in text
    assert "return -145 on average" in text


def test_the_data_are_whole_episodes_ended_by_the_time_limit(tmp_path: Path) -> None:
    path = tmp_path / "pendulum_mixed.hdf5"
    returns = experiment.write_data(path, lambda observation: np.zeros(1, np.float32), good=1, random=2)
    data = read_hdf5(path)
    assert len(returns) == 1
    assert data.episode_returns[0] == pytest.approx(returns[0], rel=1e-5)
    assert (len(data.episode_returns), data.timeouts, int(data.terminals.sum())) == (3, 3, 0)
    assert data.environment is not None
    assert data.environment.id == "Pendulum-v1"
    assert (data.action_low, data.action_high) == (-2.0, 2.0)
