"""Small datasets in D4RL's HDF5 layout, and the smallest settings that run every stage, for tests of whole runs."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

import h5py
import numpy as np

import jaxrl_srpo
from experiments.benchmarks.small_runs import SMALLEST

OBSERVATION_SIZE, ACTION_SIZE = 3, 1
LIMIT = 900.0
"""Seconds after which a process hangs, also on a machine that many share."""

TINY: dict[str, Any] = SMALLEST | {
    "behavior_steps": 8,
    "critic_steps": 8,
    "policy_steps": 8,
    "offline_steps": 8,
    "log_interval": 4,
    "critic_evaluation_interval": 8,
    "policy_evaluation_interval": 8,
    "offline_evaluation_interval": 8,
    "online_evaluation_interval": 8,
}
"""Settings of a run that takes a second or two once it is compiled."""


def write_pendulum(path: pathlib.Path, seed: int = 0, episodes: int = 4, steps: int = 50) -> pathlib.Path:
    """A file with the sizes of Gymnasium's Pendulum-v1 (3 and 1), its action bounds, and a random policy's data.

    Args:
      path: of the file, ending in `.hdf5`.
      seed: of the random numbers.
      episodes: number of episodes, each ended by a time limit.
      steps: per episode.
    """
    random = np.random.default_rng(seed)
    size = episodes * steps
    angles = np.cumsum(random.normal(0.0, 0.2, (episodes, steps)), axis=1).reshape(size)
    speeds = random.uniform(-1.0, 1.0, size)
    with h5py.File(path, "w") as file:
        file["observations"] = np.stack([np.cos(angles), np.sin(angles), speeds], axis=1).astype(np.float32)
        file["actions"] = random.uniform(-2.0, 2.0, (size, ACTION_SIZE)).astype(np.float32)
        file["rewards"] = (-(angles**2)).astype(np.float32)
        file["terminals"] = np.zeros(size, bool)
        file["timeouts"] = np.arange(size) % steps == steps - 1
        file.attrs.update(env_id="Pendulum-v1", action_low=[-2.0], action_high=[2.0])
    return path


def flags(**values: Any) -> list[str]:
    """Command-line flags of settings; sequences become comma-separated values."""
    texts = {name: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else v for name, v in values.items()}
    return [f"--{name}={value}" for name, value in texts.items()]


def train_command(datasets: Sequence[pathlib.Path], out: pathlib.Path, **values: Any) -> list[str]:
    """Arguments of `jaxrl-srpo` for a run with the smallest settings; `values` add to or replace them."""
    everything = {"datasets": datasets, "out": out, "cpu_devices": 2} | TINY | values
    return ["train", *flags(**everything)]


def start(arguments: Sequence[str], log: IO[bytes], directory: pathlib.Path | None = None) -> subprocess.Popen[bytes]:
    """A process of `python -m jaxrl_srpo` that writes to `log`; `directory` is its current folder."""
    command = [sys.executable, "-m", "jaxrl_srpo", *arguments]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(), cwd=directory)


def run(arguments: Sequence[str], directory: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `python -m jaxrl_srpo` to its end."""
    return python("-m", "jaxrl_srpo", *arguments, directory=directory)


def python(*arguments: str, directory: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python with this package importable; `directory` is its current folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=LIMIT, cwd=directory)


def environment() -> dict[str, str]:
    """Environment variables under which this package is importable from anywhere."""
    root = str(pathlib.Path(jaxrl_srpo.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
