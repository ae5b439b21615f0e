"""What scores cost, counted by hand in a written run, and measured in a trained one."""

import csv
import io
import math
import pathlib

import numpy as np
import pytest

from experiments.benchmarks import costs
from experiments.benchmarks.costs import Cost
from experiments.benchmarks.sampling_speed_report import Latency
from jaxrl_srpo import api
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import iql, srpo
from jaxrl_srpo.report.records import Result
from tests import synthetic
from tests.report import written_run


def cost(dataset: str, algorithm: str, score: float, seconds: float, acting: float) -> Cost:
    stages, latency = {algorithm: seconds}, Latency(acting, math.nan, 3)
    return Cost(dataset, algorithm, algorithm.upper(), "normalized_score", "", 2, score, 1.0, stages, latency, latency)


COSTS = [
    cost("a", "one", 10.0, 3.0, 1e-4),
    cost("a", "two", 20.0, 30.0, 1e-2),
    cost("b", "one", 30.0, 5.0, 3e-4),
]


def test_a_member_trains_for_its_share_of_the_populations_time(tmp_path: pathlib.Path) -> None:
    """Of the speed of all members together: 100 updates at 50 a second are two seconds of the whole device."""
    metrics = (
        "stage,dataset,seed,setting,beta,step,updates_per_second,loss\n"
        "behavior,x,0,,,100,50.0,2.0\n"
        "behavior,x,0,,,300,100.0,1.0\n"
        "policy,x,0,,0.1,10,,1.0\n"
        "policy,x,0,,0.1,30,5.0,1.0\n"
    )
    first, second = written_run.write(tmp_path / "one", metrics=metrics), tmp_path / "two"
    written_run.write(second, metrics=metrics.replace("50.0", "1.0").replace("policy", "critic"))
    found = costs.training_seconds([first, second])
    assert found == {
        Result("behavior", "x", 0, "", None): 100 / 50 + 200 / 100,
        Result("policy", "x", 0, "", 0.1): 20 / 5,
        Result("critic", "x", 0, "", 0.1): 20 / 5,
    }


def test_a_policy_needs_all_stages_below_it() -> None:
    names = [stage.name for stage in costs.needed(srpo.STAGE)]
    assert names == ["behavior", "critic", "policy"]
    assert costs.needed(iql.STAGE) == [iql.STAGE]


def test_averages_are_of_methods_that_have_every_dataset() -> None:
    (mean,) = costs.averages(COSTS)
    assert (mean.algorithm, mean.score, mean.training) == ("one", 20.0, 4.0)
    assert mean.one.median == pytest.approx(2e-4)
    assert costs.averages(COSTS[:2]) == []


def test_the_picture_has_a_point_for_every_method_and_dataset() -> None:
    figure = costs.draw(COSTS)
    titles = [panel.get_title(loc="left") for panel in figure.axes[::2]]
    assert titles == ["mean of all", "a", "b"]
    labels = [panel.get_legend_handles_labels()[1] for panel in figure.axes]
    assert labels == [["ONE"], ["ONE"], ["ONE", "TWO"], ["ONE", "TWO"], ["ONE"], ["ONE"]]
    # The second method of the first dataset, in milliseconds.
    points = [np.asarray(line.get_xydata()) for line in figure.axes[3].get_lines() if line.get_marker() in ("o", "s")]
    np.testing.assert_allclose(points, [[[0.1, 10.0]], [[10.0, 20.0]]])


def test_tables_say_what_the_points_are() -> None:
    rows = list(csv.DictReader(io.StringIO(costs.to_csv(COSTS))))
    assert [(row["dataset"], row["algorithm"], row["training_seconds"]) for row in rows][1] == ("a", "two", "30")
    assert (rows[1]["training_stages"], rows[1]["acting_us"], rows[1]["acting_p99_us"]) == ("two=30", "10000", "")
    markdown = costs.to_markdown(COSTS)
    assert "| a | ONE | 10.0 ± 1.0 | 3 s | one 3 s | 0.1 ms | 0.1 ms |" in markdown


def test_a_run_is_measured(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    values = synthetic.TINY | {"td3_bc_steps": 8, "td3_bc_width": 8, "td3_bc_batch_size": 8}
    api.train(str(data), tmp_path / "run", (0,), algorithm=["td3_bc"], **values)
    arguments = [f"--run={tmp_path / 'run'}", "--seconds=0", "--rounds=1", f"--out={tmp_path / 'out'}"]
    found = {one.algorithm: one for one in costs.main(arguments)}
    assert set(found) == set(found["td3_bc"].stages) == {"td3_bc"}
    assert all(one.training > 0.0 and one.one.median > 0.0 and one.many.median > 0.0 for one in found.values())
    assert (tmp_path / "out" / "costs.png").stat().st_size > 10_000
    assert "# What scores cost" in capsys.readouterr().out


def test_runs_without_scores_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="--run: is required"):
        costs.main([f"--out={tmp_path}"])
    with pytest.raises(UserError, match="is not a run directory"):
        costs.main([f"--out={tmp_path}", f"--run={tmp_path / 'nowhere'}"])
