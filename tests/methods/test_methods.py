"""The list of methods, and methods of a user's own found by name."""

import pathlib
import sys

import pytest

from jaxrl_srpo import methods
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import find_method

OWN = """
import dataclasses
from jaxrl_srpo.methods import iql
METHOD = dataclasses.replace(iql.METHOD, name="mine")
NOTHING = 3
"""


def test_names_are_distinct_and_found() -> None:
    names = [method.name for method in methods.METHODS]
    assert len(set(names)) == len(names)
    assert all(find_method(method.name) is method for method in methods.METHODS)
    assert find_method(methods.METHODS[0]) is methods.METHODS[0]


def test_a_module_of_this_folder_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_methods_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    # `find_method` adds the current folder to a list that outlives this test.
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert find_method("own_methods_here:METHOD").name == "mine"
    with pytest.raises(UserError, match="--algorithm: 3 is no"):
        find_method("own_methods_here:NOTHING")
    with pytest.raises(UserError, match="--algorithm=own_methods_here:OTHER: own_methods_here has no OTHER"):
        find_method("own_methods_here:OTHER")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cql",
            "--algorithm=cql: choose from srpo, .*, or give a method of your own as package.module:METHO",
        ),
        ("nowhere_at_all:METHOD", "--algorithm=nowhere_at_all:METHOD: No module named 'nowhere_at_all'"),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find_method(name)
    assert "\n" not in str(caught.value)


def test_stages_come_once_offline_before_online() -> None:
    stages = methods.stages_in_order(methods.METHODS)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    assert names[:4] == ["behavior", "critic", "policy", "cloning"]
    assert [stage.online for stage in stages] == sorted(stage.online for stage in stages)
    for number, stage in enumerate(stages):
        assert all(earlier in stages[:number] for earlier in stage.needs)
    assert [one["name"] for one in methods.stage_descriptions()] == names
