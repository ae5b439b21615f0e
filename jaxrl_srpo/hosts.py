"""Several processes (hosts) that train one population together; the first of them decides and writes the files."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrl_srpo.errors import UserError


def join(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several whose devices form one mesh; must come before any computation.

    Args:
      coordinator_address: HOST:PORT of the first process, or `auto` where SLURM, MPI or a TPU pod tells all three;
        None leaves this process alone.
      num_processes: number of processes.
      process_id: number of this one, from 0.

    Raises:
      UserError: if only a part is given, or the others cannot be reached.
    """
    if coordinator_address is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes, --process_id: need --coordinator_address=HOST:PORT (or auto) too")
        return
    try:
        if coordinator_address == "auto":
            jax.distributed.initialize()
            return
        if num_processes is None or process_id is None or process_id >= num_processes:
            raise UserError(
                f"--coordinator_address={coordinator_address}: needs --num_processes=N and --process_id from 0 to N - 1"
            )
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--coordinator_address={coordinator_address}: the processes did not find each other ({error}); "
            "give HOST:PORT of process 0, reachable from all of them"
        ) from None


def leads() -> bool:
    """Whether this process decides and writes; true for a process alone."""
    return jax.process_index() == 0


def agree(value: int) -> int:
    """The first process's value, in all of them."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
