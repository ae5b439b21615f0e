"""Fitted Q evaluation of a run's policies by the trainer: what it gives, and that nothing is trained twice."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.data.packing import PackedDataset
from jaxrl_srpo.methods import fqe
from jaxrl_srpo.methods.settings import declared
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.verify import verify
from jaxrl_srpo.runs.workers import packer
from jaxrl_srpo.selection.candidates import find_candidates
from jaxrl_srpo.selection.evaluation import Evaluations
from tests.selection.conftest import SMALLEST

SETTINGS = {flag: one.default for flag, one in declared(fqe.DrawnSettings).items()} | SMALLEST


@pytest.fixture
def run(finished_run: pathlib.Path, tmp_path: pathlib.Path) -> RunDirectory:
    shutil.copytree(finished_run, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def not_asked(name: str) -> PackedDataset:
    raise AssertionError(f"the data of {name} were asked for")


def test_every_policy_and_the_data_get_a_q_of_their_own(run: RunDirectory) -> None:
    rows = (run.path / "metrics.csv").read_bytes()
    candidates, evaluations = find_candidates(run), Evaluations(run, Options(), SETTINGS)
    first, inputs = candidates[0].member, (jnp.ones((1, 3)), jnp.zeros((1, 1)))
    assert evaluations.value_of(candidates[0]) is None
    members = evaluations.members(candidates, data_too=True)
    assert len(members) == 13
    evaluations.train(candidates, packer(run, members, Options()), data_too=True)
    values = [evaluations.value_of(candidate) for candidate in candidates]
    values += [evaluations.value_of_data(first)]
    found = [float(value(*inputs)[0]) for value in values if value is not None]
    assert len(found) == 13
    assert np.isfinite(found).all()
    # Members of one seed and stage begin alike and differ by their policies.
    assert len(set(found)) == 13
    assert not any(evaluations.diverged(candidate) for candidate in candidates)
    assert (run.path / "metrics.csv").read_bytes() == rows
    assert not verify(run.path).problems

    again = Evaluations(run, Options(), SETTINGS)
    again.train(candidates, not_asked, data_too=True)
    jax.tree.map(np.testing.assert_array_equal, again.value_of(candidates[0]), values[0])


def test_other_settings_are_another_evaluation(run: RunDirectory) -> None:
    candidates = find_candidates(run, ["iql"])
    one, other = (Evaluations(run, Options(), SETTINGS | {"fqe_steps": steps}) for steps in (12, 13))
    (first, _), (second, _) = (each.members(candidates, data_too=False) for each in (one, other))
    assert first.address(first.stages[0]) != second.address(second.stages[0])


def test_an_evaluation_that_diverges_is_told(run: RunDirectory) -> None:
    candidates = find_candidates(run, ["iql"])
    evaluations = Evaluations(run, Options(), SETTINGS | {"fqe_learning_rate": 3e38})
    members = evaluations.members(candidates, data_too=False)
    evaluations.train(candidates, packer(run, members, Options()), data_too=False)
    assert all(evaluations.diverged(candidate) for candidate in candidates)
