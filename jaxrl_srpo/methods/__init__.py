"""The methods, one file each; `contract.py` says what a method is. A file here with a METHOD is a method."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.modules import import_named
from jaxrl_srpo.methods.contract import Method, Stage, check_method


def _find_methods() -> tuple[Method, ...]:
    """The `METHOD`s (and `METHOD_...`) of the files of this folder, SRPO first."""
    names = sorted((module.name for module in pkgutil.iter_modules(__path__)), key=lambda name: (name != "srpo", name))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(
        method
        for module in modules
        for name, method in vars(module).items()
        if name.startswith("METHOD") and isinstance(method, Method)
    )


METHODS = _find_methods()
"""What `--algorithm` may name besides a method of a user's own."""


ALL = "all"
"""What `--algorithm` calls all of them that learn from a dataset."""


def every_method(preset: str) -> tuple[Method, ...]:
    """What `all` stands for: the methods above that learn from a dataset and have a preset."""
    return tuple(method for method in METHODS if method.stages and preset in method.presets)


def find_method(named: str | Method) -> Method:
    """A method by name, a method of a user's own by `package.module:METHOD`, or the method itself.

    A module is imported only because a person named it, on the command line or in a program; no file may. The current
    folder is importable.

    Raises:
      UserError: there is no such method.
    """
    if isinstance(named, Method):
        return _check_own(named)
    for method in METHODS:
        if method.name == named:
            return method
    module, separator, attribute = named.partition(":")
    if not separator or not all(name.isidentifier() for name in (*module.split("."), attribute)):
        known = ", ".join(method.name for method in METHODS)
        raise UserError(
            f"--algorithm={named}: choose from {known}, or give a method of your own as package.module:METHOD"
        )
    return _check_own(_import(named, module, attribute))


def _check_own(method: Any) -> Method:
    checked = check_method(method)
    if any(one.name == checked.name and one is not checked for one in METHODS):
        raise UserError(f"--algorithm: a method of this package is called {checked.name}; give yours another name")
    return checked


def _import(named: str, module: str, attribute: str) -> Any:
    imported = import_named(module, f"--algorithm={named}")
    try:
        return getattr(imported, attribute)
    except AttributeError:
        raise UserError(f"--algorithm={named}: {module} has no {attribute}") from None


def stages_in_order(methods: Sequence[Method]) -> list[Stage]:
    """Every stage of some methods once: offline before online, none before those that it needs.

    Raises:
      UserError: two different stages have one name or one random stream.
    """
    every = [stage for method in methods for stage in method.stages]
    every += [method.online for method in methods if method.online]
    found: dict[str, Stage] = {}
    for stage in every:
        for one in (*stage.needs, stage):
            if found.setdefault(one.name, one) is not one:
                raise UserError(
                    f"--algorithm: two stages are called {one.name}; stages of a run need names of their own"
                )
    streams: dict[int, str] = {}
    for stage in found.values():
        if streams.setdefault(stage.stream, stage.name) != stage.name:
            raise UserError(f"--algorithm: stages {streams[stage.stream]} and {stage.name} share a random stream")
    return sorted(found.values(), key=lambda stage: stage.online)


def stage_descriptions() -> list[dict[str, Any]]:
    """What reports need to know of every stage of the methods above."""
    return [stage.describe() for stage in stages_in_order(METHODS)]
