"""Values of JSON compared with types: every wrong one gives one line that names its place."""

import dataclasses
from typing import Any, Literal

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import typed


@dataclasses.dataclass(frozen=True)
class Record:
    name: str
    size: int
    means: list[float]
    extra: dict[str, Any] | None = None
    kind: Literal["a", "b"] = "a"
    on: bool = False


GOOD: dict[str, Any] = {"name": "x", "size": 3, "means": [1, 2.5, float("nan")]}


def test_what_fits_is_built() -> None:
    more = {"extra": {"k": [1]}, "kind": "b", "on": True}
    assert typed.build(Record, GOOD, "here") == Record("x", 3, GOOD["means"])
    assert typed.build(Record, GOOD | more, "here") == Record("x", 3, GOOD["means"], {"k": [1]}, "b", True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "'name' is 1, should be text"),
        ({"name": "a\0"}, "'name' is .*, should be text"),
        ({"name": "\ud800"}, "'name' is .*, should be text"),
        ({"size": 3.0}, "'size' is 3.0, should be a whole number"),
        ({"size": True}, "'size' is True, should be a whole number"),
        ({"size": 10**30}, "'size' is 1000.*, should be a whole number"),
        ({"means": [1, "2"]}, "'means' is .*, should be a list of a number"),
        ({"means": [10**400]}, r"'means' is \[1000.*\.\.\., should be a list"),
        ({"means": {}}, "'means' is {}, should be a list of a number"),
        ({"extra": []}, "'extra' is .*, should be an object or null"),
        ({"kind": "c"}, "'kind' is 'c', should be one of a, b"),
        ({"kind": []}, "'kind' is .*, should be one of a, b"),
        ({"on": 1}, "'on' is 1, should be true or false"),
        ({"other": 1}, "has 'other'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"here:? {message}") as caught:
        typed.build(Record, GOOD | change, "here")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("value", "message"), [([], "should be an object"), ({"name": "x"}, "lacks 'means'")])
def test_what_is_no_such_object_is_named(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        typed.build(Record, value, "here")


def test_long_values_are_shortened() -> None:
    assert len(typed.shortened("x" * 1000)) == 60
