"""Modules that a person names, on the command line or in a program; no file's words ever come here."""

import importlib
import os
import sys
from types import ModuleType

from jaxrl_srpo.errors import UserError


def import_named(module: str, flag: str) -> ModuleType:
    """Imports a module of a person's own; the current folder is importable.

    Args:
      module: its name.
      flag: how it was named, such as `--env=my_tasks:Cart-v0`, for the message.

    Raises:
      UserError: there is no such module, or one that it imports.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        raise UserError(f"{flag}: {error}; modules are looked for here and where packages are") from None
