"""From a run directory to tables and pictures."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import manifest
from jaxrl_srpo.io.files import errors_told, expand_home
from jaxrl_srpo.report.records import read_labels, read_sweep
from jaxrl_srpo.report.rows import Row, collect
from jaxrl_srpo.report.table import format_table, write_table

__all__ = [
    "Row",
    "collect",
    "compare_runs",
    "format_table",
    "write_maze_pictures",
    "write_report",
    "write_table",
]


@errors_told()
def write_report(run_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Writes all tables and pictures that the run has data for into `report/`, also while it still trains.

    A manifest of the files goes beside them, by which `jaxrl-srpo verify` knows them.

    Returns:
      The files written: tables, pictures, and `index.html`, a page of all of them.

    Raises:
      UserError: not a run directory, or a file in it is damaged or cannot be written.
    """
    # Drawing is imported late: a run that is only trained should not pay for it.
    from jaxrl_srpo.report.curves import write_curves
    from jaxrl_srpo.report.html import write_page

    report = expand_home(run_dir) / "report"
    (report / manifest.NAME).unlink(missing_ok=True)
    paths = [*write_table(run_dir), *write_curves(run_dir), *write_maze_pictures(run_dir)]
    paths.append(write_page([run_dir], report))
    manifest.write(report, files=paths)
    return paths


@errors_told()
def compare_runs(run_dirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `index.html` into `out`: one table over several runs, then what each of them has.

    Returns:
      The page.

    Raises:
      UserError: one is not a run directory, a file in it is damaged, or the page cannot be written.
    """
    from jaxrl_srpo.report.html import write_page

    return write_page(run_dirs, expand_home(out))


def write_maze_pictures(run_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Draws the trajectories that a run saved for its mazes; nothing for runs that saved none.

    `trajectories/<dataset, '/' replaced by '_'>.npz` holds arrays [T, 2] of x, y positions in meters, named by
    algorithm and episode: `data_0`, `bc_0`, `iql_3`, `srpo_1`.

    Returns:
      The files written.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    run_dir = expand_home(run_dir)
    sweep = read_sweep(run_dir)
    written = []
    for entry in sweep["datasets"]:
        stem = entry["name"].replace("/", "_")
        source = run_dir / "trajectories" / f"{stem}.npz"
        if entry.get("environment") is None or not source.is_file():
            continue
        panels = read_trajectories(source, read_labels(sweep))
        if panels:
            from jaxrl_srpo.report.mazes import draw_maze_trajectories

            target = run_dir / "report" / f"trajectories_{stem}.png"
            draw_maze_trajectories(EnvironmentSpec.from_json(entry["environment"]), panels, target)
            written.append(target)
    return written


def read_trajectories(path: pathlib.Path, labels: Mapping[str, str]) -> dict[str, list[np.ndarray]]:
    """Trajectories [T, 2] by panel title, in the order of the table and of the episodes.

    Raises:
      UserError: the file is damaged.
    """
    panels: dict[str, list[np.ndarray]] = {}
    try:
        # NumPy leaves a file that it opened itself open when the archive turns out to be damaged.
        with path.open("rb") as file, np.load(file) as arrays:
            saved = dict.fromkeys(key.rpartition("_")[0] for key in arrays.files)
            for algorithm in sorted(saved, key=lambda name: [*labels, name].index(name)):
                keys = [key for key in arrays.files if key.rpartition("_")[0] == algorithm]
                keys.sort(key=lambda key: int(key.rpartition("_")[2]))
                panels[labels.get(algorithm, algorithm)] = [arrays[key] for key in keys]
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it or evaluate again") from error
    return panels
