"""The command line: parses, calls, prints. All logic is elsewhere."""

import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from absl import flags

import jaxrl_srpo
from jaxrl_srpo.cli import (
    completion,
    data_command,
    export_command,
    program_commands,
    run_commands,
    select_command,
    train_commands,
)
from jaxrl_srpo.cli.command import Command, define_own_methods, no_flags, words
from jaxrl_srpo.cli.command_line import exit_with, expand_home, one_argument, refuse_rest
from jaxrl_srpo.errors import UserError


def _methods(values: flags.FlagValues, rest: list[str]) -> None:
    refuse_rest(rest, "methods takes flags only")
    from jaxrl_srpo.cli.methods_page import methods_page
    from jaxrl_srpo.methods import METHODS, find_method

    print(methods_page([*METHODS, *(find_method(name) for name in words(values.algorithm))]), end="")


def _completion(values: flags.FlagValues, rest: list[str]) -> None:
    print(completion.script(one_argument(rest, "completion", "SHELL"), tuple(COMMANDS.values())), end="")


METHODS = Command("methods", "", "list the methods, their presets, settings and metrics", define_own_methods, _methods)
COMPLETION = Command(
    "completion",
    "bash|zsh|fish",
    'print what completes commands and flags: eval "$(jaxrl-srpo completion bash)"',
    no_flags,
    _completion,
)
GROUPS: dict[str, tuple[Command, ...]] = {
    "Train": (
        train_commands.TRAIN,
        train_commands.PREPARE,
        train_commands.WORK,
        program_commands.LAUNCH,
        program_commands.EXPERIMENT,
    ),
    "Look at a run": (
        run_commands.WATCH,
        run_commands.EVALUATE,
        run_commands.REPORT,
        run_commands.EXPORT,
        run_commands.VERIFY,
    ),
    "Use a policy": (select_command.SELECT, export_command.EXPORT_POLICY),
    "Data": (data_command.INFO, data_command.PLOT, data_command.MAKE, data_command.DOWNLOAD),
    "Help": (METHODS, COMPLETION),
}
COMMANDS = {command.name: command for commands in GROUPS.values() for command in commands}
_HEAD = """\
Offline reinforcement learning for whole populations at once: SRPO, AWAC and the methods they are compared with.

  jaxrl-srpo train --datasets=pointmaze/umaze --seeds=0:4 --beta=0.05,0.2 --out=runs/umaze
  jaxrl-srpo train --algorithm=awac --datasets=hopper-medium-v2 --awac_lambda=0.3,1 --preset=quick --out=runs/hopper"""
_FOOT = """\
A dataset is a D4RL name (hopper-medium-v2), a Minari id (D4RL/door/human-v2, or regenerated/hopper/medium-v0 once it
is made), pointmaze/umaze, or the path of an HDF5 or .npz file in D4RL's layout. `jaxrl-srpo COMMAND --help` lists the
flags of a command, `jaxrl-srpo --version` says which version this is."""


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `jaxrl-srpo`; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    kept = "the same command continues from the last checkpoint"
    # These only read, so whatever trains is not interrupted with them.
    if arguments[:1] in (["watch"], ["export"], ["export-policy"]):
        kept = "the run itself goes on"
    exit_with("jaxrl-srpo", main, arguments, f"interrupted; {kept}")


def answer(arguments: Sequence[str]) -> str:
    """Runs one command inside a job of a cluster: "", or the message after bad input, which no other try would mend."""
    try:
        main(arguments)
    except (UserError, flags.Error) as error:
        return str(error)
    return ""


def main(arguments: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    if not arguments or arguments[0] in _HELP:
        print(overview())
        return
    if arguments[0] == "--version":
        print(f"jaxrl-srpo {jaxrl_srpo.__version__}")
        return
    family = [name for name in COMMANDS if name.startswith(f"{arguments[0]} ")]
    if family and arguments[1:2] and arguments[1] in _HELP:
        print("\n".join(_line(COMMANDS[name]) for name in family))
        return
    count = 2 if family else 1
    command = COMMANDS.get(" ".join(arguments[:count]))
    if command is None:
        known = ", ".join(dict.fromkeys(name.split()[count - 1] for name in family or COMMANDS))
        reason = "unknown command; " if len(arguments) >= count else ""
        raise UserError(f"{' '.join(arguments[:count])}: {reason}choose one of {known}")
    command.execute(expand_home(arguments[count:]))


_HELP = ("--help", "-h", "-help", "help")


def overview() -> str:
    """What `jaxrl-srpo --help` prints: every command, by what it is for."""
    parts = [f"{title}:\n" + "\n".join(map(_line, commands)) for title, commands in GROUPS.items()]
    return "\n\n".join([_HEAD, *parts, _FOOT])


def _line(command: Command) -> str:
    call = f"  jaxrl-srpo {command.name} {command.takes or '...' * command.settings}".ljust(39)
    first, *more = textwrap.wrap(command.summary, 80)
    return "\n".join([f"{call} {first}", *(" " * 40 + line for line in more)])
