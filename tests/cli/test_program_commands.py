"""Experiments and launchers as commands."""

import pathlib
import tomllib

import pytest

from jaxrl_srpo.cli import program_commands
from jaxrl_srpo.cli.main import main
from jaxrl_srpo.errors import UserError
from tests import synthetic

ROOT = pathlib.Path(__file__).parents[2]


def test_every_program_is_named() -> None:
    assert {"d4rl.table", "ogbench.table", "benchmarks.throughput", "exploration.star"} < set(
        program_commands.experiments()
    )
    assert "common" not in program_commands.experiments()
    assert list(program_commands.launchers()) == ["local", "ray_cluster", "slurm"]


@pytest.mark.parametrize(("command", "name"), [("experiment", "d4rl.table"), ("launch", "local")])
def test_a_program_gets_its_own_arguments(command: str, name: str, tmp_path: pathlib.Path) -> None:
    told = synthetic.run([command, name, "--help"], tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: ")
    refused = synthetic.run([command, name, "--no_such_flag=1"], tmp_path)
    assert refused.returncode == 2
    assert "no_such_flag" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["experiment", "launch"])
def test_what_there_is_and_what_is_not(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command])
    listed = capsys.readouterr().out
    names = program_commands.experiments() if command == "experiment" else program_commands.launchers()
    assert all(f"  {name}\n" in listed for name in names)
    with pytest.raises(UserError, match=f"{command} nothing: choose one of {next(iter(names))}"):
        main([command, "nothing"])


def test_the_wheel_has_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for top in ("jaxrl_srpo", "experiments") for path in _packages(ROOT / top)}
    names = {".".join(folder.parts) for folder in folders}
    inside = {name if name.startswith("jaxrl_srpo") else f"jaxrl_srpo.{name}" for name in names}
    assert sorted(listed) == sorted({*inside, "jaxrl_srpo.launch"})


def _packages(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.rglob("__init__.py"))
