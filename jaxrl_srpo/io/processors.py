"""What the machine has, processors and memory, and how XLA's CPU is to use them."""

import os
from collections.abc import MutableMapping

_SUMS = "--xla_cpu_experimental_ynn_fusion_type"


def usable_cores() -> int:
    """Processors that this process may run on; at least 1.

    Where the system tells the process's affinity (Linux), it counts; elsewhere all processors of the machine do.
    """
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of the machine's memory; where the system does not tell, 64 GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 64 * 2**30


def keep_sums_in_order(environment: MutableMapping[str, str]) -> None:
    """Has XLA's CPU add up in one order, whatever its threads do, so that equal runs are equal to the last bit.

    With several threads XLA lets YNNPACK split large sums, and some come out otherwise from call to call on a busy
    machine. Must come before JAX's backends start.

    Args:
      environment: where `XLA_FLAGS` are read and written; a choice already made there stays.
    """
    given = environment.get("XLA_FLAGS", "")
    if _SUMS not in given:
        environment["XLA_FLAGS"] = f"{given} {_SUMS}=-reduce".strip()
