"""What a program or the command line asks for: train a sweep, evaluate it again, load one of its policies."""

import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo import report
from jaxrl_srpo.data.arrays import is_of_arrays
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.facts import DatasetFacts, dataset_facts
from jaxrl_srpo.data.names import expand_ranges
from jaxrl_srpo.data.packing import pack_with_columns
from jaxrl_srpo.envs.datasets import Given, as_dataset, name_of
from jaxrl_srpo.envs.make import import_environment
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export.loading import FilePolicy, load_file
from jaxrl_srpo.export.metadata import Format
from jaxrl_srpo.export.writing import Agreement, export
from jaxrl_srpo.io.files import errors_told, print_message
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.monitor import trackers
from jaxrl_srpo.report.mazes import has_map
from jaxrl_srpo.report.records import read_evaluations
from jaxrl_srpo.report.table import Table
from jaxrl_srpo.runs import config as config_lib
from jaxrl_srpo.runs.distributed import coordinator
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.policies import Policy, find
from jaxrl_srpo.runs.policies import load_policy as load_from_run
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import usable_environments
from jaxrl_srpo.runs.setup import columns_of
from jaxrl_srpo.runs.stage_run import Callback
from jaxrl_srpo.runs.sweep import MOST_MEMBERS, Member, Sweep, populations, stages_of, unique
from jaxrl_srpo.runs.workers import data_settings, facts_in, find_usable, make_scorer, own_methods, train_members

Algorithm = str | Method


@errors_told()
def train(
    datasets: Given | Sequence[Given] | None = None,
    out: str | os.PathLike[str] | None = None,
    seeds: Iterable[int] | None = None,
    preset: str | None = None,
    options: Options | None = None,
    log: Callable[[str], None] | None = None,
    algorithm: Algorithm | Sequence[Algorithm] | None = None,
    budget: float | None = None,
    config: str | os.PathLike[str] | None = None,
    callback: Callback | None = None,
    **overrides: Any,
) -> Table:
    """Trains a population of every dataset, seed and hyperparameter, evaluates it and writes its report.

    A run directory that holds a part of the same sweep is continued from there.

    Args:
      datasets: one or several: names, paths, `Dataset`s, dictionaries with the arguments of `Dataset.from_arrays`, or
        `minari.MinariDataset`s; `{1:6}` in a name stands for 1 to 5, one dataset each.
      out: run directory.
      seeds: one member per seed; 0 to 3 by default.
      preset: a preset that every method has; `quick` by default.
      options: how to run.
      log: receives messages; they go to standard error by default.
      algorithm: name of a method, a `Method` of your own or its `package.module:METHOD`, or several of these; `all`
        for every method of this package that the preset and the settings allow. `srpo` by default. With `online_steps`
        each goes on in the environment.
      budget: share of the preset's updates to train, evaluations and log rows closer together likewise; 1 by default.
      config: file with these arguments and settings by name, JSON or YAML, or the `sweep.json` of a run, which asks for
        that run again; what is given beside it goes before it.
      callback: called as `callback(stage, step, metrics)` after every row of `metrics.csv`, with the stage's name, the
        updates of each member so far, and a `TrainingMetrics` for each of them.
      **overrides: settings in place of the preset's, for instance `beta=[0.05, 0.1]` or `policy_steps=1000`; a
        sequence makes members of all its values.

    Returns:
      The rows of the table.

    Raises:
      UserError: if something asked for is not possible; nothing has been trained then.
    """
    asked = dict(datasets=datasets, out=out, seeds=seeds, preset=preset, algorithm=algorithm, budget=budget)
    prepared, options, log = _prepared(asked | overrides, config, options, log)
    settings = {member.dataset: member.settings for member in prepared.members}
    columns = columns_of(prepared.members)
    packed = {
        dataset.name: pack_with_columns(dataset, columns, **data_settings(settings[dataset.name]))  # type: ignore[arg-type]
        for dataset in prepared.datasets
    }
    with trackers.exporting(prepared.run, options.track if coordinator() else (), log):
        train_members(prepared.run, prepared.members, packed.__getitem__, prepared.usable, options, callback)
    if not coordinator():
        return Table()
    for path in report.write_report(prepared.run.path):
        log(f"wrote {path}")
    return Table(report.collect(prepared.run.path))


@errors_told()
def prepare(
    datasets: Given | Sequence[Given] | None = None,
    out: str | os.PathLike[str] | None = None,
    seeds: Iterable[int] | None = None,
    preset: str | None = None,
    options: Options | None = None,
    log: Callable[[str], None] | None = None,
    algorithm: Algorithm | Sequence[Algorithm] | None = None,
    budget: float | None = None,
    config: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> None:
    """Makes the run directory that `train` would make and trains nothing; workers can follow, see `workers.work`.

    Raises:
      UserError: if something asked for is not possible.
    """
    asked = dict(datasets=datasets, out=out, seeds=seeds, preset=preset, algorithm=algorithm, budget=budget)
    prepared, _, log = _prepared(asked | overrides, config, options, log)
    if held := [dataset.name for dataset in prepared.datasets if is_of_arrays(dataset.source)]:
        log(
            f"{', '.join(held)}: arrays of this program, which workers do not have; `train` with equal ones trains them"
        )


def load_policy(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    seed: int | None = None,
    beta: float | None = None,
    algorithm: Algorithm | None = None,
    artefacts: pathlib.Path | None = None,
    log: Callable[[str], None] | None = None,
    **values: float,
) -> Policy | FilePolicy:
    """Loads one policy: of a run directory, or of a file that `export_policy` wrote.

    Args:
      path: run directory or file; a file holds one policy, so that the other arguments are for run directories.
      dataset: name in the table; of several members that are left the one with the best last evaluation is taken.
      seed: of the member.
      beta: temperature of the member.
      algorithm: word of the policy in `evaluations.csv`, or a method of a user's own.
      artefacts: directory of finished stages, if the run used a shared one.
      log: receives a message on which policy was taken.
      **values: other swept settings of the member, for instance `expectile=0.9`.

    Raises:
      UserError: the run has no such finished member, or the file is damaged, was changed or is no exported policy.
    """
    which = {"dataset": dataset, "seed": seed, "beta": beta, "algorithm": algorithm, "artefacts": artefacts, **values}
    if not os.path.isfile(path):
        return load_from_run(path, log=log, **which)
    if given := [name for name, value in which.items() if value is not None]:
        raise UserError(f"{path}: a file holds one policy; leave out {given[0]}, or give the run directory")
    return load_file(path)


def export_policy(
    run_dir: str | os.PathLike[str], out: str | os.PathLike[str], format: Format = "onnx", **which: Any
) -> Agreement:
    """Writes one policy of a run as a file, see docs/exporting.md.

    Args:
      run_dir: run directory.
      out: the file; one that is there is replaced.
      format: `onnx`, `stablehlo`, or `npz` for deterministic networks of affine layers.
      **which: of the policies, as `load_policy` takes it.

    Returns:
      How closely the file acts as JAX does on random observations.

    Raises:
      UserError: the run has no such finished member, the format cannot hold its policy, the file would not act as JAX
        does, or cannot be written.
    """
    return export(find(run_dir, **which), format, pathlib.Path(out))


@errors_told()
def evaluate(
    run_dir: str | os.PathLike[str],
    episodes: int | None = None,
    artefacts: pathlib.Path | None = None,
    log: Callable[[str], None] | None = None,
    algorithm: Sequence[Algorithm] = (),
    environment: str | None = None,
) -> Table:
    """Evaluates every finished policy of a run again and writes the report anew, by the new evaluations.

    The rows of training time stay in `evaluations.csv`; the new ones have a number in the column `again`.

    Args:
      run_dir: run directory.
      episodes: episodes per member; as trained by default.
      artefacts: directory of finished stages, if the run used a shared one.
      log: receives messages.
      algorithm: methods of your own whose members the run holds.
      environment: Gymnasium id to evaluate in where the data name none; `module:ID` imports the module first.

    Raises:
      UserError: if it is no run directory, its environments cannot be made, or it has another one than is named.
    """
    log = log or print_message
    run = RunDirectory(pathlib.Path(run_dir), artefacts, own_methods(algorithm))
    facts = facts_in(run, environment)
    members = run.members()
    if episodes is not None:
        members = [
            dataclasses.replace(member, settings=member.settings.replace(episodes=episodes)) for member in members
        ]
    run.create()
    finished = [
        (stage, [member for member in unique(members, stage) if run.has_result(stage, member)])
        for stage in stages_of(members)
        if stage.acts
    ]
    if not any(own for _, own in finished):
        raise UserError(f"{run_dir}: no stage is finished yet; continue it with the command that started it")
    number = 1 + max((row.again for row in read_evaluations(run.path)), default=0)
    scorer = make_scorer(run, usable_environments(run, facts, required=True, log=log))
    run.keep_environments(facts)
    try:
        for stage, own in finished:
            for population in populations(own, stage):
                scorer.evaluate_again(stage, population, number)
    finally:
        scorer.close()
    report.write_report(run.path)
    return Table(report.collect(run.path))


def command() -> list[str]:
    """The command line of this process, by the program's name alone."""
    program = pathlib.Path(sys.argv[0])
    return ["jaxrl-srpo" if program.name == "__main__.py" else program.name, *sys.argv[1:]]


class _Prepared(NamedTuple):
    """A sweep whose run directory is ready; `usable` are the datasets that can be evaluated here."""

    run: RunDirectory
    members: list[Member]
    datasets: list[Dataset]
    usable: dict[str, DatasetFacts]


def _several(datasets: Given | Sequence[Given]) -> tuple[Given, ...]:
    """The datasets that were given: of a list or a tuple, and of a name with a range such as `{1:6}`."""
    given = datasets if isinstance(datasets, list | tuple) else (datasets,)
    return tuple(
        each
        for one in given
        for each in (expand_ranges([os.fspath(one)]) if isinstance(one, str | os.PathLike) else (one,))
    )


def _names(given: Sequence[Given]) -> tuple[str, ...]:
    """What the sweep calls the datasets.

    Raises:
      UserError: two that are no files have one name, or one is nothing that a dataset can be given as.
    """
    names = tuple(map(name_of, given))
    held = [name for name, one in zip(names, given, strict=True) if not isinstance(one, str | os.PathLike)]
    twice = next((name for name in held if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--datasets: two are called {twice}; give each a name of its own: name=...")
    return names


def _prepared(
    given: Mapping[str, Any],
    config: str | os.PathLike[str] | None,
    options: Options | None,
    log: Callable[[str], None] | None,
) -> tuple[_Prepared, Options, Callable[[str], None]]:
    """A sweep of what is given and of a file, ready to train; with the options and the log that hold.

    Raises:
      UserError: datasets or a run directory are missing, or something is not possible.
    """
    options, log = options or Options(), log or print_message
    asked = config_lib.as_arguments(config_lib.read_config(config)) if config is not None else {}
    asked |= {name: value for name, value in given.items() if value is not None}
    for name, example in (("datasets", "pointmaze/umaze"), ("out", "runs/umaze")):
        if name not in asked:
            raise UserError(f"--{name}: is required; for instance {name}={example!r}")
    several, out = _several(asked.pop("datasets")), asked.pop("out")
    return _prepare(_sweep(several, **asked), several, out, options, log), options, log


def _sweep(
    given: Sequence[Given],
    seeds: Iterable[int] = range(4),
    preset: str = "quick",
    algorithm: Algorithm | Sequence[Algorithm] = "srpo",
    budget: float = 1.0,
    **overrides: Any,
) -> Sweep:
    values = {name: _values(value) for name, value in overrides.items()}
    names, numbers = _names(given), tuple(itertools.islice(seeds, MOST_MEMBERS + 1))
    return Sweep(names, numbers, preset, values, budget, _values(algorithm))


def _prepare(
    sweep: Sweep,
    given: Sequence[Given],
    out: str | os.PathLike[str],
    options: Options,
    log: Callable[[str], None],
) -> _Prepared:
    """Loads and checks everything, then writes `sweep.json`."""
    trackers.check(options.track)
    if options.environment is not None:
        options = dataclasses.replace(options, environment=import_environment(options.environment))
    loaded = [as_dataset(one, **options.reading()) for one in given]
    _refuse_equal(loaded)
    members = sweep.members(loaded)
    settings = {member.dataset: data_settings(member.settings) for member in members}
    facts = [
        dataset_facts(dataset, **settings[dataset.name], given=_again(one))  # type: ignore[arg-type]
        for dataset, one in zip(loaded, given, strict=True)
    ]
    for fact in facts:
        log(
            f"{fact.name}: {fact.transitions:,} transitions, {fact.episodes:,} episodes, "
            f"reward transform {fact.reward_transform}"
        )
    for note in sweep.notes(loaded):
        log(note)
    run = RunDirectory(pathlib.Path(out), options.artefacts, sweep.methods)
    usable = find_usable(run, members, facts, options, log)
    if coordinator():
        run.describe(sweep, facts, members, command(), options.to_json())
        run.create()
        for dataset in loaded:
            if dataset.name in usable and dataset.environment is not None and has_map(dataset.environment):
                run.add_trajectories(dataset.name, _data_paths(dataset))
    return _Prepared(run, members, loaded, usable)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple, np.ndarray)) else (value,)


def _again(given: Given) -> str | None:
    """The name or path by which workers read a dataset; None of what a program holds."""
    return os.fspath(given) if isinstance(given, str | os.PathLike) else None


def _refuse_equal(datasets: Sequence[Dataset]) -> None:
    sources: dict[str, str] = {}
    for dataset in datasets:
        if dataset.name in sources:
            raise UserError(
                f"--datasets: {sources[dataset.name]} and {dataset.source} would both be called {dataset.name}; "
                "rename one of them"
            )
        sources[dataset.name] = dataset.source
    for one, other in itertools.combinations(datasets, 2):
        # Equal transitions may be of several tasks, whose goals they never reach.
        if (one.fingerprint, one.environment) == (other.fingerprint, other.environment):
            raise UserError(f"--datasets: {one.name} and {other.name} hold the same transitions; name one of them")


def _data_paths(dataset: Dataset, episodes: int = 40) -> dict[str, np.ndarray]:
    """Positions of some episodes of a maze dataset, spread over it, for the maze pictures."""
    ends = np.flatnonzero(dataset.episode_ends) + 1
    starts = np.concatenate([[0], ends[:-1]])
    chosen = np.unique(np.linspace(0, len(ends) - 1, episodes).astype(int))
    return {f"data_{k}": dataset.observations[starts[e] : ends[e], :2] for k, e in enumerate(chosen)}
