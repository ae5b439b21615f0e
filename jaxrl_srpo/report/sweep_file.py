"""What `sweep.json` may hold: the types of everything in it, so that whoever reads it need not ask again."""

import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.typed import require, shortened

LARGEST_SEED = 2**31 - 1

_ADDRESS = re.compile(r"[0-9a-f]{16}")
_STAGE = re.compile(r"\w[\w.-]*")
_SCALAR = str | int | float | bool
_PARTS: dict[str, Any] = {
    "datasets": list[dict[str, Any]],
    "preset": str,
    "settings": dict[str, dict[str, _SCALAR]],
    "members": list[dict[str, Any]],
    "command": list[str],
    "versions": dict[str, str],
    "commit": str,
    "created": str,
    "options": dict[str, Any],
    "asked": dict[str, _SCALAR | list[_SCALAR]],
}
_MEMBER: dict[str, Any] = {
    "dataset": str,
    "seed": int,
    "setting": str,
    "algorithm": str,
    "values": dict[str, _SCALAR],
    "results": dict[str, str],
}
_NAMING = {"stage": str, "dataset": str, "seed": int, "setting": str, "beta": str | float, "update": int}


def check_sweep(sweep: Mapping[str, Any], path: object) -> None:
    """Looks at the types of all that is there; what is missing is missed by whoever needs it.

    Args:
      sweep: the content.
      path: of the file, for messages.

    Raises:
      UserError: something has another type than train writes, or is no name of what it should name.
    """
    if sweep.get("datasets") is None:
        raise UserError(f"{path} has no list 'datasets'; it should be the file that train wrote")
    _check_entries(sweep, _PARTS, str(path))
    names = [_check_dataset(entry, f"{path}: dataset {i + 1}") for i, entry in enumerate(sweep["datasets"])]
    for i, member in enumerate(sweep.get("members") or ()):
        _check_member(member, names, f"{path}: member {i + 1}")
    for key in ("diverged", "not_trained"):
        entries = sweep.get(key) or []
        require(entries, list[dict[str, Any] | str], f"{path}: {key!r}")
        for entry in entries:
            if isinstance(entry, dict):
                _check_entries(entry, _NAMING, f"{path}: {key!r}")


def _check_entries(content: Mapping[str, Any], hints: Mapping[str, Any], where: str) -> None:
    """The types of entries that are there; earlier versions wrote null where nothing was known."""
    for name, hint in hints.items():
        if content.get(name) is not None:
            require(content[name], hint, f"{where}: {name!r}")


def _check_dataset(entry: Mapping[str, Any], where: str) -> str:
    """The name of a dataset."""
    require(entry.get("name"), str, f"{where}: 'name'")
    _check_entries(entry, get_type_hints(DatasetFacts), where)
    return str(entry["name"])


def _check_member(member: Mapping[str, Any], names: list[str], where: str) -> None:
    for name in ("dataset", "seed"):
        require(member.get(name), _MEMBER[name], f"{where}: {name!r}")
    _check_entries(member, _MEMBER, where)
    if member["dataset"] not in names:
        raise UserError(f"{where} is of dataset {shortened(member['dataset'])}, which the file does not list")
    if not 0 <= member["seed"] <= LARGEST_SEED:
        raise UserError(f"{where}: 'seed' is {member['seed']}, should be from 0 to {LARGEST_SEED}")
    for stage, address in (member.get("results") or {}).items():
        # Both become parts of paths.
        if not _STAGE.fullmatch(stage) or not _ADDRESS.fullmatch(address):
            raise UserError(
                f"{where}: {shortened(stage)} in 'results' has the address {shortened(address)}; it should be as train "
                "writes it: restore it or train again"
            )
