"""Processors and memory that a process may use, and sums that do not depend on its threads."""

import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.io import processors
from jaxrl_srpo.io.processors import usable_cores
from tests import synthetic


def test_at_least_one_and_no_more_than_there_are() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tell processes' affinity")
def test_a_process_bound_to_one_core_uses_one() -> None:
    code = """
import os
from jaxrl_srpo.io.processors import usable_cores
cores = os.sched_getaffinity(0)
print(usable_cores() == len(cores))
os.sched_setaffinity(0, {min(cores)})
print(usable_cores())
"""
    assert synthetic.python("-c", code).stdout.split() == ["True", "1"]


def test_memory_is_that_of_a_machine() -> None:
    assert 2**28 < processors.memory() < 2**50


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "--xla_cpu_experimental_ynn_fusion_type=-reduce"),
        ({"XLA_FLAGS": "--xla_a=1"}, "--xla_a=1 --xla_cpu_experimental_ynn_fusion_type=-reduce"),
        (
            {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=dot,reduce"},
            "--xla_cpu_experimental_ynn_fusion_type=dot,reduce",
        ),
    ],
)
def test_sums_are_kept_in_order_unless_told_otherwise(given: dict[str, str], expected: str) -> None:
    processors.keep_sums_in_order(given)
    assert given == {"XLA_FLAGS": expected}


def test_a_large_sum_is_the_same_every_time_on_a_busy_machine() -> None:
    """Without `keep_sums_in_order`, which the tests' configuration calls, this one varies from call to call."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            np.sort(np.random.default_rng(0).random(10_000))

    helpers = [threading.Thread(target=work) for _ in range(2)]
    for helper in helpers:
        helper.start()
    try:
        total = jax.jit(lambda x: jnp.sum(jnp.broadcast_to(x, (2, 1024, 1024))))
        x = jax.random.normal(jax.random.key(0), (1024, 1))
        assert len({float(total(x)) for _ in range(200)}) == 1
    finally:
        stop.set()
        for helper in helpers:
            helper.join()
