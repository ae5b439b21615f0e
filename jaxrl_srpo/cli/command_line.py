"""What every command line of the project shares: help, lists of seeds, numbers and words, exit codes."""

import contextlib
import math
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import flags

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import error_line

Word = TypeVar("Word", bound=str)

_LONGEST_LINE = 2000


def exit_with(
    program: str, command: Callable[[Sequence[str]], object], arguments: Sequence[str], interrupted: str = "interrupted"
) -> NoReturn:
    """Runs a command and ends the process: one line and code 2 after bad input, 130 after an interrupt, else 0.

    What the system refuses, such as writing to a full disk, and too little memory are told as bad input is.
    """
    try:
        command(arguments)
    except (UserError, flags.Error) as error:
        print(f"{program}: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{program}: {interrupted}", file=sys.stderr)
        _end_at_once(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, MemoryError, RuntimeError) as error:
        if not (problem := _problem_of_the_machine(error)):
            raise
        print(f"{program}: {problem}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _end_at_once(code: int) -> NoReturn:
    """Ends the process without waiting for its threads.

    A chunk on a device may take minutes, and Orbax's threads wait for the rest of a save that was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _problem_of_the_machine(error: Exception) -> str:
    """What a person can mend: what the system refuses, or too little memory; "" where a program is at fault."""
    if isinstance(error, OSError):
        return error_line(error) if error.strerror else ""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        reason = _one_line(error) or "none left"
        return (
            f"memory does not suffice ({reason[:300]}); train fewer members together (--members_per_population), or "
            "choose smaller networks or batches"
        )
    return ""


def _one_line(error: Exception) -> str:
    """A message without line breaks; of one that quotes a very long word, its beginning and its end."""
    message = " ".join(str(error).split()).removeprefix("FATAL Flags parsing error: ")
    if len(message) <= _LONGEST_LINE:
        return message
    half = _LONGEST_LINE // 2
    return f"{message[:half]} ... {message[-half:]}"


def define_seconds(values: flags.FlagValues, name: str, default: float, help: str, least: float) -> None:
    """Defines a flag that takes a number of seconds, which is neither NaN nor infinite."""
    flags.DEFINE_float(name, default, help, least, flag_values=values)
    flags.register_validator(name, math.isfinite, "must be a finite number", flag_values=values)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command should print its help instead of running."""
    return any(argument in ("--help", "-h", "-help") for argument in arguments)


def expand_home(arguments: Sequence[str]) -> list[str]:
    """A command line with `~/` as the home folder wherever a path may begin; a shell leaves it alone after `=`."""
    home = os.path.expanduser("~")
    return [re.sub(r"(^|[=,])~(?=/)", lambda match: match[1] + home, argument) for argument in arguments]


def help_text(
    usage: str, values: flags.FlagValues, note: str = "", groups: Mapping[str, Sequence[str]] | None = None
) -> str:
    """What `--help` prints: the usage, every flag with its default, in groups if there are some, and a note."""
    if not groups:
        parts = [usage, "\n".join(_flag_help(values[name]) for name in values), note]
        return "\n\n".join(part for part in parts if part)
    parts = [f"{title}:\n" + "\n".join(_flag_help(values[name]) for name in names) for title, names in groups.items()]
    return "\n\n".join([usage, *parts, *([note] if note else [])])


def _flag_help(flag: Any) -> str:
    default = "" if flag.default is None else f" (default {flag.default_as_str})"
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    body = textwrap.wrap(f"{flag.help}{default}", 86)
    head = f"  {name}".ljust(32)
    return "\n".join([head + body[0], *(" " * 32 + line for line in body[1:])])


def parse_experiment(values: flags.FlagValues, name: str, usage: str, arguments: Sequence[str]) -> pathlib.Path | None:
    """Parses the command line of an experiment, whose flags have an `out`; None after printing help.

    Returns:
      The directory of the results, which need not exist.

    Raises:
      UserError: for other arguments than flags, or an `out` that is missing or a file.
      flags.Error: for bad flags.
    """
    if asks_for_help(arguments):
        print(help_text(usage, values))
        return None
    refuse_rest(values([name, *expand_home(arguments)])[1:], "this command takes flags only")
    if not values.out:
        raise UserError(f"--out: is required; for instance --out=docs/results/{name}")
    out = pathlib.Path(values.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out}: is a file; give a directory")
    return out


def define_drop_reset_rows(values: flags.FlagValues) -> None:
    """The flag of every command that reads data recorded through a vector environment."""
    flags.DEFINE_boolean(
        "drop_reset_rows",
        False,
        "Leave out rows after episodes' ends that are resets of a vector environment.",
        flag_values=values,
    )


def one_argument(rest: Sequence[str], command: str, what: str) -> str:
    """The only argument of a command.

    Raises:
      UserError: there are none or several.
    """
    if len(rest) != 1:
        given = f"{len(rest)} were given" if rest else "none was given"
        raise UserError(f"{command}: takes exactly one {what}; {given}")
    return rest[0]


def refuse_rest(rest: Sequence[str], why: str) -> None:
    """Refuses positional arguments.

    Raises:
      UserError: naming the first of them.
    """
    if rest:
        raise UserError(f"{rest[0]}: unexpected; {why}")


def parse_numbers(flag: str, words: Sequence[str]) -> tuple[float, ...]:
    """The numbers of a list.

    Raises:
      UserError: for an empty list or a word that is no number.
    """
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    if not numbers:
        raise UserError(f"--{flag}={','.join(words)}: give numbers, for instance 0.01,0.1")
    return numbers


def parse_words(flag: str, text: str, choices: Sequence[Word]) -> tuple[Word, ...]:
    """Distinct words of a comma-separated list, in order.

    Raises:
      UserError: for an empty list or a word that is not among the choices.
    """
    known = {str(choice): choice for choice in choices}
    words = tuple(dict.fromkeys(word for word in text.split(",") if word))
    if not words or any(word not in known for word in words):
        raise UserError(f"--{flag}={text}: choose from {', '.join(known)}")
    return tuple(known[word] for word in words)
