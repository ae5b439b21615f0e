"""`jaxrl-srpo data`: what is in a dataset, a picture of it, and getting one."""

import pathlib
from typing import Any

from absl import flags

from jaxrl_srpo.cli.command_line import define_drop_reset_rows, one_argument, parse_command
from jaxrl_srpo.errors import UserError

_NUMBERS = {
    "steps": "Environment steps that SAC learns for (make regenerated/...); 1000000 by default, as D4RL.",
    "transitions": "Least transitions of each policy (make regenerated/...); 1000000 by default, as D4RL.",
    "seed": "Seed of all that is random (make regenerated/... or ogbench/...); 0 by default.",
    "episodes": "Training episodes, a tenth more for validation (make ogbench/...); the published number by default.",
    "rows": "Rows of an episode (make ogbench/...); the published number by default.",
    "processes": "Processes that play (make ogbench/...); one per core by default.",
}
_REGENERATED = ("steps", "transitions", "seed")
_OGBENCH = ("episodes", "rows", "seed", "processes")


def run(arguments: list[str]) -> None:
    """Runs `data info`, `plot`, `make` or `download`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("mirror", None, "The only servers to ask for D4RL files, comma-separated.", flag_values=values)
    flags.DEFINE_string(
        "all", None, "Several datasets (download): d4rl-paper, those of SRPO's table.", flag_values=values
    )
    flags.DEFINE_string("checksums", None, "File of `sha256sum` to verify against (download).", flag_values=values)
    flags.DEFINE_string("env", None, "Gymnasium id, for data that names none.", flag_values=values)
    flags.DEFINE_string(
        "out",
        None,
        "Picture to write (plot); NAME.png here by default. File (.npz) or folder (make ogbench/...); "
        "CACHE/ogbench by default.",
        flag_values=values,
    )
    flags.DEFINE_boolean("allow_invalid_data", False, "Read data that failed its checks.", flag_values=values)
    define_drop_reset_rows(values)
    for flag, text in _NUMBERS.items():
        flags.DEFINE_integer(flag, None, text, flag_values=values)
    rest = parse_command(values, arguments, "data info|plot|make|download NAME_OR_PATH [--FLAG=VALUE ...]")
    if rest is None:
        return
    commands = ("info", "plot", "make", "download")
    if not rest or rest[0] not in commands:
        raise UserError(f"data {' '.join(rest[:1])}: choose one of {', '.join(commands)}, then a dataset")
    if values.all is not None:
        _download_all(rest, values)
        return
    name = one_argument(rest[1:], f"data {rest[0]}", "NAME_OR_PATH")
    from jaxrl_srpo.data import inspect
    from jaxrl_srpo.data.names import REGENERATED
    from jaxrl_srpo.envs import datasets
    from jaxrl_srpo.envs.make import import_environment
    from jaxrl_srpo.envs.ogbench_recipes import PREFIX

    if rest[0] == "make" and name.startswith(REGENERATED):
        _regenerate(name, _numbers(values, _REGENERATED, name))
        return
    if rest[0] == "make" and name.startswith(PREFIX):
        _make_ogbench(name, values.out, _numbers(values, _OGBENCH, name))
        return
    _numbers(values, (), name)
    if values.checksums and rest[0] != "download":
        raise UserError("--checksums: is for `data download` only")
    if rest[0] == "make":
        print(datasets.make_dataset(name))
        return
    if rest[0] == "download":
        print(datasets.download_dataset(name, mirror=values.mirror, sums=values.checksums))
        return
    dataset = datasets.load_dataset(
        name,
        mirror=values.mirror,
        env=import_environment(values.env) if values.env else None,
        allow_invalid=values.allow_invalid_data,
        drop_reset_rows=values.drop_reset_rows,
    )
    if rest[0] == "info":
        print(inspect.describe(dataset))
    else:
        path = pathlib.Path(values.out or f"{dataset.name.replace('/', '_')}.png")
        try:
            inspect.plot(dataset, path)
        except OSError as error:
            raise UserError(f"--out={path}: cannot be written: {error.strerror or error}") from error
        print(f"wrote {path}")


def _download_all(rest: list[str], values: flags.FlagValues) -> None:
    from jaxrl_srpo.data import d4rl
    from jaxrl_srpo.envs import datasets

    if rest != ["download"]:
        raise UserError("--all: is for `data download` without a name")
    _numbers(values, (), values.all)
    if values.all not in d4rl.GROUPS:
        raise UserError(f"--all={values.all}: choose one of {', '.join(d4rl.GROUPS)}")
    names = d4rl.GROUPS[values.all]
    missing = datasets.download_all(names, print, mirror=values.mirror, sums=values.checksums)
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} files of {values.all} are missing: {', '.join(missing)}; the same "
            "command fetches only those, and --mirror=URL asks another server"
        )


def _numbers(values: flags.FlagValues, allowed: tuple[str, ...], name: str) -> dict[str, int]:
    """The numbers that were given.

    Raises:
      UserError: one of them is for other datasets, or for another command.
    """
    given: dict[str, Any] = {flag: values[flag].value for flag in _NUMBERS if values[flag].value is not None}
    for flag in given:
        if flag not in allowed:
            kinds = (("regenerated/TASK/KIND-v0", _REGENERATED), ("ogbench/NAME", _OGBENCH))
            uses = " or ".join(f"`data make {kind}`" for kind, numbers in kinds if flag in numbers)
            raise UserError(f"--{flag}: is for {uses} only")
    return given


def _regenerate(name: str, numbers: dict[str, int]) -> None:
    from jaxrl_srpo.exploration import regenerated
    from jaxrl_srpo.runs.devices import prepare_jax

    prepare_jax(1)
    for dataset_id in regenerated.make_datasets(name, regenerated.Recipe(**numbers)):
        print(dataset_id)


def _make_ogbench(name: str, out: str | None, numbers: dict[str, int]) -> None:
    from jaxrl_srpo.envs import ogbench_making

    given: dict[str, Any] = numbers
    made = ogbench_making.make_dataset(name, out=out, **given)
    print(made.train, made.val, *made.lines, *(f"warning: {line}" for line in made.warnings), sep="\n")
