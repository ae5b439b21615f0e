"""Devices and compiled programs as programs that call the package get them."""

import os
import pathlib

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs import devices
from tests import synthetic

CODE = """
import os, sys
import jax
if sys.argv[1] == "begun":
    jax.numpy.zeros(3).block_until_ready()
if sys.argv[1] == "chosen":
    jax.config.update("jax_num_cpu_devices", 3)
from jaxrl_srpo.runs.devices import prepare_jax_unless_chosen
prepare_jax_unless_chosen(int(sys.argv[2]))
print(jax.local_device_count(), jax.config.values["jax_compilation_cache_dir"])
"""


def started(how: str, side_by_side: int) -> list[str]:
    kept = {name: os.environ.pop(name, None) for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")}
    os.environ["JAXRL_SRPO_CACHE"] = "/nowhere/cache"
    try:
        ended = synthetic.python("-c", CODE, how, str(side_by_side))
    finally:
        os.environ.update({name: value for name, value in kept.items() if value is not None})
        del os.environ["JAXRL_SRPO_CACHE"]
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_a_program_gets_a_device_per_core_and_a_cache() -> None:
    assert started("new", 1) == ["1", "/nowhere/cache/compiled"]
    assert int(started("new", 1000)[0]) == len(os.sched_getaffinity(0))


def test_what_a_program_chose_or_began_stands() -> None:
    assert started("chosen", 1)[0] == "3"
    assert started("begun", 1000)[0] == "1"


@pytest.mark.parametrize(("number", "message"), [(-1, "must not be negative"), (10**11, "must be at most 1024")])
def test_numbers_of_devices_that_make_no_sense(number: int, message: str) -> None:
    with pytest.raises(UserError, match=f"--cpu_devices={number}: {message}"):
        devices.prepare_jax(number)


def test_compiled_programs_are_kept_in_the_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path))
    code = """
import os
del os.environ["JAX_COMPILATION_CACHE_DIR"]
from jaxrl_srpo.runs import devices
devices.prepare_jax()
import jax
jax.jit(lambda x: 2.0 * x)(1.0)
"""
    result = synthetic.python("-c", code)
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "compiled").iterdir())
