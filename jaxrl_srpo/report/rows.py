"""The rows of a run's table: every dataset, algorithm and hyperparameter setting, averaged over seeds."""

import dataclasses
import math
import os
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.data.origins import origin
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.outcomes import Diverged, NotTrained
from jaxrl_srpo.report.published import published_score
from jaxrl_srpo.report.records import (
    DATA,
    DATA_LABEL,
    Evaluation,
    Result,
    StageInfo,
    read_evaluations,
    read_metrics,
    read_stages,
    read_sweep,
)

_SIZE = "effective_sample_size"


@dataclasses.dataclass(frozen=True)
class Row:
    """One dataset, algorithm and hyperparameter setting, averaged over seeds; the columns of `table.csv` in order.

    Attributes:
      dataset: the dataset's name.
      algorithm: `data` (the dataset's own episodes) or that of a stage.
      beta: temperature of SRPO; None for the others.
      seeds: number of seeds that were evaluated, or trained if none was; None for `data`.
      episodes: evaluation episodes of each seed (the fewest, if they differ); episodes in the dataset for `data`.
      mean: mean over seeds of each seed's last evaluation, NaN if there is none; over episodes for `data`.
      std: sample standard deviation (n - 1) over seeds of the same, 0 for one seed; over episodes for `data`.
      published: the published score (a mean), where there is one in the same metric.
      metric: what mean, std, published, best_mean and worst_seed measure.
      setting: other hyperparameters varied, as `expectile=0.9`, ';' between them.
      return_mean: mean undiscounted return of the same evaluations.
      best_mean: mean over seeds of each seed's best evaluation during training; a choice no offline method can make.
      worst_seed: the lowest of the seeds' last evaluations.
      diverged: number of members that diverged and were frozen at their last good state.
      success_rate: mean success rate, 0 to 1, in goal tasks.
      unfinished: number of seeds whose stage has not ended; their latest evaluation stands in.
      effective_sample_size: mean over seeds of the share of a batch, 0 to 1, that AWAC's weights left in effect when
        last measured; None for stages without such weights.
      regret: 1 (the score of an expert, or a success rate of 1) minus the mean over seeds and over all evaluations
        after the first while it learns online, as in CORL; None for other stages and for plain returns.
      label: what readers know the algorithm by.
      online: whether it learned from the environment.
      shared: which models its seeds share, as `behavior_seeds=1`, ';' between them; empty if none.
      not_trained: number of members that were not trained, because an earlier stage of theirs diverged.
      origin: what its data are where they could be taken for D4RL's and are others, see `data.origins`; else empty.
      published_note: by whom the published score is, and marks that say what it is; see `published.Score`.
    """

    dataset: str
    algorithm: str
    beta: float | None
    seeds: int | None
    episodes: int | None
    mean: float
    std: float
    published: float | None
    metric: str
    setting: str
    return_mean: float
    best_mean: float | None
    worst_seed: float | None
    diverged: int
    success_rate: float | None
    unfinished: int
    effective_sample_size: float | None = None
    regret: float | None = None
    label: str = ""
    online: bool = False
    shared: str = ""
    not_trained: int = 0
    origin: str = ""
    published_note: str = ""

    @property
    def title(self) -> str:
        """What tables call the algorithm."""
        return self.label or self.algorithm


def collect(run_dir: str | os.PathLike[str]) -> list[Row]:
    """The rows of a run's table: datasets in the order of the sweep, algorithms in that of its stages.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    sweep = read_sweep(run_dir)
    groups: dict[_Key, list[Evaluation]] = defaultdict(list)
    for evaluation in read_evaluations(run_dir):
        key = _Key(evaluation.dataset, evaluation.algorithm, evaluation.setting, evaluation.beta)
        groups[key].append(evaluation)
    context = _context(run_dir, sweep)
    for result in (*context.not_trained, *context.trained):
        groups.setdefault(_key_of(result, context), [])
    names = [entry["name"] for entry in sweep["datasets"]]
    unknown = sorted({key.dataset for key in groups}.difference(names))
    if unknown:
        raise UserError(
            f"{pathlib.Path(run_dir) / 'evaluations.csv'} has dataset {unknown[0]!r}, sweep.json has "
            f"{', '.join(names)}; both should come from one run"
        )
    rows = []
    for entry in sweep["datasets"]:
        # A dataset read without its environment may not say how well it did in the metric.
        if entry.get("data_mean") is not None:
            rows.append(_data_row(entry))
        members = [key for key in groups if key.dataset == entry["name"]]
        for key in sorted(members, key=lambda key: _position(key, context.stages)):
            missing = sum(_key_of(result, context) == key for result in context.not_trained)
            row = _row(groups[key], context) if groups[key] else _empty_row(key, str(entry.get("metric", "")), context)
            rows.append(dataclasses.replace(row, not_trained=missing))
    origins = {entry["name"]: origin(entry["name"], entry.get("source")) for entry in sweep["datasets"]}
    return [dataclasses.replace(row, origin=origins[row.dataset]) for row in rows]


def origin_notes(rows: Iterable[Row]) -> list[str]:
    """A line for each origin of data that could be taken for D4RL's, with the datasets that have it."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.origin:
            names.setdefault(row.origin, {})[row.dataset] = None
    return [f"{', '.join(datasets)}: {words}" for words, datasets in names.items()]


def marked_dataset(row: Row) -> str:
    """What tables call a row's dataset, marked where a line says what its data are."""
    return f"{row.dataset} (o)" if row.origin else row.dataset


class _Key(NamedTuple):
    """What the evaluations of one row have in common."""

    dataset: str
    algorithm: str
    setting: str
    beta: float | None


def _key_of(result: Result, context: "_Context") -> _Key:
    algorithms = {stage.name: stage.algorithm for stage in context.stages.values()}
    return _Key(result.dataset, algorithms.get(result.stage, result.stage), result.setting, result.beta)


class _Context(NamedTuple):
    """What rows need to know of a run besides their evaluations.

    Attributes:
      stages: by algorithm, in the order of the table.
      diverged: members that diverged.
      seeds: of the members, by dataset.
      sizes: effective sample sizes when last measured.
      shared: which models seeds share, by dataset.
      not_trained: stages of members that were not trained.
      trained: stages that act, of members that trained at least in part.
    """

    stages: dict[str, StageInfo]
    diverged: Diverged
    seeds: dict[str, set[int]]
    sizes: dict[Result, float]
    shared: dict[str, str]
    not_trained: list[Result]
    trained: list[Result]


def _context(run_dir: str | os.PathLike[str], sweep: Mapping[str, Any]) -> _Context:
    seeds: dict[str, set[int]] = defaultdict(set)
    for member in sweep.get("members", ()):
        seeds[member["dataset"]].add(member["seed"])
    stages, measured = read_stages(sweep), read_metrics(run_dir)
    trained = dict.fromkeys(row.result for row in measured)
    return _Context(
        stages={stage.algorithm: stage for stage in stages.values()},
        diverged=Diverged(sweep),
        seeds=seeds,
        sizes={row.result: row.values[_SIZE] for row in measured if _SIZE in row.values},
        shared={name: _shared(settings) for name, settings in sweep.get("settings", {}).items()},
        not_trained=list(NotTrained(sweep).results),
        trained=[result for result in trained if result.stage in stages and stages[result.stage].acts],
    )


def _shared(settings: Mapping[str, Any]) -> str:
    """The models that seeds share."""
    return ";".join(f"{name}={settings[name]}" for name in ("behavior_seeds", "critic_seeds") if settings.get(name))


def _position(key: _Key, stages: Mapping[str, StageInfo]) -> tuple[int, str, str, float]:
    """Sorts rows of one dataset: algorithms of the run's stages in their order, others behind by name."""
    order = [*stages, key.algorithm]
    return order.index(key.algorithm), key.algorithm, key.setting, -1.0 if key.beta is None else key.beta


def _data_row(entry: dict[str, Any]) -> Row:
    """What the dataset's own episodes score."""
    missing = [key for key in ("metric", "data_std", "return_mean") if entry.get(key) is None]
    if missing:
        raise UserError(
            f"sweep.json: dataset {entry['name']!r} has no {missing[0]!r}; it should be the file that train wrote"
        )
    return Row(
        dataset=entry["name"],
        algorithm=DATA,
        beta=None,
        seeds=None,
        episodes=entry.get("episodes"),
        mean=float(entry["data_mean"]),
        std=float(entry["data_std"]),
        published=None,
        metric=entry["metric"],
        setting="",
        return_mean=float(entry["return_mean"]),
        best_mean=None,
        worst_seed=None,
        diverged=0,
        success_rate=entry.get("data_success_rate"),
        unfinished=0,
        label=DATA_LABEL,
    )


def _row(evaluations: Sequence[Evaluation], context: _Context) -> Row:
    """All evaluations of one dataset, algorithm and setting, reduced to one row."""
    by_seed: dict[int, list[Evaluation]] = defaultdict(list)
    for evaluation in evaluations:
        by_seed[evaluation.seed].append(evaluation)
    last = [last_evaluation(by_seed[seed]) for seed in sorted(by_seed)]
    means = np.array([evaluation.mean for evaluation in last])
    first = last[0]
    metrics = sorted({evaluation.metric for evaluation in evaluations})
    if len(metrics) > 1:
        raise UserError(
            f"evaluations.csv mixes metrics {', '.join(metrics)} for {first.dataset}; one run has one metric"
        )
    stage = context.stages.get(first.algorithm)
    # A member that diverged before its first evaluation has none, but the sweep knows its seed.
    members = [first.result._replace(seed=seed) for seed in context.seeds[first.dataset].union(by_seed)]
    weighed = [context.sizes[evaluation.result] for evaluation in last if evaluation.result in context.sizes]
    rates = [evaluation.success_rate for evaluation in last if evaluation.success_rate is not None]
    # Published scores are normalized; beside another metric they would only mislead.
    published = published_score(first.dataset, first.algorithm) if first.metric == "normalized_score" else None
    return Row(
        dataset=first.dataset,
        algorithm=first.algorithm,
        beta=first.beta,
        seeds=len(last),
        episodes=min(evaluation.episodes for evaluation in last),
        mean=float(means.mean()),
        std=float(means.std(ddof=1)) if len(means) > 1 else 0.0,
        published=published.mean if published else None,
        metric=first.metric,
        setting=first.setting,
        return_mean=float(np.mean([evaluation.return_mean for evaluation in last])),
        best_mean=float(np.mean([_best(by_seed[seed]) for seed in sorted(by_seed)])),
        worst_seed=float(means.min()),
        diverged=sum(context.diverged.has(member, first.algorithm) for member in members),
        success_rate=float(np.mean(rates)) if rates else None,
        unfinished=sum(not evaluation.final for evaluation in last),
        effective_sample_size=float(np.mean(weighed)) if weighed else None,
        regret=_regret(evaluations) if stage is not None and stage.online else None,
        label=first.algorithm if stage is None else stage.label,
        online=stage is not None and stage.online,
        shared=context.shared.get(first.dataset, ""),
        published_note=published.note if published else "",
    )


def _empty_row(key: _Key, metric: str, context: _Context) -> Row:
    """The row of members of which none was evaluated."""
    stage = context.stages.get(key.algorithm)
    seeds = {result.seed for result in context.trained if _key_of(result, context) == key}
    return Row(
        dataset=key.dataset,
        algorithm=key.algorithm,
        beta=key.beta,
        seeds=len(seeds),
        episodes=None,
        mean=math.nan,
        std=math.nan,
        published=None,
        metric=metric,
        setting=key.setting,
        return_mean=math.nan,
        best_mean=None,
        worst_seed=None,
        diverged=0,
        success_rate=None,
        unfinished=0,
        label=key.algorithm if stage is None else stage.label,
        online=stage is not None and stage.online,
    )


def _regret(evaluations: Sequence[Evaluation]) -> float | None:
    """1 minus the mean score while learning online, on a scale of 0 to 1; None if the metric has no such scale."""
    metric = evaluations[0].metric
    scale = 0.01 if metric.startswith("normalized_score") else {"success_rate": 1.0}.get(metric)
    during = [row.mean for row in evaluations if row.step > 0 and not row.again]
    return None if scale is None or not during else float(1.0 - scale * np.mean(during))


def _best(evaluations: Sequence[Evaluation]) -> float:
    """A member's best evaluation of training time; of later ones if it has no other."""
    during = [evaluation.mean for evaluation in evaluations if not evaluation.again]
    return max(during or [evaluation.mean for evaluation in evaluations])


def last_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation:
    """A member's last evaluation: the final one, else the latest; one by `jaxrl-srpo evaluate` comes after it."""
    return max(enumerate(evaluations), key=lambda item: (item[1].final, item[1].step, item[0]))[1]


def best_betas(rows: Sequence[Row]) -> set[Row]:
    """Of each algorithm that has a beta and learns from a dataset, the finished row of the highest mean per dataset.

    The smaller beta wins a tie.
    """
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.beta is None or row.online or row.unfinished or not np.isfinite(row.mean):
            continue
        key = (row.dataset, row.algorithm)
        if key not in best or row.mean > best[key].mean:
            best[key] = row
    return set(best.values())
