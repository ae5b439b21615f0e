"""What the pictures share: curves over seeds, colors, dashes and legends."""

import pathlib

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxrl_srpo.report import drawing
from jaxrl_srpo.report.drawing import Look
from jaxrl_srpo.report.records import Evaluation


def evaluation(seed: int, step: int, mean: float, beta: float | None = None) -> Evaluation:
    scores = {"episodes": 5, "metric": "return", "mean": mean, "std": 0.0, "return_mean": mean, "success_rate": None}
    return Evaluation("policy", "srpo", "maze", seed, "", beta, step, False, **scores)  # type: ignore[arg-type]


def test_a_repeated_evaluation_replaces_the_earlier_one_and_steps_are_sorted() -> None:
    rows = [evaluation(0, 8, 1.0), evaluation(0, 4, 2.0), evaluation(0, 8, 3.0), evaluation(1, 4, 5.0, beta=0.1)]
    curves = drawing.curves_of(rows)
    steps, values = curves[None, ""][0]
    assert (steps.tolist(), values.tolist()) == ([4, 8], [2.0, 3.0])
    assert set(curves[0.1, ""]) == {1}


def test_means_are_over_the_steps_that_all_seeds_have_and_skip_what_is_not_finite() -> None:
    panel = Figure().subplots()
    lines = [
        (np.array([0, 1, 2]), np.array([1.0, 2.0, np.nan])),
        (np.array([0, 2, 3]), np.array([3.0, 5.0, 6.0])),
    ]
    steps, values = drawing.draw_mean(panel, lines, Look("mean", "black", "-"))
    assert steps.tolist() == [0, 2]
    assert values.shape == (2, 2)
    (mean,) = [line for line in panel.get_lines() if line.get_label() == "mean"]
    np.testing.assert_array_equal(mean.get_xydata(), [[0, 2.0], [2, 5.0]])


def test_a_single_point_can_be_seen(tmp_path: pathlib.Path) -> None:
    for name, value in (("point", 0.0), ("nothing", np.nan)):
        figure = Figure(figsize=(2, 2))
        panel = figure.subplots()
        panel.set(xlim=(-1, 1), ylim=(-1, 1))
        drawing.draw_mean(panel, [(np.array([0]), np.array([value]))], Look("", "black", "-"))
        drawing.save(figure, tmp_path / f"{name}.png")
    point, nothing = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("point", "nothing"))
    assert np.abs(point - nothing).max() > 0.5


def test_betas_have_colors_of_their_own_that_darken_as_they_fall() -> None:
    colors = drawing.beta_colors([0.3, None, 0.1, 0.2])
    assert list(colors) == [None, 0.1, 0.2, 0.3]
    brightness = [sum(colors[beta][:3]) for beta in (0.1, 0.2, 0.3)]
    assert brightness == sorted(brightness)
    assert len(set(colors.values())) == 4


def test_the_legend_has_every_label_once_and_a_line_per_setting() -> None:
    figure = Figure()
    panels = figure.subplots(1, 2)
    for panel in panels:
        panel.plot([0, 1], label="SRPO")
    dashes = drawing.dash_patterns(["", "expectile=0.9;tau=1"])
    drawing.draw_legend(figure, panels, dashes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SRPO", "default setting", "expectile=0.9, tau=1"]


@pytest.mark.parametrize("dpi", [50, 150])
def test_saved_pictures_are_whole_files_of_the_resolution_asked_for(tmp_path: pathlib.Path, dpi: int) -> None:
    drawing.save(Figure(figsize=(2, 1)), tmp_path / "new" / "picture.png", dpi=dpi)
    assert matplotlib.image.imread(tmp_path / "new" / "picture.png").shape[:2] == (dpi, 2 * dpi)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]
