"""A small finished run whose policies are chosen from."""

import pathlib

import pytest

import jaxrl_srpo
from tests import synthetic

# Of fitted Q evaluation, for tests that look at what is done with it.
SMALLEST = {"fqe_steps": 12, "fqe_draws": 3, "fqe_width": 8, "fqe_batch_size": 16}


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two seeds of SRPO, with its cloning and IQL, and of AWAC, with its cloning; nothing may be written into it."""
    folder = tmp_path_factory.mktemp("selection")
    dataset = synthetic.write_pendulum(folder / "one.hdf5")
    values = synthetic.TINY | {"seeds": range(2), "beta": [0.1, 0.2], "algorithm": ["srpo", "awac"]}
    options = jaxrl_srpo.Options(evaluate=False)
    jaxrl_srpo.train(str(dataset), folder / "run", options=options, log=lambda message: None, **values)
    return folder / "run"
