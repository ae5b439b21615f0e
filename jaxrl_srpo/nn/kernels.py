"""How networks of equal shape are run: as one batched product, for accelerators, or one after another, for CPUs."""

import contextlib
import contextvars
from collections.abc import Iterator

_BATCHED = contextvars.ContextVar("batched", default=False)


@contextlib.contextmanager
def batching(batched: bool) -> Iterator[None]:
    """What is traced inside runs networks of equal shape as one batched product, or one after another.

    A population says so for all of its members, because it knows its devices and a network does not.
    """
    token = _BATCHED.set(batched)
    try:
        yield
    finally:
        _BATCHED.reset(token)


def batched() -> bool:
    """Whether networks of equal shape that are being traced become one batched product."""
    return _BATCHED.get()
