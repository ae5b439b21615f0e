"""What a command of `jaxrl-srpo` consists of, and what all of them share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from jaxrl_srpo.cli.command_line import asks_for_help, help_text

OWN_ENVIRONMENT = "; module:ID imports the module that registers it"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: its flags, and what it does.

    Attributes:
      name: the words that a person types.
      takes: what it takes beside flags, such as RUN_DIR; "" for flags only.
      summary: what it does, in a line of the overview.
      define: defines its flags, settings of methods left out.
      run: does it, given the values of its flags and the other arguments.
      groups: its flags by what they are about; empty where they are few.
      settings: whether settings of methods are flags of it, too.
      parses: False for one that hands all of its arguments to another program.
      note: what the help adds.
    """

    name: str
    takes: str
    summary: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues, list[str]], None]
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    settings: bool = False
    parses: bool = True
    note: str = ""

    @property
    def usage(self) -> str:
        """How it is called."""
        takes = self.takes or ("--datasets=NAME_OR_PATH,... --out=RUN_DIR" if self.settings else "")
        return " ".join(word for word in ("jaxrl-srpo", self.name, takes, "[--FLAG=VALUE ...]") if word)

    def execute(self, arguments: Sequence[str]) -> None:
        """Prints its help, or runs it.

        Raises:
          UserError: after bad input.
          flags.Error: after bad flags.
        """
        values = flags.FlagValues()
        self.define(values)
        if not self.parses:
            self.run(values, list(arguments))
            return
        if asks_for_help(arguments) or (self.settings and "--helpfull" in arguments):
            print(help_text(f"usage: {self.usage}", values, self._note(arguments), self.groups))
            return
        if self.settings:
            from jaxrl_srpo.cli import setting_flags

            arguments = setting_flags.with_config(arguments)
            setting_flags.define_settings(values, setting_flags.methods_for_flags(arguments))
        self.run(values, values(["jaxrl-srpo", *arguments])[1:])

    def _note(self, arguments: Sequence[str]) -> str:
        """What the help says of settings; all of them where it is asked for in full."""
        if not self.settings:
            return self.note
        from jaxrl_srpo.cli import setting_flags

        methods, full = setting_flags.methods_for_flags(arguments), "--helpfull" in arguments
        settings = setting_flags.settings_help(methods) if full else _SETTINGS_NOTE.format(command=self.name)
        return f"{setting_flags.presets_help(methods, full)}\n\n{settings}"


def no_flags(values: flags.FlagValues) -> None:
    """The flags of a command that has none."""


def define_own_methods(values: flags.FlagValues) -> None:
    """The flag of commands on runs that may hold methods of a user's own."""
    flags.DEFINE_string(
        "algorithm", "", "Methods of your own that the run holds, as package.module:METHOD.", flag_values=values
    )


def words(text: str) -> list[str]:
    """The words of a comma-separated list."""
    return [word for word in text.split(",") if word]


_SETTINGS_NOTE = """\
Every setting of a method is a flag of its own, for instance --beta=0.05,0.1 or --policy_steps=20000;
`jaxrl-srpo {command} --helpfull` lists them all, by method, with the values of the presets."""
