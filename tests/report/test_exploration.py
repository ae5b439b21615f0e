"""Pictures of exploration: what is drawn where, and intervals that can be computed by hand."""

import pathlib

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.exploration import Curve, draw_curves, draw_heat_maps, interval

GRID = Grid((-2.0, -2.0), 1.0, (4, 4), (0, 1))


def pixels(path: pathlib.Path) -> np.ndarray:
    return matplotlib.image.imread(path)[..., :3]


@pytest.mark.parametrize("seeds", [2, 5, 11])
def test_intervals_are_those_of_students_t(seeds: int) -> None:
    values = np.random.default_rng(0).normal(size=(seeds, 3))
    wanted = stats.t.ppf(0.975, seeds - 1) * stats.sem(values, axis=0)
    np.testing.assert_allclose(interval(values), wanted, rtol=2e-3)


def test_many_seeds_have_the_interval_of_a_normal_and_one_has_none() -> None:
    values = np.array([[1.0], [-1.0]] * 50)
    assert interval(values) == pytest.approx(1.96 * np.sqrt(100 / 99) / 10)
    assert np.isnan(interval(values[:1])).all()


def test_visits_are_bright_where_they_are_and_black_where_none_is(tmp_path: pathlib.Path) -> None:
    counts = np.zeros(16)
    # Bins run through y first: x in column 3, y in row 0.
    counts[3 * 4] = 100.0
    reachable = np.ones(16, bool)
    draw_heat_maps({"method": {"source": counts}}, GRID, reachable, tmp_path / "visits.png")
    picture = pixels(tmp_path / "visits.png")
    # The map is left of the color bar, whose lower end is as dark.
    black = (picture.max(axis=-1) < 0.02)[:, : picture.shape[1] * 3 // 4]
    (top, left), (bottom, right) = (getattr(np.argwhere(black), side)(axis=0) for side in ("min", "max"))
    y, x = (np.linspace(*ends, 9)[1::2].astype(int) for ends in ((top, bottom), (left, right)))
    wanted = np.ones((4, 4), bool)
    wanted[3, 3] = False
    np.testing.assert_array_equal(black[np.ix_(y, x)], wanted)


def test_a_source_without_visits_and_unreachable_bins_are_white(tmp_path: pathlib.Path) -> None:
    sources = {"seen": np.ones(16), "never": np.zeros(16)}
    draw_heat_maps({"method": sources}, GRID, np.arange(16) < 8, tmp_path / "visits.png")
    assert not (pixels(tmp_path / "visits.png").max(axis=-1) < 0.02).mean() > 0.01
    with pytest.raises(UserError, match="pass at least one method"):
        draw_heat_maps({}, GRID, np.ones(16, bool), tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_curves_of_one_or_more_seeds_are_drawn_in_a_panel_each(tmp_path: pathlib.Path) -> None:
    steps = np.arange(0, 50_000, 10_000)
    curves = {f"method {i}": Curve(steps, np.outer(np.ones(seeds), steps / 1e4)) for i, seeds in enumerate((1, 3, 3))}
    draw_curves(curves, "bins seen", 5.0, tmp_path / "three.png")
    draw_curves(curves | {"more": curves["method 0"], "most": curves["method 1"]}, "bins", 5.0, tmp_path / "five.png")
    three, five = pixels(tmp_path / "three.png"), pixels(tmp_path / "five.png")
    assert five.shape[0] > three.shape[0]
    blue = np.abs(three - np.array([0x0B, 0x6E, 0x99]) / 255).max(axis=-1) < 0.05
    assert blue.sum() > 200
