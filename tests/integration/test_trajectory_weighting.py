"""What a policy learns from a dataset whose better episodes come more often."""

import pathlib

import h5py
import numpy as np
import pytest

import jaxrl_srpo
from tests import synthetic

LENGTHS = (30, 50, 19)
RETURNS = (10.0, -30.0, 50.0)


def write_three_episodes(path: pathlib.Path) -> pathlib.Path:
    """Three episodes of Pendulum's sizes; the one of the best return takes the action 1, the others -1."""
    size = sum(LENGTHS) + 1  # Reading drops the last row of a file.
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = random.normal(size=(size, 3)).astype(np.float32)
        file["actions"] = np.repeat([-1.0, -1.0, 1.0, 1.0], (*LENGTHS, 1)).astype(np.float32)[:, None]
        file["rewards"] = np.repeat([*np.divide(RETURNS, LENGTHS), 0.0], (*LENGTHS, 1)).astype(np.float32)
        file["terminals"] = np.isin(np.arange(size), np.cumsum(LENGTHS[:2]) - 1)
        file["timeouts"] = np.zeros(size, bool)
        file.attrs.update(action_low=[-1.0], action_high=[1.0])
    return path


def test_a_cloning_policy_follows_the_weights(tmp_path: pathlib.Path) -> None:
    """The mean action of the file is -0.6; weighted, the best episode has all but 1% of the rows."""
    path = write_three_episodes(tmp_path / "three.hdf5")
    training = {"critic_steps": 300, "critic_evaluation_interval": 300, "iql_actor_learning_rate": 0.01}
    weights = {"awr_temperature": 0.0, "trajectory_weighting": 10.0}
    settings = synthetic.TINY | training | weights | {"options": jaxrl_srpo.Options(evaluate=False)}
    jaxrl_srpo.train(path, tmp_path / "run", seeds=[0], log=lambda message: None, **settings)
    policy = jaxrl_srpo.load_policy(tmp_path / "run", algorithm="iql")
    assert np.mean(policy(jaxrl_srpo.load_dataset(path).observations)) == pytest.approx(0.98, abs=0.05)
