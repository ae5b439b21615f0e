"""Checkpoints really written and read: bitwise the same, whole or absent, and the latest of a stage."""

import pathlib
import signal
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.io import checkpoint
from jaxrl_srpo.io.checkpoint import Progress
from tests import synthetic

SAVE_FOREVER = """
import pathlib, sys
import numpy as np
from jaxrl_srpo.io.checkpoint import Progress
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
