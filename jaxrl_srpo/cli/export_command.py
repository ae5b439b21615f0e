"""`jaxrl-srpo export-policy`: one policy of a run as a file."""

import pathlib
from typing import Any

from absl import flags

from jaxrl_srpo.cli.command import Command
from jaxrl_srpo.cli.command_line import one_argument
from jaxrl_srpo.errors import UserError

FORMATS = ("onnx", "stablehlo", "npz")
_NOTE = """\
Any other swept setting is a flag, too, for instance --beta=0.01 or --expectile=0.9. Of several members that fit, the
one with the best last evaluation is taken."""


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_enum("format", "onnx", FORMATS, "npz: deterministic networks, for NumPy.", flag_values=values)
    flags.DEFINE_string("out", None, "The file.", flag_values=values)
    flags.DEFINE_string("dataset", None, "Name in the run's tables.", flag_values=values)
    flags.DEFINE_integer("seed", None, "Seed of the member.", 0, flag_values=values)
    flags.DEFINE_string(
        "algorithm", None, "Word of the policy in the run's tables, or package.module:METHOD.", flag_values=values
    )
    flags.DEFINE_string("artefacts", None, "Directory of finished stages, if the run used one.", flag_values=values)
    for name, help in _swept().items():
        flags.DEFINE_float(name, None, help, flag_values=values)


def _export(values: flags.FlagValues, rest: list[str]) -> None:
    """Writes the file and prints how closely it acts as the policy."""
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
        **{name: values[name].value for name in _swept() if values[name].value is not None},
    )
    elsewhere = f", another choice for {agreement.elsewhere:.1%} of observations" if agreement.elsewhere else ""
    print(f"wrote {values.out}: differs from JAX by at most {agreement.largest:.1e} of the range of actions{elsewhere}")


def _swept() -> dict[str, str]:
    """The settings of which a sweep may have several values, with what they are."""
    from jaxrl_srpo.methods import METHODS
    from jaxrl_srpo.methods.contract import merged_settings

    return {name: one.help for name, one in merged_settings(METHODS).items() if one.swept}


def _method(named: str | None) -> Any:
    from jaxrl_srpo.methods import find_method

    return find_method(named) if named and ":" in named else named


EXPORT_POLICY = Command(
    "export-policy",
    "RUN_DIR",
    "write one of its policies as a file: ONNX, StableHLO or arrays",
    _define,
    _export,
    {"Flags": ("out", "format", "dataset", "seed", "algorithm", "artefacts")},
    note=_NOTE,
)
