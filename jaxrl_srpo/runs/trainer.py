"""Trains the populations of a sweep stage by stage: chunks on the device, everything else between them on the host."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxrl_srpo.data import table
from jaxrl_srpo.io import checkpoint
from jaxrl_srpo.methods.stages import STAGES, Stage
from jaxrl_srpo.nn import precision
from jaxrl_srpo.population.offline import Members, stack
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.runs.distributed import agree, leads
from jaxrl_srpo.runs.learning import Learning, OfflineLearning, OnlineLearning
from jaxrl_srpo.runs.leases import Lease, LeaseLost, Leases
from jaxrl_srpo.runs.messages import Notices
from jaxrl_srpo.runs.run_directory import DatasetFacts, RunDirectory, population_name
from jaxrl_srpo.runs.sweep import NAMING_COLUMNS, Member, populations, results_of, shared_groups, unique
from jaxrl_srpo.types import Spec

if TYPE_CHECKING:
    from jaxrl_srpo.runs.scorer import Scorer


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What members of every dataset of a sweep learn from, by name.

    Attributes:
      rows: packed rows [N, width] of its transitions, already reward-transformed.
      facts: gives what the run directory keeps of them.
    """

    rows: Callable[[str], np.ndarray]
    facts: Callable[[], Mapping[str, DatasetFacts]]

    def pack(self, members: Sequence[Member]) -> table.PackedTable:
        """One array of the datasets that some members use, and a slice per member."""
        names = list(dict.fromkeys(member.dataset for member in members))
        packed = table.pack([self.rows(name) for name in names])
        where = dict(zip(names, packed.slices, strict=True))
        return table.PackedTable(packed.rows, [where[member.dataset] for member in members])


class _Unit(NamedTuple):
    """What one worker does at a time: a stage of a population."""

    stage: Stage
    population: list[Member]


_ALL_DONE, _WAIT = -1, -2
_WAIT_SECONDS = 1.0


class _Choice(NamedTuple):
    """Number of the unit to do now, or `_ALL_DONE`, or `_WAIT` for other workers; its lease in the leading process."""

    number: int
    lease: Lease | None = None


class Trainer:
    """Trains what a run directory lacks, beside any other workers that do the same.

    Args:
      run: the run directory.
      data: transitions of its datasets.
      scorer: evaluates policies; None trains only.
      strategy: see `population.Population`.
      checkpoint_seconds: least time between two checkpoints; 0 saves one after every chunk.
      members_per_population: most members trained together; 0 for all that can be.
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
        self.run = run
        self.data = data
        self.scorer = scorer
        self.strategy: Strategy = strategy
        self.checkpoint_seconds = checkpoint_seconds
        self._size = members_per_population
        self._leases = Leases(run.path / "leases")

    def train(self, members: Sequence[Member]) -> None:
        """Trains and evaluates every stage of every member that is not finished yet; returns when all are."""
        units = [
            _Unit(stage, population)
            for stage in STAGES.values()
            for population in populations(unique(members, stage), stage, self._size)
        ]
        if leads() and self.run.shares_artefacts:
            self._adopt(units)
        unfinished = list(range(len(units)))
        while True:
            unfinished = [number for number in unfinished if leads() and not self._finished(units[number])]
            choice = self._choose(units, unfinished)
            number = agree(choice.number)
            if number == _ALL_DONE:
                self._clear(units)
                return
            if number == _WAIT:
                time.sleep(_WAIT_SECONDS)
                continue
            with choice.lease or contextlib.nullcontext():
                self._finish(units[number], choice.lease)

    def _choose(self, units: Sequence[_Unit], unfinished: Sequence[int]) -> _Choice:
        """The first unfinished unit that can be done now and that no other worker does."""
        for number in unfinished:
            stage, population = units[number]
            if any(self._missing(STAGES[name], population) for name in stage.needs):
                continue
            lease = self._leases.claim(population_name(stage, population))
            if lease is not None:
                return _Choice(number, lease)
        return _Choice(_WAIT if unfinished else _ALL_DONE)

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
        """Removes checkpoints that a worker left who was killed between its last result and their removal."""
        for stage, population in units if leads() else ():
            self.run.progress(stage, population).clear()

    def _finished(self, unit: _Unit) -> bool:
        if self._missing(*unit):
            return False
        return self.scorer is None or not self.scorer.unfinished(*unit)

    def _missing(self, stage: Stage, members: Sequence[Member]) -> list[Member]:
        return [member for member in members if not self.run.artefact(stage, member.address(stage)).exists()]

    def _finish(self, unit: _Unit, lease: Lease | None) -> None:
        """Trains what a unit lacks and evaluates it, unless another worker takes over."""
        stage, population = unit
        try:
            if missing := self._missing(stage, population):
                _StageRun(self, stage, self.run.interrupted(stage, population, missing), lease).train()
            if self.scorer is not None:
                self.scorer.finish(stage, population)
        except LeaseLost:
            if self.scorer is not None:
                self.scorer.drop()


class _Plan(NamedTuple):
    """When things happen, in updates."""

    total: int
    evaluation: int
    log: int

    def stops(self, start: int) -> Iterator[tuple[int, int]]:
        """Pairs (from, to) of chunks after `start`, cut at every log row and evaluation."""
        while start < self.total:
            stop = min(self.total, *((start // every + 1) * every for every in (self.evaluation, self.log)))
            yield start, stop
            start = stop


class _StageRun:
    """One stage of one population, from its last checkpoint (or the start) to its results."""

    def __init__(self, trainer: Trainer, stage: Stage, members: Sequence[Member], lease: Lease | None) -> None:
        self._stage, self._run, self._scorer, self._lease = stage, trainer.run, trainer.scorer, lease
        self._checkpoint_seconds = trainer.checkpoint_seconds
        groups = shared_groups(members, stage)
        self._members = [member for group in groups for member in group]
        self._shape = (len(groups), len(groups[0]))
        first = self._members[0]
        settings = first.settings
        self._plan = _Plan(stage.steps(settings), stage.interval(settings), settings.log_interval)
        self._addresses = [member.address(stage) for member in self._members]
        self._progress = self._run.progress(stage, self._members)
        packed = trainer.data.pack(self._members)
        described = self._describe(packed.slices)
        frozen = stack([self._frozen_of(group[0]) for group in groups])
        self._learning: Learning
        if stage.explore is None:
            self._learning = OfflineLearning(stage, first, described, frozen, packed.rows, trainer.strategy)
        else:
            known = trainer.data.facts()
            facts = [known[member.dataset] for member in self._members]
            self._learning = OnlineLearning(stage, first, described, frozen, packed.rows, facts, trainer.strategy)
        self._notices = Notices([member.name(stage) for member in self._members])
        # Fetching results takes all processes, of which one evaluates.
        self._evaluates = bool(agree(self._scorer is not None))

    def train(self) -> None:
        """Runs to the end and saves the results."""
        with precision.using(self._members[0].settings.precision):  # type: ignore[arg-type]  # Checked by `override`.
            try:
                self._train()
            finally:
                self._learning.close()

    def _train(self) -> None:
        start = self._restore()
        if leads():
            self._forget_after(start)
        # What goes on online is judged by where it begins, too.
        if self._evaluates and (start > 0 or self._stage.explore is not None):
            results = self._results()
            if self._scorer is not None:
                self._scorer.resume(self._stage, self._members, start, results)
        saved = time.monotonic()
        with self._bar(start) as bar:
            for begin, stop in self._plan.stops(start):
                self._chunk(begin, stop, bar)
                self._evaluate(stop)
                if agree(stop < self._plan.total and time.monotonic() - saved >= self._checkpoint_seconds):
                    self._checkpoint(stop)
                    saved = time.monotonic()
            if self._scorer is not None:
                bar.set_postfix_str("evaluating")
                self._scorer.wait()
        self._save_results()

    def _chunk(self, begin: int, stop: int, bar: tqdm) -> None:
        """Steps `begin` to `stop` of every member, and their rows."""
        began = time.monotonic()
        means = self._learning.run(begin, stop)
        diverged_at = self._learning.diverged_at.reshape(-1)
        steps = (stop - begin) * len(self._members)
        self._stop_if_lost()
        if leads():
            self._log(stop, means, steps / (time.monotonic() - began))
            self._notice(means, diverged_at, bar)
        bar.update(steps)

    def _stop_if_lost(self) -> None:
        if agree(self._lease is not None and self._lease.lost()):
            raise LeaseLost

    def _describe(self, slices: Sequence[table.Slice]) -> Members:
        """Keys, rows and hyperparameters of all members, [groups, members per group]."""
        index = list(STAGES).index(self._stage.name)
        keys = jnp.stack([jax.random.fold_in(jax.random.key(member.seed), index) for member in self._members])
        where = table.Slice(*(jnp.asarray(column, jnp.int32) for column in zip(*slices, strict=True)))
        hypers = [self._stage.hyper(member.settings) for member in self._members]
        hyper = jax.tree.map(lambda *values: jnp.asarray(values, jnp.float32), *hypers)
        return jax.tree.map(lambda x: x.reshape(self._shape), Members(keys, where, hyper))

    def _frozen_of(self, member: Member) -> Any:
        results = {name: load_result(self._run, STAGES[name], member) for name in results_of(member, self._stage)}
        return self._stage.frozen(member.settings, results)

    def _restore(self) -> int:
        step = self._progress.latest()
        if step is None:
            return 0
        self._learning.restore(self._progress.load(step, self._learning.checkpoint()))
        return step

    def _checkpoint(self, step: int) -> None:
        # What a checkpoint promises is that everything before its step is on disk; evaluations under way are not.
        if self._scorer is not None:
            self._scorer.wait(before=step)
        host_copy = self._learning.checkpoint()
        if leads():
            self._progress.save(step, host_copy)

    def _forget_after(self, step: int) -> None:
        """Drops rows that a killed run wrote after its last checkpoint; they will be written again."""
        names = {_key(member.row(self._stage)) for member in self._members}

        def kept(row: dict[str, str]) -> bool:
            return _key(row) not in names or int(row["step"]) <= step

        self._run.metrics.keep(kept)
        self._run.evaluations.keep(kept)

    def _bar(self, start: int) -> tqdm:
        groups, members = self._shape
        unit = " updates" if self._stage.explore is None else " steps"
        what = f"{self._stage.name} ({groups * members} members)"
        total = self._plan.total * len(self._members)
        initial = start * len(self._members)
        return tqdm(
            total=total,
            initial=initial,
            desc=what,
            unit=unit,
            unit_scale=True,
            dynamic_ncols=True,
            disable=not leads(),
        )

    def _log(self, step: int, means: Mapping[str, np.ndarray], rate: float) -> None:
        values = {name: np.asarray(x).reshape(-1) for name, x in means.items()}
        rows = []
        for i, member in enumerate(self._members):
            numbers = {name: f"{x[i]:.6g}" for name, x in values.items() if math.isfinite(x[i])}
            rows.append(member.row(self._stage) | {"step": step, "updates_per_second": f"{rate:.1f}"} | numbers)
        self._run.metrics.append(rows)

    def _notice(self, means: Mapping[str, np.ndarray], diverged_at: np.ndarray, bar: tqdm) -> None:
        diverged = self._notices.diverged(diverged_at)
        for line in (*diverged.values(), *self._notices.concentrated(means)):
            bar.write(line)
        if diverged:
            self._run.add_diverged(diverged)

    def _results(self) -> Any:
        """Results of all members on the host, leaves [members, ...]."""
        results = self._stage.result(self._learning.states)
        return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), results)

    def _evaluate(self, step: int) -> None:
        final = step == self._plan.total
        if not self._evaluates or (step % self._plan.evaluation and not final):
            return
        results = self._results()
        if self._scorer is not None:
            self._scorer.submit(self._stage, self._members, step, results, final=final)

    def _save_results(self) -> None:
        results = self._results()
        self._stop_if_lost()
        if leads():
            for i, address in enumerate(self._addresses):
                path = self._run.artefact(self._stage, address)
                # Another worker may be reading one that was saved before a kill; it would be the same.
                if not path.exists():
                    if self._run.shares_artefacts:
                        self._run.save_measured(self._stage, address, self._measured(self._members[i]))
                    checkpoint.save(path, jax.tree.map(lambda x, i=i: x[i], results))
            self._progress.clear()
        # The other processes may not read the results before they are there.
        agree(0)

    def _measured(self, member: Member) -> dict[str, str]:
        """The last row of metrics of a member."""
        name = _key(member.row(self._stage))
        return next((row for row in reversed(self._run.metrics.rows()) if _key(row) == name), {})


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that name a member, of a row of `metrics.csv` or `evaluations.csv`."""
    return tuple(str(row[column]) for column in NAMING_COLUMNS)


def load_result(run: RunDirectory, stage: Stage, member: Member) -> Any:
    """The finished result of a stage of a member."""
    template = stage.template(member.settings, Spec(*member.spec))
    return checkpoint.load(run.artefact(stage, member.address(stage)), template)


def load_results(run: RunDirectory, stage: Stage, members: Sequence[Member]) -> Any:
    """The results of members stacked, leaves [members, ...]."""
    return stack([load_result(run, stage, member) for member in members])
