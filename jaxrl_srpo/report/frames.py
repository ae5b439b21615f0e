"""A run's files as data frames: pandas' where it is installed, NumPy's record arrays elsewhere."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo.report.records import read_evaluations, read_metrics
from jaxrl_srpo.report.rows import collect

Frame = Any
"""A `pandas.DataFrame`, or a `numpy.recarray` with the same columns."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What a run has written so far, one line of a frame for each row.

    Attributes:
      table: one dataset, policy and setting over seeds, as in `report/table.csv`; the columns are those of `Row`.
      evaluations: one member evaluated once, as in `evaluations.csv`; the columns are those of `Evaluation`.
      metrics: one member after one chunk of updates, as in `metrics.csv`; the columns are those of `TrainingMetrics`,
        and one for each quantity that any stage measured, NaN where another stage was under way.
    """

    table: Frame
    evaluations: Frame
    metrics: Frame


def load_results(run_dir: str | os.PathLike[str]) -> Results:
    """The results of a run as data frames, also while it trains.

    Args:
      run_dir: run directory; no method's code is needed.

    Raises:
      UserError: if it is no run directory, or a file in it is damaged.
    """
    metrics = [dataclasses.asdict(row) for row in read_metrics(run_dir)]
    return Results(
        frame(map(dataclasses.asdict, collect(run_dir))),
        frame(map(dataclasses.asdict, read_evaluations(run_dir))),
        frame({name: value for name, value in row.items() if name != "values"} | row["values"] for row in metrics),
    )


def frame(records: Iterable[Mapping[str, Any]]) -> Frame:
    """Records as a frame; a column that one of them lacks, or holds None in, is NaN there."""
    rows = list(records)
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    arrays = {name: _array(values) for name, values in columns.items()}
    if importlib.util.find_spec("pandas") is not None:
        import pandas

        return pandas.DataFrame(arrays)
    found = np.empty(len(rows), [(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        found[name] = array
    return found.view(np.recarray)


def _array(values: Sequence[Any]) -> np.ndarray:
    """A column: text as objects, numbers with NaN where there is none."""
    if any(isinstance(value, str) for value in values):
        return np.array(values, object)
    if any(value is None for value in values):
        return np.array([np.nan if value is None else value for value in values], float)
    return np.array(values)
