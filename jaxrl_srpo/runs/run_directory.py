"""The run directory: plain files that hold everything about a sweep, and from which a killed run continues."""

import dataclasses
import hashlib
import json
import pathlib
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from jaxrl_srpo import methods as methods_lib
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.envs.make import with_time_limit
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.io.checkpoint import Progress
from jaxrl_srpo.io.files import locked, write_atomically
from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.methods.settings import DataSettings, RewardSettings, Values, declared
from jaxrl_srpo.report.records import read_sweep
from jaxrl_srpo.runs.sweep import Member, Sweep
from jaxrl_srpo.types import Spec

# A run keeps one set of rows and of facts for each of its datasets.
_SHARED_BY_DATASET = tuple(declared(DataSettings, RewardSettings))


class RunDirectory:
    """The plain files of one run.

    sweep.json         everything needed to run it again
    metrics.csv        one row per member and chunk
    evaluations.csv    one row per member and evaluation
    checkpoints/       Orbax: results by stage and address, and the stages under way
    leases/            which worker has which population
    report/            tables and pictures

    Any number of processes, on any number of machines, may work on it at the same time.

    Args:
      path: of the directory.
      artefacts: directory of finished stages that runs share; None keeps them in the run directory.
      methods: methods of a user's own whose members it holds; those of the package need not be named.
    """

    def __init__(
        self, path: pathlib.Path, artefacts: pathlib.Path | None = None, methods: Sequence[Method] = ()
    ) -> None:
        self.path = path.expanduser()
        self._artefacts = artefacts.expanduser() if artefacts else self.path / "checkpoints"
        self._methods = {method.name: method for method in (*methods_lib.METHODS, *methods)}

    def create(self) -> None:
        """Makes the directory and its CSV files, or repairs lines cut short by a kill.

        Raises:
          UserError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.metrics = csv_log.CsvLog(self.path / "metrics.csv", csv_log.METRICS_COLUMNS)
            self.evaluations = csv_log.CsvLog(self.path / "evaluations.csv", csv_log.EVALUATION_COLUMNS)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"--out={self.path}: cannot be written ({error.strerror}); choose another place")

    def artefact(self, stage: Stage, address: str) -> pathlib.Path:
        """Where the result of a stage lies once it is finished."""
        return self._artefacts / stage.name / address

    def has_result(self, stage: Stage, member: Member) -> bool:
        """Whether a stage of a member is finished."""
        return self.artefact(stage, member.address(stage)).exists()

    @property
    def shares_artefacts(self) -> bool:
        """Whether other runs may have trained its results."""
        return self._artefacts != self.path / "checkpoints"

    def save_measured(self, stage: Stage, address: str, row: Mapping[str, str]) -> None:
        """Keeps a result's last row of `metrics.csv` beside it, for other runs that find it."""
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
          UserError: there is none, or it cannot be read.
        """
        return read_sweep(self.path)

    def add_diverged(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Adds members to those that `sweep.json` tells as diverged, by the columns that name them and the update."""
        with locked(self.path / "sweep.json"):
            content = self.read()
            new = [dict(entry) for entry in entries if dict(entry) not in content["diverged"]]
            self._write(content | {"diverged": [*content["diverged"], *new]})

    def facts_in(self, environment: EnvironmentSpec) -> list[DatasetFacts]:
        """Facts of the datasets, those that name no environment with this one.

        Raises:
          UserError: a dataset of the run has another one.
        """

        def named(facts: DatasetFacts) -> DatasetFacts:
            own = facts.environment_spec
            if own is not None and own.id != environment.id:
                raise UserError(
                    f"--env={environment.id}: {facts.name} in {self.path} is evaluated in {own.id}; leave --env out, "
                    "or train into another run directory"
                )
            spec = dataclasses.replace(environment, observation_keys=tuple(facts.observation_keys))
            spec = with_time_limit(spec, facts.longest_episode)
            return facts if own else dataclasses.replace(facts, environment=spec.to_json())

        return list(map(named, self.facts().values()))

    def keep_environments(self, facts: Sequence[DatasetFacts]) -> None:
        """Keeps where the policies of datasets are evaluated, for those that named no environment."""
        environments = {fact.name: fact.environment for fact in facts}
        with locked(self.path / "sweep.json"):
            content = self.read()
            for entry in content["datasets"]:
                entry["environment"] = entry["environment"] or environments.get(entry["name"])
            self._write(content)

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
          UserError: the directory holds a sweep with other settings, or cannot be written.
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
            "settings": _common_settings(members),
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
        methods = list(dict.fromkeys(member.method for member in every))
        content["stages"] = [stage.describe() for stage in methods_lib.stages_in_order(methods)]
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
            self._refuse_other_environment(before.environment, member.environment)
            self._refuse_unequal(before, member, _SHARED_BY_DATASET)
            for stage in member.stages:
                before = known.get(row(member, stage), member)
                protocol = [name for name, one in member.method.settings().items() if one.protocol]
                self._refuse_unequal(before, member, (*sorted(stage.reach()), *protocol))

    def _refuse_other_environment(self, theirs: EnvironmentSpec | None, ours: EnvironmentSpec | None) -> None:
        if theirs is not None and ours is not None and theirs != ours:
            raise UserError(f"--out={self.path}: holds a run in another environment, {theirs.id}; choose another")

    def _refuse_unequal(self, before: Member, member: Member, names: Sequence[str]) -> None:
        for name in names:
            if name not in before.settings or name not in member.settings:
                continue
            ours, theirs = member.settings[name], before.settings[name]
            if ours != theirs:
                raise UserError(
                    f"--out={self.path}: holds a run with {name}={theirs}, not {ours}; choose another --out, "
                    f"or give --{name}={theirs}"
                )

    def members(self) -> list[Member]:
        """The members of the sweep on disk.

        Raises:
          UserError: one of them is of a method that is not known here.
        """
        content, facts = self.read(), self.facts()
        return [
            self._member(entry, content["settings"][entry["dataset"]], facts[entry["dataset"]])
            for entry in content["members"]
        ]

    def _member(self, entry: Mapping[str, Any], common: Mapping[str, Any], facts: DatasetFacts) -> Member:
        """The inverse of `_member_json`."""
        name = entry.get("algorithm", "srpo")
        if name not in self._methods:
            raise UserError(
                f"{self.path}: holds members of {name}, which is no method of this package; name the code that they "
                "were trained with: --algorithm=package.module:METHOD"
            )
        method = self._methods[name]
        given = dict(common) | dict(entry["values"])
        settings = {flag: given.get(flag, one.default) for flag, one in method.settings().items()}
        return Member(
            dataset=entry["dataset"],
            fingerprint=facts.fingerprint,
            spec=Spec(facts.observation_size, facts.action_size),
            seed=entry["seed"],
            settings=Values(settings),
            method=method,
            setting=entry["setting"],
            environment=facts.environment_spec,
            recorded=Values(entry.get("results", {})),
        )

    def facts(self) -> dict[str, DatasetFacts]:
        """Facts of the datasets by name."""
        return {entry["name"]: DatasetFacts(**entry) for entry in self.read()["datasets"]}


def population_name(stage: Stage, members: Sequence[Member]) -> str:
    """Name of a population's files; other members, or the same in another order, give another one."""
    addresses = ",".join(member.address(stage) for member in members)
    return f"{stage.name}-{hashlib.sha256(addresses.encode()).hexdigest()[:16]}"


def _common_settings(members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """The settings of each dataset's members by flag; where they differ, those of its first member."""
    common: dict[str, dict[str, Any]] = {}
    for member in reversed(members):
        common.setdefault(member.dataset, {}).update(member.settings)
    return common


def _member_json(member: Member, common: Mapping[str, Any]) -> dict[str, Any]:
    """A member with the settings in which it differs from the first of its dataset."""
    return {
        "dataset": member.dataset,
        "seed": member.seed,
        "setting": member.setting,
        "algorithm": member.algorithm,
        "values": {name: value for name, value in member.settings.items() if common.get(name, None) != value},
        "results": {stage.name: member.address(stage) for stage in member.stages},
    }


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
