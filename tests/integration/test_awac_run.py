"""AWAC as a whole run: its members, its table and its policies."""

import functools
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.data import minari_writer
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import STAR, make_unflattened
from jaxrl_srpo.methods import awac
from jaxrl_srpo.report import Row
from jaxrl_srpo.report.curves import draw_fine_tuning
from jaxrl_srpo.report.records import read_evaluations, read_metrics
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from tests import synthetic

Run = tuple[pathlib.Path, list[Row]]
BATCH = synthetic.TINY["awac_batch_size"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds and two temperatures, offline and then online."""
    directory = tmp_path_factory.mktemp("awac")
    data, out = synthetic.write_pendulum(directory / "pendulum.hdf5"), directory / "run"
    settings = synthetic.TINY | {"awac_lambda": [0.3, 1.0], "seeds": range(2), "algorithm": "awac", "online_steps": 16}
    return out, jaxrl_srpo.train(data, out, log=lambda message: None, **settings)


def test_the_table_has_cloning_beside_every_temperature(run: Run) -> None:
    _, rows = run
    found = [(row.algorithm, row.setting, row.seeds) for row in rows]
    assert found[1:] == [("cloning", "", 2)] + [
        (algorithm, setting, 2)
        for algorithm in ("awac", "awac_online")
        for setting in ("awac_lambda=0.3", "awac_lambda=1")
    ]
    cloning, *weighed = rows[1:4]
    assert cloning.effective_sample_size is None
    sizes = [row.effective_sample_size or 0.0 for row in weighed]
    assert all(1.0 / BATCH <= size < 1.0 for size in sizes)
    assert sizes[0] < sizes[1]


def test_a_run_that_finds_results_of_another_knows_what_they_measured(tmp_path: pathlib.Path) -> None:
    data = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    options = Options(artefacts=tmp_path / "artefacts")
    settings = synthetic.TINY | {"seeds": [0], "algorithm": "awac", "log": lambda message: None}
    first, second = (
        jaxrl_srpo.train(data, tmp_path / name, options=options, **settings)[-1] for name in ("first", "second")
    )
    assert first.effective_sample_size is not None
    assert second == first
    rows = {name: read_metrics(tmp_path / name) for name in ("first", "second")}
    assert [row.stage for row in rows["second"]] == ["cloning", "awac"]
    assert rows["second"][-1] == rows["first"][-1]


def test_equal_data_of_two_tasks_are_learned_from_in_each(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random data that never reach either of two goals are the same for both."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    goals = {f"explored/star-goal{distance}-v0": [0, distance] for distance in (9, 12)}

    def play(environment: gymnasium.Env) -> Iterator[dict[str, Any]]:
        ends = np.arange(50) == 49
        states, actions = (np.random.default_rng(0).uniform(-1, 1, (n, 2)).astype(np.float32) for n in (51, 50))
        yield {
            "observations": states,
            "actions": actions,
            "rewards": np.zeros(50),
            "terminations": np.zeros(50, bool),
            "truncations": ends,
        }

    for name, goal in goals.items():
        task = EnvironmentSpec(STAR, {"goal": goal}, 50, goal_task=True)
        make_environment = functools.partial(make_unflattened, task)
        description = {"description": "random", "algorithm_name": "random"}
        minari_writer.write_dataset(name, make_environment, play, description)
    settings = synthetic.TINY | {"seeds": [0], "algorithm": "awac", "online_steps": 16, "log": lambda message: None}
    rows = jaxrl_srpo.train(list(goals), tmp_path / "run", **settings)
    algorithms = ("data", "cloning", "awac", "awac_online")
    assert [(row.dataset, row.algorithm) for row in rows] == [(name, each) for name in goals for each in algorithms]
    first, second = RunDirectory(tmp_path / "run").members()
    assert first.address(awac.STAGE) == second.address(awac.STAGE)
    assert first.address(awac.ONLINE) != second.address(awac.ONLINE)


def test_the_largest_weight_is_logged(run: Run) -> None:
    out, _ = run
    rows = [row for row in read_metrics(out) if row.stage == "awac"]
    assert len(rows) == 8
    assert all(1.0 < row.values["max_weight"] <= BATCH for row in rows)


def test_online_it_goes_on_from_its_own_state_and_is_evaluated_before_during_and_after(run: Run) -> None:
    out, _ = run
    rows = [row for row in read_evaluations(out) if row.algorithm == "awac_online"]
    assert Counter(row.step for row in rows) == {0: 4, 8: 4, 16: 4}
    assert {row.step for row in rows if row.final} == {16}
    offline = {(row.seed, row.setting): row.mean for row in read_evaluations(out) if row.stage == "awac" and row.final}
    assert {(row.seed, row.setting): row.mean for row in rows if row.step == 0} == offline
    directory = RunDirectory(out)
    member = directory.members()[0]
    before, after = (load_result(directory, stage, member) for stage in (awac.STAGE, awac.ONLINE))
    # The counts of Adam's steps show that its moments went on as well.
    assert (before.step, after.step) == (8, 24)
    assert after.q.opt_state.count == 24
    assert not np.array_equal(*(state.q.params["heads"]["Dense_0"]["Dense_0"]["kernel"] for state in (before, after)))


def test_the_picture_marks_the_switch(run: Run) -> None:
    out, _ = run
    figure = draw_fine_tuning(out)
    assert figure is not None
    (panel,) = figure.axes
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert np.asarray(lines["switch to the environment"].get_xdata()).tolist() == [0, 0]
    assert np.asarray(lines["AWAC, online"].get_xdata()).tolist() == [0, 8, 16]
    assert (out / "report" / "fine_tuning.png").exists()


@pytest.mark.parametrize("algorithm", ["awac", "cloning", "awac_online"])
def test_policies_act_alone_as_in_a_batch(run: Run, algorithm: str) -> None:
    out, _ = run
    policy = jaxrl_srpo.load_policy(out, seed=1, algorithm=algorithm, awac_lambda=1.0)
    observations = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)
    actions = policy(observations)
    assert actions.shape == (4, 1)
    assert np.all(np.abs(actions) <= 2.0)
    np.testing.assert_allclose([policy(one) for one in observations], actions, atol=1e-6)


def test_other_bounds_of_actions_than_the_environments_are_refused_online(tmp_path: pathlib.Path) -> None:
    data = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    with h5py.File(data, "a") as file:
        file.attrs.update(action_low=[-3.0], action_high=[3.0])
    settings = synthetic.TINY | {"algorithm": "awac", "online_steps": 8}
    with pytest.raises(jaxrl_srpo.UserError, match=r"lie in \[-3, 3\], those of .* in \[-2, 2\]; to learn online"):
        jaxrl_srpo.train(data, tmp_path / "run", log=lambda message: None, **settings)
    assert not (tmp_path / "run").exists()
