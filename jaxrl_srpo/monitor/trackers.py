"""Curves of a run in TensorBoard and Weights & Biases, made from the rows of its CSV files.

A tracker is not fed by the trainer. It reads what the trainer wrote, always from the first row. So it shows every point
once, however often a run was killed, resumed or exported, and keeps no state of its own.
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
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.monitor.status import read_member_stages
from jaxrl_srpo.report.records import (
    Evaluation,
    Result,
    TrainingMetrics,
    evaluations_tail,
    metrics_tail,
    read_stages,
    read_sweep,
)
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member

SECONDS_BETWEEN_EXPORTS = 10.0


class Tracker(Protocol):
    """Where curves go: one run per member, with all its stages, also those that it shares with other members.

    Attributes:
      place: directory of the tracker's files.
    """

    place: pathlib.Path

    def log(self, member: Member, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of a member's curves, after `step` updates of a stage; `values` are by curve."""

    def flush(self) -> None:
        """Writes all points so far to where others see them."""

    def close(self) -> None:
        """Ends the runs of all members, even if one of them fails."""


class TensorBoardTracker:
    """Event files in `RUN_DIR/tensorboard/<dataset>/<member>/`; those of an earlier export are removed.

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
        with contextlib.ExitStack() as stack:
            for writer in self._writers.values():
                stack.callback(writer.close)

    def _open(self, member: Member) -> Any:
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(self.place / member.dataset / _label(member).replace(" ", ",")))
        rows = [f"|{name}|{value}|" for name, value in _config(member).items()]
        writer.add_text("settings", "\n".join(["|setting|value|", "|-|-|", *rows]))
        self._writers[member] = writer
        return writer


class WandbTracker:
    """Runs of Weights & Biases, grouped under the run directory's name; files lie in `RUN_DIR/wandb`.

    Entity, project and mode come from W&B's own environment variables (`WANDB_MODE=offline` needs no account); the
    project is `jaxrl-srpo` unless `WANDB_PROJECT` names another. A member has the same id in every export and is never
    resumed, so W&B replaces the run of an earlier export.

    Args:
      run: run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.place = run.path / "wandb"
        self._sweep = read_sweep(run.path)
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
        with contextlib.ExitStack() as stack:
            for run in self._runs.values():
                stack.callback(run.finish)

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
        for stage in member.stages:
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
    """Gives the rows of a run directory to trackers: in order, and each row once for every member that it is about.

    Args:
      run: run directory.
      trackers: where the rows go.
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
        order = list(read_stages(read_sweep(self._run.path)))
        rows.sort(key=lambda row: ([*order, row.stage].index(row.stage), row.step))
        for row in rows:
            self._export(row)
        for tracker in self._trackers:
            tracker.flush()

    def _export(self, row: TrainingMetrics | Evaluation) -> None:
        # A run that continues from its last checkpoint writes the rows after it again, with the same numbers. A file
        # that gains a column is read again from its start.
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
            for each in read_member_stages(self._run):
                members[each.result].append(each.member)
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
    """Refuses trackers that are unknown, not installed, or lack the account that they need.

    Raises:
      UserError: says what to choose, install or do.
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


def export(
    run_dir: str | os.PathLike[str], names: Sequence[str], follow: bool = False, methods: Sequence[Method] = ()
) -> list[pathlib.Path]:
    """Writes the curves of a run to trackers, replacing those of an earlier export.

    Args:
      run_dir: run directory.
      names: `tensorboard`, `wandb`.
      follow: continue with the rows that other processes write, until interrupted.
      methods: methods of a user's own that the run holds members of.

    Returns:
      The directories written.

    Raises:
      UserError: not a run directory, a file in it is damaged, or a tracker cannot be used or written.
    """
    run = RunDirectory(pathlib.Path(run_dir), methods=methods)
    run.members()
    check(names)
    try:
        with opened(run, names) as trackers:
            exporter = Exporter(run, trackers)
            exporter.update()
            while follow:
                time.sleep(SECONDS_BETWEEN_EXPORTS)
                exporter.update()
    except OSError as error:
        raise UserError(f"{run.path}: its curves cannot be written there ({error.strerror})") from None
    return [tracker.place for tracker in trackers]


@contextlib.contextmanager
def opened(run: RunDirectory, names: Sequence[str]) -> Iterator[list[Tracker]]:
    """Trackers that are closed when the block ends, whatever happens in it.

    Args:
      run: run directory.
      names: `tensorboard`, `wandb`.
    """
    with contextlib.ExitStack() as stack:
        trackers = []
        for name in names:
            tracker = TRACKERS[name](run)
            stack.callback(tracker.close)
            trackers.append(tracker)
        yield trackers


@contextlib.contextmanager
def exporting(run: RunDirectory, names: Sequence[str], log: Callable[[str], None]) -> Iterator[None]:
    """Exports rows in a thread while the block runs, and the last rows at its end.

    A failing tracker never stops training: `log` gets one message, and `export` can write the curves later.

    Args:
      run: run directory, created.
      names: trackers that `check` accepted; with none, nothing is exported.
      log: receives messages.
    """
    if not names:
        yield
        return
    stop = threading.Event()

    def work() -> None:
        try:
            with opened(run, names) as trackers:
                exporter = Exporter(run, trackers)
                while not stop.wait(SECONDS_BETWEEN_EXPORTS):
                    exporter.update()
                exporter.update()
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
    """Whether W&B needs no key or has one; in a terminal it asks for one."""
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
    facts = {"dataset": member.dataset, "seed": member.seed, "fingerprint": member.fingerprint}
    return facts | dict(member.settings)
