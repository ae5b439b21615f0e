"""Trains the populations of a sweep stage by stage: chunks on the device, everything else between them on the host."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.checkpoint import Saved
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.nn import precision
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.runs.distributed import broadcast, broadcast_tree, coordinator
from jaxrl_srpo.runs.footprint import refuse_too_large
from jaxrl_srpo.runs.leases import Lease, LeaseLost, Leases
from jaxrl_srpo.runs.messages import Messages
from jaxrl_srpo.runs.run_directory import RunDirectory, population_name
from jaxrl_srpo.runs.setup import TrainingData, in_groups, make_population
from jaxrl_srpo.runs.sweep import NAMING_COLUMNS, Member, populations, stages_of, unique
from jaxrl_srpo.runs.untrainable import Untrainable

if TYPE_CHECKING:
    from jaxrl_srpo.runs.scorer import Scorer


class _Unit(NamedTuple):
    """What one worker does at a time: a stage of a population."""

    stage: Stage
    population: list[Member]


_ALL_DONE, _WAIT = -1, -2
_WAIT_SECONDS = 1.0


class _Choice(NamedTuple):
    """Number of the unit to do now, or `_ALL_DONE`, or `_WAIT` for other workers; its lease in the coordinator."""

    number: int
    lease: Lease | None = None


class Trainer:
    """Trains what a run directory lacks, beside any other workers that do the same.

    Args:
      run: the run directory.
      data: transitions of its datasets.
      scorer: evaluates policies; None trains only.
      strategy: see `population.vectorize`.
      checkpoint_seconds: least time between two checkpoints; 0 saves one after every chunk.
      members_per_population: most members trained together; 0 for all that can be.

    Attributes:
      busy_seconds: how long the device compiled or trained so far.
    """

    def __init__(
        self,
        run: RunDirectory,
        data: TrainingData,
        scorer: "Scorer | None",
        strategy: Strategy = "auto",
        checkpoint_seconds: float = 60.0,
        members_per_population: int = 0,
    ) -> None:
        self.run, self.data, self.scorer = run, data, scorer
        self.strategy: Strategy = strategy
        self.checkpoint_seconds = checkpoint_seconds
        self.busy_seconds = 0.0
        self._size = members_per_population
        self._leases = Leases(run.path / "leases")
        self._untrainable = Untrainable(run)

    def train(self, members: Sequence[Member]) -> None:
        """Trains and evaluates every stage of every member that is not finished yet; returns when all are.

        Raises:
          UserError: a result is damaged, the run directory was moved away, or a population is too large for the memory
            there is; of the last nothing has been trained.
          OSError: something cannot be written.
        """
        began = time.monotonic()
        units = [
            _Unit(stage, population)
            for stage in stages_of(members)
            for population in populations(unique(members, stage), stage, self._size)
        ]
        try:
            self._train(units, members)
        except (UserError, OSError):
            self.run.remove_remains()
            raise
        if not any(unit.stage.online for unit in units):
            self._say_share(time.monotonic() - began)

    def _train(self, units: Sequence[_Unit], members: Sequence[Member]) -> None:
        for unit in units:
            if self._missing(*unit):
                refuse_too_large(*unit)
        if coordinator():
            self._check_results(units)
            if self.run.shares_artefacts:
                self._adopt(units)
        unfinished = list(range(len(units)))
        while True:
            if coordinator():
                self.run.check_there()
                self._untrainable.name(members)
            unfinished = [number for number in unfinished if coordinator() and not self._finished(units[number])]
            choice = self._choose(units, unfinished)
            if choice.number < 0 and self.scorer is not None and self.scorer.wait():
                # Of what was under way another worker may have taken something over.
                unfinished = list(range(len(units)))
                continue
            number = broadcast(choice.number)
            if number == _ALL_DONE:
                self._clear(units)
                return
            if number == _WAIT:
                time.sleep(_WAIT_SECONDS)
                continue
            self._work(units[number], choice.lease)

    def _say_share(self, seconds: float) -> None:
        """Says for how much of the time the device compiled or trained, if it did."""
        if coordinator() and self.busy_seconds > 0.0:
            share = self.busy_seconds / seconds
            print_message(f"the device compiled or trained for {share:.0%} of {seconds:,.0f} s")

    def _work(self, unit: _Unit, lease: Lease | None) -> None:
        """Finishes a unit; its last evaluation may go on beside the next one, and keeps the lease meanwhile."""
        kept = False
        try:
            with self.run.leased(lease):
                self._finish(unit, lease)
            kept = lease is not None and self.scorer is not None and self.scorer.keep(lease)
        finally:
            if lease is not None and not kept:
                lease.release()

    def _finish(self, unit: _Unit, lease: Lease | None) -> None:
        """Trains what a unit lacks and has it evaluated, unless another worker takes over."""
        stage = unit.stage
        try:
            if to_train := self._to_train(unit):
                with precision.using(to_train[0].settings["precision"]):
                    _StageRun(self, stage, to_train, lease).train()
            if self.scorer is not None:
                self.scorer.finish(stage, self._trained(unit))
        except LeaseLost:
            if self.scorer is not None:
                self.scorer.drop(lease)

    def _to_train(self, unit: _Unit) -> list[Member]:
        """The members to train now: all of a population if a kill came while its results were being saved.

        The coordinator looks; what other hosts see of a shared file system may lag behind.
        """
        stage, population = unit
        wanted = np.zeros(len(population), np.int32)
        if coordinator():
            able = [self._untrainable.reason(stage, member) is None for member in population]
            done = [self.run.has_result(stage, member) for member in population]
            missing = [one and not finished for one, finished in zip(able, done, strict=True)]
            together = [member for member, one in zip(population, able, strict=True) if one]
            interrupted = any(missing) and bool(self.run.progress(stage, together).steps())
            wanted[:] = able if interrupted else missing
        return [member for member, train in zip(population, broadcast_tree(wanted), strict=True) if train]

    def _choose(self, units: Sequence[_Unit], unfinished: Sequence[int]) -> _Choice:
        """The first unfinished unit that can be done now and that no other worker does."""
        for number in unfinished:
            stage, population = units[number]
            if any(self._missing(earlier, population) for earlier in stage.needs):
                continue
            lease = self._leases.claim(population_name(stage, population))
            if lease is not None:
                return _Choice(number, lease)
        return _Choice(_WAIT if unfinished else _ALL_DONE)

    def _check_results(self, units: Sequence[_Unit]) -> None:
        """Compares the results that are there with their manifests, so that nothing builds on a damaged one."""
        for unit in units:
            for member in self._trained(unit):
                self.run.check_result(unit.stage, member)

    def _adopt(self, units: Sequence[_Unit]) -> None:
        """Adds the last metrics of results that other runs have trained, as tables show some of them."""
        known = {_key(row) for row in self.run.metrics.rows()}
        found = [
            {**kept, **member.row(stage)}
            for stage, population in units
            for member in population
            if _key(member.row(stage)) not in known and (kept := self.run.measured(stage, member.address(stage)))
        ]
        if found:
            self.run.metrics.append(found)

    def _clear(self, units: Sequence[_Unit]) -> None:
        """Removes what workers left who were killed between their last result and its removal."""
        for stage, population in units if coordinator() else ():
            self.run.progress(stage, population).clear()
            self.run.remove_leftovers(stage, population)

    def _finished(self, unit: _Unit) -> bool:
        if self._missing(*unit):
            return False
        return self.scorer is None or not self.scorer.unfinished(unit.stage, self._trained(unit))

    def _trained(self, unit: _Unit) -> list[Member]:
        return [member for member in unit.population if self.run.has_result(unit.stage, member)]

    def _missing(self, stage: Stage, members: Sequence[Member]) -> list[Member]:
        """The members that can be trained and are not."""
        without = [member for member in members if not self.run.has_result(stage, member)]
        return [member for member in without if self._untrainable.reason(stage, member) is None]


class _Schedule(NamedTuple):
    """When things happen, in steps."""

    total: int
    evaluation: int
    log: int

    def chunks(self, start: int) -> Iterator[tuple[int, int]]:
        """Pairs (from, to) of chunks after `start`, cut at every log row and evaluation."""
        while start < self.total:
            stop = min(self.total, *((start // every + 1) * every for every in (self.evaluation, self.log)))
            yield start, stop
            start = stop


class _StageRun:
    """One stage of one population, from its last checkpoint (or the start) to its results."""

    def __init__(self, trainer: Trainer, stage: Stage, members: Sequence[Member], lease: Lease | None) -> None:
        self._trainer = trainer
        self._stage, self._run, self._scorer, self._lease = stage, trainer.run, trainer.scorer, lease
        self._checkpoint_seconds = trainer.checkpoint_seconds
        groups = in_groups(stage, members)
        self._members = [member for group in groups for member in group]
        values = self._members[0].settings
        self._schedule = _Schedule(stage.steps(values), stage.interval(values), values["log_interval"])
        self._progress = self._run.progress(stage, self._members)
        self._messages = Messages([member.name(stage) for member in self._members])
        # Fetching results takes all processes, of which one evaluates.
        self._evaluates = bool(broadcast(self._scorer is not None))
        self._population = make_population(self._run, trainer.data, stage, groups, trainer.strategy)

    def train(self) -> None:
        """Runs to the end and saves the results."""
        with contextlib.closing(self._population):
            start = self._resume()
            saved = time.monotonic()
            with self._bar(start) as bar:
                for begin, stop in self._schedule.chunks(start):
                    began = time.monotonic()
                    means = self._population.run(begin, stop)
                    self._trainer.busy_seconds += time.monotonic() - began
                    self._stop_if_lease_lost()
                    self._log(stop, means, (stop - begin) * len(self._members), began, bar)
                    if stop % self._schedule.evaluation == 0 or stop == self._schedule.total:
                        self._evaluate(stop)
                    due = time.monotonic() - saved >= self._checkpoint_seconds
                    if broadcast(due and stop < self._schedule.total):
                        self._save_checkpoint(stop)
                        saved = time.monotonic()
            self._save_results()

    def _resume(self) -> int:
        """Goes back to the last whole checkpoint, if there is one; returns the step to go on from."""
        saved = self._saved() if coordinator() else None
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
                self._scorer.resume(self._stage, self._members, step, results)
        return step

    def _saved(self) -> Saved | None:
        """The last whole checkpoint; damaged ones are told and passed over."""
        return self._progress.restore(
            lambda step: self._population.checkpoint_shapes(), print_message, self._schedule.total
        )

    def _forget_after(self, step: int) -> None:
        """Drops rows that a killed run wrote after its last checkpoint; they will be written again."""
        names = {_key(member.row(self._stage)) for member in self._members}

        def kept(row: dict[str, str]) -> bool:
            return _key(row) not in names or int(row["step"]) <= step

        with self._run.writing() as own:
            if own:
                self._run.metrics.keep(kept)
                self._run.evaluations.keep(kept)

    def _stop_if_lease_lost(self) -> None:
        if broadcast(self._lease is not None and self._lease.lost()):
            raise LeaseLost

    def _log(self, step: int, means: Mapping[str, np.ndarray], steps: int, began: float, bar: tqdm) -> None:
        """Rows of a chunk, and messages on members that diverged or soon may."""
        rate = steps / (time.monotonic() - began)
        diverged_at = self._population.diverged_at.reshape(-1)
        if coordinator():
            # JAX sorts the names; the method's file has them in an order that reads well.
            names = [*(name for name in self._stage.metrics if name in means), *means]
            values = {name: np.asarray(means[name]).reshape(-1) for name in dict.fromkeys(names)}
            rows = []
            for i, member in enumerate(self._members):
                numbers = {name: f"{x[i]:.6g}" for name, x in values.items() if math.isfinite(x[i])}
                rows.append(member.row(self._stage) | {"step": step, "updates_per_second": f"{rate:.1f}"} | numbers)
            diverged = self._messages.diverged(diverged_at)
            entries = [self._members[i].row(self._stage) | {"update": int(diverged_at[i])} for i in diverged]
            with self._run.writing() as own:
                if own:
                    self._run.metrics.append(rows)
                    self._run.add_diverged(entries)
            for line in (*diverged.values(), *self._messages.concentrated(means)):
                bar.write(line)
        bar.update(steps)

    def _evaluate(self, step: int) -> None:
        if not self._evaluates:
            return
        results = self._results()
        if self._scorer is not None:
            final = step == self._schedule.total
            self._scorer.submit(self._stage, self._members, step, results, final=final)

    def _save_checkpoint(self, step: int) -> None:
        # What a checkpoint promises is that everything before its step is on disk; evaluations under way are not.
        if self._scorer is not None:
            self._scorer.wait(before=step)
        host_copy = self._population.checkpoint()
        if coordinator():
            self._progress.save(step, host_copy)

    def _results(self) -> Any:
        """Results of all members on the host, leaves [members, ...]."""
        results = self._stage.result(self._population.states)
        return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), results)

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
                    self._run.save_measured(self._stage, address, measured.get(_key(member.row(self._stage)), {}))
                at = int(diverged_at[i]) if diverged_at[i] >= 0 else None
                self._run.save_result(self._stage, address, jax.tree.map(lambda x, i=i: x[i], results), at)
            self._progress.clear()
        # The other processes may not go on before the results are there.
        self._stop_if_lease_lost()

    def _measured(self) -> dict[tuple[str, ...], dict[str, str]]:
        """The last row of metrics of every member."""
        return {_key(row): row for row in self._run.metrics.rows()}

    def _bar(self, start: int) -> tqdm:
        count = len(self._members)
        return tqdm(
            total=self._schedule.total * count,
            initial=start * count,
            desc=f"{self._stage.name} ({count} members)",
            unit=" steps" if self._stage.online else " updates",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not coordinator(),
        )


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that name a member, of a row of `metrics.csv` or `evaluations.csv`."""
    return tuple(str(row[column]) for column in NAMING_COLUMNS)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
