"""Where a D4RL file is to be had: a person's mirrors, or the public copies, the safest first."""

import os
import re
import urllib.parse
from collections.abc import Sequence

from jaxrl_srpo.errors import DatasetError

MIRROR_VARIABLE = "JAXRL_SRPO_MIRROR"
"""Environment variable: a mirror's root address, or several with commas between them, tried in turn; no other is asked.

With `https://example.org/d4rl`, `hopper-medium-v2` comes from
`https://example.org/d4rl/gym_mujoco_v2/hopper_medium-v2.hdf5`, or from `https://example.org/d4rl/hopper_medium-v2.hdf5`.
"""


def public_addresses(path: str, copies: Sequence[str], origin: str) -> tuple[str, ...]:
    """The public addresses of a file in the order in which they are tried.

    Args:
      path: the file's path below a server's root, for instance `gym_mujoco_v2/hopper_medium-v2.hdf5`.
      copies: roots of public copies, which may have D4RL's folders or none.
      origin: the root of D4RL's own server, which goes last because it is plain http.
    """
    return (*(address for copy in copies for address in _below(copy, path)), _join(origin, path))


def mirrored(urls: Sequence[str], path: str, mirror: str | None = None) -> tuple[str, ...]:
    """The addresses of a file at a person's mirror, or the public ones where no mirror is named.

    Args:
      urls: the public addresses.
      path: the file's path below a server's root.
      mirror: the mirror's root, with D4RL's folders or none, or several with commas between them; None takes
        `JAXRL_SRPO_MIRROR`.

    Raises:
      DatasetError: the mirror is no address.
    """
    roots = mirror or os.environ.get(MIRROR_VARIABLE)
    if not roots:
        return tuple(urls)
    refuse_other_roots(roots)
    return tuple(address for root in roots.split(",") for address in _below(root, path))


def refuse_other_roots(roots: str) -> None:
    """Raises unless a text is the address of a mirror's root, or several with commas between them.

    Raises:
      DatasetError: one of them is none.
    """
    where = f"--mirror or {MIRROR_VARIABLE}"
    for root in roots.split(","):
        refuse_other_addresses(root, where)
        if urllib.parse.urlsplit(root).query:
            raise DatasetError(f"{where}: {root!r} has a query; give the address of a folder")


def refuse_other_addresses(url: str, where: str) -> None:
    """Raises unless a text is an http or https address that Python's client can ask.

    Args:
      url: the text.
      where: what names it, for the message.

    Raises:
      DatasetError: it is none.
    """
    if not url.startswith(("http://", "https://")):
        raise DatasetError(f"{where}: the address {url!r} must start with http:// or https://")
    if re.search(r"[^!-~]", url):
        raise DatasetError(
            f"{where}: the address {url!r} has a space or a letter beyond ASCII; write it as %20 or alike"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
        host = host and host.encode("idna").decode()
    except ValueError as error:
        raise DatasetError(f"{where}: {url!r} is no address: {error}") from error
    if not host:
        raise DatasetError(f"{where}: the address {url!r} names no host")
    if parts.username is not None or parts.fragment:
        raise DatasetError(f"{where}: the address of {host} must have no name, password or #")


def _below(root: str, path: str) -> list[str]:
    """A file in D4RL's folder of a server, and in its root; D4RL has no two files of one name."""
    return list(dict.fromkeys(_join(root, place) for place in (path, path.rsplit("/", 1)[-1])))


def _join(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{urllib.parse.quote(path)}"
