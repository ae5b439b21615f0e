"""What the machine has: processors to share work among, and memory."""

import os


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
