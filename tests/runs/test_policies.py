"""A policy of a run is an object of its own: it pickles with all that it needs."""

import multiprocessing
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs.policies import find, load_policy

ARCHIVE = pathlib.Path(__file__).parents[1] / "old_run.zip"
OBSERVATIONS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture
def old_run(tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "old_run"


@pytest.mark.parametrize("algorithm", ["srpo", "awac", "bc"])
def test_a_policy_pickles_without_its_run(old_run: pathlib.Path, algorithm: str) -> None:
    policy = load_policy(old_run, algorithm=algorithm, log=lambda message: None)
    policy(OBSERVATIONS)
    content = pickle.dumps(policy)
    old_run.rename(old_run.with_name("moved"))
    again = pickle.loads(content)
    np.testing.assert_array_equal(again(OBSERVATIONS), policy(OBSERVATIONS))
    np.testing.assert_array_equal(again(OBSERVATIONS[0]), policy(OBSERVATIONS[0]))
    assert again.member == policy.member
    assert again.environment == policy.environment


def test_a_spawned_process_acts_by_it(old_run: pathlib.Path) -> None:
    policy = load_policy(old_run, algorithm="srpo", beta=0.1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(policy, (OBSERVATIONS,)), policy(OBSERVATIONS))


def test_the_member_that_is_found(old_run: pathlib.Path) -> None:
    found = find(old_run, algorithm="srpo", beta=0.3)
    assert (found.stage.algorithm, found.member.settings["beta"]) == ("srpo", 0.3)
    with pytest.raises(UserError, match=r"a member with beta=0.7 does not exist"):
        find(old_run, algorithm="srpo", beta=0.7)
