"""`jaxrl-srpo data`: what is in a dataset, a picture of it, and getting one."""

import pathlib
from typing import Any

from absl import flags

from jaxrl_srpo.cli.command import Command
from jaxrl_srpo.cli.command_line import define_drop_reset_rows, one_argument
from jaxrl_srpo.errors import UserError

_NUMBERS = {
    "steps": "Environment steps that SAC learns for (regenerated/...); 1000000 by default, as D4RL.",
    "transitions": "Least transitions of each policy (regenerated/...); 1000000 by default, as D4RL.",
    "seed": "Seed of all that is random (regenerated/... or ogbench/...); 0 by default.",
    "episodes": "Training episodes, a tenth more for validation (ogbench/...); the published number by default.",
    "rows": "Rows of an episode (ogbench/...); the published number by default.",
    "processes": "Processes that play (ogbench/...); one per core by default.",
}
_REGENERATED = ("steps", "transitions", "seed")
_OGBENCH = ("episodes", "rows", "seed", "processes")


def _info(values: flags.FlagValues, rest: list[str]) -> None:
    from jaxrl_srpo.data import inspect

    print(inspect.describe(_load(one_argument(rest, "data info", "NAME_OR_PATH"), values)))


def _define_plot(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "Picture to write; NAME.png here by default.", flag_values=values)
    _define_reading(values)


def _plot(values: flags.FlagValues, rest: list[str]) -> None:
    from jaxrl_srpo.data import inspect

    dataset = _load(one_argument(rest, "data plot", "NAME_OR_PATH"), values)
    path = pathlib.Path(values.out or f"{dataset.name.replace('/', '_')}.png")
    try:
        inspect.plot(dataset, path)
    except OSError as error:
        raise UserError(f"--out={path}: cannot be written: {error.strerror or error}") from error
    print(f"wrote {path}")


def _define_make(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "out", None, "File (.npz) or folder (ogbench/...); CACHE/ogbench by default.", flag_values=values
    )
    for flag, text in _NUMBERS.items():
        flags.DEFINE_integer(flag, None, text, flag_values=values)


def _make(values: flags.FlagValues, rest: list[str]) -> None:
    name = one_argument(rest, "data make", "NAME")
    from jaxrl_srpo.data.names import REGENERATED
    from jaxrl_srpo.envs import datasets
    from jaxrl_srpo.envs.ogbench_recipes import PREFIX

    if name.startswith(PREFIX):
        _make_ogbench(name, values.out, _numbers(values, _OGBENCH))
        return
    if values.out is not None:
        raise UserError("--out: is for `data make ogbench/NAME` only; others lie in Minari's directory")
    if name.startswith(REGENERATED):
        _regenerate(name, _numbers(values, _REGENERATED))
        return
    _numbers(values, ())
    print(datasets.make_dataset(name))


def _define_download(values: flags.FlagValues) -> None:
    _define_mirror(values)
    flags.DEFINE_string("all", None, "Several datasets: d4rl-paper, those of SRPO's table.", flag_values=values)
    flags.DEFINE_string("checksums", None, "File of `sha256sum` to verify against.", flag_values=values)


def _download(values: flags.FlagValues, rest: list[str]) -> None:
    if values.all is not None:
        _download_all(rest, values)
        return
    from jaxrl_srpo.envs import datasets

    name = one_argument(rest, "data download", "NAME")
    print(datasets.download_dataset(name, mirror=values.mirror, sums=values.checksums))


def _define_mirror(values: flags.FlagValues) -> None:
    flags.DEFINE_string("mirror", None, "The only servers to ask for D4RL files, comma-separated.", flag_values=values)


def _define_reading(values: flags.FlagValues) -> None:
    """The flags of a command that reads a dataset."""
    _define_mirror(values)
    flags.DEFINE_string("env", None, "Gymnasium id, for data that names none.", flag_values=values)
    flags.DEFINE_boolean("allow_invalid_data", False, "Read data that failed its checks.", flag_values=values)
    define_drop_reset_rows(values)


def _load(name: str, values: flags.FlagValues) -> Any:
    from jaxrl_srpo.envs import datasets
    from jaxrl_srpo.envs.make import import_environment

    return datasets.load_dataset(
        name,
        mirror=values.mirror,
        env=import_environment(values.env) if values.env else None,
        allow_invalid=values.allow_invalid_data,
        drop_reset_rows=values.drop_reset_rows,
    )


def _download_all(rest: list[str], values: flags.FlagValues) -> None:
    from jaxrl_srpo.data import d4rl
    from jaxrl_srpo.envs import datasets

    if rest:
        raise UserError(f"--all: fetches a group; {rest[0]} is one too many")
    if values.all not in d4rl.GROUPS:
        raise UserError(f"--all={values.all}: choose one of {', '.join(d4rl.GROUPS)}")
    names = d4rl.GROUPS[values.all]
    missing = datasets.download_all(names, print, mirror=values.mirror, sums=values.checksums)
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} files of {values.all} are missing: {', '.join(missing)}; the same "
            "command fetches only those, and --mirror=URL asks another server"
        )


def _numbers(values: flags.FlagValues, allowed: tuple[str, ...]) -> dict[str, int]:
    """The numbers that were given.

    Raises:
      UserError: one of them is for other datasets.
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


INFO = Command("data info", "NAME_OR_PATH", "say what is in a dataset", _define_reading, _info)
PLOT = Command("data plot", "NAME_OR_PATH", "draw it", _define_plot, _plot)
MAKE = Command(
    "data make",
    "NAME",
    "make a dataset here: pointmaze/umaze, regenerated/hopper/medium-v0 with SAC, or ogbench/cube-single-play-v0",
    _define_make,
    _make,
)
DOWNLOAD = Command(
    "data download",
    "NAME",
    "fetch a D4RL or Minari dataset; --all=d4rl-paper those of SRPO's table",
    _define_download,
    _download,
)
