"""Workers as tasks of a Ray cluster: clouds, and pods of GPUs or TPUs.

jaxrl-srpo prepare --datasets=hopper-medium-v2 --seeds=0:12 --members_per_population=3 --out=/shared/run
python launch/ray_cluster.py /shared/run --workers=4 --cpus=8 --gpus=1
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxrl_srpo.cli import main as cli
from jaxrl_srpo.cli.command_line import exit_with
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs.distributed import wait_for_server
from supervise import End, define_flags, parse_run_dir, supervise, work_arguments

USAGE = """\
usage: python launch/ray_cluster.py RUN_DIR [--FLAG=VALUE ...]

Starts workers as tasks of a running Ray cluster (`ray start`, `ray up`) and waits until the sweep is complete. If a
node dies, its workers go to other nodes. All nodes must see RUN_DIR and have the package installed."""


class Task:
    """A worker that runs as a task of Ray."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def ended(self) -> End | None:
        """How the task ended; None while it runs or waits for a node."""
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return End(refused=self._ray.get(self._reference))
        except self._ray.exceptions.RayError as error:
            return End(died=str(error).strip().splitlines()[-1])

    def stop(self) -> None:
        """Kills the task's process, or takes the task from the queue."""
        self._ray.cancel(self._reference, force=True)


def main(arguments: Sequence[str]) -> None:
    """Runs the command line `arguments`, the program's name left out.

    Raises:
      UserError: RUN_DIR is missing or no run directory, Ray or the cluster is missing, or the workers failed.
      flags.Error: a flag is unknown or has a bad value.
    """
    values = _define_flags()
    run_dir = parse_run_dir(values, USAGE, arguments)
    if run_dir is None:
        return
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; pip install 'jaxrl-srpo[ray]'") from None
    # Ray itself would wait for minutes.
    wait_for_server(f"--address={values.address}", values.address, patience=10.0)
    try:
        ray.init(address=values.address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--address={values.address}: {error}") from None
    # JAX can be set up only once per process, hence max_calls=1. A worker whose node dies starts again on another.
    resources = {"TPU": values.tpus} if values.tpus else {}
    remote = ray.remote(num_cpus=values.cpus, num_gpus=values.gpus, resources=resources, max_calls=1, max_retries=-1)
    answer, work = remote(cli.answer), work_arguments(run_dir, values)
    try:
        supervise(run_dir, lambda: Task(ray, answer.remote(work)), values)
    finally:
        ray.shutdown()


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    define_flags(values)
    flags.DEFINE_string(
        "address", "127.0.0.1:6379", "HOST:PORT of the head, as `ray start --head` prints it.", flag_values=values
    )
    flags.DEFINE_integer("cpus", 1, "Cores of one worker.", 1, flag_values=values)
    flags.DEFINE_integer("gpus", 0, "GPUs of one worker.", 0, flag_values=values)
    flags.DEFINE_integer("tpus", 0, "TPU chips of one worker.", 0, flag_values=values)
    return values


if __name__ == "__main__":
    exit_with("launch/ray_cluster.py", main, sys.argv[1:], "interrupted; the same command continues")
