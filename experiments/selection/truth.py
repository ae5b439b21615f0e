"""What the policies of a run are really worth: many episodes of each, played once and kept."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import sealed
from jaxrl_srpo.io.files import print_message, write_atomically
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import usable_environments
from jaxrl_srpo.selection.candidates import Candidate, find_candidates
from jaxrl_srpo.selection.pulls import Player

AT_ONCE = 64
"""Episodes that are played together."""


class Truth(NamedTuple):
    """Returns of the policies of a population.

    Attributes:
      dataset: its name.
      metric: of the returns.
      names: of the P policies.
      returns: [P, E] float64.
    """

    dataset: str
    metric: str
    names: list[str]
    returns: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """What each policy is worth, [P]."""
        return np.mean(self.returns, axis=1)


def play_all(run_dir: pathlib.Path, episodes: int, kept: pathlib.Path) -> Truth:
    """Plays every policy of a run of one dataset, unless the same was kept.

    Args:
      run_dir: run directory.
      episodes: E, of each policy.
      kept: file of what was played before.

    Raises:
      UserError: the run has several datasets, is not finished, or its environment cannot be made here.
    """
    run = RunDirectory(run_dir, Options.from_json(RunDirectory(run_dir).read().get("options", {})).artefacts)
    candidates = find_candidates(run)
    names = [candidate.name for candidate in candidates]
    if kept.exists():
        content = sealed.read(kept)
        if (content["names"], content["episodes"]) == (names, episodes):
            return Truth(content["dataset"], content["metric"], names, np.array(content["returns"]))
    truth = _play(run, candidates, names, episodes)
    content = truth._asdict() | {"episodes": episodes, "returns": truth.returns.tolist()}
    write_atomically(kept, sealed.text_of(content))
    return truth


def _play(run: RunDirectory, candidates: Sequence[Candidate], names: list[str], episodes: int) -> Truth:
    facts = run.facts()
    if len(facts) != 1:
        raise UserError(f"--run={run.path}: holds {len(facts)} datasets; give runs of one dataset each")
    (dataset,) = usable_environments(run, list(facts.values()), required=True, log=print_message)
    arms = np.repeat(np.arange(len(candidates)), episodes)
    values, metric = [], ""
    with Player(run, facts[dataset], candidates, AT_ONCE) as player:
        for begin in range(0, len(arms), AT_ONCE):
            found = player.play(arms[begin : begin + AT_ONCE].tolist())
            values.append(found.values)
            metric = found.metric
    return Truth(dataset, metric, names, np.concatenate(values).reshape(len(candidates), episodes))
