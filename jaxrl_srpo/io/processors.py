"""How many processors there are to share work among."""

import os


def usable_cores() -> int:
    """Processors that this process may run on; at least 1.

    Where the system tells the process's affinity (Linux), it counts; elsewhere all processors of the machine do.
    """
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
