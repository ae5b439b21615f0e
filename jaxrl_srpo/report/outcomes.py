"""Which members of a run diverged or were not trained, as `sweep.json` tells."""

from collections.abc import Mapping
from typing import Any

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.records import Result, beta_text, read_stages


class Diverged:
    """The stages of members that diverged, by the list `diverged` of `sweep.json`.

    An entry is an object of the columns that name a stage of a member and the update at which it diverged. Earlier
    versions wrote the member's name instead, such as `srpo pointmaze/umaze seed=0 beta=0.1`.

    Args:
      sweep: contents of `sweep.json`.

    Raises:
      UserError: an entry of the list is neither.
    """

    def __init__(self, sweep: Mapping[str, Any]) -> None:
        entries = _entries(sweep, "diverged")
        algorithms = _algorithms(sweep) if entries else {}
        self.names: list[str] = []
        """Of the members, for readers, with the update where it is known."""
        self._updates: dict[Result, int] = {}
        for entry in entries:
            if isinstance(entry, str):
                self.names.append(entry)
                continue
            result, update = _named_result(entry, "diverged"), _update(entry)
            self._updates[result] = update
            self.names.append(_name(result, algorithms.get(result.stage, result.stage)) + update_text(update))
        self._old_names = {entry for entry in entries if isinstance(entry, str)}

    def has(self, result: Result, algorithm: str) -> bool:
        """Whether a stage of a member diverged; `algorithm` is the stage's."""
        return self.update_of(result, algorithm) is not None

    def update_of(self, result: Result, algorithm: str) -> int | None:
        """The update at which a stage of a member diverged, -1 where it is not known; None if it did not."""
        if result in self._updates:
            return self._updates[result]
        return -1 if _name(result, algorithm) in self._old_names else None


class NotTrained:
    """The stages of members that were not trained because an earlier one diverged, by the list `not_trained`.

    An entry is an object of the columns that name the stage of a member, the name of the earlier stage in `because`,
    and the update at which that diverged.

    Args:
      sweep: contents of `sweep.json`; earlier versions, which trained such members, wrote no such list.

    Raises:
      UserError: an entry of the list is something else.
    """

    def __init__(self, sweep: Mapping[str, Any]) -> None:
        entries = _entries(sweep, "not_trained")
        algorithms = _algorithms(sweep) if entries else {}
        self.results: dict[Result, str] = {}
        """The stages of members, each with why it was not trained."""
        self.names: list[str] = []
        """Of the members, for readers, with the reason."""
        for entry in entries:
            result = _named_result(entry, "not_trained")
            self.results[result] = reason_not_trained(str(entry.get("because", "")), _update(entry))
            name = _name(result, algorithms.get(result.stage, result.stage))
            self.names.append(f"{name} ({self.results[result]})")


def update_text(update: int) -> str:
    """At which update something happened, for messages; empty where it is not known."""
    return "" if update < 0 else f" at update {update}"


def reason_not_trained(stage: str, update: int) -> str:
    """Why a stage was not trained: an earlier one, named here, diverged at an update, -1 where it is not known."""
    return f"its {stage} diverged{update_text(update)}"


def _entries(sweep: Mapping[str, Any], key: str) -> list[Any]:
    entries = sweep.get(key) or []
    if not isinstance(entries, list):
        raise UserError(f"sweep.json: {key!r} is no list; it should be the file that train wrote")
    return entries


def _algorithms(sweep: Mapping[str, Any]) -> dict[str, str]:
    return {stage.name: stage.algorithm for stage in read_stages(sweep).values()}


def _update(entry: Mapping[str, Any]) -> int:
    update = entry.get("update")
    return update if isinstance(update, int) else -1


def _named_result(entry: Any, key: str) -> Result:
    """The stage of a member that an entry of a list of `sweep.json` names."""
    try:
        beta = float(entry["beta"]) if entry["beta"] else None
        return Result(str(entry["stage"]), str(entry["dataset"]), int(entry["seed"]), str(entry["setting"]), beta)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"sweep.json: {entry!r} in {key!r} names no member; it should be the file that train wrote"
        ) from None


def _name(result: Result, algorithm: str) -> str:
    """What messages call a stage of a member, for instance `srpo pointmaze/umaze seed=0 beta=0.1`."""
    beta = beta_text(result.beta)
    parts = (
        algorithm,
        result.dataset,
        f"seed={result.seed}",
        f"beta={beta}" if beta else "",
        *result.setting.split(";"),
    )
    return " ".join(part for part in parts if part)
