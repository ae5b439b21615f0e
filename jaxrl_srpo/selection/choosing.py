"""Chooses one of the policies of a run: by scores of the dataset alone, or by a few episodes."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.data.packing import PackedDataset, pack_with_columns
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import errors_told, expand_home, print_message
from jaxrl_srpo.methods import fqe
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.methods.settings import declared
from jaxrl_srpo.runs.devices import prepare_jax_unless_chosen
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import usable_environments
from jaxrl_srpo.runs.workers import data_settings, facts_in, load_again, own_methods
from jaxrl_srpo.selection.bandit import PULLS_AT_ONCE, Bandit, spend
from jaxrl_srpo.selection.candidates import Candidate, find_candidates
from jaxrl_srpo.selection.evaluation import Evaluations
from jaxrl_srpo.selection.pulls import Player
from jaxrl_srpo.selection.records import EPISODES, SCORES, Row, Selection, ranked, write_selection
from jaxrl_srpo.selection.scoring import score_all, states_of

SETTINGS = declared(fqe.DrawnSettings)
"""Of fitted Q evaluation, by flag."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a selection.

    Attributes:
      by: the score that ranks policies without an environment, one of `SCORES`.
      episodes: to play for each dataset; 0 for none.
      prior: a score whose better half of the policies alone is played; empty plays all.
      at_once: episodes played together.
      seed: of the bandit.
      policies: words of policies as in `evaluations.csv`; all by default.
      settings: of fitted Q evaluation by flag.
    """

    by: str = "supported"
    episodes: int = 0
    prior: str = ""
    at_once: int = PULLS_AT_ONCE
    seed: int = 0
    policies: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what is no score, no setting or no number of anything.

        Raises:
          UserError: naming the flag.
        """
        for flag, score in {"by": self.by, "prior": self.prior or self.by}.items():
            if score not in SCORES:
                raise UserError(f"--{flag}={score}: choose one of {', '.join(SCORES)}")
        if self.prior and not self.episodes:
            raise UserError(f"--prior={self.prior}: is for --episodes, whose policies it chooses")
        for flag, value, least in (("episodes", self.episodes, 0), ("pulls_at_once", self.at_once, 1)):
            if value < least:
                raise UserError(f"--{flag}={value}: must be at least {least}")
        if unknown := [flag for flag in self.settings if flag not in SETTINGS]:
            raise UserError(f"{unknown[0]}: no such setting; choose one of {', '.join(SETTINGS)}")


@errors_told()
def select(
    run_dir: str | os.PathLike[str],
    by: str = "supported",
    episodes: int = 0,
    prior: str = "",
    pulls_at_once: int = PULLS_AT_ONCE,
    seed: int = 0,
    policies: Sequence[str] = (),
    algorithm: Sequence[str | Method] = (),
    environment: str | None = None,
    log: Callable[[str], None] | None = None,
    **settings: Any,
) -> Selection:
    """Scores the policies of a finished run, chooses one of each dataset, and keeps both in the run directory.

    Args:
      run_dir: run directory.
      by: the score that ranks policies without an environment: `supported`, `fqe`, `one_step`, `critic`, `cloning` or
        `ess`.
      episodes: to play for each dataset, spent by a bandit; the highest mean is chosen then. 0 plays none.
      prior: a score whose better half of the policies alone is played.
      pulls_at_once: episodes that are played together.
      seed: of the bandit.
      policies: words of policies as in `evaluations.csv`; all by default.
      algorithm: methods of a user's own whose members the run holds.
      environment: Gymnasium id to play in where the data name none; `module:ID` imports the module first.
      log: receives messages; they go to standard error by default.
      **settings: of fitted Q evaluation, for instance `fqe_steps=50_000`.

    Raises:
      UserError: the run is not finished, its data cannot be loaded, or what is asked for is not possible.
    """
    request = Request(by, episodes, prior, pulls_at_once, seed, tuple(policies), settings)
    log, path = log or print_message, expand_home(run_dir)
    options = Options.from_json(RunDirectory(path).read().get("options", {}))
    run = RunDirectory(path, options.artefacts, own_methods(algorithm))
    candidates = find_candidates(run, request.policies)
    facts = {one.name: one for one in facts_in(run, environment)}
    groups = _by_dataset(candidates)
    prepare_jax_unless_chosen(len(candidates))
    if request.episodes:
        _check_episodes(groups, request)
        usable_environments(run, [facts[name] for name in groups], required=True, log=log)
    rows = _score(run, options, groups, facts, request)
    if request.episodes:
        rows = {name: _play(run, facts[name], groups[name], own, request) for name, own in rows.items()}
    ranks = EPISODES if request.episodes else request.by
    selection = Selection(path, tuple(row for own in rows.values() for row in ranked(own, ranks)), ranks)
    for written in write_selection(selection, dataclasses.asdict(request)):
        log(f"wrote {written}")
    return selection


def _by_dataset(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.member.dataset, []).append(candidate)
    return groups


def _check_episodes(groups: Mapping[str, Sequence[Candidate]], request: Request) -> None:
    """Refuses fewer episodes than there are policies to play.

    Raises:
      UserError: with the least number.
    """
    for name, own in groups.items():
        least = -(-len(own) // 2) if request.prior else len(own)
        if request.episodes < least:
            advice = "" if request.prior else ", or --prior=supported, which plays the better half alone"
            raise UserError(
                f"--episodes={request.episodes}: {name} has {least} policies to play; give at least one episode for "
                f"each{advice}"
            )


def _score(
    run: RunDirectory,
    options: Options,
    groups: Mapping[str, Sequence[Candidate]],
    facts: Mapping[str, DatasetFacts],
    request: Request,
) -> dict[str, list[Row]]:
    """The rows of all policies by dataset, in the order of training; evaluations that are missing are trained."""
    every = [candidate for own in groups.values() for candidate in own]
    datasets = {name: load_again(run, facts[name], options) for name in groups}
    # Weighting undoes the order of episodes, from which the data's own next actions are known.
    ordered = not any(candidate.member.settings["trajectory_weighting"] for candidate in every)
    evaluations = Evaluations(run, options, _settings(every, request))
    evaluations.train(every, functools.partial(_pack, datasets, groups, ordered), data_too=ordered)
    return {
        name: score_all(run, own, states_of(datasets[name], facts[name]), evaluations) for name, own in groups.items()
    }


def _settings(candidates: Sequence[Candidate], request: Request) -> dict[str, Any]:
    """The settings of fitted Q evaluation: what was asked for, the run's own discount, and defaults."""
    discounts = [one.member.settings["discount"] for one in candidates if "discount" in one.member.settings]
    given = ({"fqe_discount": discounts[0]} if discounts else {}) | dict(request.settings)
    return {flag: one.convert(given.get(flag, one.default)) for flag, one in SETTINGS.items()}


def _pack(
    datasets: Mapping[str, Dataset], groups: Mapping[str, Sequence[Candidate]], ordered: bool, name: str
) -> PackedDataset:
    """The rows that the policies of a dataset learned from, with what evaluates the data's own policy."""
    columns = fqe.BEHAVIOR.columns if ordered else ()
    return pack_with_columns(datasets[name], columns, **data_settings(groups[name][0].member.settings))  # type: ignore[arg-type]


def _play(
    run: RunDirectory, facts: DatasetFacts, candidates: Sequence[Candidate], rows: Sequence[Row], request: Request
) -> list[Row]:
    """The rows with what a bandit found out about their policies."""
    arms = list(range(len(rows)))
    if request.prior:
        arms.sort(key=lambda arm: _last_if_unknown(getattr(rows[arm], request.prior)))
        arms = arms[: -(-len(arms) // 2)]
    chosen = [candidates[arm] for arm in arms]
    bandit = Bandit(len(arms), request.seed, order=range(len(arms)) if request.prior else None)
    metric = ""
    with Player(run, facts, chosen, request.at_once) as player:

        def play(pulled: Sequence[int]) -> np.ndarray:
            nonlocal metric
            found = player.play(pulled)
            metric = found.metric
            return found.values

        spend(bandit, request.episodes, play, request.at_once)
    found = dict(zip(arms, zip(bandit.pulls, bandit.means, strict=True), strict=True))

    def with_episodes(arm: int, row: Row) -> Row:
        count, mean = found.get(arm, (0, math.nan))
        return dataclasses.replace(row, episodes=int(count), mean=float(mean), metric=metric if count else "")

    return [with_episodes(arm, row) for arm, row in enumerate(rows)]


def _last_if_unknown(score: float) -> float:
    """Sorts the highest score first and NaN last."""
    return math.inf if math.isnan(score) else -score
