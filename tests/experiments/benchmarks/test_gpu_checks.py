"""The checks of a GPU as commands: each ends by itself or at its limit, and is told."""

import pathlib
import sys

import pytest

from experiments.benchmarks import gpu_checks
from experiments.benchmarks.gpu_checks import Check, Outcome
from jaxrl_srpo.errors import UserError


def test_a_check_ends_by_itself_or_at_its_limit(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    ended = gpu_checks.carry_out(Check("one", 60, (sys.executable, "-c", "print('a\\nb'); raise SystemExit(3)")), log)
    assert (ended.name, ended.code, ended.last, log.read_text()) == ("one", 3, "b", "a\nb\n")
    endless = (sys.executable, "-c", "import threading; threading.Event().wait()")
    assert gpu_checks.carry_out(Check("two", 0.5, endless), log).code is None


def test_how_they_ended_is_summed_up() -> None:
    text = gpu_checks.summarize([Outcome("run", 0, 12.4, "a | b"), Outcome("tests", None, 180.0, "")])
    assert "| run | 0 | 12 | a / b |\n| tests | at its limit | 180 |  |\n" in text


def test_the_checks_fit_twelve_minutes_and_name_what_is_there(tmp_path: pathlib.Path) -> None:
    found = gpu_checks.checks(tmp_path, "hopper.hdf5", 24, 0.01)
    assert sum(check.seconds for check in found) < 12 * 60
    root = pathlib.Path(__file__).parents[3]
    paths = [word for check in found for word in check.command if word.startswith("tests/")]
    assert paths
    assert all((root / path).exists() for path in paths)


def test_a_whole_run_needs_a_dataset(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"^--dataset: name the dataset of the whole run"):
        gpu_checks.main([f"--out={tmp_path}"])
