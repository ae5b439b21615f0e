"""Looks at every file of a run directory, and of the shared results that it uses, and says which are damaged."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import checkpoint, manifest, sealed
from jaxrl_srpo.io.checkpoint import DamagedCheckpoint, Progress
from jaxrl_srpo.io.files import error_line, expand_home
from jaxrl_srpo.report import read_trajectories
from jaxrl_srpo.report.outcomes import Diverged, NotTrained
from jaxrl_srpo.report.records import read_evaluations, read_metrics, read_sweep
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import damage_advised

_UNDER_WAY = "under_way"


class Verdict(NamedTuple):
    """What was found.

    Attributes:
      problems: one line for each damaged file.
      whole: what was looked at and is whole, for readers.
    """

    problems: list[str]
    whole: str


def verify(run_dir: str | os.PathLike[str]) -> Verdict:
    """Compares everything that a run directory holds with what was written; nothing is changed.

    Checkpoints are compared with their manifests, rows with their checksums, `sweep.json` with its digest. What earlier
    versions wrote without those is parsed only: it is readable, but other numbers in it would not show.

    Args:
      run_dir: run directory; no method's code is needed.

    Raises:
      UserError: it is no run directory.
    """
    path = expand_home(run_dir)
    if not (path / "sweep.json").exists():
        read_sweep(path)
    return _Inspection(path).verdict()


class _Inspection:
    """One look at all files, which counts what is whole and collects what is not."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._problems: list[str] = []
        self._results = self._under_way = self._unsealed = 0
        self._sweep: Mapping[str, Any] = {}

    def verdict(self) -> Verdict:
        self._try(self._read_sweep)
        rows = {name: self._count_rows(name) for name in ("metrics.csv", "evaluations.csv")}
        for place in self._places():
            self._look_at_results(place)
        self._look_at_progress()
        self._look_at_the_rest()
        counted = [f"{count} rows of {name}" for name, count in rows.items()]
        counted += [f"{self._results} results", f"{self._under_way} checkpoints under way"]
        whole = f"{self._path} is whole: sweep.json, {', '.join(counted)}"
        if self._unsealed:
            whole += (
                f"; {self._unsealed} of the results and checkpoints are of an earlier version without manifests: they "
                "can be read, but other numbers in them would not show"
            )
        return Verdict(list(dict.fromkeys(self._problems)), whole)

    def _try(self, look: Callable[[], None], advice: str = "") -> None:
        try:
            look()
        except UserError as error:
            self._problems.append(f"{error}{advice}")
        except OSError as error:
            self._problems.append(f"{error_line(error)}{advice}")

    def _read_sweep(self) -> None:
        self._sweep = read_sweep(self._path)
        Diverged(self._sweep)
        NotTrained(self._sweep)
        Options.from_json(self._sweep.get("options", {}))

    def _count_rows(self, name: str) -> int:
        path, count = self._path / name, 0

        def look() -> None:
            nonlocal count
            count = len(read_metrics(self._path) if name == "metrics.csv" else read_evaluations(self._path))
            if path.exists() and not path.read_bytes().endswith(b"\n"):
                raise UserError(f"{path}: its last line is cut short; the same command writes it again")

        self._try(look)
        return count

    def _places(self) -> Iterator[pathlib.Path]:
        """Where results lie: in the run directory, and those of its members in a shared one."""
        for stage in _inside(self._path / "checkpoints"):
            if stage.name != _UNDER_WAY:
                yield from _inside(stage)
        artefacts = self._sweep.get("options", {}).get("artefacts")
        for member in self._sweep.get("members", ()) if artefacts else ():
            for stage_name, address in member["results"].items():
                place = pathlib.Path(artefacts) / stage_name / address
                yield from (path for path in (place, place.with_suffix(".json")) if path.exists())

    def _look_at_results(self, place: pathlib.Path) -> None:
        if place.suffix == ".json":
            self._try(lambda: _look_at_measured(place), "; delete it")
            return

        def look() -> None:
            with damage_advised(place):
                self._unsealed += _look_at_checkpoint(place)

        self._try(look)
        self._results += 1

    def _look_at_progress(self) -> None:
        for population in _inside(self._path / "checkpoints" / _UNDER_WAY):
            progress = Progress(population)
            for step in progress.steps():
                self._under_way += 1
                self._try(lambda progress=progress, step=step: self._look_at_step(progress, step))  # type: ignore[misc]

    def _look_at_step(self, progress: Progress, step: int) -> None:
        try:
            progress.check(step)
            self._unsealed += _look_at_checkpoint(progress.path(step))
        except DamagedCheckpoint as error:
            raise UserError(f"{error}; the command that trains it goes on from the one before") from None

    def _look_at_the_rest(self) -> None:
        for file in _inside(self._path / "trajectories"):
            self._try(lambda file=file: _look_at_trajectories(file))  # type: ignore[misc]
        report = self._path / "report"
        if found := manifest.problem(report):
            self._problems.append(f"{report} is damaged: {found}; `jaxrl-srpo report {self._path}` writes it again")
        leases = self._path / "leases"
        if leases.exists() and not leases.is_dir():
            self._problems.append(f"{leases}: is a file in the place of a directory; move it away")


def _inside(directory: pathlib.Path) -> list[pathlib.Path]:
    """What lies in a directory, but for what is under a temporary name; nothing where there is no directory."""
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _look_at_checkpoint(path: pathlib.Path) -> bool:
    """Whether a whole checkpoint has no manifest.

    Raises:
      DamagedCheckpoint: it is not what was written.
    """
    checkpoint.check(path)
    if checkpoint.about(path) is not None:
        return False
    checkpoint.read_all(path)
    return True


def _look_at_measured(path: pathlib.Path) -> None:
    sealed.read(path)


def _look_at_trajectories(path: pathlib.Path) -> None:
    read_trajectories(path, {})
