"""Run directories whose rows are written by a test in place of a trainer: the real files, without training."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrl_srpo.data.facts import dataset_facts
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member, Sweep
from tests import synthetic


def write_run(path: pathlib.Path, seeds: Sequence[int] = (0, 1), betas: Sequence[float] = (0.1,)) -> RunDirectory:
    """A run directory as `train` leaves it before the first chunk."""
    source = synthetic.write_pendulum(path.parent / "pendulum.hdf5")
    dataset = load_dataset(str(source))
    overrides = {name: (value,) for name, value in synthetic.TINY.items()} | {"beta": tuple(betas)}
    sweep = Sweep((str(source),), tuple(seeds), "quick", overrides)
    members = sweep.members([dataset])
    run = RunDirectory(path)
    run.describe(sweep, [dataset_facts(dataset, reward_transform="none")], members, ["jaxrl-srpo", "train"], {})
    run.create()
    return run


def metrics(stage: Stage, member: Member, step: int, **values: Any) -> dict[str, Any]:
    """A row of `metrics.csv`."""
    return member.row(stage) | {"step": step, "updates_per_second": "50.0"} | values


def evaluation(stage: Stage, member: Member, step: int, mean: float, final: bool = False) -> dict[str, Any]:
    """A row of `evaluations.csv`."""
    scores = {"metric": "return", "mean": mean, "std": 1.0, "return_mean": mean, "return_std": 1.0, "length_mean": 9}
    return member.row(stage) | {
        "algorithm": stage.algorithm,
        "step": step,
        "final": int(final),
        "episodes": 5,
        **scores,
    }
