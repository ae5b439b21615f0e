"""TensorBoard and W&B files, really written and read back: every row once, whatever happened to the run."""

import json
import os
import pathlib
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.monitor import trackers
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests.monitor import run_files

BETAS = (0.1, 0.3)
BEHAVIOR, CRITIC, POLICY = srpo.METHOD.stages
Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture
def run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """One seed and two betas, which share behavior and critic; the policies are under way."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = run_files.write_run(tmp_path / "run", seeds=(0,), betas=BETAS)
    first, second = run.members()
    run.metrics.append([run_files.metrics(BEHAVIOR, first, step, loss=1 / step) for step in (4, 8)])
    run.metrics.append([run_files.metrics(CRITIC, first, 8, q_loss=2.0)])
    run.evaluations.append([run_files.evaluation(CRITIC, first, 8, -3.0, final=True)])
    run.metrics.append([run_files.metrics(POLICY, first, 4, loss=0.5), run_files.metrics(POLICY, second, 4, loss=0.75)])
    return run


def expected(policy_loss: float, *later: float) -> Curves:
    """Curves of a member."""
    policy = [(4, policy_loss), *((8, loss) for loss in later)]
    return {
        "behavior/loss": [(4, 0.25), (8, 0.125)],
        "behavior/updates_per_second": [(4, 50.0), (8, 50.0)],
        "critic/q_loss": [(8, 2.0)],
        "critic/updates_per_second": [(8, 50.0)],
        "evaluation/iql/return": [(8, -3.0)],
        "evaluation/iql/return_std": [(8, 1.0)],
        "policy/loss": policy,
        "policy/updates_per_second": [(step, 50.0) for step, _ in policy],
    }


def events(directory: pathlib.Path) -> Curves:
    """Curves in TensorBoard's files, by its own reader."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="extra `tensorboard` is not installed"
    ).EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}


def wandb_records(path: pathlib.Path) -> Iterator[Any]:
    """Records of an offline run: protocol buffers in a LevelDB log after a header of 7 bytes."""
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="extra `wandb` is not installed")
    content, at, message = path.read_bytes(), 7, b""
    while at < len(content):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
        _, length, kind = struct.unpack_from("<IHB", content, at)
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield internal.Record.FromString(message)
            message = b""


def wandb_run(path: pathlib.Path) -> tuple[Any, Curves]:
    """Head and curves of an offline run."""
    head: Any = None
    curves: Curves = {}
    for record in wandb_records(path):
        if record.HasField("run"):
            head = record.run
        if not record.HasField("history"):
            continue
        items = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        (step,) = [value for name, value in items.items() if name.endswith("/step")]
        for name, value in items.items():
            if "/" in name and not name.endswith("/step"):
                curves.setdefault(name, []).append((step, value))
    return head, curves


def wandb_runs(run: RunDirectory) -> dict[str, tuple[Any, Curves]]:
    """Heads and curves of all offline runs, by the name that W&B shows."""
    # W&B's own process may still be writing when a run has finished; this waits for it to end.
    pytest.importorskip("wandb", reason="extra `wandb` is not installed").teardown()
    read = [wandb_run(path) for path in run.path.glob("wandb/offline-run-*/*.wandb")]
    assert len({head.run_id for head, _ in read}) == len(read)
    return {head.display_name: (head, curves) for head, curves in read}


def resume(run: RunDirectory) -> None:
    """What a run does that was killed after its last rows: drops them, and writes them again before it goes on."""
    rows = run.metrics.rows()
    run.metrics.keep(lambda row: row["stage"] != "policy")
    run.metrics.append([row for row in rows if row["stage"] == "policy"])
    first, second = run.members()
    run.metrics.append([run_files.metrics(POLICY, first, 8, loss=0.25), run_files.metrics(POLICY, second, 8, loss=0.5)])


def test_tensorboard_has_every_row_once(run: RunDirectory) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    places = trackers.export(run.path, ["tensorboard"])
    assert places == [run.path / "tensorboard"]
    (first, second) = (places[0] / "pendulum" / f"seed=0,beta={beta}" for beta in BETAS)
    assert events(first) == expected(0.5)
    assert events(second) == expected(0.75)
    resume(run)
    trackers.export(run.path, ["tensorboard"])
    assert events(first) == expected(0.5, 0.25)
    assert len(list(first.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_named(run: RunDirectory) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    (run.path / "tensorboard").write_text("")
    with pytest.raises(UserError, match=r"run: its curves cannot be written there \(Not a directory\)"):
        trackers.export(run.path, ["tensorboard"])


def test_tensorboard_follows_a_run_that_is_resumed_meanwhile(run: RunDirectory) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    tracker = trackers.TensorBoardTracker(run)
    exporter = trackers.Exporter(run, [tracker])
    exporter.update()
    resume(run)
    exporter.update()
    tracker.close()
    assert events(tracker.place / "pendulum" / "seed=0,beta=0.3") == expected(0.75, 0.5)


def test_wandb_has_a_run_per_member_with_every_row_once(run: RunDirectory) -> None:
    pytest.importorskip("wandb", reason="extra `wandb` is not installed")
    names = [f"pendulum seed=0 beta={beta}" for beta in BETAS]
    trackers.export(run.path, ["wandb"])
    before = wandb_runs(run)
    assert [before[name][1] for name in names] == [expected(0.5), expected(0.75)]
    resume(run)
    with trackers.exporting(run, ["wandb"], log=pytest.fail):
        pass
    after = wandb_runs(run)
    assert [after[name][1] for name in names] == [expected(0.5, 0.25), expected(0.75, 0.5)]
    # The same identity, so that a server would replace the earlier run.
    assert [after[name][0].run_id for name in names] == [before[name][0].run_id for name in names]
    assert len(before) == len(after) == 2
    head = after[names[1]][0]
    config = {item.key: json.loads(item.value_json) for item in head.config.update}
    assert (head.project, head.run_group, sorted(head.tags)) == ("jaxrl-srpo", "run", ["pendulum", "quick"])
    assert (config["dataset"], config["seed"], config["beta"], config["policy_steps"]) == ("pendulum", 0, 0.3, 8)


def open_files(directory: pathlib.Path) -> list[str]:
    """Files under a directory that this process has open."""
    found = []
    for link in pathlib.Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return [path for path in found if path.startswith(str(directory))]


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_trackers_are_closed_when_one_cannot_be_written(run: RunDirectory) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    place = run.path / "tensorboard" / "pendulum"

    def export() -> None:
        with trackers.opened(run, ["tensorboard"]) as (tracker,):
            place.mkdir(parents=True)
            # In the way of the second member, whose rows come when the first one's file is open.
            (place / "seed=0,beta=0.3").write_text("")
            try:
                trackers.Exporter(run, [tracker]).update()
            finally:
                assert len(open_files(place)) == 1

    with pytest.raises(NotADirectoryError):
        export()
    assert open_files(place) == []
    assert events(place / "seed=0,beta=0.1")


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_trackers_beside_training_are_closed_when_a_file_is_damaged(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    monkeypatch.setattr(trackers, "SECONDS_BETWEEN_EXPORTS", 0.01)
    messages: list[str] = []
    with trackers.exporting(run, ["tensorboard"], messages.append):
        deadline = time.monotonic() + 60.0
        while len(open_files(run.path / "tensorboard")) < 2:
            assert time.monotonic() < deadline
            assert not messages
            time.sleep(0.01)
        (run.path / "metrics.csv").write_text("stage,dataset\n")
    assert len(messages) == 1
    assert open_files(run.path / "tensorboard") == []


def test_a_tracker_that_fails_is_named_and_training_goes_on(run: RunDirectory) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    messages: list[str] = []
    (run.path / "metrics.csv").write_text("stage,dataset\n")
    with trackers.exporting(run, ["tensorboard"], messages.append):
        pass
    (message,) = messages
    assert message.startswith("tracking stopped: ")
    assert message.endswith(f"`jaxrl-srpo export {run.path} --to=tensorboard` can do it later")
