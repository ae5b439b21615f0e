"""From the members of a stage to a population that is ready to train, on the dataset or online."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.data.packing import PackedDataset
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import checkpoint
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.nn import networks
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import Members, make_members, stack
from jaxrl_srpo.population.offline import OfflinePopulation, Outcome, Programs, compile_programs
from jaxrl_srpo.population.online import GymnasiumRun, Progress
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.runs import distributed
from jaxrl_srpo.runs.run_directory import RunDirectory, damage_advised
from jaxrl_srpo.runs.sweep import Member, shared_groups, stages_of


class Population(Protocol):
    """A stage of a population between two chunks; arrays are [groups, members per group, ...]."""

    def launch(self, start: int, stop: int) -> Outcome:
        """Starts steps `start` to `stop` of every member; what they give is for `fetch`."""

    def copy_of(self, part: Callable[[Any], Any]) -> Any:
        """A copy of a part of the method's states, for `fetch`; the next steps leave it as it is."""

    def fetch(self, tree: Any) -> Any:
        """Arrays on the host of what `launch` or `copy_of` gave, once they are there."""

    @property
    def diverged_at(self) -> np.ndarray:
        """Update at which a member stopped being finite; -1 while all is well."""

    def checkpoint(self) -> Any:
        """What `restore` needs, a pytree of arrays on the host."""

    def checkpoint_shapes(self) -> Any:
        """Shapes and types of a checkpoint."""

    def restore(self, saved: Any) -> None:
        """Goes back to a checkpoint."""

    def close(self) -> None:
        """Closes what is open."""


def columns_of(members: Sequence[Member]) -> list[str]:
    """The further columns that stages of some members read."""
    return list(dict.fromkeys(column for stage in stages_of(members) for column in stage.columns))


class TrainingData:
    """What members of every dataset of a sweep learn from.

    Args:
      packed: gives a dataset, already reward-transformed, by its name.
      facts: gives what the run directory keeps of the datasets, by name.
    """

    def __init__(self, packed: Callable[[str], PackedDataset], facts: Callable[[], Mapping[str, DatasetFacts]]) -> None:
        self._packed, self._facts = packed, facts

    def pack(self, members: Sequence[Member], columns: tuple[str, ...] = ()) -> table.PackedTable:
        """One array of the datasets that some members use, and a slice per member."""
        names = list(dict.fromkeys(member.dataset for member in members))
        packed = table.pack([self._packed(name).with_columns(columns) for name in names])
        where = dict(zip(names, packed.slices, strict=True))
        return table.PackedTable(packed.rows, [where[member.dataset] for member in members])

    def facts_of(self, members: Sequence[Member]) -> list[DatasetFacts]:
        """The facts of each member's dataset."""
        known = self._facts()
        return [known[member.dataset] for member in members]


def in_groups(stage: Stage, members: Sequence[Member]) -> list[list[Member]]:
    """Members in groups of equal size that share earlier results, in the order in which they are trained."""
    return shared_groups(members, stage)


def make_population(
    run: RunDirectory,
    data: TrainingData,
    stage: Stage,
    groups: Sequence[Sequence[Member]],
    strategy: Strategy,
    programs: Programs | None = None,
) -> Population:
    """A fresh population.

    Args:
      run: where the earlier results lie.
      data: what it learns from.
      stage: what it trains.
      groups: its members, see `in_groups`.
      strategy: see `population.vectorize`.
      programs: what `programs_of` gave for the same population; compiled when first needed by default.

    Raises:
      UserError: it learns online and that is not possible here.
    """
    members = [member for group in groups for member in group]
    packed = data.pack(members, stage.columns)
    described = _describe(stage, members, packed.slices, len(groups))
    frozen = stack([_frozen(run, stage, group[0]) for group in groups])
    if stage.online:
        return OnlinePopulation(stage, members, described, frozen, packed.rows, data.facts_of(members), strategy)
    spec = stage.spec(members[0].spec)
    return OfflinePopulation(
        stage.init, stage.update, spec, described, frozen, packed.rows, strategy, programs=programs
    )


def programs_of(data: TrainingData, stage: Stage, groups: Sequence[Sequence[Member]], strategy: Strategy) -> Programs:
    """What `make_population` would compile, also where the earlier results are not there yet.

    Args:
      data: what the population learns from.
      stage: what it trains, offline.
      groups: its members, see `in_groups`.
      strategy: see `population.vectorize`.
    """
    members = [member for group in groups for member in group]
    packed = data.pack(members, stage.columns)
    described = _describe(stage, members, packed.slices, len(groups))
    values, spec = members[0].settings, members[0].spec
    earlier = {needed.name: needed.template(values, spec) for needed in stage.needs}
    one = jax.eval_shape(lambda results: stage.make_frozen(values, results, spec), earlier)
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(groups), *x.shape), x.dtype), one)
    rows = jax.ShapeDtypeStruct(packed.rows.shape, packed.rows.dtype)
    return compile_programs(stage.init, stage.update, stage.spec(spec), described, frozen, rows, strategy)


def _describe(stage: Stage, members: Sequence[Member], slices: Sequence[table.Slice], groups: int) -> Members:
    keys = [jax.random.fold_in(jax.random.key(member.seed_of(stage)), stage.stream) for member in members]
    return make_members(keys, [stage.read(member.settings) for member in members], slices, groups)


def _frozen(run: RunDirectory, stage: Stage, member: Member) -> Any:
    results = {earlier.name: load_result(run, earlier, member) for earlier in stage.needs}
    return stage.make_frozen(member.settings, results, member.spec)


def load_result(run: RunDirectory, stage: Stage, member: Member) -> Any:
    """The finished result of a stage of a member, read by the coordinator for all processes."""
    template = stage.template(member.settings, member.spec)
    if distributed.coordinator():
        result = _read(run.artefact(stage, member.address(stage)), template)
    else:
        result = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
    return distributed.broadcast_tree(result)


def _read(path: pathlib.Path, template: Any) -> Any:
    """A saved result; one of 0.1 has the two networks of a `TwinQ` apart."""
    apart = networks.split_heads(template)
    with damage_advised(path):
        checkpoint.check(path)
        if not checkpoint.fits(path, template) and checkpoint.fits(path, apart):
            return networks.join_heads(checkpoint.restore(path, apart))
        return checkpoint.restore(path, template)


def load_results(run: RunDirectory, stage: Stage, members: Sequence[Member]) -> Any:
    """The results of members stacked, leaves [members, ...]; the coordinator alone may ask."""
    template = stage.template(members[0].settings, members[0].spec)
    return stack([_read(run.artefact(stage, member.address(stage)), template) for member in members])


class OnlinePopulation:
    """A population that learns from its own experience; a step is one of the environment.

    Args:
      stage: what it trains.
      members: its members.
      described: the same, [groups, members per group].
      frozen: results of earlier stages, leaves [groups, ...].
      rows: the transition table that replay buffers start from.
      facts: of each member's dataset.
      strategy: see `population.vectorize`.

    Raises:
      UserError: several processes of one program cannot learn online together.
    """

    def __init__(
        self,
        stage: Stage,
        members: Sequence[Member],
        described: Members,
        frozen: Any,
        rows: np.ndarray,
        facts: Sequence[DatasetFacts],
        strategy: Strategy,
    ) -> None:
        if jax.process_count() > 1:
            raise UserError("--online_steps: learning online takes one process; use `jaxrl-srpo work` for several")
        assert stage.explore is not None
        settings, spec = members[0].settings, members[0].spec
        agent = Agent(
            name=stage.name,
            init=stage.init,
            update=stage.update,
            explore=stage.explore,
            policy=lambda state: stage.make_policy(settings, spec, stage.result(state)),
            act=stage.act,
        )
        self._run = GymnasiumRun(
            [fact.environment_spec for fact in facts if fact.environment_spec is not None],
            agent,
            _loop(stage, settings, described),
            members=described,
            units=[fact.units for fact in facts],
            frozen=frozen,
            rows=rows if stage.uses_data else None,
            strategy=strategy,
        )
        self._last: Progress | None = None

    def launch(self, start: int, stop: int) -> Outcome:
        """See `Population`; waits for the steps, as the host steps the environments."""
        self._last = last = self._run.run(stop - start)
        episodes = {"episodes": last.episodes, "episode_return": last.returns, "episode_length": last.lengths}
        return Outcome(last.metrics | episodes, last.diverged_at)

    def copy_of(self, part: Callable[[Any], Any]) -> Any:
        """See `Population`."""
        return part(self._run.states)

    def fetch(self, tree: Any) -> Any:
        """See `Population`; it is on the host."""
        return tree

    @property
    def diverged_at(self) -> np.ndarray:
        """See `Population`."""
        assert self._last is not None
        return self._last.diverged_at

    def checkpoint(self) -> Any:
        """See `Population`."""
        return self._run.checkpoint()

    def checkpoint_shapes(self) -> Any:
        """See `Population`."""
        return self._run.checkpoint_shapes()

    def restore(self, saved: Any) -> None:
        """See `Population`."""
        self._run.restore(saved)

    def close(self) -> None:
        """Closes the environments."""
        self._run.close()


def _loop(stage: Stage, settings: Mapping[str, Any], described: Members) -> Loop:
    size = int(np.max(described.where.size)) if stage.uses_data else 0
    first = settings[stage.warmup_steps]
    return Loop(
        update_to_data=settings["update_to_data"],
        capacity=size + settings["online_steps"],
        warmup_steps=first,
        random_steps=0 if stage.uses_data else first,
    )
