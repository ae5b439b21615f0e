"""What a program or the command line asks for: train a sweep, evaluate it again, load one of its policies."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo import report, tracking
from jaxrl_srpo.data import loading, table
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import transform_rewards
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.population import Strategy
from jaxrl_srpo.report import Row
from jaxrl_srpo.run_directory import DatasetFacts, RunDirectory
from jaxrl_srpo.settings import Settings
from jaxrl_srpo.stages import STAGES, Stage
from jaxrl_srpo.sweep import Member, Sweep, unique


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run, apart from what to train.

    Attributes:
      artefacts: directory of finished stages shared between runs; None keeps them in the run directory.
      environment: Gymnasium id to evaluate in, for data that does not name one.
      evaluate: False trains only; `evaluate` can follow later, elsewhere.
      allow_invalid_data: train on data that failed its checks.
      mirror: address to download D4RL files from instead of D4RL's own.
      strategy: `vmap`, `map` or `auto`, see `population`.
      checkpoint_seconds: least time between two checkpoints of a stage; 0 saves one after every chunk.
      track: where live curves go besides the run directory: `tensorboard`, `wandb`.
    """

    artefacts: pathlib.Path | None = None
    environment: str | None = None
    evaluate: bool = True
    allow_invalid_data: bool = False
    mirror: str | None = None
    strategy: Strategy = "auto"
    checkpoint_seconds: float = 60.0
    track: tuple[str, ...] = ()


def train(
    datasets: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    seeds: Iterable[int] = range(4),
    preset: str = "quick",
    options: Options | None = None,
    log: Callable[[str], None] | None = None,
    **overrides: Any,
) -> list[Row]:
    """Trains a population of every dataset, seed and hyperparameter, evaluates it and writes its report.

    A run directory that holds a part of the same sweep is continued from there.

    Args:
      datasets: names or paths.
      out: run directory.
      seeds: one member per seed.
      preset: `quick` or `paper`.
      options: how to run.
      log: receives messages; they go to standard error by default.
      **overrides: settings in place of the preset's, for instance `beta=[0.05, 0.1]` or `policy_steps=1000`; a
        sequence makes members of all its values.

    Returns:
      The rows of the table.

    Raises:
      UserError: if something asked for is not possible; nothing has been trained then.
    """
    options = options or Options()
    log = log or _print
    given = (datasets,) if isinstance(datasets, (str, os.PathLike)) else datasets
    names = tuple(os.fspath(name) for name in given)
    sweep = Sweep(
        names, tuple(int(seed) for seed in seeds), preset, {name: _values(value) for name, value in overrides.items()}
    )
    tracking.check(options.track)
    loaded = [_load(name, options) for name in sweep.datasets]
    _refuse_equal_names(loaded)
    members = sweep.members(loaded)
    settings = {member.dataset: member.settings for member in members}
    facts = [dataset_facts(dataset, settings[dataset.name]) for dataset in loaded]
    for fact in facts:
        log(
            f"{fact.name}: {fact.transitions:,} transitions, {fact.episodes:,} episodes, "
            f"reward transform {fact.reward_transform}"
        )
    run = RunDirectory(pathlib.Path(out), options.artefacts)
    usable = usable_environments(run, facts, options.environment is not None, log) if options.evaluate else {}
    run.describe(sweep, facts, members, command())
    run.create()
    with tracking.exporting(run, options.track, log):
        _train(run, members, loaded, usable, options)
    for path in report.write_report(run.path):
        log(f"wrote {path}")
    return report.collect(run.path)


def evaluate(
    run_dir: str | os.PathLike[str],
    episodes: int | None = None,
    artefacts: pathlib.Path | None = None,
    log: Callable[[str], None] | None = None,
) -> list[Row]:
    """Evaluates every finished policy of a run again and writes the report anew.

    Args:
      run_dir: run directory.
      episodes: episodes per member; as trained by default.
      artefacts: directory of finished stages, if the run used a shared one.
      log: receives messages.

    Raises:
      UserError: if it is no run directory, or its environments cannot be made.
    """
    log = log or _print
    run = RunDirectory(pathlib.Path(run_dir), artefacts)
    members = run.members()
    if episodes is not None:
        members = [
            dataclasses.replace(member, settings=dataclasses.replace(member.settings, episodes=episodes))
            for member in members
        ]
    run.create()
    finished = [
        (stage, [m for m in unique(members, stage) if run.artefact(stage, m.address(stage)).exists()])
        for stage in STAGES.values()
    ]
    if not any(own for _, own in finished):
        raise UserError(f"{run_dir}: no stage is finished yet; continue it with the command that started it")
    scorer = _scorer(run, usable_environments(run, list(run.facts().values()), required=True, log=log))
    try:
        for stage, own in finished:
            _evaluate_again(run, scorer, stage, own)
    finally:
        scorer.close()
    report.write_report(run.path)
    return report.collect(run.path)


def _evaluate_again(run: RunDirectory, scorer: Any, stage: Stage, members: Sequence[Member]) -> None:
    from jaxrl_srpo.sweep import populations

    names = {tuple(map(str, member.row(stage).values())) for member in members}

    def kept(row: dict[str, str]) -> bool:
        columns = ("stage", "dataset", "seed", "setting", "beta")
        return row["final"] != "1" or tuple(row[column] for column in columns) not in names

    run.evaluations.keep(kept)
    for population in populations(members, stage):
        scorer.finish(stage, population)


def dataset_facts(dataset: Dataset, settings: Settings) -> DatasetFacts:
    """What `sweep.json` keeps of a dataset."""
    returns = dataset.episode_returns
    rows = weighted_rows(dataset, settings.trajectory_weighting)
    mean, std = table.moments(take_rows(dataset, rows), settings.normalize_observations)
    goal = dataset.environment is not None and dataset.environment.goal_task
    successes = (returns > 0).astype(np.float64) if goal else None
    if dataset.reference is not None:
        metric, values = "normalized_score", dataset.reference.normalize(returns)
    elif successes is not None:
        metric, values = "success_rate", successes
    else:
        metric, values = "return", returns
    return DatasetFacts(
        name=dataset.name,
        source=dataset.source,
        transitions=dataset.size,
        episodes=len(returns),
        fingerprint=dataset.fingerprint,
        family=dataset.family,
        observation_size=dataset.observation_size,
        action_size=dataset.action_size,
        action_low=dataset.action_low.tolist(),
        action_high=dataset.action_high.tolist(),
        observation_mean=mean.tolist(),
        observation_std=std.tolist(),
        reward_transform=settings.reward_transform,
        metric=metric,
        data_mean=float(np.mean(values)),
        data_std=float(np.std(values)),
        return_mean=float(np.mean(returns)),
        environment=None if dataset.environment is None else dataset.environment.to_json(),
        reference=None if dataset.reference is None else dataclasses.asdict(dataset.reference),
        data_success_rate=None if successes is None else float(np.mean(successes)),
    )


def command() -> list[str]:
    """The command line of this process, by the program's name alone."""
    program = pathlib.Path(sys.argv[0])
    return ["jaxrl-srpo" if program.name == "__main__.py" else program.name, *sys.argv[1:]]


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple, np.ndarray)) else (value,)


def _load(name: str, options: Options) -> Dataset:
    return loading.load_dataset(
        name, mirror=options.mirror, allow_invalid=options.allow_invalid_data, env=options.environment
    )


def _refuse_equal_names(datasets: Sequence[Dataset]) -> None:
    sources: dict[str, str] = {}
    for dataset in datasets:
        if dataset.name in sources:
            raise UserError(
                f"--datasets: {sources[dataset.name]} and {dataset.source} would both be called {dataset.name}; "
                "rename one of the files"
            )
        sources[dataset.name] = dataset.source
    fingerprints: dict[str, str] = {}
    for dataset in datasets:
        twin = fingerprints.setdefault(dataset.fingerprint, dataset.name)
        if twin != dataset.name:
            raise UserError(f"--datasets: {twin} and {dataset.name} hold the same transitions; name one of them")


def _train(
    run: RunDirectory,
    members: Sequence[Member],
    datasets: Sequence[Dataset],
    usable: Mapping[str, DatasetFacts],
    options: Options,
) -> None:
    from jaxrl_srpo.training import Trainer, TrainingData

    settings = {member.dataset: member.settings for member in members}
    rows = {dataset.name: _rows(dataset, settings[dataset.name]) for dataset in datasets}
    scorer = _scorer(run, usable) if usable else None
    try:
        Trainer(run, TrainingData(rows), scorer, options.strategy, options.checkpoint_seconds).train(members)
    finally:
        if scorer is not None:
            scorer.close()
    if scorer is not None:
        for dataset in datasets:
            if dataset.environment is not None and dataset.environment.goal_task:
                run.add_trajectories(dataset.name, _data_paths(dataset))


def _rows(dataset: Dataset, settings: Settings) -> np.ndarray:
    """What members learn from: packed rows, the better episodes more often if they are weighted."""
    rewards = transform_rewards(dataset, settings.reward_transform)
    rows = weighted_rows(dataset, settings.trajectory_weighting)
    return table.pack_rows(take_rows(dataset, rows), rewards[rows], settings.normalize_observations)


def _scorer(run: RunDirectory, usable: Mapping[str, DatasetFacts]) -> Any:
    from jaxrl_srpo.scoring import Scorer
    from jaxrl_srpo.training import load_results

    return Scorer(run, usable, lambda stage, members: load_results(run, stage, members))


def usable_environments(
    run: RunDirectory, facts: Sequence[DatasetFacts], required: bool, log: Callable[[str], None]
) -> dict[str, DatasetFacts]:
    """The datasets whose environment can be made here; the others are named in a message.

    Raises:
      UserError: if the data do not fit their environment, or `required` and one cannot be made.
    """
    usable: dict[str, DatasetFacts] = {}
    for fact in facts:
        try:
            environment = _environment_of(fact)
        except UserError as error:
            if required:
                raise
            log(f"not evaluated: {error}; `jaxrl-srpo evaluate {run.path}` can do it later")
            continue
        _check_fits(fact, environment, log)
        environment.close()
        usable[fact.name] = fact
    return usable


def _environment_of(facts: DatasetFacts) -> Any:
    from jaxrl_srpo.envs.make import make_environment

    if facts.environment_spec is None:
        raise UserError(f"{facts.name}: no environment is known; give one with --env=ID")
    return make_environment(facts.environment_spec)


def _check_fits(facts: DatasetFacts, environment: Any, log: Callable[[str], None]) -> None:
    """Refuses other sizes, and tells of other bounds: a file without bounds is taken to have -1 and 1."""
    name, observations, actions = environment.spec.id, environment.observation_space, environment.action_space
    if (observations.shape, actions.shape) != ((facts.observation_size,), (facts.action_size,)):
        raise UserError(
            f"{facts.name}: observations have width {facts.observation_size} and actions {facts.action_size}, but "
            f"{name} has {observations.shape} and {actions.shape}; name the data's environment with --env"
        )
    if not (np.allclose(actions.low, facts.action_low) and np.allclose(actions.high, facts.action_high)):
        log(
            f"{facts.name}: its actions lie in [{min(facts.action_low):g}, {max(facts.action_high):g}], those of "
            f"{name} in [{actions.low.min():g}, {actions.high.max():g}]; policies keep to the data's bounds"
        )


def _data_paths(dataset: Dataset, episodes: int = 40) -> dict[str, np.ndarray]:
    """Positions of some episodes of a maze dataset, spread over it, for the maze pictures."""
    ends = np.flatnonzero(dataset.episode_ends) + 1
    starts = np.concatenate([[0], ends[:-1]])
    chosen = np.unique(np.linspace(0, len(ends) - 1, episodes).astype(int))
    return {f"data_{k}": dataset.observations[starts[e] : ends[e], :2] for k, e in enumerate(chosen)}
