"""The rows of a run's table: every dataset, algorithm and hyperparameter setting, averaged over seeds."""

import dataclasses
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.published import published_score
from jaxrl_srpo.report.records import (
    Evaluation,
    Result,
    TrainingMetrics,
    read_evaluations,
    read_metrics,
    read_sweep,
)

ALGORITHM_LABELS = {
    "data": "behaviour data",
    "bc": "behaviour cloning",
    "iql": "IQL actor",
    "srpo": "SRPO",
    "cloning": "cloning (Gaussian)",
    "awac": "AWAC",
    "sac_offline": "SAC offline",
    "srpo_online": "SRPO, online",
    "iql_online": "IQL, online",
    "awac_online": "AWAC, online",
    "sac_online": "SAC offline, online",
    "sac": "SAC from scratch",
}
ONLINE_ALGORITHMS = ("srpo_online", "iql_online", "awac_online", "sac_online", "sac")
_ALGORITHM_ORDER = tuple(ALGORITHM_LABELS)
_STAGES = {"bc": "behavior", "iql": "critic", "srpo": "policy"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One dataset, algorithm and hyperparameter setting, averaged over seeds; the columns of `table.csv` in order.

    Attributes:
      dataset: the dataset's name.
      algorithm: `data` (the dataset's own episodes) or that of a stage.
      beta: temperature of SRPO; None for the others.
      seeds: number of seeds; None for `data`.
      episodes: evaluation episodes of each seed (the fewest, if they differ); episodes in the dataset for `data`.
      mean: mean over seeds of each seed's last evaluation; over episodes for `data`.
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
        last measured; None for the others.
      regret: mean over seeds and over the evaluations after the first of what is missing to 1, the score of an expert
        or a success rate of 1, while it learns online; as in CORL. None for the others and for plain returns.
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


def collect(run_dir: str | os.PathLike[str]) -> list[Row]:
    """The rows of a run's table: datasets in the order of the sweep, algorithms in that of `ALGORITHM_LABELS`.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    sweep = read_sweep(run_dir)
    groups: dict[tuple[str, str, str, float | None], list[Evaluation]] = defaultdict(list)
    for evaluation in read_evaluations(run_dir):
        groups[evaluation.dataset, evaluation.algorithm, evaluation.setting, evaluation.beta].append(evaluation)
    names = [entry["name"] for entry in sweep["datasets"]]
    unknown = sorted({dataset for dataset, *_ in groups}.difference(names))
    if unknown:
        raise UserError(
            f"{pathlib.Path(run_dir) / 'evaluations.csv'} has dataset {unknown[0]!r}, sweep.json has "
            f"{', '.join(names)}; both should come from one run"
        )
    sizes = {row.result: row.values["effective_sample_size"] for row in _measured(run_dir)}
    rows = []
    for entry in sweep["datasets"]:
        # A dataset read without its environment may not say how well it did in the metric.
        if entry.get("data_mean") is not None:
            rows.append(_data_row(entry))
        members = [key for key in groups if key[0] == entry["name"]]
        rows += [_row(groups[key], sweep.get("diverged", []), sizes) for key in sorted(members, key=_position)]
    return rows


def _measured(run_dir: str | os.PathLike[str]) -> list[TrainingMetrics]:
    """The rows of stages that weigh their batches, in order."""
    return [row for row in read_metrics(run_dir) if "effective_sample_size" in row.values]


def _position(key: tuple[str, str, str, float | None]) -> tuple[int, str, str, float]:
    """Sorts rows of one dataset: known algorithms in their order, others behind by name."""
    _, algorithm, setting, beta = key
    rank = _ALGORITHM_ORDER.index(algorithm) if algorithm in _ALGORITHM_ORDER else len(_ALGORITHM_ORDER)
    return rank, algorithm, setting, -1.0 if beta is None else beta


def _data_row(entry: dict[str, Any]) -> Row:
    """What the dataset's own episodes score."""
    missing = [key for key in ("metric", "data_std", "return_mean") if entry.get(key) is None]
    if missing:
        raise UserError(
            f"sweep.json: dataset {entry['name']!r} has no {missing[0]!r}; it should be the file that train wrote"
        )
    return Row(
        dataset=entry["name"],
        algorithm="data",
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
    )


def _row(evaluations: Sequence[Evaluation], diverged: Sequence[str], sizes: Mapping[Result, float]) -> Row:
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
    weighed = [sizes[evaluation.result] for evaluation in last if evaluation.result in sizes]
    rates = [evaluation.success_rate for evaluation in last if evaluation.success_rate is not None]
    # Published scores are normalised; beside another metric they would only mislead.
    published = published_score(first.dataset, first.algorithm) if first.metric == "normalized_score" else None
    return Row(
        dataset=first.dataset,
        algorithm=first.algorithm,
        beta=first.beta,
        seeds=len(last),
        episodes=min(evaluation.episodes for evaluation in last),
        mean=float(means.mean()),
        std=float(means.std(ddof=1)) if len(means) > 1 else 0.0,
        published=published,
        metric=first.metric,
        setting=first.setting,
        return_mean=float(np.mean([evaluation.return_mean for evaluation in last])),
        best_mean=float(np.mean([max(evaluation.mean for evaluation in by_seed[seed]) for seed in sorted(by_seed)])),
        worst_seed=float(means.min()),
        diverged=sum(_names(name, first) for name in diverged),
        success_rate=float(np.mean(rates)) if rates else None,
        unfinished=sum(not evaluation.final for evaluation in last),
        effective_sample_size=float(np.mean(weighed)) if weighed else None,
        regret=_regret(evaluations),
    )


def _regret(evaluations: Sequence[Evaluation]) -> float | None:
    """What is missing to a score of 1, on average while learning online."""
    scale = {"normalized_score": 0.01, "success_rate": 1.0}.get(evaluations[0].metric)
    during = [row.mean for row in evaluations if row.step > 0 and row.algorithm in ONLINE_ALGORITHMS]
    return None if scale is None or not during else float(1.0 - scale * np.mean(during))


def last_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation:
    """A member's last evaluation: the final one, else the latest; a repeated one replaces the earlier."""
    return max(enumerate(evaluations), key=lambda item: (item[1].final, item[1].step, item[0]))[1]


def _names(member: str, evaluation: Evaluation) -> bool:
    """Whether a diverged member's name belongs to the row of an evaluation, whatever its seed."""
    if not re.search(rf"(?<![\w-]){re.escape(evaluation.dataset)}(?![\w-])", member):
        return False
    words = set(re.split(r"[^\w.=+-]+", member))
    stage = _STAGES.get(evaluation.algorithm, evaluation.algorithm)
    if not words & {stage, evaluation.algorithm}:
        return False
    named = dict(word.split("=", 1) for word in words if "=" in word)
    own = dict(part.split("=", 1) for part in evaluation.setting.split(";") if "=" in part)
    if any(named.get(name, value) != value for name, value in own.items()):
        return False
    return evaluation.beta is None or float(named.get("beta", evaluation.beta)) == evaluation.beta


def best_betas(rows: Sequence[Row]) -> set[Row]:
    """The finished SRPO row of the highest mean for each dataset; the smaller beta wins a tie."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.algorithm != "srpo" or row.unfinished or not np.isfinite(row.mean):
            continue
        if row.dataset not in best or row.mean > best[row.dataset].mean:
            best[row.dataset] = row
    return set(best.values())
