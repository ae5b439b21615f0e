"""What the engines share: they start workers, start them again when they die, and wait until a sweep is complete."""

import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from absl import flags

from jaxrl_srpo import report
from jaxrl_srpo.cli.command_line import asks_for_help, help_text
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.records import read_sweep

POLL_SECONDS = 0.5


class End(NamedTuple):
    """How a worker ended: it found the sweep complete, unless one of the two says otherwise.

    Attributes:
      died: what it died of; another one may fare better.
      refused: what was wrong with its input; no other one will fare better.
    """

    died: str = ""
    refused: str = ""


class Worker(Protocol):
    """A `jaxrl-srpo work` that an engine runs."""

    def ended(self) -> End | None:
        """How it ended; None while it works."""

    def stop(self) -> None:
        """Stops it."""


def define_flags(values: flags.FlagValues) -> None:
    """The flags of every engine."""
    flags.DEFINE_integer("workers", 2, "How many workers to start.", 1, flag_values=values)
    flags.DEFINE_integer("restarts", 10, "How many that died are started again, in all.", 0, flag_values=values)
    flags.DEFINE_integer(
        "cpu_devices", 0, "JAX devices that a worker makes of its CPU; 0: it decides.", 0, flag_values=values
    )


def parse_run_dir(values: flags.FlagValues, usage: str, arguments: Sequence[str]) -> pathlib.Path | None:
    """The run directory of a command line; None after printing help.

    Raises:
      UserError: if it is missing or no run directory.
      flags.Error: for bad flags.
    """
    if asks_for_help(arguments):
        print(help_text(usage, values))
        return None
    rest = values(["launch", *arguments])[1:]
    if len(rest) != 1:
        raise UserError(f"takes exactly one RUN_DIR, {len(rest)} were given; `jaxrl-srpo prepare` makes one")
    read_sweep(rest[0])
    return pathlib.Path(rest[0]).absolute()


def work_arguments(run_dir: pathlib.Path, values: flags.FlagValues) -> list[str]:
    """Arguments of `jaxrl-srpo` for one worker."""
    return ["work", str(run_dir), f"--cpu_devices={values.cpu_devices}"]


def supervise(run_dir: pathlib.Path, start: Callable[[], Worker], values: flags.FlagValues) -> None:
    """Keeps workers going until one of them finds the sweep complete, then writes and prints its report.

    Args:
      run_dir: the run directory.
      start: starts one more worker.
      values: the flags `workers` and `restarts`.

    Raises:
      UserError: if the workers refuse their input, or too many of them died.
    """
    workers = [start() for _ in range(values.workers)]
    try:
        _wait(run_dir, workers, start, values.restarts)
    finally:
        for worker in workers:
            worker.stop()
    paths = report.write_report(run_dir)
    print(report.format_table(report.collect(run_dir)))
    for path in paths:
        print(f"wrote {path}")


def _wait(run_dir: pathlib.Path, workers: list[Worker], start: Callable[[], Worker], restarts: int) -> None:
    """Returns when the sweep is complete; `workers` are those that may still run."""
    while True:
        time.sleep(POLL_SECONDS)
        for worker in list(workers):
            end = worker.ended()
            if end is None:
                continue
            workers.remove(worker)
            if end.refused:
                raise UserError(end.refused)
            if not end.died:
                return
            print(f"a worker died: {end.died}", file=sys.stderr, flush=True)
            if restarts > 0:
                restarts -= 1
                workers.append(start())
            elif not workers:
                raise UserError(f"{run_dir}: all workers died, the last of: {end.died}; the same command continues")
