"""JAX made strict for every test, and what the tests share."""

import os
from pathlib import Path

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)


def pytest_configure() -> None:
    """Fixes JAX's settings before its backends start: sharding is tested on 8 devices made of one processor."""
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_default_matmul_precision", "highest")
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Directory of real datasets, which are too large to ship; skips where JAXRL_SRPO_TEST_DATA does not name it."""
    directory = os.environ.get("JAXRL_SRPO_TEST_DATA")
    if not directory:
        pytest.skip("JAXRL_SRPO_TEST_DATA is not set")
    return Path(directory)
