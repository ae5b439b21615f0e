"""What importing and training need: no environment, no Minari, no drawing."""

import json
import pathlib

from tests import synthetic

HEAVY = ("gymnasium", "gymnasium_robotics", "mujoco", "minari", "matplotlib")

MODULES = (
    "jaxrl_srpo",
    "jaxrl_srpo.api",
    "jaxrl_srpo.cli.main",
    "jaxrl_srpo.data",
    "jaxrl_srpo.population.offline",
    "jaxrl_srpo.report",
    "jaxrl_srpo.runs.scorer",
    "jaxrl_srpo.runs.sweep",
    "jaxrl_srpo.runs.trainer",
)

TRAIN_WITHOUT_ENVIRONMENTS = """
import sys
for name in {blocked}:
    sys.modules[name] = None
from jaxrl_srpo.cli import main
main.run({arguments})
"""


def test_importing_needs_no_environment_and_starts_no_device() -> None:
    code = f"""
import importlib, json, sys
for name in {MODULES}:
    importlib.import_module(name)
import jaxrl_srpo
assert all(hasattr(jaxrl_srpo, name) for name in jaxrl_srpo.__all__)
import jax
print(json.dumps([[name for name in {HEAVY} if name in sys.modules], jax._src.xla_bridge.backends_are_initialized()]))
"""
    result = synthetic.python("-c", code)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [[], False]


def test_importing_the_package_alone_does_not_even_import_jax() -> None:
    code = "import sys, jaxrl_srpo; print('jax' in sys.modules, 'numpy' in sys.modules)"
    assert synthetic.python("-c", code).stdout.split() == ["False", "False"]


def test_training_from_a_file_needs_no_environment_and_says_what_it_left_out(tmp_path: pathlib.Path) -> None:
    dataset = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    arguments = synthetic.train_command([dataset], tmp_path / "run", seeds="0:2", beta="0.1,0.3")
    blocked = tuple(name for name in HEAVY if name != "matplotlib")
    result = synthetic.python("-c", TRAIN_WITHOUT_ENVIRONMENTS.format(blocked=blocked, arguments=arguments))
    assert result.returncode == 0, result.stderr
    (notice,) = [line for line in result.stderr.splitlines() if line.startswith("not evaluated: ")]
    assert "gymnasium" in notice.lower()
    assert f"`jaxrl-srpo evaluate {tmp_path / 'run'}`" in notice
    for stage, count in (("behavior", 2), ("critic", 2), ("policy", 4)):
        assert len(list((tmp_path / "run" / "checkpoints" / stage).iterdir())) == count
    assert len((tmp_path / "run" / "evaluations.csv").read_text().splitlines()) == 1
    assert (tmp_path / "run" / "report" / "table.csv").exists()
