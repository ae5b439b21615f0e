"""JAX made strict for every test, and what the tests share."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from jaxrl_srpo.io.processors import keep_sums_in_order

_LARGE = 5 * 2**29

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)


def pytest_configure() -> None:
    """Fixes JAX's settings before its backends start: sharding is tested on 8 devices made of one processor."""
    keep_sums_in_order(os.environ)
    # A shell starts what runs in the background with interrupts ignored, and tests interrupt what they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _share_compiled_programs()
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_default_matmul_precision", "highest")
    hypothesis.settings.load_profile("repeatable")


def _share_compiled_programs() -> None:
    """Compiles equal programs once per session, in this process and in those that tests start."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="jaxrl_srpo_compiled_")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # JAX is imported already and has read its environment variables.
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Forgets compiled programs after a file of tests that leaves the process large: a session compiles thousands."""
    yield
    memory = Path("/proc/self/statm")
    if memory.exists() and int(memory.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > _LARGE:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Directory of real datasets, which are too large to ship; skips where JAXRL_SRPO_TEST_DATA does not name it."""
    directory = os.environ.get("JAXRL_SRPO_TEST_DATA")
    if not directory:
        pytest.skip("JAXRL_SRPO_TEST_DATA is not set")
    return Path(directory)
