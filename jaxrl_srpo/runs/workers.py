"""Workers: any number of processes, anywhere, that finish one prepared sweep; its run directory is all they share."""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jaxrl_srpo import methods as methods_lib
from jaxrl_srpo import report
from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.arrays import is_of_arrays
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.data.packing import PackedDataset, pack_with_columns
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.envs.make import import_environment
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import errors_told, expand_home, print_message
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.runs.devices import prepare_jax_unless_chosen
from jaxrl_srpo.runs.distributed import coordinator
from jaxrl_srpo.runs.leases import Leases
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import Scorer, usable_environments
from jaxrl_srpo.runs.setup import TrainingData, columns_of, load_results
from jaxrl_srpo.runs.stage_run import Callback
from jaxrl_srpo.runs.sweep import Member, by_training, populations, stages_of
from jaxrl_srpo.runs.trainer import Trainer
from jaxrl_srpo.types import Spec


def own_methods(named: Sequence[str | Method]) -> list[Method]:
    """The methods of a user's own that a person named for a run directory.

    Raises:
      UserError: there is no such method.
    """
    return [methods_lib.find_method(name) for name in named]


def data_settings(settings: Values) -> dict[str, str | float | bool]:
    """What determines the rows that members learn from, as keyword arguments of `pack_dataset` and `dataset_facts`."""
    return {name: settings[name] for name in ("reward_transform", "trajectory_weighting", "normalize_observations")}


def train_members(
    run: RunDirectory,
    members: Sequence[Member],
    packed: Callable[[str], PackedDataset],
    usable: Mapping[str, DatasetFacts],
    options: Options,
    callback: Callback | None = None,
) -> None:
    """Trains and evaluates what a prepared run lacks, beside any other workers; returns when all of it is done.

    Args:
      run: the run directory.
      members: the members to train.
      packed: gives a dataset by name.
      usable: datasets by name whose members are evaluated.
      options: how to run.
      callback: see `stage_run.How`.
    """
    prepare_jax_unless_chosen(_most_at_a_time(members, options.members_per_population))
    scorer = make_scorer(run, usable) if usable and options.evaluate and coordinator() else None
    try:
        Trainer(
            run,
            TrainingData(packed, run.facts),
            scorer,
            options.strategy,
            options.checkpoint_seconds,
            options.members_per_population,
            callback,
        ).train(members)
    finally:
        if scorer is not None:
            scorer.close()


def make_scorer(run: RunDirectory, usable: Mapping[str, DatasetFacts]) -> Scorer:
    """What evaluates the members of a run whose datasets are `usable`."""
    return Scorer(run, usable, functools.partial(load_results, run))


@errors_told()
def work(
    run_dir: str | os.PathLike[str],
    log: Callable[[str], None] | None = None,
    algorithm: Sequence[str | Method] = (),
    environment: str | None = None,
) -> list[report.Row]:
    """Trains and evaluates what a run lacks, beside any other workers, and writes its report when all is done.

    Args:
      run_dir: a run directory made by `api.prepare` or `api.train`, on storage that all workers see.
      log: receives messages; they go to standard error by default.
      algorithm: methods of a user's own whose members the run holds.
      environment: the run's environment as `module:ID`, where a module of a user's own registers it.

    Returns:
      The rows of the table.

    Raises:
      UserError: if it is no run directory, its data cannot be loaded or are other data now, or the environment that
        was asked for cannot be made here.
    """
    log = log or print_message
    path = expand_home(run_dir)
    options = Options.from_json(RunDirectory(path).read().get("options", {}))
    run = RunDirectory(path, options.artefacts, own_methods(algorithm))
    members, facts = run.members(), facts_in(run, environment)
    usable = find_usable(run, members, facts, options, log)
    if coordinator():
        run.create()
        run.keep_environments(facts)
    train_members(run, members, packer(run, members, options), usable, options)
    if not coordinator():
        return []
    _write_report(run, log)
    return report.collect(path)


def facts_in(run: RunDirectory, environment: str | None) -> list[DatasetFacts]:
    """Facts of a run's datasets; those that name no environment with the one that a person names, if any.

    Args:
      run: the run directory.
      environment: Gymnasium id; the module of `module:ID` is imported.

    Raises:
      UserError: there is no such module, or a dataset of the run has another environment.
    """
    if environment is None:
        return list(run.facts().values())
    return run.facts_in(d4rl.environment_spec(import_environment(environment)))


def find_usable(
    run: RunDirectory,
    members: Sequence[Member],
    facts: Sequence[DatasetFacts],
    options: Options,
    log: Callable[[str], None],
) -> dict[str, DatasetFacts]:
    """The datasets by name whose members can be evaluated, or learn online, here.

    Raises:
      UserError: see `scorer.usable_environments`.
    """
    online = any(stage.online for member in members for stage in member.stages)
    if not (online or options.evaluate):
        return {}
    return usable_environments(run, facts, online or options.environment is not None, log, online)


def side_by_side(run_dir: str | os.PathLike[str], algorithm: Sequence[str | Method] = ()) -> int:
    """Members of a run that can be trained side by side and share no earlier result.

    Raises:
      UserError: if it is no run directory.
    """
    run = RunDirectory(pathlib.Path(run_dir), methods=own_methods(algorithm))
    size = Options.from_json(run.read().get("options", {})).members_per_population
    return _most_at_a_time(run.members(), size)


def _most_at_a_time(members: Sequence[Member], size: int) -> int:
    """Members of a sweep that share no earlier result, in populations of at most `size` (0: of all that can be)."""
    groups = (
        populations(list(by_training(members, stage)), stage, size) for stage in stages_of(members) if not stage.needs
    )
    return max(map(len, itertools.chain(*groups)), default=1)


def packer(run: RunDirectory, members: Sequence[Member], options: Options) -> Callable[[str], PackedDataset]:
    """Gives a dataset that members learn from by name; each is loaded when it is first asked for."""
    settings = {member.dataset: member.settings for member in members}
    facts, columns = run.facts(), columns_of(members)

    @functools.cache
    def packed(name: str) -> PackedDataset:
        dataset = load_again(run, facts[name], options)
        return pack_with_columns(dataset, columns, **data_settings(settings[name]))  # type: ignore[arg-type]

    return packed


def load_again(run: RunDirectory, facts: DatasetFacts, options: Options) -> Dataset:
    """A dataset of a run, as its members learned from it.

    Raises:
      UserError: it were arrays of another process, it cannot be loaded, or it holds other transitions now.
    """
    if facts.given is None and is_of_arrays(facts.source):
        raise UserError(
            f"{run.path}: the data of {facts.name} were arrays of a Python program, which no other process has; go on "
            "there: jaxrl_srpo.train with equal arrays and the same out"
        )
    dataset = load_dataset(facts.given or facts.source, **options.reading())
    sizes = Spec(dataset.observation_size, dataset.action_size)
    if dataset.fingerprint != facts.fingerprint or sizes != Spec(facts.observation_size, facts.action_size):
        raise UserError(f"{dataset.source}: holds other transitions than {facts.name} in {run.path}/sweep.json")
    return dataset


def _write_report(run: RunDirectory, log: Callable[[str], None]) -> None:
    """One of the workers that finish together writes it."""
    lease = Leases(run.path / "leases").claim("report")
    if lease is None:
        return
    with lease:
        for path in report.write_report(run.path):
            log(f"wrote {path}")
