"""Workers: any number of processes, anywhere, that finish one prepared sweep; its run directory is all they share."""

import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxrl_srpo import report
from jaxrl_srpo.data import loading, table
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import transform_rewards
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.settings import Settings
from jaxrl_srpo.methods.stages import STAGES
from jaxrl_srpo.runs.distributed import leads
from jaxrl_srpo.runs.leases import Leases
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import DatasetFacts, RunDirectory
from jaxrl_srpo.runs.scorer import Scorer, usable_environments
from jaxrl_srpo.runs.sweep import Member, populations, unique
from jaxrl_srpo.runs.trainer import Trainer, TrainingData, load_results


def print_message(message: str) -> None:
    """Messages go to standard error, results to standard output."""
    print(message, file=sys.stderr, flush=True)


def pack_rows(dataset: Dataset, settings: Settings) -> np.ndarray:
    """What members learn from: rows [N, width], rewards transformed, observations as the networks see them.

    Better episodes come more often if they are weighted.
    """
    rewards = transform_rewards(dataset, settings.reward_transform)
    rows = weighted_rows(dataset, settings.trajectory_weighting)
    return table.pack_rows(take_rows(dataset, rows), rewards[rows], settings.normalize_observations)


def train_members(
    run: RunDirectory,
    members: Sequence[Member],
    rows: Callable[[str], np.ndarray],
    usable: Mapping[str, DatasetFacts],
    options: Options,
) -> None:
    """Trains and evaluates what a prepared run lacks, beside any other workers; returns when all of it is done.

    Args:
      run: the run directory.
      members: the members to train.
      rows: gives the packed rows of a dataset by name.
      usable: datasets by name whose members are evaluated.
      options: how to run.
    """
    scorer = make_scorer(run, usable) if usable and options.evaluate and leads() else None
    try:
        Trainer(
            run,
            TrainingData(rows, run.facts),
            scorer,
            options.strategy,
            options.checkpoint_seconds,
            options.members_per_population,
        ).train(members)
    finally:
        if scorer is not None:
            scorer.close()


def make_scorer(run: RunDirectory, usable: Mapping[str, DatasetFacts]) -> Scorer:
    """What evaluates the members of a run whose datasets are `usable`."""
    return Scorer(run, usable, lambda stage, members: load_results(run, stage, members))


def work(run_dir: str | os.PathLike[str], log: Callable[[str], None] | None = None) -> list[report.Row]:
    """Trains and evaluates what a run lacks, beside any other workers, and writes its report when all is done.

    Args:
      run_dir: a run directory made by `api.prepare` or `api.train`, on storage that all workers see.
      log: receives messages; they go to standard error by default.

    Returns:
      The rows of the table.

    Raises:
      UserError: if it is no run directory, its data cannot be loaded or are other data now, or the environment that
        was asked for cannot be made here.
    """
    log = log or print_message
    path = pathlib.Path(run_dir)
    options = Options.from_json(RunDirectory(path).read().get("options", {}))
    run = RunDirectory(path, options.artefacts)
    members, facts = run.members(), list(run.facts().values())
    online = any(member.settings.online_steps for member in members)
    required = online or options.environment is not None
    usable = usable_environments(run, facts, required, log, online) if online or options.evaluate else {}
    if leads():
        run.create()
    train_members(run, members, _rows_of(run, members, options), usable, options)
    if not leads():
        return []
    _write_report(run, log)
    return report.collect(path)


def side_by_side(run_dir: str | os.PathLike[str]) -> int:
    """Members of a run that can be trained side by side and share no earlier result.

    Raises:
      UserError: if it is no run directory.
    """
    run = RunDirectory(pathlib.Path(run_dir))
    size = Options.from_json(run.read().get("options", {})).members_per_population
    members = run.members()
    groups = (populations(unique(members, stage), stage, size) for stage in STAGES.values() if not stage.needs)
    return max(map(len, itertools.chain(*groups)), default=1)


def _rows_of(run: RunDirectory, members: Sequence[Member], options: Options) -> Callable[[str], np.ndarray]:
    """Gives the packed rows of a dataset by name; each is loaded when it is first asked for."""
    settings = {member.dataset: member.settings for member in members}
    facts = run.facts()

    @functools.cache
    def rows(name: str) -> np.ndarray:
        fact = facts[name]
        dataset = loading.load_dataset(
            fact.given or fact.source,
            mirror=options.mirror,
            allow_invalid=options.allow_invalid_data,
            env=options.environment,
        )
        if dataset.fingerprint != fact.fingerprint:
            raise UserError(f"{dataset.source}: holds other transitions than {name} in {run.path}/sweep.json")
        return pack_rows(dataset, settings[name])

    return rows


def _write_report(run: RunDirectory, log: Callable[[str], None]) -> None:
    """One of the workers that finish together writes it."""
    lease = Leases(run.path / "leases").claim("report")
    if lease is None:
        return
    with lease:
        for path in report.write_report(run.path):
            log(f"wrote {path}")
