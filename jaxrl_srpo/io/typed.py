"""Values read from JSON, compared with the types that they should have."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxrl_srpo.errors import UserError

T = TypeVar("T")

LARGEST = 2**53
"""No whole number of a run is larger; those beyond are no exact floating-point numbers either."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def build(cls: type[T], value: Any, where: str) -> T:
    """A dataclass out of a JSON object.

    Args:
      cls: the dataclass.
      value: the object.
      where: what messages call its place.

    Raises:
      UserError: it is no object, lacks a field, has others, or one of another type.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {shortened(value)}, should be an object; restore the file or train again")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    for problem, names in (("lacks", sorted(set(required) - value.keys())), ("has", sorted(value.keys() - fields))):
        if names:
            raise UserError(
                f"{where} {problem} {names[0]!r}; it should be as train writes it: restore it or train again"
            )
    hints = get_type_hints(cls)
    for name, one in value.items():
        require(one, hints[name], f"{where}: {name!r}")
    return cls(**value)


def require(value: Any, hint: Any, where: str) -> None:
    """Looks whether a value has a type.

    Args:
      value: what JSON gave.
      hint: a type: `str`, `int`, `float`, `bool`, None, `Any`, a literal, a list or dictionary of such, a union.
      where: what messages call its place.

    Raises:
      UserError: it has another.
    """
    if not _has(value, hint):
        raise UserError(f"{where} is {shortened(value)}, should be {_described(hint)}; restore the file or train again")


def shortened(value: Any) -> str:
    """A value for messages, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _has(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_has(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(_has(one, arguments[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_has(one, arguments[1]) for one in value.values())
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
    if hint in (int, float):
        return whole or (hint is float and isinstance(value, float))
    if hint is str:
        return isinstance(value, str) and _is_text(value)
    return isinstance(value, type(None) if hint is None else hint)


def _is_text(value: str) -> bool:
    """Whether files can be named by it, and terminals print it."""
    return "\0" not in value and value.encode("utf-8", "replace").decode() == value


def _described(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(one) for one in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is list:
        return f"a list of {_described(arguments[0])}"
    if origin is dict:
        return "an object"
    return _WORDS.get(hint, "something else")
