"""What the launchers share: they start workers, replace those that die, and wait until the sweep is complete."""

import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from absl import flags

from jaxrl_srpo import report
from jaxrl_srpo.cli.command_line import asks_for_help, expand_home, help_text
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.records import read_sweep

POLL_SECONDS = 0.5


class End(NamedTuple):
    """How a worker ended; both texts are empty if it found the sweep complete.

    Attributes:
      died: the cause of its death; a replacement may succeed.
      refused: what is wrong with its input; a replacement would fail too.
    """

    died: str = ""
    refused: str = ""


class Worker(Protocol):
    """A `jaxrl-srpo work` that a launcher has started."""

    def ended(self) -> End | None:
        """How the worker ended; None while it runs."""

    def stop(self) -> None:
        """Stops the worker, which may be running or waiting."""


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags that all launchers have."""
    flags.DEFINE_integer("workers", 2, "How many workers to start.", 1, 10_000, flag_values=values)
    flags.DEFINE_integer("restarts", 10, "How many dead workers are replaced, in total.", 0, flag_values=values)
    flags.DEFINE_integer(
        "cpu_devices", 0, "JAX devices that a worker makes of its CPU; 0: one per core.", 0, 1024, flag_values=values
    )
    flags.DEFINE_string(
        "algorithm", "", "Methods of your own that the run holds, as package.module:METHOD.", flag_values=values
    )
    flags.DEFINE_string("env", "", "The run's environment as module:ID, if yours.", flag_values=values)


def parse_run_dir(values: flags.FlagValues, usage: str, arguments: Sequence[str]) -> pathlib.Path | None:
    """Parses flags and RUN_DIR of a command line.

    Args:
      values: the flags, which take the values given.
      usage: the first part of the help.
      arguments: the command line without the program's name.

    Returns:
      The absolute path of the run directory; None after printing help.

    Raises:
      UserError: RUN_DIR is missing or no run directory, or its name has line breaks or the like.
      flags.Error: a flag is unknown or has a bad value.
    """
    if asks_for_help(arguments):
        print(help_text(usage, values))
        return None
    rest = values(["launch", *expand_home(arguments)])[1:]
    if len(rest) != 1:
        raise UserError(f"takes exactly one RUN_DIR, {len(rest)} were given; `jaxrl-srpo prepare` makes one")
    path = pathlib.Path(rest[0]).absolute()
    if not str(path).isprintable():
        raise UserError(f"{str(path)!r}: a line break in its name would become a line of a batch script; rename it")
    read_sweep(rest[0])
    return path


def work_arguments(run_dir: pathlib.Path, values: flags.FlagValues) -> list[str]:
    """The command line of one worker, after `jaxrl-srpo`."""
    own = [f"--{name}={values[name].value}" for name in ("algorithm", "env") if values[name].value]
    return ["work", str(run_dir), f"--cpu_devices={values.cpu_devices}", *own]


def supervise(run_dir: pathlib.Path, start: Callable[[], Worker], values: flags.FlagValues) -> None:
    """Keeps workers running until one of them finds the sweep complete, then writes and prints the report.

    Args:
      run_dir: the run directory.
      start: starts one more worker.
      values: the flags of `define_flags`.

    Raises:
      UserError: a worker refused its input, or all workers died and none may be replaced.
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
    """Returns when the sweep is complete; removes from `workers` those that have ended."""
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
