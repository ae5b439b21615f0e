"""Trains the populations of a sweep stage by stage, beside any other workers that do the same."""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.nn import precision
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.runs.ahead import CompileAhead
from jaxrl_srpo.runs.distributed import broadcast, broadcast_tree, coordinator
from jaxrl_srpo.runs.footprint import refuse_too_large
from jaxrl_srpo.runs.leases import Lease, LeaseLost, Leases
from jaxrl_srpo.runs.run_directory import RunDirectory, population_name
from jaxrl_srpo.runs.setup import TrainingData
from jaxrl_srpo.runs.stage_run import Callback, How, StageRun, key_of
from jaxrl_srpo.runs.sweep import Member, by_training, populations, stages_of
from jaxrl_srpo.runs.untrainable import Untrainable

if TYPE_CHECKING:
    from jaxrl_srpo.runs.scorer import Scorer


class _Unit(NamedTuple):
    """What one worker does at a time: a stage of a population.

    Attributes:
      stage: the stage.
      population: what is trained.
      sharers: members of other tasks that the same results are evaluated for; see `sweep.by_training`.
    """

    stage: Stage
    population: list[Member]
    sharers: Mapping[Member, list[Member]]

    @property
    def members(self) -> list[Member]:
        """All that are evaluated."""
        return [*self.population, *itertools.chain(*(self.sharers[member] for member in self.population))]


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
      callback: see `stage_run.How`.
    """

    def __init__(
        self,
        run: RunDirectory,
        data: TrainingData,
        scorer: "Scorer | None",
        strategy: Strategy = "auto",
        checkpoint_seconds: float = 60.0,
        members_per_population: int = 0,
        callback: Callback | None = None,
    ) -> None:
        self.run, self.scorer = run, scorer
        self._how = How(run, data, scorer, strategy, checkpoint_seconds, callback)
        self._ahead = CompileAhead(data, strategy)
        self._busy_seconds = 0.0
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
            _Unit(stage, population, sharers)
            for stage in stages_of(members)
            for sharers in [by_training(members, stage)]
            for population in populations(list(sharers), stage, self._size)
        ]
        try:
            self._train(units, members)
        except (UserError, OSError):
            self.run.remove_remains()
            raise
        finally:
            self._ahead.close()
        if not any(unit.stage.online for unit in units):
            self._say_share(time.monotonic() - began)

    def _train(self, units: Sequence[_Unit], members: Sequence[Member]) -> None:
        for unit in units:
            if self._missing(unit.stage, unit.population):
                refuse_too_large(unit.stage, unit.population)
        if coordinator():
            self._check_results(units)
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
            self._work(units[number], choice.lease, [units[other] for other in unfinished if other > number])

    def _say_share(self, seconds: float) -> None:
        """Says for how much of the time the device compiled or trained, if it did."""
        if coordinator() and self._busy_seconds > 0.0:
            share = self._busy_seconds / seconds
            print_message(f"the device compiled or trained for {share:.0%} of {seconds:,.0f} s")

    def _work(self, unit: _Unit, lease: Lease | None, later: Sequence[_Unit]) -> None:
        """Finishes a unit; its last evaluation may go on beside the next one, and keeps the lease meanwhile."""
        kept = False
        try:
            with self.run.leased(lease):
                self._finish(unit, lease, later)
            kept = lease is not None and self.scorer is not None and self.scorer.keep(lease)
        finally:
            if lease is not None and not kept:
                lease.release()

    def _finish(self, unit: _Unit, lease: Lease | None, later: Sequence[_Unit]) -> None:
        """Trains what a unit lacks and has it evaluated, unless another worker takes over."""
        stage = unit.stage
        try:
            if to_train := self._to_train(unit):
                with precision.using(to_train[0].settings["precision"]):
                    self._train_stage(unit, to_train, later)
            if self.scorer is not None:
                self.scorer.finish(stage, self._trained(unit))
        except LeaseLost:
            if self.scorer is not None:
                self.scorer.drop(lease)

    def _train_stage(self, unit: _Unit, members: Sequence[Member], later: Sequence[_Unit]) -> None:
        stage_run = StageRun(self._how, unit.stage, members, unit.sharers, self._ahead.take(unit.stage, members))
        try:
            stage_run.train(beside=lambda: self._compile_next(later))
        finally:
            self._busy_seconds += stage_run.busy_seconds

    def _compile_next(self, later: Sequence[_Unit]) -> None:
        """Begins to compile what is trained next, if that is known here."""
        # The processes of one program would have to compile in one order.
        if jax.process_count() > 1:
            return
        for unit in later:
            members = self._to_train(unit)
            if members and unit.stage.learns and not unit.stage.online:
                self._ahead.begin(unit.stage, members)
                return

    def _to_train(self, unit: _Unit) -> list[Member]:
        """The members to train now: all of a population if a kill came while its results were being saved.

        The coordinator looks; what other hosts see of a shared file system may lag behind.
        """
        stage, population = unit.stage, unit.population
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
            stage, population = units[number].stage, units[number].population
            if any(self._missing(earlier, population) for earlier in stage.needs):
                continue
            lease = self._leases.claim(population_name(stage, population))
            if lease is not None:
                return _Choice(number, lease)
        return _Choice(_WAIT if unfinished else _ALL_DONE)

    def _check_results(self, units: Sequence[_Unit]) -> None:
        """Compares the results that are there with their manifests, so that nothing builds on a damaged one."""
        for unit in units:
            for member in unit.population:
                if self.run.has_result(unit.stage, member):
                    self.run.check_result(unit.stage, member)

    def _adopt(self, units: Sequence[_Unit]) -> None:
        """Adds the last metrics of results that were trained for other tasks or runs, as tables show some of them."""
        known = {key_of(row): row for row in self.run.metrics.rows()}
        found = []
        for unit in units:
            for first in unit.population:
                names = [member.row(unit.stage) for member in (first, *unit.sharers[first])]
                if all(key_of(name) in known for name in names) or not self.run.has_result(unit.stage, first):
                    continue
                own = next((known[key_of(name)] for name in names if key_of(name) in known), None)
                kept = own or self.run.measured(unit.stage, first.address(unit.stage))
                found += [{**kept, **name} for name in names if kept and key_of(name) not in known]
        if found:
            self.run.metrics.append(found)

    def _clear(self, units: Sequence[_Unit]) -> None:
        """Removes what workers left who were killed between their last result and its removal."""
        for stage, population, _ in units if coordinator() else ():
            self.run.progress(stage, population).clear()
            self.run.remove_leftovers(stage, population)

    def _finished(self, unit: _Unit) -> bool:
        if self._missing(unit.stage, unit.population):
            return False
        return self.scorer is None or not self.scorer.unfinished(unit.stage, self._trained(unit))

    def _trained(self, unit: _Unit) -> list[Member]:
        return [member for member in unit.members if self.run.has_result(unit.stage, member)]

    def _missing(self, stage: Stage, members: Sequence[Member]) -> list[Member]:
        """The members that can be trained and are not."""
        without = [member for member in members if not self.run.has_result(stage, member)]
        return [member for member in without if self._untrainable.reason(stage, member) is None]
