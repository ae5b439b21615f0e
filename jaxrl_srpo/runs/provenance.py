"""Which code and packages a run was made with."""

import pathlib
import platform
import subprocess
from importlib import metadata


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    names = ("jaxrl-srpo", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    optional = ("gymnasium", "mujoco", "gymnasium-robotics", "minari")
    found = {"python": platform.python_version()}
    for name in (*names, *optional):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Commit of the checkout that this package runs from; empty outside one."""
    root = pathlib.Path(__file__).resolve().parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
