"""How the products of a population's networks are run: one by one, or batched; plain, or in kernels of our own."""

import contextlib
import contextvars
from collections.abc import Iterator

_BATCHED = contextvars.ContextVar("batched", default=False)


@contextlib.contextmanager
def batching(batched: bool) -> Iterator[None]:
    """What is traced inside runs networks of equal shape as one batched product, or one after another."""
    token = _BATCHED.set(batched)
    try:
        yield
    finally:
        _BATCHED.reset(token)


def batched() -> bool:
    """Whether networks of equal shape that are being traced become one batched product."""
    return _BATCHED.get()
