"""`jaxrl-srpo export-policy`: one policy of a run as a file."""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxrl_srpo.cli.command_line import one_argument, parse_command
from jaxrl_srpo.errors import UserError

FORMATS = ("onnx", "stablehlo", "npz")
_USAGE = "export-policy RUN_DIR --out=FILE [--FLAG=VALUE ...]"
_NOTE = """\
Any other swept setting is a flag, too, for instance --beta=0.01 or --expectile=0.9. Of several members that fit, the
one with the best last evaluation is taken."""


def run(arguments: list[str]) -> None:
    """Writes the file and prints how closely it acts as the policy.

    Raises:
      UserError: after bad input.
    """
    values = flags.FlagValues()
    flags.DEFINE_enum("format", "onnx", FORMATS, "npz: deterministic networks, for NumPy.", flag_values=values)
    flags.DEFINE_string("out", None, "The file.", flag_values=values)
    flags.DEFINE_string("dataset", None, "Name in the run's tables.", flag_values=values)
    flags.DEFINE_integer("seed", None, "Seed of the member.", 0, flag_values=values)
    flags.DEFINE_string(
        "algorithm", None, "Word of the policy in the run's tables, or package.module:METHOD.", flag_values=values
    )
    flags.DEFINE_string("artefacts", None, "Directory of finished stages, if the run used one.", flag_values=values)
    swept, others = _swept_settings(arguments, set(values))
    rest = parse_command(values, others, _USAGE, _NOTE)
    if rest is None:
        return
    run_dir = one_argument(rest, "export-policy", "RUN_DIR")
    if not values.out:
        raise UserError(f"--out: is required; for instance --out=policy.{values.format}")
    from jaxrl_srpo import api

    agreement = api.export_policy(
        run_dir,
        values.out,
        values.format,
        dataset=values.dataset,
        seed=values.seed,
        algorithm=_method(values.algorithm),
        artefacts=pathlib.Path(values.artefacts) if values.artefacts else None,
        **swept,
    )
    elsewhere = f", another choice for {agreement.elsewhere:.1%} of observations" if agreement.elsewhere else ""
    print(f"wrote {values.out}: differs from JAX by at most {agreement.largest:.1e} of the range of actions{elsewhere}")


def _swept_settings(arguments: Sequence[str], own: set[str]) -> tuple[dict[str, float], list[str]]:
    """The swept settings among arguments, and the arguments that are none.

    Raises:
      UserError: a setting that is no number.
    """
    from jaxrl_srpo.cli.setting_flags import methods_for_flags
    from jaxrl_srpo.methods.contract import merged_settings

    known = {name for name, one in merged_settings(methods_for_flags(arguments)).items() if one.swept} - own
    swept, others = {}, []
    for argument in arguments:
        name, separator, value = argument.lstrip("-").partition("=")
        if not (argument.startswith("-") and separator and name in known):
            others.append(argument)
            continue
        try:
            swept[name] = float(value)
        except ValueError:
            raise UserError(f"--{name}={value}: is no number; give one value of the run's sweep") from None
    return swept, others


def _method(named: str | None) -> Any:
    from jaxrl_srpo.methods import find_method

    return find_method(named) if named and ":" in named else named
