"""What every stage of every member of a run is doing, from the run directory's plain files alone."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.report.outcomes import Diverged, NotTrained
from jaxrl_srpo.report.records import (
    Evaluation,
    Result,
    TrainingMetrics,
    evaluations_tail,
    metrics_tail,
    read_stages,
    read_sweep,
)
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member


@dataclasses.dataclass(frozen=True)
class Status:
    """What a stage of a member is doing.

    Attributes:
      result: the stage of a member.
      step: updates done.
      total: updates of the whole stage.
      updates_per_second: of all members of its population together; None before its first row.
      values: what its last row measured, losses for instance, by column name.
      evaluation: its last evaluation; None before the first.
      diverged: whether it diverged and was frozen at its last good state.
      written: when its last row was written, in seconds since the epoch, or when the file was last written if the row
        was there before watching began; None before the first row.
      not_trained: whether it will not be trained, because an earlier stage of the member diverged.
    """

    result: Result
    step: int
    total: int
    updates_per_second: float | None
    values: dict[str, float]
    evaluation: Evaluation | None
    diverged: bool
    written: float | None
    not_trained: bool = False

    @property
    def finished(self) -> bool:
        """Whether all its updates are done; without any, whether it was evaluated."""
        return self.step >= self.total and (self.total > 0 or self.evaluation is not None)


class MemberStage(NamedTuple):
    """One stage of one member."""

    member: Member
    stage: Stage

    @property
    def result(self) -> Result:
        """What its rows in both CSV files are named by."""
        return self.member.result(self.stage)


class StatusReader:
    """Follows a run directory that other processes may be writing.

    Args:
      run_dir: run directory.
      methods: methods of a user's own that it holds members of.
    """

    def __init__(self, run_dir: str | os.PathLike[str], methods: Sequence[Method] = ()) -> None:
        self._run = RunDirectory(pathlib.Path(run_dir), methods=methods)
        self._metrics_tail, self._evaluations_tail = metrics_tail(run_dir), evaluations_tail(run_dir)
        self._metrics: dict[Result, TrainingMetrics] = {}
        self._evaluations: dict[Result, Evaluation] = {}
        self._written: dict[Result, float | None] = {}

    def read(self) -> list[Status]:
        """The present state of all stages of all members, stages outermost, members in the sweep's order.

        Raises:
          UserError: not a run directory, or a file in it is damaged.
        """
        # Members that share a result have one line.
        expected = {each.result: each for each in read_member_stages(self._run)}
        sweep = read_sweep(self._run.path)
        diverged, not_trained = Diverged(sweep), NotTrained(sweep).results
        self._read_metrics()
        self._read_evaluations()
        return [
            dataclasses.replace(
                self._status(result, stage.steps(member.settings), diverged.has(result, stage.algorithm)),
                not_trained=result in not_trained,
            )
            for result, (member, stage) in expected.items()
        ]

    def _read_metrics(self) -> None:
        news = self._metrics_tail.read()
        before, self._metrics = self._metrics, {} if news.restarted else self._metrics
        last = {row.result: row for row in news.rows}
        self._metrics |= last
        for result, row in last.items():
            # A file is also replaced to add a column, with the same rows.
            if not news.restarted or before.get(result) != row:
                self._written[result] = self._metrics_tail.written

    def _read_evaluations(self) -> None:
        news = self._evaluations_tail.read()
        if news.restarted:
            self._evaluations.clear()
        for row in news.rows:
            self._evaluations[row.result] = row

    def _status(self, result: Result, total: int, diverged: bool) -> Status:
        metrics, evaluation = self._metrics.get(result), self._evaluations.get(result)
        # A stage whose result came from another run may have no metrics here, but its final evaluation.
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


def read_member_stages(run: RunDirectory) -> list[MemberStage]:
    """Every stage of every member: stages outermost, as they train; members in the sweep's order.

    Raises:
      UserError: not a run directory, or its `sweep.json` is not as this version writes it.
    """
    order = list(read_stages(read_sweep(run.path)))
    found = [MemberStage(member, stage) for member in run.members() for stage in member.stages]
    # Sorting is stable: stages that the list lacks come last, in the order of the members.
    return sorted(found, key=lambda each: [*order, each.stage.name].index(each.stage.name))
