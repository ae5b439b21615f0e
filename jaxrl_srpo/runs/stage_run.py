"""One stage of one population: chunks on the device, and beside them everything else on the host."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxrl_srpo.io.checkpoint import Saved
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.population.offline import Outcome, Programs
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.report.records import TrainingMetrics
from jaxrl_srpo.runs.distributed import broadcast, broadcast_tree, coordinator
from jaxrl_srpo.runs.leases import LeaseLost
from jaxrl_srpo.runs.messages import Messages
from jaxrl_srpo.runs.progress import Progress
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import TrainingData, in_groups, make_population
from jaxrl_srpo.runs.sweep import NAMING_COLUMNS, Member

if TYPE_CHECKING:
    from jaxrl_srpo.runs.scorer import Scorer


Callback = Callable[[str, int, Sequence[TrainingMetrics]], None]
"""Gets a stage's name, the steps of each member so far, and what was measured of each since the last call."""


class How(NamedTuple):
    """How stages of a run are trained; see `trainer.Trainer`.

    Attributes:
      run: the run directory.
      data: transitions of its datasets.
      scorer: evaluates policies; None trains only.
      strategy: see `population.vectorize`.
      checkpoint_seconds: least time between two checkpoints.
      callback: called after every row of metrics.
    """

    run: RunDirectory
    data: TrainingData
    scorer: "Scorer | None"
    strategy: Strategy
    checkpoint_seconds: float
    callback: Callback | None = None


class Schedule(NamedTuple):
    """When a stage ends, is evaluated and writes rows, in steps."""

    total: int
    evaluation: int
    log: int

    def chunks(self, start: int) -> Iterator[tuple[int, int]]:
        """Pairs (from, to) of chunks after `start`, cut at every log row and evaluation."""
        while start < self.total:
            stop = min(self.total, *((start // every + 1) * every for every in (self.evaluation, self.log)))
            yield start, stop
            start = stop


class _Chunk(NamedTuple):
    """A chunk that was launched.

    Attributes:
      begin: step that it starts from.
      stop: step that it ends at.
      launched: when, in seconds of `time.monotonic`; before it was compiled.
      outcome: what it gives.
      results: of the stage so far, if an evaluation is due at its end.
      done: when the device was done with it, likewise in seconds.
    """

    begin: int
    stop: int
    launched: float
    outcome: Outcome
    results: Any
    done: Future[float]


class StageRun:
    """One stage of one population, from its last checkpoint (or the start) to its results.

    While the device runs a chunk, the host fetches and writes what the chunk before gave, and has it evaluated.

    Args:
      how: how it is trained; the lease of the run directory is asked whether it may go on.
      stage: the stage.
      members: the population.
      sharers: for each of them members of other tasks on the same data, for which its rows are written and its results
        evaluated, too.
      programs: of the population, if they are compiled already.

    Attributes:
      busy_seconds: how long the device compiled or trained so far.
    """

    def __init__(
        self,
        how: How,
        stage: Stage,
        members: Sequence[Member],
        sharers: Mapping[Member, Sequence[Member]],
        programs: Programs | None = None,
    ) -> None:
        self.busy_seconds = 0.0
        self._stage, self._run, self._scorer = stage, how.run, how.scorer
        self._checkpoint_seconds, self._callback = how.checkpoint_seconds, how.callback
        groups = in_groups(stage, members)
        self._members = [member for group in groups for member in group]
        values = self._members[0].settings
        self._schedule = Schedule(stage.steps(values), stage.interval(values), values["log_interval"])
        self._checkpoints = self._run.progress(stage, self._members)
        self._messages = Messages([member.name(stage) for member in self._members])
        # All that rows are written for, and where among the population each one's numbers are.
        others = [(i, one) for i, member in enumerate(self._members) for one in sharers[member]]
        self._told = [*self._members, *(one for _, one in others)]
        self._places = np.array([*range(len(self._members)), *(i for i, _ in others)])
        # Fetching results takes all processes, of which one evaluates.
        self._evaluates = stage.acts and bool(broadcast(self._scorer is not None))
        self._population = make_population(self._run, how.data, stage, groups, how.strategy, programs)
        self._free = self._saved = time.monotonic()

    def train(self, beside: Callable[[], None] | None = None) -> None:
        """Runs to the end, saves the results and has them evaluated.

        Args:
          beside: called once, when the device has begun.

        Raises:
          LeaseLost: another worker took over.
        """
        with contextlib.closing(self._population):
            start = self._resume()
            self._saved = time.monotonic()
            watch = ThreadPoolExecutor(1, thread_name_prefix="device")
            try:
                with self._shown_progress() as progress:
                    progress.begin(start)
                    self._run_chunks(start, watch, progress, beside)
            finally:
                # Not until the device is done: whoever interrupts would wait for it.
                watch.shutdown(wait=False, cancel_futures=True)
            self._save_results()

    def _run_chunks(
        self, start: int, watch: ThreadPoolExecutor, progress: Progress, beside: Callable[[], None] | None
    ) -> None:
        # What learns online is done when it returns; nothing would be gained by looking at it later.
        ahead = 0 if self._stage.online else 1
        under_way: deque[_Chunk] = deque()
        for begin, stop in self._schedule.chunks(start):
            saves = begin > start and self._checkpoint_is_due()
            while saves and under_way:
                self._settle(under_way.popleft(), progress)
            host_copy = self._population.checkpoint() if saves else None
            under_way.append(self._launch(begin, stop, watch))
            if saves:
                self._save_checkpoint(begin, host_copy)
            if begin == start and beside is not None:
                beside()
            while len(under_way) > ahead:
                self._settle(under_way.popleft(), progress)
        while under_way:
            self._settle(under_way.popleft(), progress)

    def _launch(self, begin: int, stop: int, watch: ThreadPoolExecutor) -> _Chunk:
        launched = time.monotonic()
        outcome = self._population.launch(begin, stop)
        due = self._evaluates and (stop % self._schedule.evaluation == 0 or stop == self._schedule.total)
        # The next chunk overwrites the states.
        results = self._population.copy_of(self._stage.result) if due else None
        return _Chunk(begin, stop, launched, outcome, results, watch.submit(_done_at, outcome))

    def _settle(self, chunk: _Chunk, progress: Progress) -> None:
        """Waits for a chunk, writes what it gave, and starts the evaluation that is due at its end."""
        done = chunk.done.result()
        seconds = max(done - max(chunk.launched, self._free), 1e-9)
        self.busy_seconds += seconds
        self._free = done
        outcome = self._population.fetch(chunk.outcome)
        results = None if chunk.results is None else self._population.fetch(chunk.results)
        self._stop_if_lease_lost()
        self._log(chunk, outcome, seconds, progress)
        if self._scorer is not None and results is not None:
            final = chunk.stop == self._schedule.total
            self._scorer.submit(self._stage, self._told, chunk.stop, self._of_all(_of_members(results)), final=final)

    def _resume(self) -> int:
        """Goes back to the last whole checkpoint, if there is one; returns the step to go on from."""
        saved = self._last_checkpoint() if coordinator() else None
        step = broadcast(saved.step if saved else 0)
        if step:
            tree = saved.tree if saved else _zeros(self._population.checkpoint_shapes())
            self._population.restore(broadcast_tree(tree))
        if coordinator():
            self._forget_after(step)
        # What goes on online is judged by where it begins, too.
        if self._evaluates and (step > 0 or self._stage.online):
            results = self._results()
            if self._scorer is not None:
                self._scorer.resume(self._stage, self._told, step, self._of_all(results))
        return step

    def _last_checkpoint(self) -> Saved | None:
        """The last whole checkpoint; damaged ones are told and passed over."""
        return self._checkpoints.restore(
            lambda step: self._population.checkpoint_shapes(), print_message, self._schedule.total
        )

    def _forget_after(self, step: int) -> None:
        """Drops rows that a killed run wrote after its last checkpoint; they will be written again."""
        names = {key_of(member.row(self._stage)) for member in self._told}

        def kept(row: dict[str, str]) -> bool:
            return key_of(row) not in names or int(row["step"]) <= step

        with self._run.writing() as own:
            if own:
                self._run.metrics.keep(kept)
                self._run.evaluations.keep(kept)

    def _stop_if_lease_lost(self) -> None:
        lease = self._run.lease
        if broadcast(lease is not None and lease.lost()):
            raise LeaseLost

    def _log(self, chunk: _Chunk, outcome: Outcome, seconds: float, progress: Progress) -> None:
        """Rows of a chunk, and messages on members that diverged or soon may."""
        if coordinator():
            steps = (chunk.stop - chunk.begin) * len(self._members)
            measured = self._measured_in(chunk, outcome.metrics, steps / seconds)
            rows = [
                member.row(self._stage)
                | {"step": chunk.stop, "updates_per_second": f"{steps / seconds:.1f}"}
                | {name: f"{value:.6g}" for name, value in one.values.items()}
                for member, one in zip(self._told, measured, strict=True)
            ]
            diverged_at = np.asarray(outcome.diverged_at).reshape(-1)
            diverged = self._messages.diverged(diverged_at)
            entries = [
                member.row(self._stage) | {"update": int(diverged_at[i])}
                for i, member in zip(self._places, self._told, strict=True)
                if i in diverged
            ]
            with self._run.writing() as own:
                if own:
                    self._run.metrics.append(rows)
                    self._run.add_diverged(entries)
            for line in (*diverged.values(), *self._messages.concentrated(outcome.metrics)):
                progress.write(line)
            if self._callback is not None:
                self._callback(self._stage.name, chunk.stop, measured)
        progress.advance(chunk.stop - chunk.begin)

    def _measured_in(self, chunk: _Chunk, means: Mapping[str, Any], rate: float) -> list[TrainingMetrics]:
        """What a chunk measured of every member that is told of; what is not finite is left out."""
        # JAX sorts the names; the method's file has them in an order that reads well.
        names = [*(name for name in self._stage.metrics if name in means), *means]
        values = {name: np.asarray(means[name]).reshape(-1) for name in dict.fromkeys(names)}
        return [
            TrainingMetrics(
                *member.result(self._stage),
                step=chunk.stop,
                updates_per_second=rate,
                values={name: float(x[i]) for name, x in values.items() if math.isfinite(x[i])},
            )
            for i, member in zip(self._places, self._told, strict=True)
        ]

    def _checkpoint_is_due(self) -> bool:
        return bool(broadcast(time.monotonic() - self._saved >= self._checkpoint_seconds))

    def _save_checkpoint(self, step: int, host_copy: Any) -> None:
        # What a checkpoint promises is that everything before its step is on disk; evaluations under way are not.
        if self._scorer is not None:
            self._scorer.wait(before=step)
        if coordinator():
            self._checkpoints.save(step, host_copy)
        self._saved = time.monotonic()

    def _results(self) -> Any:
        """Results of all members on the host, leaves [members, ...]."""
        return _of_members(self._population.fetch(self._population.copy_of(self._stage.result)))

    def _of_all(self, results: Any) -> Any:
        """Results [members, ...] of the population for all that rows are written for."""
        if len(self._told) == len(self._members):
            return results
        return jax.tree.map(lambda x: x[self._places], results)

    def _save_results(self) -> None:
        # Fetching them takes all processes.
        results, diverged_at = self._results(), self._population.diverged_at.reshape(-1)
        self._stop_if_lease_lost()
        if coordinator():
            measured = self._measured() if self._run.shares_artefacts else {}
            for i, member in enumerate(self._members):
                address = member.address(self._stage)
                # Another worker may be reading one that was saved before a kill; it would be the same.
                if self._run.has_result(self._stage, member):
                    continue
                if self._run.shares_artefacts:
                    self._run.save_measured(self._stage, address, measured.get(key_of(member.row(self._stage)), {}))
                at = int(diverged_at[i]) if diverged_at[i] >= 0 else None
                self._run.save_result(self._stage, address, jax.tree.map(lambda x, i=i: x[i], results), at)
            self._checkpoints.clear()
        # The other processes may not go on before the results are there.
        self._stop_if_lease_lost()

    def _measured(self) -> dict[tuple[str, ...], dict[str, str]]:
        """The last row of metrics of every member."""
        return {key_of(row): row for row in self._run.metrics.rows()}

    def _shown_progress(self) -> Progress:
        count = len(self._members)
        title = f"{self._stage.name} ({count} {'member' if count == 1 else 'members'})"
        unit = "steps" if self._stage.online else "updates"
        return Progress(title, self._schedule.total, unit, shown=coordinator() and self._stage.learns)


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that name a member, of a row of `metrics.csv` or `evaluations.csv`."""
    return tuple(str(row[column]) for column in NAMING_COLUMNS)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _done_at(outcome: Outcome) -> float:
    """When the device was done with a chunk, in seconds of `time.monotonic`."""
    jax.block_until_ready(outcome)
    return time.monotonic()


def _of_members(tree: Any) -> Any:
    """Leaves [groups, members, ...] as [members, ...]."""
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)
