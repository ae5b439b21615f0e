"""Policies of a run and of methods with fresh networks, as benchmarks have them act."""

import pathlib
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from experiments.benchmarks.acting import fresh, trained
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.types import Spec
from tests import synthetic


def test_trained_policies_act_as_loaded_ones(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        trained(tmp_path)
    data = synthetic.write_pendulum(tmp_path / "one.hdf5")
    few: dict[str, Any] = {"normalize_observations": False, "td3_bc_steps": 4, "log_interval": 4}
    options = jaxrl_srpo.Options(evaluate=False)
    jaxrl_srpo.train(data, tmp_path / "run", [3], options=options, algorithm="td3_bc", **few)
    (policy,) = trained(tmp_path / "run")
    assert (policy.algorithm, policy.label, policy.spec[:2]) == ("td3_bc", "TD3+BC", (3, 1))
    loaded = jaxrl_srpo.load_policy(tmp_path / "run")
    observations = np.random.default_rng(0).standard_normal((5, 3), np.float32)
    # The dataset's actions reach from -2 to 2.
    actions = np.asarray(policy.act(observations), np.float64)
    np.testing.assert_allclose(2.0 * actions, loaded(observations), rtol=1e-4)


@pytest.mark.parametrize("method", [one for one in METHODS if one.stages], ids=lambda one: one.name)
def test_every_method_acts_before_it_has_learned(method: Method) -> None:
    policy = fresh(method, Spec(3, 2, transitions=8, episodes=2), "quick", "mine", "locomotion")
    observations = np.zeros((4, 3), np.float32)
    actions = np.asarray(policy.act(observations, 1))
    assert actions.shape == (4, 2)
    assert np.abs(actions).max() <= 1.0
    assert np.asarray(policy.on_host()(observations)).shape == (4, 2)
    assert policy.flop() > 0
