"""The smallest runs that have every stage, started in processes of their own, and compared with undisturbed ones."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from typing import Any, NamedTuple

import h5py
import numpy as np

CHUNKS = 20
_LOG_INTERVAL = 5
_STEPS = CHUNKS * _LOG_INTERVAL
# Evaluations between the rows of metrics.csv, so that a kill may fall between the two files.
_EVALUATION_INTERVAL = 35
SMALLEST: dict[str, Any] = {
    "score_width": 16,
    "score_hidden": 32,
    "score_blocks": 1,
    "critic_width": 16,
    "actor_layers": 1,
    "behavior_batch_size": 32,
    "critic_batch_size": 32,
    "policy_batch_size": 32,
    "awac_batch_size": 32,
    "awac_actor_width": 16,
    "awac_actor_layers": 1,
    "awac_critic_width": 16,
    "awac_critic_layers": 1,
    "vae_width": 16,
    "vae_batch_size": 32,
    "fql_width": 16,
    "fql_layers": 1,
    "fql_batch_size": 32,
    "flow_width": 16,
    "flow_layers": 1,
    "flow_batch_size": 32,
    "ddpm_width": 16,
    "ddpm_hidden": 32,
    "ddpm_blocks": 1,
    "ddpm_batch_size": 32,
    "diffuser_multipliers": "1",
    "diffuser_horizon": 4,
    "diffuser_batch_size": 32,
    "diffuser_value_batch_size": 32,
    "support_actions": 2,
    "support_sampler_steps": 2,
    "qgpo_batch_size": 32,
    "qgpo_width": 16,
    "qgpo_sampler_steps": 2,
    "sfbc_batch_size": 32,
    "sfbc_width": 16,
    "sfbc_candidates": 4,
    "sfbc_sampler_steps": 2,
    "online_batch_size": 32,
    "episodes": 1,
    "sampler_steps": 2,
}
"""The smallest networks, batches and evaluations of every stage."""

_SETTINGS: dict[str, Any] = SMALLEST | {
    "cpu_devices": 1,
    "checkpoint_seconds": 0,
    "behavior_steps": _STEPS,
    "critic_steps": _STEPS,
    "policy_steps": _STEPS,
    "offline_steps": _STEPS,
    "log_interval": _LOG_INTERVAL,
    "critic_evaluation_interval": _EVALUATION_INTERVAL,
    "policy_evaluation_interval": _EVALUATION_INTERVAL,
    "offline_evaluation_interval": _EVALUATION_INTERVAL,
    "online_evaluation_interval": _EVALUATION_INTERVAL,
}
_PRELOADED = [
    "jaxrl_srpo.api",
    "jaxrl_srpo.cli.main",
    "jaxrl_srpo.report.curves",
    "jaxrl_srpo.envs.make",
    "gymnasium.envs.classic_control.pendulum",
    "experiments.benchmarks.small_runs",
]


class Case(NamedTuple):
    """A kind of run.

    Attributes:
      name: what tables call it.
      settings: flags beside those that all runs have.
      workers: processes that train one run directory; 1 trains by the command itself.
    """

    name: str
    settings: dict[str, Any]
    workers: int = 1


CASES = (
    Case("SRPO", {"seeds": "0:2", "beta": "0.1,0.3"}),
    Case("AWAC, then online", {"seeds": "0:2", "algorithm": "awac", "online_steps": _STEPS}),
    Case("SRPO, two workers", {"seeds": "0:2", "beta": "0.1,0.3", "members_per_population": 1}, workers=2),
)


def write_dataset(path: pathlib.Path, episodes: int = 4, steps: int = 50) -> None:
    """A file in D4RL's layout with the sizes of Pendulum-v1 and random numbers."""
    random, size = np.random.default_rng(0), episodes * steps
    angles = np.cumsum(random.normal(0.0, 0.2, (episodes, steps)), axis=1).reshape(size)
    with h5py.File(path, "w") as file:
        file["observations"] = np.stack(
            [np.cos(angles), np.sin(angles), random.uniform(-1.0, 1.0, size)], axis=1
        ).astype(np.float32)
        file["actions"] = random.uniform(-2.0, 2.0, (size, 1)).astype(np.float32)
        file["rewards"] = (-(angles**2)).astype(np.float32)
        file["terminals"] = np.zeros(size, bool)
        file["timeouts"] = np.arange(size) % steps == steps - 1
        file.attrs.update(env_id="Pendulum-v1", action_low=[-2.0], action_high=[2.0])


def commands(case: Case, dataset: pathlib.Path, out: pathlib.Path) -> list[list[str]]:
    """The arguments of `jaxrl-srpo` of each process that trains a run."""
    values = {"datasets": dataset, "out": out} | _SETTINGS | case.settings
    if case.workers == 1:
        return [["train", *(f"--{name}={value}" for name, value in values.items())]]
    return [["work", str(out), "--cpu_devices=1"]] * case.workers


def prepare_command(case: Case, dataset: pathlib.Path, out: pathlib.Path) -> list[str]:
    """The arguments that prepare a run for its workers."""
    values = {"datasets": dataset, "out": out} | _SETTINGS | case.settings
    return ["prepare", *(f"--{name}={value}" for name, value in values.items())]


class Starter:
    """Starts processes that have Python and JAX loaded already, so that what is measured is the run.

    Args:
      log: file that they write to.
    """

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def start(self, arguments: Sequence[str]) -> ForkServerProcess:
        """A process of one command of `jaxrl-srpo`."""
        process = self._context.Process(target=_command, args=(list(arguments), str(self._log)))
        process.start()
        return process

    def finish(self, arguments: Sequence[str]) -> None:
        """Runs one command to its end.

        Raises:
          RuntimeError: it failed; the message has the end of what it said.
        """
        process = self.start(arguments)
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{arguments[0]} ended with code {process.exitcode}:\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of what processes said."""
        return self._log.read_text(errors="replace")[-2000:]

    def differences(self, out: pathlib.Path, reference: pathlib.Path) -> list[str]:
        """What differs between two finished runs, see `compare`."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_compare, args=(str(out), str(reference), sender))
        process.start()
        sender.close()
        try:
            found: list[str] = receiver.recv()
        except EOFError:
            found = ["the comparison failed"]
        process.join()
        return found


def _command(arguments: list[str], log: str) -> None:
    from jaxrl_srpo.cli.main import run

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"{time.strftime('%H:%M:%S')} $ jaxrl-srpo {' '.join(arguments)}", flush=True)
    sys.argv = ["jaxrl-srpo", *arguments]
    run(arguments)


def _compare(out: str, reference: str, sender: Any) -> None:
    with contextlib.closing(sender):
        sender.send(compare(pathlib.Path(out), pathlib.Path(reference)))


def compare(out: pathlib.Path, reference: pathlib.Path) -> list[str]:
    """What differs between two finished runs: results to the last bit, rows but for rates, the table, leftovers."""
    import jax

    from jaxrl_srpo.runs.run_directory import RunDirectory
    from jaxrl_srpo.runs.setup import load_result

    found = [name for name in ("metrics.csv", "evaluations.csv") if _rows(out / name) != _rows(reference / name)]
    if (out / "report" / "table.csv").read_bytes() != (reference / "report" / "table.csv").read_bytes():
        found.append("table.csv")
    run, whole = RunDirectory(out), RunDirectory(reference)
    for member in whole.members():
        for stage in member.stages:
            ours, theirs = (jax.tree.leaves(load_result(one, stage, member)) for one in (run, whole))
            if any(a.tobytes() != b.tobytes() for a, b in zip(ours, theirs, strict=True)):
                found.append(f"result of {member.name(stage)}")
    if list((out / "checkpoints" / "under_way").glob("*")):
        found.append("checkpoints left under way")
    return found


def _rows(path: pathlib.Path) -> list[tuple[str, ...]]:
    """All rows in an order of their own, without the one column that the clock writes."""
    from jaxrl_srpo.io.csv_log import read_rows

    rows = [{name: cell for name, cell in row.items() if name != "updates_per_second"} for row in read_rows(path)]
    return sorted(tuple(row[name] for name in sorted(row)) for row in rows)
