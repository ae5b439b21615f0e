"""Curves of a run in TensorBoard and Weights & Biases, made of the rows of its CSV files.

A tracker is not fed by the trainer but reads what the trainer wrote, and always starts anew from the first row. However
often a run was killed, resumed or exported, every point is therefore there once, and no state needs to be kept for it.
"""

import contextlib
import hashlib
import importlib
import os
import pathlib
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.settings import FIELDS
from jaxrl_srpo.methods.stages import STAGES
from jaxrl_srpo.monitor.status import read_members, result_of
from jaxrl_srpo.report.records import Evaluation, Result, TrainingMetrics, evaluations_tail, metrics_tail
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member

SECONDS_BETWEEN_EXPORTS = 10.0


class Tracker(Protocol):
    """Where curves go: one run per member, which holds all its stages, those that it shares with other members too.

    Attributes:
      place: directory of its files.
    """

    place: pathlib.Path

    def log(self, member: Member, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each of the curves `values` of a member, after `step` updates of a stage."""

    def flush(self) -> None:
        """Makes everything so far visible to others."""

    def close(self) -> None:
        """Ends all runs."""


class TensorBoardTracker:
    """Event files in `RUN_DIR/tensorboard/<dataset>/<member>/`, instead of those that were there.

    Args:
      run: run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.place = run.path / "tensorboard"
        shutil.rmtree(self.place, ignore_errors=True)
        self._writers: dict[Member, Any] = {}

    def log(self, member: Member, stage: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        writer = self._writers.get(member) or self._open(member)
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """See `Tracker`."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """See `Tracker`."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, member: Member) -> Any:
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(self.place / member.dataset / _label(member).replace(" ", ",")))
        rows = [f"|{name}|{value}|" for name, value in _config(member).items()]
        writer.add_text("settings", "\n".join(["|setting|value|", "|-|-|", *rows]))
        self._writers[member] = writer
        return writer


class WandbTracker:
    """Runs of Weights & Biases in the group of the run directory's name; files lie in `RUN_DIR/wandb`.

    Entity, project and mode come from W&B's own environment variables (`WANDB_MODE=offline` needs no account); the
    project is `jaxrl-srpo` unless `WANDB_PROJECT` names another. A member's id is always the same and it is never
    resumed, so that W&B replaces the run of an earlier export by this one.

    Args:
      run: run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.place = run.path / "wandb"
        self._sweep = run.read()
        self._group = run.path.resolve().name
        self._runs: dict[Member, Any] = {}

    def log(self, member: Member, stage: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        run = self._runs.get(member) or self._open(member)
        run.log({**values, f"{stage}/step": step})

    def flush(self) -> None:
        """Nothing to do: W&B's own process writes and uploads by itself."""

    def close(self) -> None:
        """See `Tracker`."""
        for run in self._runs.values():
            run.finish()

    def _open(self, member: Member) -> Any:
        import wandb

        name = f"{member.dataset} {_label(member)}"
        identifier = hashlib.sha256(f"{self._sweep['created']} {self._group} {name}".encode()).hexdigest()[:16]
        for earlier in self.place.glob(f"offline-run-*-{identifier}"):
            shutil.rmtree(earlier)
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "jaxrl-srpo"),
            group=self._group,
            name=name,
            id=identifier,
            tags=[member.dataset[:64], self._sweep["preset"]],
            config=_config(member),
            dir=str(self.place.parent),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        for stage in STAGES.values():
            for curves in (f"{stage.name}/*", f"evaluation/{stage.algorithm}/*"):
                run.define_metric(curves, step_metric=f"{stage.name}/step")
        self._runs[member] = run
        return run


TRACKERS: dict[str, Callable[[RunDirectory], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}
_MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


class Exporter:
    """Gives the rows of a run directory to trackers, in order, each row to every member that it is about.

    Args:
      run: run directory.
      trackers: where to.
    """

    def __init__(self, run: RunDirectory, trackers: Sequence[Tracker]) -> None:
        self._run, self._trackers = run, trackers
        self._metrics, self._evaluations = metrics_tail(run.path), evaluations_tail(run.path)
        self._members: dict[Result, list[Member]] = {}
        self._last: dict[tuple[type, Result], int] = {}

    def update(self) -> None:
        """Exports the rows that were completed since the last call.

        Raises:
          UserError: a file of the run directory is damaged.
        """
        rows: list[TrainingMetrics | Evaluation] = [*self._metrics.read().rows, *self._evaluations.read().rows]
        order = list(STAGES)
        rows.sort(key=lambda row: ([*order, row.stage].index(row.stage), row.step))
        for row in rows:
            self._export(row)
        for tracker in self._trackers:
            tracker.flush()

    def _export(self, row: TrainingMetrics | Evaluation) -> None:
        # A run that goes on from its last checkpoint writes the rows after it again, with the same numbers.
        kind = (type(row), row.result)
        if row.step <= self._last.get(kind, -1):
            return
        self._last[kind] = row.step
        for member in self._members_of(row.result):
            for tracker in self._trackers:
                tracker.log(member, row.stage, row.step, points(row))

    def _members_of(self, result: Result) -> list[Member]:
        if result not in self._members:
            members: dict[Result, list[Member]] = defaultdict(list)
            for stage in STAGES.values():
                for member in read_members(self._run):
                    if stage in member.stages:
                        members[result_of(member, stage)].append(member)
            self._members = members
        return self._members[result]


def points(row: TrainingMetrics | Evaluation) -> dict[str, float]:
    """Values of a row by the name of their curve, such as `critic/q_loss` and `evaluation/srpo/success_rate`."""
    if isinstance(row, TrainingMetrics):
        rate = {} if row.updates_per_second is None else {"updates_per_second": row.updates_per_second}
        return {f"{row.stage}/{name}": value for name, value in (row.values | rate).items()}
    values = {"return": row.return_mean, "success_rate": row.success_rate, row.metric: row.mean}
    values[f"{row.metric}_std"] = row.std
    return {f"evaluation/{row.algorithm}/{name}": value for name, value in values.items() if value is not None}


def check(names: Sequence[str]) -> None:
    """Refuses trackers that are unknown, not installed, or without the account that they need.

    Raises:
      UserError: naming what to choose, install or do.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track={name}: choose from {', '.join(TRACKERS)}")
        try:
            importlib.import_module(_MODULES[name])
        except ImportError as error:
            raise UserError(f"{name}: {error}; pip install 'jaxrl-srpo[{name}]' installs it") from None
    if "wandb" in names and not _wandb_usable():
        raise UserError("wandb: nobody is logged in; run `wandb login`, or set WANDB_MODE=offline to sync later")


def export(run_dir: str | os.PathLike[str], names: Sequence[str], follow: bool = False) -> list[pathlib.Path]:
    """Writes the curves of a run to trackers, in place of those of an earlier export.

    Args:
      run_dir: run directory.
      names: `tensorboard`, `wandb`.
      follow: go on with the rows that other processes write, until interrupted.

    Returns:
      The directories written.

    Raises:
      UserError: not a run directory, a file in it is damaged, or a tracker cannot be used or written.
    """
    check(names)
    run = RunDirectory(pathlib.Path(run_dir))
    read_members(run)
    trackers = [TRACKERS[name](run) for name in names]
    exporter = Exporter(run, trackers)
    try:
        exporter.update()
        while follow:
            time.sleep(SECONDS_BETWEEN_EXPORTS)
            exporter.update()
    except OSError as error:
        raise UserError(f"{run.path}: its curves cannot be written there ({error.strerror})") from None
    finally:
        for tracker in trackers:
            tracker.close()
    return [tracker.place for tracker in trackers]


@contextlib.contextmanager
def exporting(run: RunDirectory, names: Sequence[str], log: Callable[[str], None]) -> Iterator[None]:
    """Exports rows from a thread of its own while the block runs, and the last ones at its end.

    Training never ends for a tracker's sake: what fails is said once, and `export` can do it later.

    Args:
      run: run directory, created.
      names: trackers, checked; without any this does nothing.
      log: receives messages.
    """
    if not names:
        yield
        return
    trackers = [TRACKERS[name](run) for name in names]
    stop = threading.Event()

    def work() -> None:
        exporter = Exporter(run, trackers)
        try:
            while not stop.wait(SECONDS_BETWEEN_EXPORTS):
                exporter.update()
            exporter.update()
            for tracker in trackers:
                tracker.close()
        except Exception as error:
            again = f"jaxrl-srpo export {run.path} --to={','.join(names)}"
            log(f"tracking stopped: {' '.join(str(error).split())}; `{again}` can do it later")

    thread = threading.Thread(target=work, name="tracking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _wandb_usable() -> bool:
    """Whether W&B needs no key or has one; where there is a terminal, it asks for one."""
    import wandb

    if wandb.setup().settings.mode not in ("online", "shared"):
        return True
    try:
        return bool(wandb.login())
    except wandb.errors.Error:
        return False


def _label(member: Member) -> str:
    """What tells a member from the others of its dataset, for instance `seed=0 beta=0.1`."""
    last = member.stages[-1]
    values = member.name(last).removeprefix(f"{last.algorithm} {member.dataset} ")
    return values if member.algorithm == "srpo" else f"{member.algorithm} {values}"


def _config(member: Member) -> dict[str, Any]:
    """What a member was trained with."""
    settings = {name: getattr(member.settings, name) for name in FIELDS}
    return {"dataset": member.dataset, "seed": member.seed, "fingerprint": member.fingerprint, **settings}
