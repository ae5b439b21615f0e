"""Members in `sweep.json`; what a whole run directory makes of them is in `test_run_directory`."""

import copy
import dataclasses
import json
import pathlib
from typing import Any

import pytest

from jaxrl_srpo.data.facts import DatasetFacts, dataset_facts
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.runs.sweep import Member, Sweep
from jaxrl_srpo.runs.sweep_json import common_settings, member_json, read_members, refuse_other
from tests import synthetic

PATH = pathlib.Path("runs/mine")
METHODS = {"srpo": srpo.METHOD}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetFacts]:
    dataset = load_dataset(synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "one.hdf5"))
    return {"one": dataset_facts(dataset, reward_transform="none")}


@pytest.fixture
def members(facts: dict[str, DatasetFacts]) -> list[Member]:
    dataset = load_dataset(facts["one"].source)
    return Sweep((dataset.source,), (0, 1), "quick", {"beta": (0.1, 0.2)}).members([dataset])


@pytest.fixture
def content(members: list[Member]) -> dict[str, Any]:
    """What a file gives of them."""
    common = common_settings(members)
    entries = [member_json(member, common[member.dataset]) for member in members]
    read: dict[str, Any] = json.loads(json.dumps({"settings": common, "members": entries}))
    return read


def test_members_come_back(content: dict[str, Any], facts: dict[str, DatasetFacts], members: list[Member]) -> None:
    assert [entry["values"] for entry in content["members"]] == [{}, {"beta": 0.2}] * 2
    assert read_members(PATH, content, facts, METHODS) == members


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("settings",), "it has no 'settings'"),
        (("members", 1, "values"), "member 2 has no 'values'"),
        (("settings", "one"), "'settings' has no 'one'"),
    ],
)
def test_what_is_missing_is_named(
    place: tuple[Any, ...], message: str, content: dict[str, Any], facts: dict[str, DatasetFacts]
) -> None:
    changed = copy.deepcopy(content)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    with pytest.raises(UserError, match=f"^{PATH / 'sweep.json'}: {message}; it should be the file that train wrote"):
        read_members(PATH, changed, facts, METHODS)


def test_a_method_that_is_not_known_is_named(content: dict[str, Any], facts: dict[str, DatasetFacts]) -> None:
    with pytest.raises(UserError, match=r"^runs/mine: holds members of srpo, .* --algorithm=package.module:METHOD"):
        read_members(PATH, content, facts, {})


def test_other_settings_are_refused_and_equal_ones_are_not(members: list[Member]) -> None:
    refuse_other(PATH, members, members)
    wider = dataclasses.replace(members[0], settings=members[0].settings.replace(critic_width=8))
    with pytest.raises(UserError, match=r"^--out=runs/mine: holds a run with critic_width=\d+, not 8; choose another"):
        refuse_other(PATH, members, [wider])
