"""Pictures over training, whose lines are compared with numbers made by hand."""

import pathlib

import numpy as np
import pytest

from jaxrl_srpo.report.curves import draw_fine_tuning, draw_learning_curves, draw_losses, write_curves
from jaxrl_srpo.report.rows import collect
from tests.report import written_run
from tests.report.written_run import EVALUATIONS, HOPPER, METRICS


def test_learning_curves_show_means_of_all_seeds(tmp_path: pathlib.Path) -> None:
    figure = draw_learning_curves(written_run.write(tmp_path))
    assert figure is not None
    left, right = figure.axes
    lines = {line.get_label(): line for line in right.get_lines()}
    np.testing.assert_array_equal(lines["SRPO, beta 0.2"].get_xydata(), [[500, 55], [1000, 50]])
    np.testing.assert_array_equal(lines["SRPO, beta 0.05"].get_xydata(), [[1000, 72]])
    assert np.asarray(lines["behavior data"].get_ydata()).tolist() == [44.5, 44.5]
    assert np.asarray(lines["behavior cloning"].get_ydata()).tolist() == [44.0, 44.0]
    assert np.asarray(lines["published score"].get_ydata()).tolist() == [95.5, 95.5]
    assert "IQL actor" in {line.get_label() for line in left.get_lines()}


def test_means_stop_where_a_seed_lags_behind(tmp_path: pathlib.Path) -> None:
    lagging = EVALUATIONS.replace(f"policy,srpo,{HOPPER},1,,0.2,1000,1,10,normalized_score,40,1,400,2,300,\n", "")
    figure = draw_learning_curves(written_run.write(tmp_path, lagging))
    assert figure is not None
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    np.testing.assert_array_equal(lines["SRPO, beta 0.2"].get_xydata(), [[500, 55]])


def test_losses_have_a_panel_for_each_stage_and_quantity(tmp_path: pathlib.Path) -> None:
    figure = draw_losses(written_run.write(tmp_path, metrics=METRICS))
    assert figure is not None
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "behavior: loss",
        "critic: q loss",
        "policy: actor loss",
    ]
    assert [panel.get_yscale() for panel in figure.axes] == ["linear", "log", "linear"]
    np.testing.assert_array_equal(figure.axes[0].get_lines()[-1].get_ydata(), [2.0, 1.0])


def test_many_datasets_and_settings_are_drawn(tmp_path: pathlib.Path) -> None:
    names = [HOPPER, "maze/one", "third"]
    evaluations, metrics = EVALUATIONS, METRICS
    for name in names[1:]:
        evaluations += EVALUATIONS.partition("\n")[2].replace(HOPPER, name).replace(",,0.", ",lr=0.1;tau=2,0.")
        metrics += METRICS.partition("\n")[2].replace(HOPPER, name).replace(",,0.", ",lr=0.1;tau=2,0.")
    run_dir = written_run.write(tmp_path, evaluations, metrics, datasets=[written_run.dataset(name) for name in names])
    assert len(collect(run_dir)) == 15
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in write_curves(run_dir))


@pytest.fixture
def own(tmp_path: pathlib.Path) -> pathlib.Path:
    """A run of a method that the package knows nothing of: on the dataset, then online; and one online alone."""
    lines = [f"{name},maze,0,,,{step},9.0,{step / 10},{step}" for name in ("pupil", "teacher") for step in (10, 20)]
    metrics = "\n".join(["stage,dataset,seed,setting,beta,step,updates_per_second,loss,surprise", *lines, ""])
    maze = written_run.dataset("maze", "success_rate", data_mean=0.2)
    evaluations = written_run.own_evaluations()
    return written_run.write(tmp_path, evaluations, metrics, datasets=[maze], stages=written_run.OWN_STAGES)


def test_a_method_of_ones_own_has_learning_curves(own: pathlib.Path) -> None:
    figure = draw_learning_curves(own)
    assert figure is not None
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "maze  ·  My method"
    lines = {line.get_label(): line for line in panel.get_lines()}
    np.testing.assert_array_equal(lines["My method"].get_xydata(), [[20, 0.25], [40, 0.5]])


def test_a_method_of_ones_own_has_fine_tuning_curves(own: pathlib.Path) -> None:
    figure = draw_fine_tuning(own)
    assert figure is not None
    (panel,) = figure.axes
    shown = {str(line.get_label()): line for line in panel.get_lines()}
    np.testing.assert_array_equal(shown["My method, online"].get_xydata(), [[0, 0.5], [20, 0.7], [40, 0.9]])
    np.testing.assert_array_equal(shown["Hermit"].get_xydata(), [[0, 0.0], [40, 0.2]])
    # What it goes on from ends where the environment begins, in the same color.
    (before,) = [line for line in panel.get_lines() if min(np.asarray(line.get_xdata())) == -20]
    np.testing.assert_array_equal(before.get_xydata(), [[-20, 0.25], [0, 0.5]])
    assert before.get_color() == shown["My method, online"].get_color() != shown["Hermit"].get_color()


def test_a_method_of_ones_own_has_panels_of_losses(own: pathlib.Path) -> None:
    figure = draw_losses(own)
    assert figure is not None
    assert [(panel.get_title(loc="left"), panel.get_xlabel()) for panel in figure.axes] == [
        ("teacher of mine: loss", "updates"),
        ("teacher of mine: surprise", "updates"),
        ("My method, online: loss", "environment steps"),
        ("My method, online: surprise", "environment steps"),
    ]


def test_the_cloning_baseline_of_a_stage_is_a_level_of_its_curve(tmp_path: pathlib.Path) -> None:
    stages = (written_run.STAGES[0], {**written_run.STAGES[1], "cloning": ""}, written_run.STAGES[2])
    figure = draw_learning_curves(written_run.write(tmp_path, stages=stages))
    assert figure is not None
    labels = [{line.get_label() for line in panel.get_lines()} for panel in figure.axes]
    assert ["behavior cloning" in own for own in labels] == [False, True]


def test_runs_without_evaluations_have_no_curves(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path, evaluations=None)
    assert draw_learning_curves(run_dir) is draw_fine_tuning(run_dir) is draw_losses(run_dir) is None
    assert write_curves(run_dir) == []
