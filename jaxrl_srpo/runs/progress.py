"""How far a stage is: a bar on a terminal, elsewhere a plain line now and then."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

_FIRST = 30.0
"""Seconds before the first plain line."""
_SHARE = 0.1
"""Plain lines come the rarer the longer a stage takes: at least this share of the time so far lies between two."""


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3 h 5 min` or `2 d 4 h`, rounded down."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


class Progress:
    """Shows the steps that every member of a population has made, and that its programs are being compiled before.

    Args:
      title: what is trained, for instance `critic (12 members)`.
      total: steps of one member.
      unit: what a step is, in plural.
      shown: whether anything is printed at all.
      stream: where to; standard error by default.
      clock: seconds, of which differences count.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        *,
        shown: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._stream, self._clock = stream or sys.stderr, clock
        self._shown, self._plain = shown, not self._stream.isatty()
        self._bar: tqdm | None = None
        self._start = self._done = 0
        self._began = self._told = clock()

    def begin(self, done: int) -> None:
        """Says that programs are compiled for what is left after `done` steps, or nothing if nothing is left."""
        self._start = self._done = done
        self._began = self._told = self._clock()
        if not self._shown or done == self._total:
            return
        waiting = f"compiling {self._title}"
        if self._plain:
            self.write(f"{waiting} ...")
            return
        self._bar = tqdm(
            total=self._total,
            initial=done,
            desc=waiting,
            unit=f" {self._unit}",
            unit_scale=True,
            dynamic_ncols=True,
            file=self._stream,
        )

    def advance(self, steps: int) -> None:
        """Every member made `steps` more."""
        self._done += steps
        if self._bar is not None:
            self._bar.set_description(self._title, refresh=False)
            self._bar.update(steps)
        elif self._shown and self._is_due():
            self._told = self._clock()
            self.write(self._line())

    def write(self, line: str) -> None:
        """A message; it does not disturb the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _is_due(self) -> bool:
        now = self._clock()
        return self._done == self._total or now - self._told >= max(_FIRST, _SHARE * (now - self._began))

    def _line(self) -> str:
        seconds = max(self._clock() - self._began, 1e-9)
        rate = (self._done - self._start) / seconds
        if self._done == self._total:
            return f"{self._title}: {self._total:,} {self._unit} each, done after {duration(seconds)}"
        left = duration((self._total - self._done) / rate)
        return f"{self._title}: {self._done:,} of {self._total:,} {self._unit} each, {rate:.3g} a second, {left} left"
