"""What every stage of every member of a run is doing, from the run directory's plain files alone."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.stages import STAGES, Stage
from jaxrl_srpo.report.records import Evaluation, Result, TrainingMetrics, evaluations_tail, metrics_tail, read_sweep
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member


@dataclasses.dataclass(frozen=True)
class Status:
    """A stage of a member.

    Attributes:
      result: which one.
      step: updates done.
      total: updates that the stage has.
      updates_per_second: of all members of its population together; None before its first row.
      values: what its last row measured, losses for instance, by column name.
      evaluation: its last evaluation; None before the first.
      diverged: whether it diverged and was frozen at its last good state.
      written: when its file was last written with a row of it, in seconds since the epoch; for rows that were there
        when watching began, when the file was last written with any row. None before the first.
    """

    result: Result
    step: int
    total: int
    updates_per_second: float | None
    values: dict[str, float]
    evaluation: Evaluation | None
    diverged: bool
    written: float | None

    @property
    def finished(self) -> bool:
        """Whether all its updates are done."""
        return self.step >= self.total


class _Expected(NamedTuple):
    """A stage of a member that the sweep has: its number of updates, and its name in `sweep.json`."""

    total: int
    name: str


class StatusReader:
    """Follows a run directory that other processes may be writing.

    Args:
      run_dir: run directory.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self._run = RunDirectory(pathlib.Path(run_dir))
        self._metrics_tail, self._evaluations_tail = metrics_tail(run_dir), evaluations_tail(run_dir)
        self._metrics: dict[Result, TrainingMetrics] = {}
        self._evaluations: dict[Result, Evaluation] = {}
        self._written: dict[Result, float | None] = {}

    def read(self) -> list[Status]:
        """The present state of all stages of all members, stages outermost, members in the sweep's order.

        Raises:
          UserError: not a run directory, or a file in it is damaged.
        """
        diverged = set(read_sweep(self._run.path).get("diverged", ()))
        expected = {
            result_of(member, stage): _Expected(stage.steps(member.settings), member.name(stage))
            for stage in STAGES.values()
            for member in read_members(self._run)
            if stage in member.stages
        }
        self._read_metrics()
        self._read_evaluations()
        return [self._status(result, own.total, own.name in diverged) for result, own in expected.items()]

    def _read_metrics(self) -> None:
        news = self._metrics_tail.read()
        if news.restarted:
            self._metrics.clear()
        for row in news.rows:
            self._metrics[row.result] = row
            self._written[row.result] = self._metrics_tail.written

    def _read_evaluations(self) -> None:
        news = self._evaluations_tail.read()
        if news.restarted:
            self._evaluations.clear()
        for row in news.rows:
            self._evaluations[row.result] = row

    def _status(self, result: Result, total: int, diverged: bool) -> Status:
        metrics, evaluation = self._metrics.get(result), self._evaluations.get(result)
        # A stage whose result came from another run has no metrics here, but its final evaluation has been made.
        steps = [row.step for row in (metrics, evaluation) if row is not None]
        return Status(
            result=result,
            step=max(steps, default=0),
            total=total,
            updates_per_second=metrics.updates_per_second if metrics else None,
            values=metrics.values if metrics else {},
            evaluation=evaluation,
            diverged=diverged,
            written=self._written.get(result),
        )


def read_members(run: RunDirectory) -> Sequence[Member]:
    """The members of a run directory.

    Raises:
      UserError: it is none, or its `sweep.json` is not as this version writes it.
    """
    read_sweep(run.path)
    try:
        return run.members()
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.path / 'sweep.json'} is not as this version of train writes it ({error}); train again"
        ) from None


def result_of(member: Member, stage: Stage) -> Result:
    """What rows of a stage of a member are named by."""
    row = member.row(stage)
    return Result(stage.name, row["dataset"], row["seed"], row["setting"], float(row["beta"]) if row["beta"] else None)
