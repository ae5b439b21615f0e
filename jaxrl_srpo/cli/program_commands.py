"""Commands that run the programs beside the package: experiments and launchers."""

import pathlib
import runpy
import sys
from collections.abc import Sequence

from absl import flags

import jaxrl_srpo
from jaxrl_srpo.cli.command import Command, no_flags
from jaxrl_srpo.cli.command_line import asks_for_help
from jaxrl_srpo.errors import UserError


def experiments() -> dict[str, pathlib.Path]:
    """The experiments that are programs, by names such as `d4rl.table`."""
    folder = _folder("experiments")
    paths = {".".join(path.relative_to(folder).with_suffix("").parts): path for path in folder.rglob("*.py")}
    return {name: path for name, path in sorted(paths.items()) if _is_program(path)}


def launchers() -> dict[str, pathlib.Path]:
    """The launchers by name."""
    folder = _folder("launch")
    return {path.stem: path for path in sorted(folder.glob("*.py")) if _is_program(path)}


def _folder(name: str) -> pathlib.Path:
    """Where the programs are: in the installed package, or beside it in a checkout."""
    package = pathlib.Path(jaxrl_srpo.__file__).parent
    return package / name if (package / name).is_dir() else package.parent / name


def _is_program(path: pathlib.Path) -> bool:
    return '\nif __name__ == "__main__":\n' in path.read_text()


def _experiment(values: flags.FlagValues, rest: list[str]) -> None:
    name = _chosen("experiment", rest, list(experiments()))
    if name:
        sys.argv = [f"jaxrl-srpo experiment {name}", *rest[1:]]
        runpy.run_module(f"jaxrl_srpo.experiments.{name}", run_name="__main__", alter_sys=True)


def _launch(values: flags.FlagValues, rest: list[str]) -> None:
    paths = launchers()
    name = _chosen("launch", rest, list(paths))
    if name:
        sys.argv = [f"jaxrl-srpo launch {name}", *rest[1:]]
        # Launchers are scripts that import each other.
        sys.path.insert(0, str(paths[name].parent))
        runpy.run_path(str(paths[name]), run_name="__main__")


def _chosen(command: str, arguments: Sequence[str], names: Sequence[str]) -> str:
    """The program that is asked for; "" after printing what there is.

    Raises:
      UserError: there is no such program.
    """
    if not arguments or asks_for_help(arguments[:1]):
        lines = [f"usage: jaxrl-srpo {command} NAME [--FLAG=VALUE ...]", "", *(f"  {name}" for name in names)]
        print("\n".join([*lines, "", f"`jaxrl-srpo {command} NAME --help` says what it does."]))
        return ""
    if arguments[0] not in names:
        raise UserError(f"{command} {arguments[0]}: choose one of {', '.join(names)}")
    return arguments[0]


EXPERIMENT = Command(
    "experiment", "NAME ...", "run an experiment, such as d4rl.table", no_flags, _experiment, parses=False
)
LAUNCH = Command(
    "launch", "NAME ...", "start workers on slurm, ray_cluster or this machine (local)", no_flags, _launch, parses=False
)
