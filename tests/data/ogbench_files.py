"""Small files as OGBench writes them."""

import pathlib
from typing import Any

import numpy as np

from jaxrl_srpo.data import ogbench_tasks


def trajectories(environment: str, lengths: tuple[int, ...] = (6, 4), seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of trajectories of so many stored rows each, random where nothing is said; none is solved."""
    random, widths = np.random.default_rng(seed), ogbench_tasks.widths(environment)
    rows = sum(lengths)
    columns: dict[str, np.ndarray] = {
        "observations": random.normal(size=(rows, widths.observation)).astype(np.float32),
        "actions": random.uniform(-1.0, 1.0, (rows, widths.action)).astype(np.float32),
        "terminals": np.isin(np.arange(rows) + 1, np.cumsum(lengths)),
        "qpos": random.normal(200.0, 1.0, (rows, widths.qpos)).astype(np.float32),
        "qvel": random.normal(size=(rows, widths.qpos)).astype(np.float32),
    }
    if widths.buttons:
        columns["button_states"] = random.integers(0, 2, (rows, widths.buttons))
    return columns


def solve(columns: dict[str, np.ndarray], row: int, task: ogbench_tasks.Task) -> None:
    """Has a row solve a task."""
    qpos = columns["qpos"]
    if task.place is not None:
        qpos[row, task.body : task.body + 2] = task.place
    for i, place in enumerate(task.cubes):
        qpos[row, 14 + 7 * i : 17 + 7 * i] = place
    first = 14 + 7 * len(task.cubes) + len(task.buttons)
    for i, goal in enumerate(task.slides):
        qpos[row, first + i] = goal
    if task.buttons:
        columns["button_states"][row] = task.buttons


def write(path: pathlib.Path, columns: dict[str, Any]) -> pathlib.Path:
    """A file as `numpy.savez_compressed` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **columns)
    return path


def solved_tasks(environment: str, kind: str) -> dict[str, np.ndarray]:
    """Two trajectories in which every task is solved in some rows, the last of a trajectory among them."""
    columns = trajectories(environment, (14, 10))
    for number in range(1, ogbench_tasks.TASKS + 1):
        task = ogbench_tasks.find_task(ogbench_tasks.Name(environment, kind, task=number))
        for row in (2 * number, 2 * number + 1, 14 + number):
            solve(columns, row, task)
    solve(columns, 12, ogbench_tasks.find_task(ogbench_tasks.Name(environment, kind, task=1)))
    return columns
