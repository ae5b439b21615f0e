"""What a command consists of."""

import pytest
from absl import flags

from jaxrl_srpo.cli.command import Command, define_own_methods, no_flags, words
from jaxrl_srpo.cli.main import COMMANDS, GROUPS
from jaxrl_srpo.methods import METHODS
from jaxrl_srpo.methods.contract import merged_settings


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_groups_leave_no_flag_out(command: Command) -> None:
    values = flags.FlagValues()
    command.define(values)
    if command.groups:
        grouped = [name for names in command.groups.values() for name in names]
        assert len(grouped) == len(set(grouped))
        # An alias needs no line of its own, and a note tells of settings.
        others = set(values) - set(grouped)
        assert all("Alias" in str(values[name].help) or name in merged_settings(METHODS) for name in others)


def test_a_command_gets_its_flags_and_the_other_arguments() -> None:
    seen: list[tuple[str, list[str]]] = []
    command = Command(
        "try", "THING", "", define_own_methods, lambda values, rest: seen.append((values.algorithm, rest))
    )
    command.execute(["one", "--algorithm=a,b", "two"])
    assert seen == [("a,b", ["one", "two"])]
    with pytest.raises(flags.UnrecognizedFlagError):
        command.execute(["--seeds=3"])
    assert len(seen) == 1


@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_runs_nothing(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("try", "THING", "", no_flags, lambda values, rest: pytest.fail("it ran"))
    command.execute(["one", argument])
    assert capsys.readouterr().out == "usage: jaxrl-srpo try THING [--FLAG=VALUE ...]\n"


def test_every_command_stands_in_one_group() -> None:
    assert len(COMMANDS) == sum(map(len, GROUPS.values()))


def test_words() -> None:
    assert words("a,,b") == ["a", "b"]
    assert words("") == []
