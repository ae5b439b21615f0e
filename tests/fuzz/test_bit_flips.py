"""Flipped bits of whole run directories; `experiments.benchmarks.bit_flips` flips more, and continues some runs."""

import pathlib

import pytest

from experiments.benchmarks import bit_flips
from experiments.benchmarks.bit_flips import FOUND, HARMLESS, MISSED, Flip
from jaxrl_srpo.runs.verify import Verdict, verify
from tests.fuzz.run_directories import Base


def test_every_flip_is_found_and_named_or_changes_nothing(run_base: Base) -> None:
    runs = {"finished": run_base.finished, "half-finished": run_base.half}
    assert [verify(run).problems for run in runs.values()] == [[], []]
    outcomes = bit_flips.campaign(runs, flips=1, seed=0)
    files = {(name, file) for name, run in runs.items() for file in bit_flips.files_of(run)}
    assert {(outcome.run, outcome.file) for outcome in outcomes} == files
    missed = [outcome for outcome in outcomes if outcome.result == MISSED]
    assert not missed, "\n".join(map(str, missed))
    # Nothing but names in locks, and blanks, may be flipped unseen.
    unseen = {outcome.kind for outcome in outcomes if outcome.result == HARMLESS}
    assert unseen <= {"locks", "leases", "manifests", "sweep.json"}
    assert {outcome.kind for outcome in outcomes} >= {"results", "checkpoints under way", "metrics.csv", "report"}
    # All bits are as they were.
    assert [verify(run).problems for run in runs.values()] == [[], []]


def test_a_flip_that_nothing_tells_is_missed(run_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bit_flips, "verify", lambda run: Verdict([], ""))
    assert bit_flips.flip(run_base.finished, "finished", "metrics.csv", 4000).result == MISSED
    monkeypatch.setattr(bit_flips, "verify", lambda run: Verdict(["evaluations.csv is damaged"], ""))
    assert bit_flips.flip(run_base.finished, "finished", "metrics.csv", 4000).result == MISSED


def test_what_came_out_is_summed_up_by_kind() -> None:
    outcomes = [
        Flip("finished", "metrics.csv", 3, FOUND, "x"),
        Flip("finished", ".metrics.csv.lock", 3, HARMLESS, ""),
        Flip("finished", "checkpoints/critic/a/manifest.json", 3, MISSED, ""),
    ]
    text = bit_flips.summarize(outcomes, 2, ["a fault"])
    assert "| finished | metrics.csv | 1 | 1 | 0 | 0 |" in text
    assert "| finished | locks | 1 | 0 | 1 | 0 |" in text
    assert "| all |  | 3 | 1 | 1 | 1 |" in text
    assert "- missed: finished checkpoints/critic/a/manifest.json bit 3" in text
    assert "2 half-finished runs were continued after a flip: 1 not as they should be" in text


def test_a_bit_is_flipped_back(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\x01")
    with bit_flips.flipped(tmp_path, "x", 9):
        assert (tmp_path / "x").read_bytes() == b"\x00\x03"
    assert (tmp_path / "x").read_bytes() == b"\x00\x01"
