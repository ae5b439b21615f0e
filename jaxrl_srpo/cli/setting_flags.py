"""Settings as flags: one for each, grouped and described by the methods that declare them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from jaxrl_srpo.methods import METHODS, find_method
from jaxrl_srpo.methods.contract import Method, merged_settings
from jaxrl_srpo.methods.settings import Setting, text_of
from jaxrl_srpo.runs.config import as_flags, read_config


def methods_for_flags(arguments: Sequence[str]) -> list[Method]:
    """The methods whose settings are flags: those of the package, and those of a user's own that a command names.

    Raises:
      UserError: a method that is named cannot be imported.
    """
    named = [word for argument in arguments for word in _algorithms(argument)]
    return [*METHODS, *(find_method(word) for word in dict.fromkeys(named) if ":" in word)]


def _algorithms(argument: str) -> list[str]:
    name, separator, value = argument.lstrip("-").partition("=")
    return value.split(",") if separator and name == "algorithm" else []


def with_config(arguments: Sequence[str]) -> list[str]:
    """A command line with the flags of the file that `--config` names at its head, so that those given go before them.

    Raises:
      UserError: the file cannot be read, or asks for code to be imported.
    """
    own = flags.FlagValues()
    flags.DEFINE_string("config", None, "", flag_values=own)
    own(["jaxrl-srpo", *arguments], known_only=True)
    return [*(as_flags(read_config(own.config)) if own.config else []), *arguments]


def define_settings(values: flags.FlagValues, methods: Sequence[Method]) -> None:
    """One flag per setting; the preset's value stands unless it is given."""
    for name, setting in merged_settings(methods).items():
        if isinstance(setting.default, bool):
            flags.DEFINE_boolean(name, None, _described(setting), flag_values=values)
        else:
            flags.DEFINE_string(name, None, _described(setting), flag_values=values)


def _described(setting: Setting) -> str:
    choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
    several = " Takes several values." if setting.swept else ""
    return f"{setting.help}.{choices}{several}"


def given_settings(values: flags.FlagValues, methods: Sequence[Method]) -> dict[str, Any]:
    """The settings given by flags, converted to their types.

    Raises:
      UserError: for a value that is none.
    """
    given: dict[str, Any] = {}
    for name, setting in merged_settings(methods).items():
        value = values[name].value
        if value is not None:
            given[name] = value if isinstance(setting.default, bool) else setting.parse(value)
    return given


def groups(methods: Sequence[Method]) -> dict[str, dict[str, Setting]]:
    """The settings by the title of the class that declares them."""
    found: dict[str, dict[str, Setting]] = {}
    for flag, setting in merged_settings(methods).items():
        found.setdefault(getattr(setting.owner, "title", setting.owner.__name__), {})[flag] = setting
    return found


def settings_help(methods: Sequence[Method]) -> str:
    """Every setting in groups, with its help and its default."""
    lines = []
    for title, settings in groups(methods).items():
        lines += ["", f"{title}:"]
        for flag, setting in settings.items():
            name = f"--[no]{flag}" if isinstance(setting.default, bool) else f"--{flag}"
            text = f"{_described(setting)} (default {text_of(setting.default)})"
            lines += _wrapped(name, text)
    return "\n".join(lines[1:])


def presets_help(methods: Iterable[Method], full: bool) -> str:
    """The presets of every method; with their sources and the values that differ from the defaults if `full`."""
    lines = ["Presets:"]
    for method in methods:
        if not full:
            lines.append(f"  {method.name:12} {', '.join(method.presets)}")
            continue
        for name, preset in method.presets.items():
            lines += _wrapped(f"{method.name:12} --preset={name}", preset.source)
            for family in ("locomotion", "antmaze"):
                lines += _wrapped(f"  {family}", _differences(method, method.preset(name, "", family)))
    return "\n".join(lines)


def _differences(method: Method, values: Mapping[str, Any]) -> str:
    settings = method.settings()
    different = {flag: value for flag, value in values.items() if value != settings[flag].default}
    return ", ".join(f"{flag}={text_of(value)}" for flag, value in different.items()) or "the defaults"


def _wrapped(head: str, text: str) -> list[str]:
    import textwrap

    first, *rest = textwrap.wrap(text, 86) or [""]
    return [f"  {head} ".ljust(34) + first, *(" " * 34 + line for line in rest)]
