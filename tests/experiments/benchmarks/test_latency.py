"""Latencies of exported policies: every runtime and batch size has a row."""

import pathlib
import zipfile

import numpy as np

from experiments.benchmarks import latency

ARCHIVE = pathlib.Path(__file__).parents[2] / "old_run.zip"


def test_every_runtime_is_measured(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    found = latency.measure(str(tmp_path / "old_run"), calls=3, rounds=2)
    runtimes = [*latency.FORMATS, "compiled JAX"]
    assert [(one.runtime, one.batch) for one in found] == [(name, batch) for batch in (1, 64) for name in runtimes]
    assert all(0.0 < one.median <= one.slow for one in found)


def test_calls_are_timed_one_by_one() -> None:
    assert len(latency.timed(lambda observations: observations, np.zeros((1, 2)), 4)) == 4


def test_the_table() -> None:
    text = latency.table([latency.Latency("ONNX Runtime", 64, 12.34, 99.0)])
    assert text.splitlines()[-1] == "| ONNX Runtime | 64 | 12.3 us | 99.0 us |"
