"""Fitted Q evaluation of the policies of a run, by the trainer that trained them.

Its results lie beside the run's other stages, addressed by what determines them; rows, leases and checkpoints under way
in `selection/`, apart from those of the run. So a killed evaluation goes on, and one with the same settings is found.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxrl_srpo.data.packing import PackedDataset
from jaxrl_srpo.io import sealed
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import fqe
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import TrainingData, load_result
from jaxrl_srpo.runs.sweep import Member
from jaxrl_srpo.runs.trainer import Trainer
from jaxrl_srpo.selection.candidates import Candidate

FOLDER = "selection"


class Evaluations:
    """Trains one Q for each of several policies, and perhaps one for the data of each dataset.

    Args:
      run: the run directory.
      options: as the run was trained; where its results lie, and how populations are run.
      settings: of fitted Q evaluation, by flag; see `fqe.DrawnSettings`.
    """

    def __init__(self, run: RunDirectory, options: Options, settings: Mapping[str, Any]) -> None:
        place = options.artefacts or run.path / "checkpoints"
        self._run = RunDirectory(run.path / FOLDER, place)
        self._options, self._settings = options, dict(settings)

    def train(
        self,
        candidates: Sequence[Candidate],
        packed: Callable[[str], PackedDataset],
        data_too: bool,
    ) -> None:
        """Trains what is missing.

        Args:
          candidates: the policies.
          packed: gives a dataset by name.
          data_too: evaluate the data's own policies as well.
        """
        self._describe()
        self._run.create()
        members = self.members(candidates, data_too)
        options = self._options
        data = TrainingData(packed, self._run.facts)
        arguments = (options.strategy, options.checkpoint_seconds, options.members_per_population)
        Trainer(self._run, data, None, *arguments).train(members)

    def members(self, candidates: Sequence[Candidate], data_too: bool) -> list[Member]:
        """What the trainer gets: a member for each policy, then one for each dataset."""
        own = [self._member(candidate.member, self._stage(candidate)) for candidate in candidates]
        first = {candidate.member.dataset: candidate.member for candidate in reversed(candidates)}
        return own + [self._member(member, fqe.BEHAVIOR) for member in first.values() if data_too]

    def value_of(self, candidate: Candidate) -> fqe.ActionValue | None:
        """The Q that was fitted to a policy; None if it could not be trained."""
        stage = self._stage(candidate)
        return self._value(stage, self._member(candidate.member, stage))

    def value_of_data(self, member: Member) -> fqe.ActionValue | None:
        """The Q of the data's own policy, for the first member of its dataset; None if it could not be trained."""
        return self._value(fqe.BEHAVIOR, self._member(member, fqe.BEHAVIOR))

    def diverged(self, candidate: Candidate) -> bool:
        """Whether the evaluation of a policy diverged; its Q is then that of the last good state."""
        stage = self._stage(candidate)
        member = self._member(candidate.member, stage)
        return self._run.has_result(stage, member) and self._run.diverged_at(stage, member) is not None

    def _value(self, stage: Stage, member: Member) -> fqe.ActionValue | None:
        if not self._run.has_result(stage, member):
            return None
        found: fqe.ActionValue = load_result(self._run, stage, member)
        return found

    def _stage(self, candidate: Candidate) -> Stage:
        return fqe.evaluation_of(candidate.stage, once=candidate.acts_at_cost)

    def _member(self, member: Member, stage: Stage) -> Member:
        """A member that trains the evaluation alone, of earlier results that are there."""
        return dataclasses.replace(member, method=_method_of(stage), settings=member.settings.replace(**self._settings))

    def _describe(self) -> None:
        """The trainer tells in a `sweep.json` which members diverged."""
        path = self._run.path / "sweep.json"
        if not path.exists():
            write_atomically(path, sealed.text_of({"datasets": [], "members": []}))


@functools.cache
def _method_of(stage: Stage) -> Method:
    """A method of one stage; the same for the same stage, by which members of one population are told."""
    return Method(stage.name, "", (stage,), {"quick": Preset("", lambda *names: {})})
