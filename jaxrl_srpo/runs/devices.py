"""JAX's devices and compiled programs, for the command line and for programs that call the package."""

import os

import jax

from jaxrl_srpo.data.download import cache_dir
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import keep_sums_in_order, usable_cores

_MOST_CPU_DEVICES = 1024


def prepare_jax(cpu_devices: int = 0) -> None:
    """Makes one JAX device per core, so that members are trained side by side, and keeps compiled programs on disk.

    Sums on CPUs are kept in order, see `io.processors`. Must come before any computation.
    `JAX_COMPILATION_CACHE_DIR` names another place for the programs.

    Args:
      cpu_devices: JAX devices to make of this CPU; 0 makes one per core.

    Raises:
      UserError: for a negative number, or more than a machine has processors.
    """
    if not 0 <= cpu_devices <= _MOST_CPU_DEVICES:
        problem = "must not be negative" if cpu_devices < 0 else f"must be at most {_MOST_CPU_DEVICES}"
        raise UserError(f"--cpu_devices={cpu_devices}: {problem}")
    keep_sums_in_order(os.environ)
    jax.config.update("jax_num_cpu_devices", cpu_devices or usable_cores())
    _keep_programs()


def prepare_jax_unless_chosen(side_by_side: int) -> None:
    """The same for a program that may have chosen devices, or begun to compute, itself; that stands.

    Args:
      side_by_side: members that can be trained at a time; more devices would stand idle.
    """
    keep_sums_in_order(os.environ)
    _keep_programs()
    chosen = jax.config.values["jax_num_cpu_devices"] != -1 or "device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen:
        return
    try:
        jax.config.update("jax_num_cpu_devices", min(side_by_side, usable_cores()))
    except RuntimeError:  # The backends have started.
        return


def _keep_programs() -> None:
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
