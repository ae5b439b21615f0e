"""What a program or the command line asks for: train a sweep, evaluate it again, load one of its policies."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_srpo import report
from jaxrl_srpo.algorithms.iql import Policy as ActorParameters
from jaxrl_srpo.data import loading, table
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.data.observations import flatten_observation
from jaxrl_srpo.data.rewards import transform_rewards
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.population import Strategy
from jaxrl_srpo.report import Row
from jaxrl_srpo.settings import FIELDS
from jaxrl_srpo.stages import STAGES, Stage
from jaxrl_srpo.sweep import DatasetFacts, Member, RunDirectory, Sweep, unique

PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


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
      precision: of matrix products: `float32`, `tf32`, `bfloat16`, or `auto` (float32 on CPU, JAX's default elsewhere).
      checkpoint_seconds: least time between two checkpoints of a stage; 0 saves one after every chunk.
    """

    artefacts: pathlib.Path | None = None
    environment: str | None = None
    evaluate: bool = True
    allow_invalid_data: bool = False
    mirror: str | None = None
    strategy: Strategy = "auto"
    precision: str = "auto"
    checkpoint_seconds: float = 60.0


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
    use_precision(options.precision)
    loaded = [_load(name, options) for name in sweep.datasets]
    _refuse_equal_names(loaded)
    members = sweep.members(loaded)
    transforms = {member.dataset: member.settings.reward_transform for member in members}
    facts = [dataset_facts(dataset, transforms[dataset.name]) for dataset in loaded]
    for fact in facts:
        log(
            f"{fact.name}: {fact.transitions:,} transitions, {fact.episodes:,} episodes, "
            f"reward transform {fact.reward_transform}"
        )
    run = RunDirectory(pathlib.Path(out), options.artefacts)
    run.describe(sweep, facts, members, sys.argv)
    run.create()
    _train(run, members, loaded, transforms, options, log)
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
    scorer = _scorer(run, required=True, log=log)
    assert scorer is not None
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


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained policy; call it with one observation or a batch of them.

    Attributes:
      member: the training run it comes from.
      environment: where it was evaluated; None if unknown.
    """

    member: Member
    environment: EnvironmentSpec | None
    _act: Callable[[np.ndarray], np.ndarray]

    def __call__(self, observation: Any) -> np.ndarray:
        """Actions in the environment's units.

        Args:
          observation: [observation_size] or [B, observation_size]; or the dictionary that a goal environment gives.

        Returns:
          [action_size] or [B, action_size] float32.

        Raises:
          ValueError: if the observation has another width.
        """
        flat = np.asarray(flatten_observation(observation), np.float32)
        size = self.member.spec.observation_size
        if flat.ndim not in (1, 2) or flat.shape[-1] != size:
            raise ValueError(f"observation of shape {flat.shape}; expected [{size}] or [batch, {size}]")
        return self._act(flat[None])[0] if flat.ndim == 1 else self._act(flat)

    def make_environment(self, **kwargs: Any) -> Any:
        """The Gymnasium environment it was evaluated in, with flat observations; `kwargs` go to `gymnasium.make`.

        Raises:
          UserError: if none is known, or it is not installed.
        """
        from jaxrl_srpo.envs.make import make_environment

        if self.environment is None:
            raise UserError(f"{self.member.dataset}: its environment is not known")
        return make_environment(dataclasses.replace(self.environment, kwargs=self.environment.kwargs | kwargs))


def load_policy(
    run_dir: str | os.PathLike[str],
    dataset: str | None = None,
    seed: int | None = None,
    beta: float | None = None,
    algorithm: str = "srpo",
    artefacts: pathlib.Path | None = None,
    **values: float,
) -> Policy:
    """Loads one policy of a run.

    Where the arguments leave several members, the one with the best last evaluation is taken (the first, if there
    are no evaluations): give `seed` and `beta` to be sure which one it is.

    Args:
      run_dir: run directory.
      dataset: name in the table.
      seed: of the member.
      beta: temperature of the member.
      algorithm: `srpo`, or the baseline `iql` trained beside the critic.
      artefacts: directory of finished stages, if the run used a shared one.
      **values: other swept settings of the member, for instance `expectile=0.9`.

    Raises:
      UserError: if the run has no such finished member.
    """
    from jaxrl_srpo.training import load_result

    stages = {stage.algorithm: stage for stage in STAGES.values() if stage.algorithm != "bc"}
    if algorithm not in stages:
        raise UserError(f"algorithm {algorithm}: choose one of {', '.join(sorted(stages))}")
    stage = stages[algorithm]
    run = RunDirectory(pathlib.Path(run_dir), artefacts)
    wanted = {"dataset": dataset, "seed": seed} | {"beta": beta} | values
    members = [m for m in run.members() if _matches(m, wanted)]
    finished = [m for m in members if run.artefact(stage, m.address(stage)).exists()]
    if not finished:
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        state = "is not finished" if members else "does not exist"
        raise UserError(f"{run_dir}: a member with {asked or algorithm} {state}; sweep.json lists the members")
    member = max(finished, key=lambda m: _last_score(run.path, stage, m))
    facts = run.facts()[member.dataset]
    policy = stage.policy(load_result(run, stage, member))
    return Policy(member, facts.environment_spec, _actor(policy, facts))


def _matches(member: Member, wanted: dict[str, Any]) -> bool:
    own = {"dataset": member.dataset, "seed": member.seed} | dataclasses.asdict(member.settings)
    unknown = wanted.keys() - own.keys()
    if unknown:
        raise UserError(f"{', '.join(sorted(unknown))}: no such setting; one of {', '.join(FIELDS)}")
    return all(value is None or own[name] == value for name, value in wanted.items())


def _last_score(run_dir: pathlib.Path, stage: Stage, member: Member) -> float:
    from jaxrl_srpo.report.records import read_evaluations

    row = {name: str(value) for name, value in member.row(stage).items()}
    own = [
        entry
        for entry in (read_evaluations(run_dir) if (run_dir / "evaluations.csv").exists() else [])
        if (entry.stage, entry.dataset, str(entry.seed), entry.setting) == tuple(row.values())[:4]
        and (entry.beta is None or f"{entry.beta:g}" == row["beta"])
    ]
    return own[-1].mean if own else float("-inf")


def _actor(policy: ActorParameters, facts: DatasetFacts) -> Callable[[np.ndarray], np.ndarray]:
    device = jax.local_devices(backend="cpu")[0]
    policy = jax.device_put(policy, device)
    low, high = np.asarray(facts.action_low, np.float32), np.asarray(facts.action_high, np.float32)
    forward = jax.jit(lambda policy, observations: policy.act(observations))

    def act(observations: np.ndarray) -> np.ndarray:
        actions = np.asarray(forward(policy, jax.device_put(observations, device)))
        return low + 0.5 * (actions + 1.0) * (high - low)

    return act


def use_precision(name: str) -> None:
    """Sets the precision of matrix products.

    Raises:
      UserError: for an unknown one.
    """
    if name != "auto" and name not in PRECISIONS:
        raise UserError(f"--precision={name}: choose one of auto, {', '.join(PRECISIONS)}")
    jax.config.update("jax_default_matmul_precision", PRECISIONS.get(name))


def dataset_facts(dataset: Dataset, reward_transform: str) -> DatasetFacts:
    """What `sweep.json` keeps of a dataset."""
    returns = dataset.episode_returns
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
        reward_transform=reward_transform,
        metric=metric,
        data_mean=float(np.mean(values)),
        data_std=float(np.std(values)),
        return_mean=float(np.mean(returns)),
        environment=None if dataset.environment is None else dataset.environment.to_json(),
        reference=None if dataset.reference is None else dataclasses.asdict(dataset.reference),
        data_success_rate=None if successes is None else float(np.mean(successes)),
    )


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


def _train(
    run: RunDirectory,
    members: Sequence[Member],
    datasets: Sequence[Dataset],
    transforms: dict[str, str],
    options: Options,
    log: Callable[[str], None],
) -> None:
    from jaxrl_srpo.training import Trainer, TrainingData

    rows = {
        (dataset.name, transforms[dataset.name]): table.pack(
            [dataset], [transform_rewards(dataset, transforms[dataset.name])]
        ).rows
        for dataset in datasets
    }
    scorer = _scorer(run, required=options.environment is not None, log=log) if options.evaluate else None
    try:
        Trainer(run, TrainingData(rows), scorer, options.strategy, options.checkpoint_seconds).train(members)
    finally:
        if scorer is not None:
            scorer.close()
    if scorer is not None:
        for dataset in datasets:
            if dataset.environment is not None and dataset.environment.goal_task:
                run.add_trajectories(dataset.name, _data_paths(dataset))


def _scorer(run: RunDirectory, required: bool, log: Callable[[str], None]) -> Any:
    """A scorer for the datasets whose environment can be made here; None if there is none."""
    from jaxrl_srpo.envs.make import make_environment
    from jaxrl_srpo.scoring import Scorer
    from jaxrl_srpo.training import result_loader

    usable: dict[str, DatasetFacts] = {}
    for name, facts in run.facts().items():
        try:
            if facts.environment_spec is None:
                raise UserError(f"{name}: no environment is known; give one with --env=ID")
            environment = make_environment(facts.environment_spec)
            sizes = (environment.observation_space.shape, environment.action_space.shape)
            environment.close()
            usable[name] = facts
        except UserError as error:
            if required:
                raise
            log(f"not evaluated: {error}; `jaxrl-srpo evaluate {run.path}` can do it later")
            continue
        if sizes != ((facts.observation_size,), (facts.action_size,)):
            raise UserError(
                f"{name}: observations have width {facts.observation_size} and actions {facts.action_size}, but "
                f"{facts.environment_spec.id} has {sizes[0]} and {sizes[1]}; name the data's environment with --env"
            )
    return Scorer(run, usable, lambda stage, members: result_loader(run, stage, members)()) if usable else None


def _data_paths(dataset: Dataset, episodes: int = 40) -> dict[str, np.ndarray]:
    """Positions of some episodes of a maze dataset, spread over it, for the maze pictures."""
    ends = np.flatnonzero(dataset.episode_ends) + 1
    starts = np.concatenate([[0], ends[:-1]])
    chosen = np.unique(np.linspace(0, len(ends) - 1, episodes).astype(int))
    return {f"data_{k}": dataset.observations[starts[e] : ends[e], :2] for k, e in enumerate(chosen)}
