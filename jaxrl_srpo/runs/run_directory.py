"""The run directory: plain files that hold everything about a sweep, and from which a killed run continues."""

import contextlib
import dataclasses
import hashlib
import io
import pathlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo import methods as methods_lib
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import DatasetFacts, facts_from_json
from jaxrl_srpo.envs.make import with_time_limit
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import checkpoint, csv_log, sealed
from jaxrl_srpo.io.checkpoint import DamagedCheckpoint, Progress
from jaxrl_srpo.io.files import error_line, expand_home, locked, write_atomically
from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.report.outcomes import Diverged
from jaxrl_srpo.report.records import read_evaluations, read_metrics, read_sweep
from jaxrl_srpo.runs.leases import Lease
from jaxrl_srpo.runs.provenance import commit, versions
from jaxrl_srpo.runs.sweep import Member, Sweep
from jaxrl_srpo.runs.sweep_json import common_settings, member_json, read_members, refuse_other


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
        self.path = expand_home(path)
        self._artefacts = expand_home(artefacts) if artefacts else self.path / "checkpoints"
        self._methods = {method.name: method for method in (*methods_lib.METHODS, *methods)}
        self._lease: Lease | None = None
        self._identity: tuple[int, int] | None = None

    def create(self) -> None:
        """Makes the directory and its CSV files, or repairs lines cut short by a kill.

        Raises:
          UserError: it cannot be written, or one of the files is damaged.
        """
        read_metrics(self.path)
        read_evaluations(self.path)
        try:
            for directory in (self.path, self.path / "leases"):
                directory.mkdir(parents=True, exist_ok=True)
            self.metrics = csv_log.CsvLog(self.path / "metrics.csv", csv_log.METRICS_COLUMNS)
            self.evaluations = csv_log.CsvLog(self.path / "evaluations.csv", csv_log.EVALUATION_COLUMNS)
            self._identity = _identity(self.path)
        except OSError as error:
            raise self._unwritable(error) from None

    def check_there(self) -> None:
        """Looks whether the directory still lies where `create` found it.

        Raises:
          UserError: it was moved, removed or replaced meanwhile.
        """
        if not self._is_there():
            raise UserError(
                f"{self.path}: was moved or removed while it was trained, and nothing more is written; give the same "
                "command with its present place to go on"
            )

    def _is_there(self) -> bool:
        """Whether the directory is the one that `create` found; there is nothing to compare before that."""
        try:
            return self._identity is None or self._identity == _identity(self.path)
        except OSError:
            return False

    def remove_remains(self) -> None:
        """Removes directories and locks, nothing else, that were made anew where the directory was moved away."""
        if not self._is_there() and all(path.is_dir() or path.suffix == ".lock" for path in self.path.rglob("*")):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def leased(self, lease: Lease | None) -> Iterator[None]:
        """Has `writing` ask this lease as long as its work goes on; None asks none."""
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None

    @property
    def lease(self) -> Lease | None:
        """The lease of the work under way; see `leased`."""
        return self._lease

    @contextlib.contextmanager
    def writing(self, lease: Lease | None = None) -> Iterator[bool]:
        """Gives whether some work is this process's still, and keeps it so while something is written.

        Args:
          lease: of the work; that of `leased` by default.

        Raises:
          UserError: see `check_there`.
        """
        self.check_there()
        asked = lease or self._lease
        with asked.writing() if asked else contextlib.nullcontext(True) as own:
            yield own

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"--out={self.path}: cannot be written ({error_line(error)}); choose another place")

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
        write_atomically(self._measured(stage, address), sealed.text_of(row))

    def measured(self, stage: Stage, address: str) -> dict[str, str]:
        """What `save_measured` kept; empty if nothing.

        Raises:
          UserError: it is damaged.
        """
        path = self._measured(stage, address)
        row = sealed.read(path) if path.exists() else {}
        if not all(isinstance(cell, str) for cell in row.values()):
            raise UserError(f"{path} is damaged: it is no row of metrics.csv; delete it")
        return row

    def save_result(self, stage: Stage, address: str, result: Any, diverged_at: int | None) -> None:
        """Saves the result of a finished stage, unless the work is another worker's by now.

        Args:
          stage: the stage.
          address: of the result.
          result: the result.
          diverged_at: update at which the member diverged; None if it did not.
        """
        told = {} if diverged_at is None else {"diverged_at": diverged_at}
        checkpoint.save(self.artefact(stage, address), result, told, self.writing)

    def remove_leftovers(self, stage: Stage, members: Sequence[Member]) -> None:
        """Removes what saves of finished results left that were killed; other runs may be saving in a shared place."""
        for member in () if self.shares_artefacts else members:
            checkpoint.remove_leftovers(self.artefact(stage, member.address(stage)))

    def check_result(self, stage: Stage, member: Member) -> None:
        """Compares the result of a finished stage of a member with its manifest.

        Raises:
          DamagedCheckpoint: they differ.
        """
        path = self.artefact(stage, member.address(stage))
        with damage_advised(path):
            checkpoint.check(path)

    def diverged_at(self, stage: Stage, member: Member) -> int | None:
        """Update at which a finished stage of a member diverged; None if it did not.

        Results of earlier versions do not tell; there `sweep.json` does, -1 where it does not know the update.

        Raises:
          UserError: the result's manifest or `sweep.json` is damaged.
        """
        path = self.artefact(stage, member.address(stage))
        with damage_advised(path):
            told = checkpoint.about(path)
        if told is None:
            return Diverged(self.read()).update_of(member.result(stage), stage.algorithm)
        at = told.get("diverged_at")
        if at is not None and not isinstance(at, int):
            raise DamagedCheckpoint(f"{path} is damaged: its manifest tells no update")
        return at

    def _measured(self, stage: Stage, address: str) -> pathlib.Path:
        return self.artefact(stage, address).with_suffix(".json")

    def progress(self, stage: Stage, members: Sequence[Member]) -> Progress:
        """Checkpoints of a population under way."""
        return Progress(self.path / "checkpoints" / "under_way" / population_name(stage, members), self.writing)

    def add_trajectories(self, dataset: str, paths: Mapping[str, np.ndarray]) -> None:
        """Adds positions [T, 2] to `trajectories/<dataset>.npz`; keys are `<algorithm>_<episode>`."""
        file = self.path / "trajectories" / f"{dataset.replace('/', '_')}.npz"
        algorithms = {key.rsplit("_", 1)[0] for key in paths}
        file.parent.mkdir(exist_ok=True)
        with locked(file):
            kept = {key: path for key, path in _arrays(file).items() if key.rsplit("_", 1)[0] not in algorithms}
            buffer = io.BytesIO()
            arrays: dict[str, Any] = {**kept, **paths}
            np.savez_compressed(buffer, **arrays)
            write_atomically(file, buffer.getvalue())

    def read(self) -> dict[str, Any]:
        """The content of `sweep.json`.

        Raises:
          UserError: there is none, or it cannot be read.
        """
        return read_sweep(self.path)

    def add_diverged(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Adds members to those that `sweep.json` tells as diverged, by the columns that name them and the update."""
        self._add("diverged", entries)

    def add_not_trained(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Adds members to those that `sweep.json` tells as not trained; see `report.outcomes.NotTrained`."""
        self._add("not_trained", entries)

    def _add(self, key: str, entries: Sequence[Mapping[str, Any]]) -> None:
        if not entries:
            return
        with locked(self.path / "sweep.json"):
            content = self.read()
            known = content.get(key) or []
            new = [dict(entry) for entry in entries if dict(entry) not in known]
            if new:
                self._write(content | {key: [*known, *new]})

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
        write_atomically(self.path / "sweep.json", sealed.text_of(content))

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
            self.path.mkdir(parents=True, exist_ok=True)
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
            "settings": common_settings(members),
            "members": [],
            "command": list(command),
            "asked": sweep.asked(),
            "versions": versions(),
            "commit": commit(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "diverged": [],
        }
        every = list(members)
        if (self.path / "sweep.json").exists():
            before, old = self.read(), self.members()
            refuse_other(self.path, old, members)
            names = {fact.name for fact in facts}
            content |= {name: before[name] for name in ("created", "diverged", "not_trained") if name in before}
            content["datasets"] += [entry for entry in before["datasets"] if entry["name"] not in names]
            content["settings"] = before["settings"] | content["settings"]
            every += [member for member in old if member not in members]
        methods = list(dict.fromkeys(member.method for member in every))
        content["stages"] = [stage.describe() for stage in methods_lib.stages_in_order(methods)]
        content["members"] = [member_json(member, content["settings"][member.dataset]) for member in every]
        return content

    def members(self) -> list[Member]:
        """The members of the sweep on disk.

        Raises:
          UserError: one of them is of a method that is not known here, or not as train writes it.
        """
        return read_members(self.path, self.read(), self.facts(), self._methods)

    def facts(self) -> dict[str, DatasetFacts]:
        """Facts of the datasets by name.

        Raises:
          UserError: they are not as train writes them.
        """
        where = f"{self.path / 'sweep.json'}: dataset"
        return {entry["name"]: facts_from_json(entry, f"{where} {entry['name']}") for entry in self.read()["datasets"]}


@contextlib.contextmanager
def damage_advised(path: pathlib.Path) -> Iterator[None]:
    """Has a message on a damaged result say what to do.

    Raises:
      DamagedCheckpoint: the same with the advice.
    """
    try:
        yield
    except DamagedCheckpoint as error:
        advice = f"delete {path} and give the command that trained it again, which trains it anew"
        raise DamagedCheckpoint(f"{error}; {advice}") from error


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """What the system knows a directory by, whatever its name."""
    state = path.stat()
    return state.st_dev, state.st_ino


def _arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file; none if there is no such file."""
    if not file.exists():
        return {}
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and give the same command again") from None


def population_name(stage: Stage, members: Sequence[Member]) -> str:
    """Name of a population's files; other members, or the same in another order, give another one."""
    addresses = ",".join(member.address(stage) for member in members)
    return f"{stage.name}-{hashlib.sha256(addresses.encode()).hexdigest()[:16]}"
