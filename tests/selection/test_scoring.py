"""The scores of a run's policies, each against its own policy and Q."""

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.workers import load_again, packer
from jaxrl_srpo.selection.candidates import critic_of, find_candidates
from jaxrl_srpo.selection.evaluation import Evaluations
from jaxrl_srpo.selection.scoring import score_all, states_of
from tests.selection.test_evaluation import SETTINGS


@pytest.mark.parametrize("data_too", [True, False])
def test_a_row_holds_the_scores_of_its_own_policy(
    finished_run: pathlib.Path, tmp_path: pathlib.Path, data_too: bool
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    candidates, evaluations = find_candidates(run, ["iql", "bc"]), Evaluations(run, Options(), SETTINGS)
    members = evaluations.members(candidates, data_too)
    evaluations.train(candidates, packer(run, members, Options()), data_too)
    facts = run.facts()["one"]
    dataset = load_again(run, facts, Options())
    states = states_of(dataset, facts)
    assert states.starts.shape == (4, 3)
    np.testing.assert_allclose(states.starts, facts.units.normalize_observations(dataset.observations[::49]), atol=1e-6)

    rows = score_all(run, candidates, states, evaluations)
    assert [(row.algorithm, row.seed) for row in rows] == [("bc", 0), ("bc", 1), ("iql", 0), ("iql", 1)]
    candidate, row = candidates[3], rows[3]
    policy = jaxrl_srpo.load_policy(run.path, seed=1, algorithm="iql")
    raw = np.concatenate([dataset.observations[::49], dataset.observations])
    actions = policy(raw)[:, :] / 2.0
    first, everywhere = actions[:4], actions[4:]
    critic, value = critic_of(run, candidate), evaluations.value_of(candidate)
    assert critic is not None
    assert value is not None
    inputs = jnp.asarray(states.starts), jnp.asarray(first)
    assert row.critic == pytest.approx(float(critic.q_values(*inputs).min(-1).mean()), rel=1e-4)
    assert row.fqe == pytest.approx(float(value(*inputs).mean()), rel=1e-4)
    assert row.cloning == pytest.approx(-np.mean((everywhere - dataset.actions / 2.0) ** 2), rel=1e-4)
    assert np.isfinite(row.one_step) == data_too
    assert np.isnan(rows[0].critic)
    assert row.supported == row.fqe
    assert not any(row.note for row in rows)
