"""`jaxrl-srpo completion`: a script by which a shell completes commands and flags."""

from collections.abc import Sequence

from absl import flags

from jaxrl_srpo.cli.command import Command
from jaxrl_srpo.errors import UserError

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, commands: Sequence[Command]) -> str:
    """The script of a shell, ending in a newline.

    Raises:
      UserError: it is none that is known.
    """
    if shell not in SHELLS:
        raise UserError(f"completion {shell}: choose one of {', '.join(SHELLS)}")
    words = {command.name: _flags_of(command) for command in commands}
    return _fish(words) if shell == "fish" else _bash(words, zsh=shell == "zsh")


def _flags_of(command: Command) -> list[str]:
    """All flags of a command as they are typed."""
    values = flags.FlagValues()
    command.define(values)
    if command.settings:
        from jaxrl_srpo.cli import setting_flags
        from jaxrl_srpo.methods import METHODS

        setting_flags.define_settings(values, METHODS)
    return [f"--{name}" if values[name].boolean else f"--{name}=" for name in values]


def _bash(words: dict[str, list[str]], zsh: bool) -> str:
    """A function that offers commands first, then flags, and files after `=`; zsh runs it, too."""
    firsts = dict.fromkeys(name.split()[0] for name in words)
    seconds = {name.split()[0] for name in words if " " in name}
    lines = ["autoload -U +X bashcompinit && bashcompinit"] if zsh else []
    lines += [
        "_jaxrl_srpo() {",
        "  local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} choices=",
        '  if [ "$COMP_CWORD" -gt 2 ]; then case $command in '
        f'{"|".join(sorted(seconds))}) command="$command ${{COMP_WORDS[2]}}";; esac; fi',
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    choices="{" ".join(firsts)}"',
        "  else",
        '    case "$command" in',
    ]
    for first in sorted(seconds):
        own = [name.split()[1] for name in words if name.startswith(f"{first} ")]
        lines.append(f'      "{first}") choices="{" ".join(own)}";;')
    lines += [f'      "{name}") choices="{" ".join(own)}";;' for name, own in words.items()]
    lines += [
        "    esac",
        "  fi",
        "  case $current in",
        '    -*|"") ;;',
        '    *) [ "$COMP_CWORD" -gt 2 ] && choices=;;',
        "  esac",
        '  COMPREPLY=($(compgen -W "$choices" -- "$current"))',
        "  case ${COMPREPLY[0]} in *=) compopt -o nospace 2>/dev/null;; esac",
        "}",
        "complete -o default -F _jaxrl_srpo jaxrl-srpo",
    ]
    return "\n".join(lines) + "\n"


def _fish(words: dict[str, list[str]]) -> str:
    lines = []
    for name, own in words.items():
        first, _, second = name.partition(" ")
        seen = f"__fish_seen_subcommand_from {first}"
        if second:
            lines.append(f"complete -c jaxrl-srpo -n '{seen}' -a {second}")
            seen += f"; and __fish_seen_subcommand_from {second}"
        lines.append(f"complete -c jaxrl-srpo -n __fish_use_subcommand -a {first}")
        for flag in own:
            takes = " -r" if flag.endswith("=") else ""
            lines.append(f"complete -c jaxrl-srpo -n '{seen}' -l {flag.strip('-=')}{takes}")
    return "\n".join(dict.fromkeys(lines)) + "\n"
