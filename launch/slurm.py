"""Workers as jobs of a SLURM cluster, through submitit.

jaxrl-srpo prepare --datasets=hopper-medium-v2 --seeds=0:12 --members_per_population=3 --out=/shared/run
python launch/slurm.py /shared/run --workers=4 --partition=gpu --gpus=1 --cpus=8 --minutes=240
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxrl_srpo.cli import main as cli
from jaxrl_srpo.cli.command_line import exit_with
from jaxrl_srpo.errors import UserError
from supervise import End, define_flags, parse_run_dir, supervise, work_arguments

USAGE = """\
usage: python launch/slurm.py RUN_DIR [--FLAG=VALUE ...]

Submits workers as jobs and waits until the sweep is complete; jobs that are preempted, run out of time or die
are submitted again. All nodes must see RUN_DIR; the jobs write to RUN_DIR/logs."""


class Job:
    """A worker that runs as a job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def ended(self) -> End | None:
        """How the job ended; None while it runs or waits in the queue."""
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is not None:
            return End(died=f"job {self._job.job_id}, {self._job.state}; see {self._job.paths.stderr}")
        return End(refused=self._job.result())

    def stop(self) -> None:
        """Cancels the job, whether it runs or waits."""
        self._job.cancel(check=False)


def main(arguments: Sequence[str]) -> None:
    """Runs the command line `arguments`, the program's name left out.

    Raises:
      UserError: RUN_DIR is missing or no run directory, submitit or the cluster is missing, or the workers failed.
      flags.Error: a flag is unknown or has a bad value.
    """
    values = _define_flags()
    run_dir = parse_run_dir(values, USAGE, arguments)
    if run_dir is None:
        return
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is not installed; pip install 'jaxrl-srpo[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=run_dir / "logs", cluster=values.cluster)
    except RuntimeError as error:
        raise UserError(f"--cluster={values.cluster}: {error}") from None
    executor.update_parameters(
        name=f"srpo-{run_dir.name}",
        timeout_min=values.minutes,
        cpus_per_task=values.cpus,
        gpus_per_node=values.gpus,
        mem_gb=values.memory_gb,
        slurm_partition=values.partition,
        slurm_use_srun=False,
    )
    work = work_arguments(run_dir, values)
    supervise(run_dir, lambda: Job(executor.submit(cli.answer, work)), values)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    define_flags(values)
    flags.DEFINE_enum("cluster", "slurm", ["slurm", "local"], "local: jobs run on this machine.", flag_values=values)
    flags.DEFINE_string("partition", None, "SLURM partition; the cluster's default if not given.", flag_values=values)
    flags.DEFINE_integer("minutes", 60, "Time limit of one job, in minutes.", 1, flag_values=values)
    flags.DEFINE_integer("cpus", 1, "Cores of one worker.", 1, flag_values=values)
    flags.DEFINE_integer("gpus", 0, "GPUs of one worker.", 0, flag_values=values)
    flags.DEFINE_integer(
        "memory_gb", None, "Memory of one worker, in GB; the cluster's default if not given.", 1, flag_values=values
    )
    return values


if __name__ == "__main__":
    exit_with("launch/slurm.py", main, sys.argv[1:], "interrupted; the same command continues")
