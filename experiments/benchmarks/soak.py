"""Kills small runs at random times, continues them, and compares each with an undisturbed one to the last bit.

SRPO, AWAC that goes on online, and two workers on one run directory are killed by SIGKILL, SIGTERM and SIGINT, and
given the same command again. Processes begin with Python and JAX loaded, so that most kills fall into training.
"""

import contextlib
import os
import pathlib
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from typing import NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import print_message, write_atomically

from .. import common
from . import small_runs
from .small_runs import CASES, Case, Starter

NAME = "soak"
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_KILLS_OF_A_RUN = 15
# The share of kills at a random time of a whole run; the others fall so many seconds after the run has got further, at
# most. A stage takes about as long.
_ANY_TIME = 0.1
_AFTER_A_ROW = 3.0
# Seconds after a signal in which a process ends, on a busy machine too.
_PATIENCE = 60.0


class Outcome(NamedTuple):
    """One run that was killed, continued and compared.

    Attributes:
      case: its kind.
      signals: names of the signals that ended a process of it, in order.
      differences: what differs from the undisturbed run.
    """

    case: str
    signals: tuple[str, ...]
    differences: tuple[str, ...]


class Soak:
    """Runs that are killed at random.

    Args:
      directory: where the runs lie.
      seed: of the random times and signals.
    """

    def __init__(self, directory: pathlib.Path, seed: int) -> None:
        self._directory, self._dice = directory, random.Random(seed)
        self._starter = Starter(directory / "log.txt")
        self._dataset = directory / "pendulum.hdf5"
        small_runs.write_dataset(self._dataset)
        self._seconds: dict[str, float] = {}

    def reference(self, case: Case) -> pathlib.Path:
        """The undisturbed run of a case; how long it takes decides the range of the random times."""
        out = self._directory / f"whole {case.name}"
        if case.name not in self._seconds:
            # The first compiles what all later ones find.
            self._starter.finish(small_runs.commands(case._replace(workers=1), self._dataset, out)[0])
            began = time.monotonic()
            self._starter.finish(
                small_runs.commands(case._replace(workers=1), self._dataset, self._directory / f"timed {case.name}")[0]
            )
            self._seconds[case.name] = time.monotonic() - began
        return out

    def _wait(self, case: Case, out: pathlib.Path, process: ForkServerProcess) -> None:
        """Until a random time: of a whole run, or soon after the run has got further, when it trains."""
        if self._dice.random() < _ANY_TIME:
            time.sleep(self._dice.uniform(0.0, self._seconds[case.name]))
            return
        before = _size(out / "metrics.csv")
        while process.is_alive() and _size(out / "metrics.csv") <= before:
            time.sleep(0.01)
        time.sleep(self._dice.uniform(0.0, _AFTER_A_ROW))

    def run(self, case: Case, number: int, kills: int) -> Outcome:
        """Kills a run up to so many times, continues it to its end and compares it."""
        reference, out = self.reference(case), self._directory / f"run {number}"
        if case.workers > 1:
            self._starter.finish(small_runs.prepare_command(case, self._dataset, out))
        commands = small_runs.commands(case, self._dataset, out)
        signals: list[str] = []
        found: list[str] = []
        processes = [self._starter.start(command) for command in commands]
        while len(signals) < kills and processes and not found:
            victim, sent = self._dice.randrange(len(processes)), self._dice.choice(_SIGNALS)
            self._wait(case, out, processes[victim])
            was_alive = processes[victim].is_alive()
            if was_alive and not _end(processes[victim], sent):
                found.append(f"was there {_PATIENCE:.0f} s after {sent.name}")
            if processes[victim].exitcode == 0:
                # It was done before.
                processes.pop(victim)
            elif was_alive:
                signals.append(sent.name)
                processes[victim] = self._starter.start(commands[victim])
            else:
                found.append(f"ended with code {processes[victim].exitcode} by itself")
        for process in processes:
            process.join()
            if process.exitcode != 0:
                found.append(f"ended with code {process.exitcode} by itself")
        # Whoever was killed last may have been about to write the report; otherwise this changes nothing.
        self._starter.finish(commands[0])
        return Outcome(case.name, tuple(signals), (*found, *self._starter.differences(out, reference)))


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _end(process: ForkServerProcess, sent: signal.Signals) -> bool:
    """Sends a process a signal; whether it ends soon. It is over in any case."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, sent)
    process.join(_PATIENCE)
    ended = not process.is_alive()
    process.kill()
    process.join()
    return ended


def soak(directory: pathlib.Path, kills: int, seed: int, cases: Sequence[Case] = CASES) -> list[Outcome]:
    """So many kills in all, over the cases in turn."""
    work = Soak(directory, seed)
    outcomes: list[Outcome] = []
    while (left := kills - sum(len(outcome.signals) for outcome in outcomes)) > 0:
        case = cases[len(outcomes) % len(cases)]
        outcome = work.run(case, len(outcomes), min(left, _KILLS_OF_A_RUN))
        outcomes.append(outcome)
        print_message(
            f"{case.name}: {' '.join(outcome.signals) or 'no kill'}: {', '.join(outcome.differences) or 'equal'}; "
            f"{left - len(outcome.signals)} kills left"
        )
    return outcomes


def summarize(outcomes: Sequence[Outcome]) -> str:
    """What came out, as Markdown."""
    titles = ("run", "runs", *(one.name for one in _SIGNALS), "equal to the undisturbed run", "different")
    lines = []
    for case in dict.fromkeys(outcome.case for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.case == case]
        lines.append(_cells(case, own))
    lines.append(_cells("all", outcomes))
    different = [f"- {outcome.case}: {', '.join(outcome.differences)}" for outcome in outcomes if outcome.differences]
    return "\n".join(["# Kills", "", *common.markdown_table(titles, lines), "", *different]).rstrip() + "\n"


def _cells(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    counts = [sum(outcome.signals.count(one.name) for outcome in outcomes) for one in _SIGNALS]
    equal = sum(not outcome.differences for outcome in outcomes)
    return [name, *map(str, (len(outcomes), *counts, equal, len(outcomes) - equal))]


def main(arguments: Sequence[str]) -> list[Outcome] | None:
    """Runs the soak of a command line; None after printing help.

    Raises:
      UserError: for bad input, or if a run did not end as an undisturbed one.
    """
    line = common.CommandLine(f"benchmarks.{NAME}", __doc__)
    line.whole("kills", 100, "Kills in all.", 1)
    line.whole("seed", 0, "Of the random times and signals.", 0)
    out = line.parse(arguments)
    if out is None:
        return None
    with tempfile.TemporaryDirectory(prefix="soak_") as directory:
        outcomes = soak(pathlib.Path(directory), line.values.kills, line.values.seed)
    text = summarize(outcomes)
    write_atomically(out / f"{NAME}.md", text)
    print(text, end="")
    if any(outcome.differences for outcome in outcomes):
        raise UserError("a run did not end as the undisturbed one; see the table")
    return outcomes


def _prepare() -> None:
    """The processes prepare JAX themselves."""


if __name__ == "__main__":
    common.run(f"benchmarks.{NAME}", main, _prepare)
