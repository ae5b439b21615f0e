"""The policies of a run, what they do together, and the critics that they were trained with."""

import pathlib

import jax
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.nn.policies import QFunction
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from jaxrl_srpo.selection import candidates as candidates_lib
from jaxrl_srpo.selection.candidates import Candidate, find_candidates


@pytest.fixture(scope="module")
def run(finished_run: pathlib.Path) -> RunDirectory:
    return RunDirectory(finished_run)


@pytest.fixture(scope="module")
def candidates(run: RunDirectory) -> list[Candidate]:
    return find_candidates(run)


def test_all_policies_of_a_run_are_found(run: RunDirectory, candidates: list[Candidate]) -> None:
    words = [candidate.stage.algorithm for candidate in candidates]
    assert {word: words.count(word) for word in words} == {"bc": 2, "iql": 2, "srpo": 4, "cloning": 2, "awac": 2}
    assert "srpo one seed=0 beta=0.1" in [candidate.name for candidate in candidates]
    assert [one.stage.algorithm for one in find_candidates(run, ["iql"])] == ["iql", "iql"]
    with pytest.raises(UserError, match=r"--policies=sac: this run has no such policies; choose from bc, iql, srpo"):
        find_candidates(run, ["sac"])


def test_only_policies_that_sample_act_at_cost(candidates: list[Candidate]) -> None:
    assert {one.stage.algorithm for one in candidates if one.acts_at_cost} == {"bc"}


def test_policies_together_do_what_each_does_alone(run: RunDirectory, candidates: list[Candidate]) -> None:
    groups = candidates_lib.in_groups(candidates)
    assert sorted(map(len, groups)) == [2, 2, 2, 2, 4]
    (group,) = (group for group in groups if group[0].stage.algorithm == "srpo")
    observations = np.random.default_rng(0).normal(size=(1500, 3)).astype(np.float32)
    inputs = run.facts()["one"].units.normalize_observations(observations)
    actions = candidates_lib.actions_at(group, candidates_lib.stacked_policies(run, group), inputs)
    assert actions.shape == (4, 1500, 1)
    for candidate, own in zip(group, actions, strict=True):
        member = candidate.member
        policy = jaxrl_srpo.load_policy(run.path, seed=member.seed, beta=member.settings["beta"], algorithm="srpo")
        # Pendulum's actions go to 2.
        np.testing.assert_allclose(2.0 * own, policy(observations), atol=1e-5)


def test_the_critic_is_that_of_the_policy_or_of_what_it_stands_on(
    run: RunDirectory, candidates: list[Candidate]
) -> None:
    first = {candidate.stage.algorithm: candidate for candidate in reversed(candidates)}
    found = {word: candidates_lib.critic_of(run, candidate) for word, candidate in first.items()}
    assert found["bc"] is None
    assert found["cloning"] is None
    srpo, iql = found["srpo"], first["iql"]
    assert isinstance(srpo, QFunction)
    own = load_result(run, iql.stage, iql.member).critic
    jax.tree.map(np.testing.assert_array_equal, srpo.params, own.params)
    awac = load_result(run, *first["awac"])
    assert isinstance(found["awac"], QFunction)
    jax.tree.map(np.testing.assert_array_equal, found["awac"].params, awac.q.params)


def test_an_unfinished_run_is_refused_with_what_is_missing(
    run: RunDirectory, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = candidates[-1]
    monkeypatch.setattr(run, "has_result", lambda stage, member: (stage, member) != lost)
    with pytest.raises(UserError, match=r"1 of 12 policies are not trained yet, awac one seed=1 among them; continue"):
        find_candidates(run)
    assert len(find_candidates(run, ["srpo"])) == 4
