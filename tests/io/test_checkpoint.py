"""Checkpoints really written and read: bitwise the same, whole or absent, and the latest of a stage."""

import contextlib
import errno
import pathlib
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.io import checkpoint, manifest
from jaxrl_srpo.io.checkpoint import DamagedCheckpoint, Progress
from tests import synthetic

SAVE_FOREVER = """
import pathlib, sys
import numpy as np
from jaxrl_srpo.io.checkpoint import DamagedCheckpoint, Progress
progress, step = Progress(pathlib.Path(sys.argv[1])), 0
while True:
    step += 1
    progress.save(step, {"step": np.full(1000, step)})
    print(step, flush=True)
"""


class State(NamedTuple):
    """A tree with everything that Orbax is particular about."""

    weights: dict[str, Any]
    count: Any
    empty: Any
    half: Any
    nothing: Any = None


@pytest.fixture
def state() -> State:
    return State(
        weights={"layers": [np.array([[0.1, np.nan], [-0.0, np.inf]], np.float32), np.arange(3)]},
        count=np.int32(7),
        empty=np.zeros((0, 4), np.float32),
        half=np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
    )


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


def assert_same(found: Any, wanted: Any) -> None:
    def compare(one: Any, other: Any) -> None:
        assert (np.shape(one), one.dtype) == (np.shape(other), other.dtype)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()

    jax.tree.map(compare, found, wanted)


def test_a_tree_comes_back_bitwise_from_its_arrays_or_shapes(tmp_path: pathlib.Path, state: State) -> None:
    checkpoint.save(tmp_path / "state", state)
    assert_same(checkpoint.load(tmp_path / "state", state), state)
    assert_same(checkpoint.load(tmp_path / "state", shapes(state)), state)


def test_a_save_replaces_an_older_one(tmp_path: pathlib.Path) -> None:
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path / "state", {"x": np.full(2, value)})
    assert checkpoint.load(tmp_path / "state", {"x": np.zeros(2)})["x"].tolist() == [2.0, 2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def flip(file: pathlib.Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))


def largest(directory: pathlib.Path) -> pathlib.Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_every_file_of_a_save_is_watched(tmp_path: pathlib.Path, state: State) -> None:
    checkpoint.save(tmp_path / "state", state, {"step": 3})
    assert checkpoint.about(tmp_path / "state") == {"step": 3}
    watched = [path for path in (tmp_path / "state").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(watched) > 5
    for file in watched:
        content = file.read_bytes()
        flip(file)
        with pytest.raises(DamagedCheckpoint, match=r"state is damaged: ") as caught:
            checkpoint.load(tmp_path / "state", state)
        assert file.name in str(caught.value)
        file.write_bytes(content)
    assert_same(checkpoint.load(tmp_path / "state", state), state)


def test_saves_of_earlier_versions_are_read_and_their_faults_told_in_one_line(
    tmp_path: pathlib.Path, state: State
) -> None:
    checkpoint.save(tmp_path / "state", state)
    (tmp_path / "state" / "manifest.json").unlink()
    assert checkpoint.about(tmp_path / "state") is None
    assert_same(checkpoint.load(tmp_path / "state", state), state)
    (tmp_path / "state" / "_METADATA").write_text("{")
    for call in (
        lambda: checkpoint.load(tmp_path / "state", state),
        lambda: checkpoint.fits(tmp_path / "state", state),
        lambda: checkpoint.read_all(tmp_path / "state"),
        lambda: checkpoint.load(tmp_path / "nowhere", state),
    ):
        with pytest.raises(DamagedCheckpoint, match="Orbax cannot read it") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_other_arrays_than_expected_are_told_in_one_line(tmp_path: pathlib.Path) -> None:
    checkpoint.save(tmp_path / "state", {"x": np.zeros(3)})
    for template in ({"y": np.zeros(3)}, {"x": np.zeros(4)}):
        with pytest.raises(DamagedCheckpoint, match=r"Orbax cannot read it|of shape \(3,\) in the place of \(4,\)"):
            checkpoint.load(tmp_path / "state", template)


def test_what_may_not_be_written_any_more_is_dropped_quietly(tmp_path: pathlib.Path) -> None:
    def lost() -> contextlib.AbstractContextManager[bool]:
        return contextlib.nullcontext(False)

    assert not checkpoint.save(tmp_path / "state", {"x": np.zeros(2)}, writing=lost)
    progress = Progress(tmp_path, lost)
    progress.save(3, {"x": np.zeros(2)})
    assert not list(tmp_path.iterdir())
    progress.clear()
    assert tmp_path.exists()


def test_a_workplace_that_was_removed_matters_only_to_whom_may_write(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("NOT_FOUND")

    monkeypatch.setattr(manifest, "write", fail)
    assert not checkpoint.save(tmp_path / "x", {"x": np.zeros(2)}, writing=lambda: contextlib.nullcontext(False))
    with pytest.raises(ValueError, match="NOT_FOUND"):
        checkpoint.save(tmp_path / "x", {"x": np.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_of_the_system_and_leaves_the_old_save(tmp_path: pathlib.Path) -> None:
    code = """
import pathlib, resource, sys
import numpy as np
from jaxrl_srpo.io import checkpoint, manifest
path = pathlib.Path(sys.argv[1])
checkpoint.save(path, {"x": np.zeros(3)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(path, {"x": np.random.default_rng(0).normal(size=500_000)})
except OSError as error:
    print(error.errno)
print(checkpoint.load(path, {"x": np.zeros(3)})["x"].tolist())
"""
    result = synthetic.python("-c", code, str(tmp_path / "state"))
    assert result.stdout == f"{errno.EFBIG}\n[0.0, 0.0, 0.0]\n", result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: pathlib.Path) -> None:
    progress, told = Progress(tmp_path), list[str]()

    def restore() -> checkpoint.Saved | None:
        return progress.restore(lambda step: {"step": np.zeros(1, int)}, told.append, below=30)

    for step in (10, 20):
        progress.save(step, {"step": np.full(1, step)})
    (tmp_path / "99999").mkdir()
    (tmp_path / "25").mkdir()
    flip(largest(tmp_path / "20"))
    saved = restore()
    assert saved is not None
    assert (saved.step, saved.tree["step"].tolist()) == (10, [10])
    assert [line.rpartition("; ")[2] for line in told] == [f"step {step} is taken instead" for step in (25, 20, 10)]
    assert all("is damaged: " in line and "\n" not in line for line in told)
    flip(largest(tmp_path / "10"))
    assert restore() is None
    assert told[-1].endswith("; the stage begins again")
    # What the next save leaves behind is not what was damaged.
    progress.save(15, {"step": np.full(1, 15)})
    assert progress.steps() == [15, 10]


def test_a_checkpoint_of_another_step_is_none(tmp_path: pathlib.Path) -> None:
    progress = Progress(tmp_path)
    progress.save(10, {"step": np.full(1, 10)})
    (tmp_path / "10").rename(tmp_path / "11")
    with pytest.raises(DamagedCheckpoint, match="is not of step 11"):
        progress.check(11)


def test_progress_keeps_the_latest_two_steps(tmp_path: pathlib.Path) -> None:
    progress = Progress(tmp_path / "stage")
    assert progress.steps() == []
    for step in (8, 9, 10):
        progress.save(step, {"step": np.full(1, step)})
    assert progress.steps() == [10, 9]
    assert restored(progress) == (10, [10])
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == ["10", "9"]
    progress.clear()
    assert progress.steps() == []
    assert not (tmp_path / "stage").exists()


def test_a_kill_leaves_a_whole_checkpoint(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path / "stage")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=synthetic.environment()) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout]
    progress = Progress(tmp_path / "stage")
    step, values = restored(progress, 1000)
    assert step >= said[-1]
    assert values == [step] * 1000


def restored(progress: Progress, size: int = 1) -> tuple[int, list[int]]:
    """The step and the values of the newest whole checkpoint; nothing is told."""
    told: list[str] = []
    saved = progress.restore(lambda step: {"step": np.zeros(size, int)}, told.append)
    assert saved is not None
    assert not told
    return saved.step, saved.tree["step"].tolist()


SAVE_AND_BE_INTERRUPTED = """
import pathlib, signal, sys, threading, time, os
import numpy as np
from jaxrl_srpo.io import checkpoint
tree = {str(i): np.full(1000, float(i)) for i in range(50)}
path, delays = pathlib.Path(sys.argv[1]), [float(word) for word in sys.argv[2:]]
checkpoint.save(path, tree)

def interrupt(caught):
    # Python drops an interrupt that falls into a finalizer.
    while not caught.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        caught.wait(5.0)

for delay in delays:
    caught = threading.Event()
    threading.Timer(delay, interrupt, (caught,)).start()
    try:
        while True:
            checkpoint.save(path, tree)
    except KeyboardInterrupt:
        caught.set()
        print(checkpoint.load(path, tree)["7"][0] if path.exists() else 7.0, flush=True)
"""


def test_an_interrupt_in_a_save_leaves_a_whole_one_and_no_thread_that_keeps_the_process(tmp_path: pathlib.Path) -> None:
    delays = [str(0.05 + 0.013 * i) for i in range(12)]
    result = synthetic.python("-c", SAVE_AND_BE_INTERRUPTED, str(tmp_path / "state"), *delays)
    assert (result.returncode, result.stdout) == (0, "7.0\n" * 12), result.stderr
