"""The run directory: plain files that hold everything about a sweep, and from which a killed run continues."""

import dataclasses
import hashlib
import json
import pathlib
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.io.checkpoint import Progress
from jaxrl_srpo.io.files import locked, write_atomically
from jaxrl_srpo.methods.settings import FIELDS, Settings
from jaxrl_srpo.methods.stages import Stage
from jaxrl_srpo.runs.sweep import Member, Sweep, reach
from jaxrl_srpo.types import Spec

_PROTOCOL = tuple(name for name, field in FIELDS.items() if field.metadata["stage"] == "evaluation")
# A run keeps one set of rows and of facts for each of its datasets.
_SHARED_BY_DATASET = (
    "reward_transform",
    *(name for name, field in FIELDS.items() if field.metadata["stage"] == "data"),
)


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What is kept of a dataset in `sweep.json`: enough to evaluate and load policies without the data.

    `data_mean` and `data_std` are over the dataset's episodes, in `metric`. Policies see
    `(observation - observation_mean) / observation_std`; these are 0 and 1 where observations are not normalised.
    Learners are paid `reward_scale * reward + reward_shift`, as the transform says.
    `given` is the name or absolute path by which any worker loads the data.
    """

    name: str
    source: str
    transitions: int
    episodes: int
    fingerprint: str
    family: str
    observation_size: int
    action_size: int
    action_low: list[float]
    action_high: list[float]
    observation_mean: list[float]
    observation_std: list[float]
    reward_transform: str
    metric: str
    data_mean: float
    data_std: float
    return_mean: float
    environment: dict[str, Any] | None
    reference: dict[str, float] | None
    data_success_rate: float | None = None
    given: str | None = None
    reward_scale: float = 1.0
    reward_shift: float = 0.0

    def normalize(self, observations: np.ndarray) -> np.ndarray:
        """Observations [..., observation_size] as the networks see them, float32."""
        mean, std = np.asarray(self.observation_mean, np.float32), np.asarray(self.observation_std, np.float32)
        return (observations - mean) / std

    def scale(self, actions: np.ndarray) -> np.ndarray:
        """Actions [..., action_size] in [-1, 1] to the environment's units."""
        low, high = np.asarray(self.action_low, np.float32), np.asarray(self.action_high, np.float32)
        return low + 0.5 * (actions + 1.0) * (high - low)

    @property
    def environment_spec(self) -> EnvironmentSpec | None:
        """Where its policies are evaluated; None if unknown."""
        return None if self.environment is None else EnvironmentSpec.from_json(self.environment)

    @property
    def reference_returns(self) -> ReferenceReturns | None:
        """Reference returns; None if there are none."""
        return None if self.reference is None else ReferenceReturns(**self.reference)


class RunDirectory:
    """The plain files of one run.

    sweep.json         everything needed to run it again
    csv_log.csv        one row per member and chunk
    evaluations.csv    one row per member and evaluation
    checkpoints/       Orbax: results by stage and address, and the stages under way
    leases/            which worker has which population
    report/            tables and pictures

    Any number of processes, on any number of machines, may work on it at the same time.
    """

    def __init__(self, path: pathlib.Path, artefacts: pathlib.Path | None = None) -> None:
        self.path = path
        self._artefacts = artefacts or path / "checkpoints"

    def create(self) -> None:
        """Makes the directory and its CSV files, or repairs lines cut short by a kill."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.metrics = csv_log.CsvLog(self.path / "csv_log.csv", csv_log.METRICS_COLUMNS)
            self.evaluations = csv_log.CsvLog(self.path / "evaluations.csv", csv_log.EVALUATION_COLUMNS)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"--out={self.path}: cannot be written ({error.strerror}); choose another place")

    def artefact(self, stage: Stage, address: str) -> pathlib.Path:
        """Where the result of a stage lies once it is finished."""
        return self._artefacts / stage.name / address

    @property
    def shares_artefacts(self) -> bool:
        """Whether other runs may have trained its results."""
        return self._artefacts != self.path / "checkpoints"

    def save_measured(self, stage: Stage, address: str, row: Mapping[str, str]) -> None:
        """Keeps a result's last row of `csv_log.csv` beside it, for other runs that find it."""
        write_atomically(self._measured(stage, address), json.dumps(row))

    def measured(self, stage: Stage, address: str) -> dict[str, str]:
        """What `save_measured` kept; empty if nothing."""
        path = self._measured(stage, address)
        return json.loads(path.read_text()) if path.is_file() else {}

    def _measured(self, stage: Stage, address: str) -> pathlib.Path:
        return self.artefact(stage, address).with_suffix(".json")

    def progress(self, stage: Stage, members: Sequence[Member]) -> Progress:
        """Checkpoints of a population under way."""
        return Progress(self.path / "checkpoints" / "under_way" / population_name(stage, members))

    def interrupted(self, stage: Stage, population: Sequence[Member], missing: Sequence[Member]) -> Sequence[Member]:
        """The members to train now: all of the population if a kill came while its results were being saved."""
        return population if self.progress(stage, population).latest() is not None else missing

    def add_trajectories(self, dataset: str, paths: Mapping[str, np.ndarray]) -> None:
        """Adds positions [T, 2] to `trajectories/<dataset>.npz`; keys are `<algorithm>_<episode>`."""
        file = self.path / "trajectories" / f"{dataset.replace('/', '_')}.npz"
        algorithms = {key.rsplit("_", 1)[0] for key in paths}
        with locked(file):
            content = dict(np.load(file)) if file.exists() else {}
            content = {key: path for key, path in content.items() if key.rsplit("_", 1)[0] not in algorithms}
            temporary = file.with_name(f".{file.stem}.npz")
            arrays: dict[str, Any] = {**content, **paths}
            np.savez_compressed(temporary, **arrays)
            temporary.rename(file)

    def read(self) -> dict[str, Any]:
        """The content of `sweep.json`.

        Raises:
          UserError: if there is none, or it cannot be read.
        """
        path = self.path / "sweep.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(f"{self.path}: not a run directory (it has no sweep.json)") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: damaged ({error}); remove it and train again") from None

    def add_diverged(self, names: Iterable[str]) -> None:
        """Adds members to those that `sweep.json` tells as diverged."""
        with locked(self.path / "sweep.json"):
            content = self.read()
            self._write(content | {"diverged": sorted({*content["diverged"], *names})})

    def _write(self, content: Mapping[str, Any]) -> None:
        write_atomically(self.path / "sweep.json", json.dumps(content, indent=1) + "\n")

    def describe(
        self,
        sweep: Sweep,
        facts: Sequence[DatasetFacts],
        members: Sequence[Member],
        command: Sequence[str],
        options: Mapping[str, Any],
    ) -> None:
        """Writes `sweep.json`, or checks that the one there is of a sweep that this one continues or extends.

        Raises:
          UserError: if the directory holds a sweep with other settings, or cannot be written.
        """
        try:
            with locked(self.path / "sweep.json"):
                self._write(self._description(sweep, facts, members, command) | {"options": dict(options)})
        except OSError as error:
            raise self._unwritable(error) from None

    def _description(
        self, sweep: Sweep, facts: Sequence[DatasetFacts], members: Sequence[Member], command: Sequence[str]
    ) -> dict[str, Any]:
        """What `sweep.json` says of a sweep, and of what the directory held before."""
        content: dict[str, Any] = {
            "datasets": [dataclasses.asdict(fact) for fact in facts],
            "preset": sweep.preset,
            "settings": {member.dataset: dataclasses.asdict(member.settings) for member in reversed(members)},
            "members": [],
            "command": list(command),
            "versions": versions(),
            "commit": commit(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "diverged": [],
        }
        every = list(members)
        if (self.path / "sweep.json").exists():
            before, old = self.read(), self.members()
            self._refuse_other(old, members)
            names = {fact.name for fact in facts}
            content |= {name: before[name] for name in ("created", "diverged")}
            content["datasets"] += [entry for entry in before["datasets"] if entry["name"] not in names]
            content["settings"] = before["settings"] | content["settings"]
            every += [member for member in old if member not in members]
        content["members"] = [_member_json(member, content["settings"][member.dataset]) for member in every]
        return content

    def _refuse_other(self, old: Sequence[Member], new: Sequence[Member]) -> None:
        """Rows of the table average over seeds, so all seeds of a row must have been trained alike."""

        def row(member: Member, stage: Stage) -> tuple[Any, ...]:
            return tuple(dataclasses.replace(member, seed=0).row(stage).values())

        datasets = {member.dataset: member for member in old}
        known = {row(member, stage): member for member in old for stage in member.stages}
        for member in new:
            before = datasets.get(member.dataset, member)
            if before.fingerprint != member.fingerprint:
                raise UserError(f"--out={self.path}: holds a run on other data named {member.dataset}; choose another")
            theirs, ours = before.environment, member.environment
            if theirs is not None and ours is not None and theirs != ours:
                raise UserError(f"--out={self.path}: holds a run in another environment, {theirs.id}; choose another")
            self._refuse_unequal(before, member, _SHARED_BY_DATASET)
            for stage in member.stages:
                before = known.get(row(member, stage), member)
                self._refuse_unequal(before, member, (*sorted(reach(stage)), *_PROTOCOL))

    def _refuse_unequal(self, before: Member, member: Member, names: Sequence[str]) -> None:
        for name in names:
            ours, theirs = getattr(member.settings, name), getattr(before.settings, name)
            if ours != theirs:
                raise UserError(
                    f"--out={self.path}: holds a run with {name}={theirs}, not {ours}; choose another --out, "
                    f"or give --{name}={theirs}"
                )

    def members(self) -> list[Member]:
        """The members of the sweep on disk."""
        content, facts = self.read(), self.facts()
        return [
            _member(entry, content["settings"][entry["dataset"]], facts[entry["dataset"]])
            for entry in content["members"]
        ]

    def facts(self) -> dict[str, DatasetFacts]:
        """Facts of the datasets by name."""
        return {entry["name"]: DatasetFacts(**entry) for entry in self.read()["datasets"]}


def population_name(stage: Stage, members: Sequence[Member]) -> str:
    """Name of a population's files; other members, or the same in another order, give another one."""
    addresses = ",".join(member.address(stage) for member in members)
    return f"{stage.name}-{hashlib.sha256(addresses.encode()).hexdigest()[:16]}"


def _member_json(member: Member, common: Mapping[str, Any]) -> dict[str, Any]:
    """A member with the settings in which it differs from the first of its dataset."""
    own = dataclasses.asdict(member.settings)
    return {
        "dataset": member.dataset,
        "seed": member.seed,
        "setting": member.setting,
        "algorithm": member.algorithm,
        "values": {name: value for name, value in own.items() if value != common[name]},
        "results": {stage.name: member.address(stage) for stage in member.stages},
    }


def _member(entry: Mapping[str, Any], common: Mapping[str, Any], facts: DatasetFacts) -> Member:
    """The inverse of `_member_json`."""
    return Member(
        dataset=entry["dataset"],
        fingerprint=facts.fingerprint,
        spec=Spec(facts.observation_size, facts.action_size),
        seed=entry["seed"],
        settings=Settings(**(common | entry["values"])),
        setting=entry["setting"],
        algorithm=entry.get("algorithm", "srpo"),
        environment=facts.environment_spec,
    )


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
