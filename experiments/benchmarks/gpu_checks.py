"""Everything that only a GPU can show, by one command: rates, a whole run, sampling, the tests.

Each check is a command of its own with a time limit and a log, so that a fault in one leaves the others. They fit
twelve minutes of one GPU. Give `--dataset` a file of the sizes that count, such as a Hopper dataset of D4RL.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import print_message, write_atomically

from .. import common

NAME = "gpu_checks"
_TESTS = (
    "population",
    "nn",
    "methods",
    "runs/test_setup.py",
    "integration/test_parity.py",
    "integration/test_resume.py",
)
_PYTHON = sys.executable


class Check(NamedTuple):
    """One command.

    Attributes:
      name: of its log.
      seconds: after which it is killed.
      command: its words.
    """

    name: str
    seconds: float
    command: Sequence[str]


class Outcome(NamedTuple):
    """How a check ended.

    Attributes:
      name: of the check.
      code: its exit status; None if it was killed at its limit.
      seconds: that it took.
      last: the last line it said.
    """

    name: str
    code: int | None
    seconds: float
    last: str


def checks(out: pathlib.Path, dataset: str, members: int, budget: float) -> list[Check]:
    """The checks in their order, the most wanted first; 710 seconds in all."""
    module = (_PYTHON, "-m")
    whole = ("--preset=paper", f"--budget={budget:g}", f"--seeds=0:{members}", "--precision=bfloat16")
    sizes = ("--precisions=bfloat16", "--members=1,90", "--seconds=0.4", "--repetitions=3", "--profile")
    tests = [str(pathlib.Path("tests", name)) for name in _TESTS]
    return [
        Check("throughput", 150, (*module, "experiments.benchmarks.throughput", f"--out={out / 'throughput'}", *sizes)),
        Check("run", 170, (*module, "jaxrl_srpo", "train", f"--datasets={dataset}", f"--out={out / 'run'}", *whole)),
        Check("tests", 180, (*module, "pytest", "-q", "-m", "not many_devices", *tests)),
        Check("sampling", 210, (*module, "experiments.benchmarks.sampling_speed", f"--out={out / 'sampling'}")),
    ]


def carry_out(check: Check, log: pathlib.Path) -> Outcome:
    """Runs one check; what it says goes to the log."""
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(check.command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(check.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()
    return Outcome(check.name, code, time.monotonic() - began, said[-1] if said else "")


def summarize(outcomes: Sequence[Outcome]) -> str:
    """Markdown of how the checks ended."""
    lines = ["| check | exit status | seconds | last line |", "|---|--:|--:|---|"]
    for one in outcomes:
        status = "at its limit" if one.code is None else one.code
        lines.append(f"| {one.name} | {status} | {one.seconds:.0f} | {one.last.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> list[Outcome] | None:
    """Carries out the checks of a command line; None after printing help.

    Raises:
      UserError: for bad input.
    """
    line = common.CommandLine(f"benchmarks.{NAME}", __doc__)
    line.text("dataset", "", "Dataset of the whole run.")
    line.whole("members", 24, "Members of the whole run.", 1)
    line.number("budget", 0.01, "Share of the published updates that it trains.")
    out = line.parse(arguments)
    if out is None:
        return None
    if not line.values.dataset:
        raise UserError("--dataset: name the dataset of the whole run, such as hopper_medium-v2.hdf5")
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for check in checks(out, line.values.dataset, line.values.members, line.values.budget):
        print_message(f"{check.name}: {' '.join(check.command)}")
        outcomes.append(carry_out(check, out / f"{check.name}.log"))
        # What is known is kept if the machine goes away.
        write_atomically(out / f"{NAME}.md", summarize(outcomes))
    print(summarize(outcomes), end="")
    return outcomes


def _prepare() -> None:
    """The checks prepare JAX themselves; a process that holds a GPU's memory would be in their way."""


if __name__ == "__main__":
    common.run(f"benchmarks.{NAME}", main, _prepare)
