"""What `sweep.json` may hold: wrong types and names are refused in one line, wherever they are."""

import copy
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.sweep_file import check_sweep

ARCHIVE = pathlib.Path(__file__).parents[1] / "old_run.zip"


@pytest.fixture(scope="module")
def sweep() -> dict[str, Any]:
    with zipfile.ZipFile(ARCHIVE) as archive:
        content: dict[str, Any] = json.loads(archive.read("old_run/sweep.json"))
    return content


def test_that_of_an_earlier_version_passes(sweep: dict[str, Any]) -> None:
    check_sweep(sweep, "sweep.json")


# What nobody reads as a number or a name may hold anything of its type.
WRONG: list[tuple[list[Any], Any, str]] = [
    (["datasets"], {}, "'datasets' is {}, should be a list of an object"),
    (["datasets", 0], 3, "'datasets' is .*3.*, should be a list"),
    (["datasets", 0, "name"], None, "dataset 1: 'name' is None, should be text"),
    (["datasets", 0, "observation_size"], "3", "dataset 1: 'observation_size' is '3', should be a whole number"),
    (["datasets", 0, "action_low"], [[]], "dataset 1: 'action_low'"),
    (["settings"], [], "'settings' is"),
    (["settings", "pendulum", "beta"], [1], "'settings' is"),
    (["members"], "all", "'members' is 'all'"),
    (["members", 0, "seed"], "0", "member 1: 'seed' is '0', should be a whole number"),
    (["members", 0, "seed"], -1, "member 1: 'seed' is -1, should be from 0"),
    (["members", 0, "seed"], 2**31, "member 1: 'seed' is 2147483648, should be from 0"),
    (["members", 0, "dataset"], "other", "member 1 is of dataset 'other', which the file does not list"),
    (["members", 0, "algorithm"], ["srpo"], "member 1: 'algorithm'"),
    (["members", 0, "values"], {"beta": {}}, "member 1: 'values'"),
    (["members", 0, "results"], {"critic": "../../elsewhere"}, "has the address '../../elsewhere'"),
    (["members", 0, "results"], {"../x": "0123456789abcdef"}, "'../x' in 'results'"),
    (["versions"], {"jax": 1}, "'versions'"),
    (["command"], "train", "'command'"),
    (["diverged"], {"x": 1}, "'diverged'"),
    (["diverged"], [{"seed": "0"}], "'diverged': 'seed'"),
    (["not_trained"], [3], "'not_trained'"),
    (["options"], [], "'options'"),
]


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_wrong_parts_are_named(sweep: dict[str, Any], place: list[Any], value: Any, message: str) -> None:
    changed = copy.deepcopy(sweep)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(UserError, match=message) as caught:
        check_sweep(changed, "sweep.json")
    assert "\n" not in str(caught.value)


def places(content: Any) -> Iterator[list[Any]]:
    """Paths to everything in JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield [key]
        yield from ([key, *rest] for rest in places(value))


def test_nothing_else_than_one_line_comes_of_any_wrong_type(sweep: dict[str, Any]) -> None:
    messages = []
    for place in places(sweep):
        value: Any
        for value in (None, [], {}, "x", -(10**40), 1.5, True):
            changed = copy.deepcopy(sweep)
            inner: Any = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            try:
                check_sweep(changed, "sweep.json")
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
