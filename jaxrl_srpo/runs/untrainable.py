"""Stages that cannot be trained, because an earlier one that they stand on diverged; they are named, not trained."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.report.outcomes import reason_not_trained
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member, stages_of, unique


class Reason(NamedTuple):
    """Why a stage of a member cannot be trained: the earlier stage that diverged, and its update, -1 if not known."""

    stage: Stage
    update: int

    def __str__(self) -> str:
        return reason_not_trained(self.stage.name, self.update)


class Untrainable:
    """Which stages of members of a run stand on a diverged one, by the results alone, so that all workers agree.

    Args:
      run: the run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._diverged_at: dict[tuple[str, str], int | None] = {}
        self._named: set[tuple[str, ...]] = set()

    def reason(self, stage: Stage, member: Member) -> Reason | None:
        """Why a stage of a member cannot be trained; None if it can, as far as the earlier stages have come.

        Raises:
          UserError: an earlier result is damaged.
        """
        for earlier in stage.needs:
            at = self._update(earlier, member)
            found = self.reason(earlier, member) if at is None else Reason(earlier, at)
            if found is not None:
                return found
        return None

    def name(self, members: Sequence[Member]) -> None:
        """Says, and writes to `sweep.json`, which stages of the members are newly known not to be trained.

        Raises:
          UserError: an earlier result is damaged.
        """
        entries: list[dict[str, Any]] = []
        for stage in stages_of(members):
            for member in unique(members, stage):
                key = (stage.name, *map(str, member.row(stage).values()))
                if key in self._named or self._run.has_result(stage, member):
                    continue
                if (reason := self.reason(stage, member)) is not None:
                    self._named.add(key)
                    entries.append(member.row(stage) | {"because": reason.stage.name, "update": reason.update})
                    print_message(f"not trained: {member.name(stage)}: {reason}")
        self._run.add_not_trained(entries)

    def _update(self, stage: Stage, member: Member) -> int | None:
        """Update at which a finished stage of a member diverged; a result does not change, so it is read once."""
        key = (stage.name, member.address(stage))
        if key not in self._diverged_at:
            if not self._run.has_result(stage, member):
                return None
            self._diverged_at[key] = self._run.diverged_at(stage, member)
        return self._diverged_at[key]
