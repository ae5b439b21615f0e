"""JSON files that carry their own SHA-256, so that a damaged one is not taken for what was written."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxrl_srpo.errors import UserError, first_line

SEAL = "sha256"
"""The key of the digest, beside the content's own keys."""


def text_of(content: Mapping[str, Any]) -> str:
    """An object as JSON with its digest."""
    return json.dumps({**content, SEAL: _digest(content)}, indent=1) + "\n"


def read(path: pathlib.Path) -> dict[str, Any]:
    """The object of a file, without its digest; a file without one, as earlier versions wrote it, is taken as it is.

    Raises:
      UserError: it cannot be read, is no JSON object, or is not what was written.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({first_line(error)}); restore it or train again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not valid JSON for this place (no object); restore it or train again")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _digest(content):
        raise UserError(
            f"{path} is damaged: it is not what was written (another SHA-256); restore it or train again; whoever "
            f'changed it on purpose removes its entry "{SEAL}"'
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
