"""Processors that a process may use, in a process that may not use all."""

import os

import pytest

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
