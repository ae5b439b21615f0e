"""Several workers on this machine.

jaxrl-srpo prepare --datasets=pointmaze/umaze --seeds=0:4 --members_per_population=2 --out=runs/umaze
python launch/local.py runs/umaze --workers=2
"""

import itertools
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from jaxrl_srpo.cli.command_line import exit_with
from supervise import End, define_flags, parse_run_dir, supervise, work_arguments

USAGE = """\
usage: python launch/local.py RUN_DIR [--FLAG=VALUE ...]

Starts several workers on this machine and waits until the sweep is complete. They write to RUN_DIR/logs."""


class Process:
    """A worker that runs as a process on this machine.

    Args:
      arguments: the command line after `jaxrl-srpo`.
      log: the file that receives its output.
    """

    def __init__(self, arguments: Sequence[str], log: pathlib.Path) -> None:
        self._log = log
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as file:
            command = [sys.executable, "-m", "jaxrl_srpo", *arguments]
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def ended(self) -> End | None:
        """How the process ended; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        if code == 2:
            return End(refused=self._log.read_text().splitlines()[-1])
        return End(died=f"exit code {code}, see {self._log}" if code else "")

    def stop(self) -> None:
        """Terminates the process and waits for its end."""
        self._process.terminate()
        self._process.wait()


def main(arguments: Sequence[str]) -> None:
    """Runs the command line `arguments`, the program's name left out.

    Raises:
      UserError: RUN_DIR is missing or no run directory, or the workers failed.
      flags.Error: a flag is unknown or has a bad value.
    """
    values = flags.FlagValues()
    define_flags(values)
    run_dir = parse_run_dir(values, USAGE, arguments)
    if run_dir is None:
        return
    work, numbers = work_arguments(run_dir, values), itertools.count()
    supervise(run_dir, lambda: Process(work, run_dir / "logs" / f"worker-{next(numbers)}.log"), values)


if __name__ == "__main__":
    exit_with("launch/local.py", main, sys.argv[1:], "interrupted; the same command continues")
