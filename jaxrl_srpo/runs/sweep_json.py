"""Members in `sweep.json`: as they are written, read back, and compared with those that a command asks for."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.methods.settings import DataSettings, RewardSettings, Setting, Values, declared
from jaxrl_srpo.runs.sweep import Member
from jaxrl_srpo.types import Spec

# A run keeps one set of rows and of facts for each of its datasets.
_SHARED_BY_DATASET = tuple(declared(DataSettings, RewardSettings))


def common_settings(members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """The settings of each dataset's members by flag; where they differ, those of its first member."""
    common: dict[str, dict[str, Any]] = {}
    for member in reversed(members):
        common.setdefault(member.dataset, {}).update(member.settings)
    return common


def member_json(member: Member, common: Mapping[str, Any]) -> dict[str, Any]:
    """A member with the settings in which it differs from the first of its dataset."""
    return {
        "dataset": member.dataset,
        "seed": member.seed,
        "setting": member.setting,
        "algorithm": member.algorithm,
        "values": {name: value for name, value in member.settings.items() if common.get(name, None) != value},
        "results": {stage.name: member.address(stage) for stage in member.stages},
    }


def read_members(
    path: pathlib.Path,
    content: Mapping[str, Any],
    facts: Mapping[str, DatasetFacts],
    methods: Mapping[str, Method],
) -> list[Member]:
    """The members that a run directory holds.

    Args:
      path: of the run directory, for messages.
      content: of its `sweep.json`.
      facts: of its datasets by name.
      methods: those that are known here, by name.

    Raises:
      UserError: one of them is of a method that is not known here, or not as train writes it.
    """
    for key in ("settings", "members"):
        _require(path, content, key, "it")
    found = []
    for i, entry in enumerate(content["members"]):
        for key in ("setting", "values"):
            _require(path, entry, key, f"member {i + 1}")
        name = entry["dataset"]
        _require(path, content["settings"], name, "'settings'")
        found.append(_member(path, entry, content["settings"][name], facts[name], methods))
    return found


def _require(path: pathlib.Path, content: Mapping[str, Any], key: str, what: str) -> None:
    if content.get(key) is None:
        raise UserError(f"{path / 'sweep.json'}: {what} has no {key!r}; it should be the file that train wrote")


def _member(
    path: pathlib.Path,
    entry: Mapping[str, Any],
    common: Mapping[str, Any],
    facts: DatasetFacts,
    methods: Mapping[str, Method],
) -> Member:
    """The inverse of `member_json`."""
    name = entry.get("algorithm", "srpo")
    if name not in methods:
        raise UserError(
            f"{path}: holds members of {name}, which is no method of this package; name the code that they "
            "were trained with: --algorithm=package.module:METHOD"
        )
    method = methods[name]
    given = dict(common) | dict(entry["values"])
    settings = {flag: _value(path, one, given) for flag, one in method.settings().items()}
    return Member(
        dataset=entry["dataset"],
        fingerprint=facts.fingerprint,
        spec=Spec(facts.observation_size, facts.action_size, facts.transitions, episodes=facts.kept_episodes),
        seed=entry["seed"],
        settings=Values(settings),
        method=method,
        setting=entry["setting"],
        environment=facts.environment_spec,
        recorded=Values(entry.get("results") or {}),
        inputs_fingerprint=facts.inputs_fingerprint,
    )


def _value(path: pathlib.Path, setting: Setting, given: Mapping[str, Any]) -> Any:
    try:
        return setting.convert(given.get(setting.flag, setting.default))
    except UserError as error:
        raise UserError(f"{path / 'sweep.json'}: holds {error}; restore it or train again") from None


def refuse_other(path: pathlib.Path, old: Sequence[Member], new: Sequence[Member]) -> None:
    """Refuses members that the run directory at `path` cannot hold beside those that it has.

    Rows of the table average over seeds, so all seeds of a row must have been trained alike.

    Raises:
      UserError: naming what differs.
    """

    def row(member: Member, stage: Stage) -> tuple[Any, ...]:
        return tuple(dataclasses.replace(member, seed=0).row(stage).values())

    datasets = {member.dataset: member for member in old}
    known = {row(member, stage): member for member in old for stage in member.stages}
    for member in new:
        before = datasets.get(member.dataset, member)
        if before.fingerprint != member.fingerprint:
            raise UserError(f"--out={path}: holds a run on other data named {member.dataset}; choose another")
        _refuse_other_environment(path, before.environment, member.environment)
        _refuse_unequal(path, before, member, _SHARED_BY_DATASET)
        for stage in member.stages:
            before = known.get(row(member, stage), member)
            protocol = [name for name, one in member.method.settings().items() if one.protocol]
            _refuse_unequal(path, before, member, (*sorted(stage.reach()), *protocol))


def _refuse_other_environment(path: pathlib.Path, theirs: EnvironmentSpec | None, ours: EnvironmentSpec | None) -> None:
    if theirs is not None and ours is not None and theirs != ours:
        raise UserError(f"--out={path}: holds a run in another environment, {theirs.id}; choose another")


def _refuse_unequal(path: pathlib.Path, before: Member, member: Member, names: Sequence[str]) -> None:
    for name in names:
        if name not in before.settings or name not in member.settings:
            continue
        ours, theirs = member.settings[name], before.settings[name]
        if ours != theirs:
            raise UserError(
                f"--out={path}: holds a run with {name}={theirs}, not {ours}; choose another --out, "
                f"or give --{name}={theirs}"
            )
