"""The table and the pictures of `manipulation.py`."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.envs import marginals
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.exploration import Curve, draw_curves, draw_heat_maps, interval

from .. import common
from .manipulation_methods import Options

SOURCES = ("last", "average", "buffer")
COLUMNS = ("explorer", "seed", "slice", "source", "entropy", "coverage", "kl", "seconds")


class Result(NamedTuple):
    """An explorer's outcome.

    Attributes:
      name: name of the explorer.
      counts: visits [seeds, bins] by slice and source.
      curve: entropy of what was explored since the snapshot before, of the first slice.
      seconds: time to train all seeds.
    """

    name: str
    counts: dict[tuple[str, str], np.ndarray]
    curve: Curve
    seconds: float


def rows(result: Result, options: Options) -> list[dict[str, Any]]:
    """One row of `COLUMNS` per seed, slice and source."""
    found: list[dict[str, Any]] = []
    for (view, source), visits in result.counts.items():
        counts, everywhere = jnp.asarray(visits), jnp.ones(visits.shape[-1], bool)
        explored = view == next(iter(options.task.slices))
        target = jnp.asarray(options.task.log_target()) if explored else jnp.zeros(visits.shape[-1])
        figures = {
            "entropy": marginals.entropy(counts),
            "coverage": marginals.coverage(counts, everywhere),
            "kl": marginals.divergence(counts, target, everywhere),
        }
        for i, seed in enumerate(options.seeds):
            own = {name: float(values[i]) for name, values in figures.items()}
            about = {"explorer": result.name, "seed": seed, "slice": view, "source": source}
            found.append(about | own | {"seconds": result.seconds / len(options.seeds)})
    return found


def format_markdown(table_rows: Sequence[dict[str, Any]], options: Options) -> str:
    """Means over seeds with 95% confidence intervals of entropies, a table per slice."""
    task, budget = options.task, options.budget
    lines = [
        f"{task.environment.id}, {budget.steps} environment steps, {budget.environments} environments and "
        f"{budget.update_to_data:g} updates per step; {len(options.seeds)} seeds; policies by {options.episodes} "
        "episodes with sampled actions. H: entropy of visits in nats; mean ± 95% confidence interval over seeds; "
        "coverage: share of all bins; KL to the target. buffer: everything that was ever visited.",
    ]
    for view, grid in task.slices.items():
        bins = " x ".join(map(str, grid.shape))
        lines += ["", f"`{view}`: {bins} bins of {grid.width:g}, at most {math.log(grid.size):.2f} nats", ""]
        cells = []
        for name in dict.fromkeys(row["explorer"] for row in table_rows):
            own = [row for row in table_rows if (row["explorer"], row["slice"]) == (name, view)]
            figures = [cell for source in SOURCES for cell in _cells([row for row in own if row["source"] == source])]
            cells.append([name, *figures, f"{own[0]['seconds']:.0f}"])
        titles = [title for source in SOURCES for title in (f"{source} H", "coverage", "KL")]
        lines += common.markdown_table(["explorer", *titles, "s per seed"], cells)
    return "\n".join(lines) + "\n"


def _cells(own: Sequence[dict[str, Any]]) -> list[str]:
    if not own:
        return ["", "", ""]
    entropy = np.asarray([row["entropy"] for row in own])
    coverage, kl = (np.mean([row[name] for row in own]) for name in ("coverage", "kl"))
    return [common.mean_cell(entropy, interval(entropy), 2), f"{coverage:.3f}", f"{kl:.2f}"]


def write(results: Sequence[Result], options: Options, out: pathlib.Path) -> str:
    """Writes the table and the pictures of what was done so far; returns the table."""
    table_rows = [row for result in results for row in rows(result, options)]
    write_atomically(out / "explore.csv", common.format_csv(COLUMNS, table_rows))
    markdown = format_markdown(table_rows, options)
    write_atomically(out / "explore.md", markdown)
    name, grid = next(iter(options.task.slices.items()))
    if len(grid.shape) > 1:
        plane = grid._replace(low=grid.low[:2], shape=grid.shape[:2], axes=grid.axes[:2])
        maps = {
            result.name: {source: _seen_from_above(result, name, source, grid) for source in SOURCES}
            for result in results
        }
        draw_heat_maps(maps, plane, np.ones(plane.size, bool), out / "visits.png")
    curves = {result.name: result.curve for result in results}
    draw_curves(curves, f"entropy of new visits, {name} (nats)", math.log(grid.size), out / "curves.png")
    return markdown


def _seen_from_above(result: Result, view: str, source: str, grid: Grid) -> np.ndarray:
    """Visits of the first seed by the first two coordinates [bins]; empty where there is no policy."""
    counts = result.counts.get((view, source))
    if counts is None:
        return np.zeros(math.prod(grid.shape[:2]))
    return counts[0].reshape(*grid.shape[:2], -1).sum(-1).reshape(-1)
