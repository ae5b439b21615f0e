"""Settings as flags: one for each, converted and described."""

from typing import Any

from absl import flags

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.presets import preset
from jaxrl_srpo.methods.settings import FIELDS, Settings


def define_settings(values: flags.FlagValues) -> None:
    """One flag per setting; the preset's value stands unless it is given."""
    for name, field in FIELDS.items():
        note = " Takes several values." if field.metadata["swept"] else ""
        choices = f" One of {', '.join(field.metadata['choices'])}." if field.metadata["choices"] else ""
        text = field.metadata["help"]
        if field.type is bool or isinstance(field.default, bool):
            flags.DEFINE_boolean(name, None, text, flag_values=values)
        else:
            flags.DEFINE_string(name, None, f"{text}.{choices}{note}", flag_values=values)


def given_settings(values: flags.FlagValues) -> dict[str, Any]:
    """The settings given by flags, converted to their types.

    Raises:
      UserError: for a value that is none.
    """
    given: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = values[name].value
        if value is None:
            continue
        kind: Any = type(field.default)
        if kind is bool:
            given[name] = value
            continue
        try:
            given[name] = tuple(kind(part) for part in value.split(","))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise UserError(f"--{name}={value}: expects {what}, for instance --{name}={field.default}") from None
    return given


def defaults_note() -> str:
    """The table of the presets' values that `--help` ends with."""
    maze, locomotion = preset("quick", "", "pointmaze"), preset("quick", "", "locomotion")
    paper_maze, paper = preset("paper", "", "antmaze"), preset("paper", "", "locomotion")
    lines = ["Values of the presets (a flag of the same name replaces one):", ""]
    header = ("setting", "quick maze", "quick other", "paper maze", "paper other")
    lines.append("  " + header[0].ljust(30) + "".join(column.rjust(16) for column in header[1:]))
    for name in Settings.__dataclass_fields__:
        cells = [str(getattr(settings, name)) for settings in (maze, locomotion, paper_maze, paper)]
        lines.append("  " + name.ljust(30) + "".join(cell.rjust(16) for cell in cells))
    lines += ["", "`paper` gives the 15 published datasets their published beta; rewards go by dataset family."]
    return "\n".join(lines)
