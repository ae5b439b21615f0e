"""What every table of a benchmark says about the machine that it was made on."""

import contextlib
import pathlib
import platform
import time
from importlib import metadata

import jax

from jaxrl_srpo.io.processors import usable_cores
from jaxrl_srpo.runs.provenance import versions


def conditions() -> str:
    """One line on machine and versions."""
    device = jax.devices()[0]
    kind = _processor() if device.platform == "cpu" else device.device_kind
    found = versions()
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["torch"] = metadata.version("torch")
    names = [f"{name} {found[name]}" for name in ("python", "jax", "jaxlib", "torch") if name in found]
    cores = f"{usable_cores()} cores, " if device.platform == "cpu" else ""
    return f"{kind}, {cores}{len(jax.devices())} JAX devices; {', '.join(names)}; {time.strftime('%Y-%m-%d')}"


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
