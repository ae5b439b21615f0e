"""The command line: parses, calls, prints. All logic is elsewhere."""

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags

import jaxrl_srpo
from jaxrl_srpo.cli import data_command, export_command
from jaxrl_srpo.cli.command_line import (
    asks_for_help,
    define_drop_reset_rows,
    define_seconds,
    exit_with,
    expand_home,
    help_text,
    one_argument,
    parse_command,
    parse_seeds,
    parse_words,
    refuse_rest,
)
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import usable_cores

OVERVIEW = """\
Score Regularized Policy Optimization, and AWAC, for whole populations at once.

  jaxrl-srpo train --datasets=NAME_OR_PATH,... --seeds=0:4 --beta=0.05,0.2 --preset=quick|paper --out=RUN_DIR
  jaxrl-srpo train --algorithm=awac --datasets=NAME_OR_PATH,... --awac_lambda=0.3,1 --out=RUN_DIR
  jaxrl-srpo prepare ...             the same, but train nothing: workers will, see docs/clusters.md
  jaxrl-srpo work RUN_DIR            train what a run lacks, beside any other workers
  jaxrl-srpo evaluate RUN_DIR        evaluate the policies of a run again
  jaxrl-srpo report RUN_DIR          write its tables and pictures again
  jaxrl-srpo watch RUN_DIR           show all members while they train, here or elsewhere
  jaxrl-srpo export RUN_DIR          give its curves to TensorBoard or Weights & Biases
  jaxrl-srpo export-policy RUN_DIR   write one of its policies as a file: ONNX, StableHLO or arrays
  jaxrl-srpo verify RUN_DIR          say which of its files are damaged
  jaxrl-srpo methods                 list the methods, their presets, settings and metrics
  jaxrl-srpo data info NAME_OR_PATH  say what is in a dataset
  jaxrl-srpo data plot NAME_OR_PATH  draw it
  jaxrl-srpo data make NAME          make a dataset here: pointmaze/umaze, or regenerated/hopper/medium-v0 with SAC
  jaxrl-srpo data download NAME      fetch a D4RL or Minari dataset; --all=d4rl-paper those of SRPO's table

A dataset is a D4RL name (hopper-medium-v2), a Minari id (D4RL/door/human-v2, or regenerated/hopper/medium-v0 once it
is made), pointmaze/umaze, or the path of an HDF5 or .npz file in D4RL's layout. `jaxrl-srpo COMMAND --help` lists the
flags of a command."""


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `jaxrl-srpo`; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    kept = "the same command continues from the last checkpoint"
    # These only read, so whatever trains is not interrupted with them.
    if arguments[:1] in (["watch"], ["export"], ["export-policy"]):
        kept = "the run itself goes on"
    exit_with("jaxrl-srpo", main, arguments, f"interrupted; {kept}")


def answer(arguments: Sequence[str]) -> str:
    """Runs one command inside a job of a cluster: "", or the message after bad input, which no other try would mend."""
    try:
        main(arguments)
    except (UserError, flags.Error) as error:
        return str(error)
    return ""


def main(arguments: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(OVERVIEW)
        return
    if arguments[0] == "--version":
        print(f"jaxrl-srpo {jaxrl_srpo.__version__}")
        return
    command, rest = arguments[0], expand_home(arguments[1:])
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "prepare": _prepare,
        "work": _work,
        "evaluate": _evaluate,
        "report": _report,
        "watch": _watch,
        "export": _export,
        "export-policy": export_command.run,
        "verify": _verify,
        "methods": _methods,
        "data": data_command.run,
    }
    if command not in commands:
        raise UserError(f"{command}: unknown command; choose one of {', '.join(commands)}")
    commands[command](rest)


def _train(arguments: list[str]) -> None:
    values = _parse_sweep("train", arguments)
    if values is None:
        return
    models = len(_words(values.datasets)) * len(parse_seeds(values.seeds))
    _join_hosts(values, min(models, values.members_per_population or models))
    from jaxrl_srpo import api, report

    rows = api.train(**_sweep_arguments(values, arguments))
    if rows:
        print(report.format_table(rows))
        print(f"report: {pathlib.Path(values.out) / 'report'}")


def _prepare(arguments: list[str]) -> None:
    values = _parse_sweep("prepare", arguments)
    if values is None:
        return
    if values.track:
        raise UserError("--track: is for train; `jaxrl-srpo export RUN_DIR --follow` does it beside workers")
    from jaxrl_srpo import api
    from jaxrl_srpo.runs.devices import prepare_jax

    prepare_jax(values.cpu_devices)

    api.prepare(**_sweep_arguments(values, arguments))
    own = [name for name in _words(values.algorithm) if ":" in name]
    again = f" --algorithm={','.join(own)}" if own else ""
    again += f" --env={values.env}" if ":" in (values.env or "") else ""
    print(f"prepared; train it with any number of `jaxrl-srpo work {values.out}{again}`")


def _work(arguments: list[str]) -> None:
    values = flags.FlagValues()
    _define_own_methods(values)
    _define_devices(values)
    flags.DEFINE_string("env", None, f"The run's environment{_OWN_ENVIRONMENT}.", flag_values=values)
    rest = parse_command(values, arguments, "work RUN_DIR [--FLAG=VALUE ...]")
    if rest is None:
        return
    run_dir, own = one_argument(rest, "work", "RUN_DIR"), _words(values.algorithm)
    from jaxrl_srpo import report
    from jaxrl_srpo.runs import workers

    _join_hosts(values, workers.side_by_side(run_dir, own))
    rows = workers.work(run_dir, algorithm=own, environment=values.env)
    if rows:
        print(report.format_table(rows))


def _parse_sweep(command: str, arguments: list[str]) -> flags.FlagValues | None:
    """The flags of a sweep; None after printing help.

    Raises:
      UserError: if one that must be given is missing.
    """
    from jaxrl_srpo.cli import setting_flags

    values, methods = flags.FlagValues(), setting_flags.methods_for_flags(arguments)
    _define_sweep(values)
    _define_devices(values)
    usage = f"usage: jaxrl-srpo {command} --datasets=NAME_OR_PATH,... --out=RUN_DIR [--FLAG=VALUE ...]"
    full = "--helpfull" in arguments
    if full or asks_for_help(arguments):
        settings = setting_flags.settings_help(methods) if full else _SETTINGS_NOTE.format(command=command)
        print(help_text(usage, values, f"{setting_flags.presets_help(methods, full)}\n\n{settings}"))
        return None
    setting_flags.define_settings(values, methods)
    refuse_rest(values(["jaxrl-srpo", *arguments])[1:], f"{command} takes flags only")
    for name in ("datasets", "out"):
        if not values[name].value:
            raise UserError(f"--{name}: is required; for instance --datasets=pointmaze/umaze --out=runs/umaze")
    return values


_OWN_ENVIRONMENT = "; module:ID imports the module that registers it"
_SETTINGS_NOTE = """\
Every setting of a method is a flag of its own, for instance --beta=0.05,0.1 or --policy_steps=20000;
`jaxrl-srpo {command} --helpfull` lists them all, by method, with the values of the presets."""


def _define_sweep(values: flags.FlagValues) -> None:
    text = flags.DEFINE_string
    text("datasets", None, "Comma-separated names or paths.", flag_values=values)
    flags.DEFINE_alias("dataset", "datasets", flag_values=values)
    text("seeds", "0:4", "Seeds: a range 0:4, or a list 0,1,5.", flag_values=values)
    text(
        "algorithm",
        "srpo",
        "Methods to train, see `jaxrl-srpo methods`; all: every one that has the preset and fits the settings; one of "
        "your own as package.module:METHOD, which is imported.",
        flag_values=values,
    )
    text("preset", "quick", "Set of values for all settings; those of each method are below.", flag_values=values)
    text("out", None, "Run directory; one that holds a part of this sweep is continued.", flag_values=values)
    text("env", None, f"Gymnasium id to evaluate in, for data that names none{_OWN_ENVIRONMENT}.", flag_values=values)
    text("artefacts", None, "Directory of finished stages shared between runs.", flag_values=values)
    text("mirror", None, "The only servers to ask for D4RL files, comma-separated.", flag_values=values)
    text("track", "", "Live curves in RUN_DIR: tensorboard, wandb, or both.", flag_values=values)
    flags.DEFINE_enum(
        "strategy", "auto", ["auto", "vmap", "map"], "Members batched (vmap) or in turn (map).", flag_values=values
    )
    flags.DEFINE_boolean("evaluate", True, "Evaluate in the environment.", flag_values=values)
    flags.DEFINE_boolean("allow_invalid_data", False, "Train on data that failed its checks.", flag_values=values)
    define_drop_reset_rows(values)
    define_seconds(values, "checkpoint_seconds", 60.0, "Least time between two checkpoints.", 0.0)
    flags.DEFINE_integer(
        "members_per_population", 0, "Most members trained together; 0: all that can be.", 0, flag_values=values
    )
    flags.DEFINE_float(
        "budget", 1.0, "Share of the preset's updates, evaluations closer together likewise.", flag_values=values
    )


def _define_own_methods(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "algorithm", "", "Methods of your own that the run holds, as package.module:METHOD.", flag_values=values
    )


def _sweep_arguments(values: flags.FlagValues, arguments: Sequence[str]) -> dict[str, Any]:
    """The arguments of `api.train` and `api.prepare`."""
    from jaxrl_srpo.cli import setting_flags

    given = setting_flags.given_settings(values, setting_flags.methods_for_flags(arguments))
    return {
        "datasets": _words(values.datasets),
        "out": values.out,
        "seeds": parse_seeds(values.seeds),
        "preset": values.preset,
        "options": _options(values),
        "algorithm": _words(values.algorithm),
        "budget": values.budget,
        **given,
    }


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _define_devices(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "cpu_devices",
        0,
        "JAX devices to make of this CPU; 0: one per core, or per behavior model if there are fewer.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of the first of several processes that train together; auto on SLURM and TPU pods.",
        flag_values=values,
    )
    flags.DEFINE_integer("num_processes", None, "How many processes train together.", 1, 100_000, flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", 0, flag_values=values)


def _join_hosts(values: flags.FlagValues, side_by_side: int) -> None:
    """Makes one device per core, or per member that can be trained side by side, unless the flags say how many."""
    from jaxrl_srpo.runs import devices, distributed

    # A member trained alone is nearly twice as fast on one device that has all cores as on one that has its own.
    devices.prepare_jax(values.cpu_devices or min(side_by_side, usable_cores()))
    distributed.join(values.coordinator_address, values.num_processes, values.process_id)


def _options(values: flags.FlagValues) -> Any:
    from jaxrl_srpo.runs.options import Options

    return Options(
        artefacts=pathlib.Path(values.artefacts) if values.artefacts else None,
        environment=values.env,
        evaluate=values.evaluate,
        allow_invalid_data=values.allow_invalid_data,
        drop_reset_rows=values.drop_reset_rows,
        mirror=values.mirror,
        strategy=values.strategy,
        checkpoint_seconds=values.checkpoint_seconds,
        members_per_population=values.members_per_population,
        track=tuple(_words(values.track)),
    )


def _evaluate(arguments: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_integer("episodes", None, "Episodes per member; as trained by default.", 1, flag_values=values)
    flags.DEFINE_string("artefacts", None, "Directory of finished stages, if the run used one.", flag_values=values)
    flags.DEFINE_string("env", None, f"Gymnasium id, for data that names none{_OWN_ENVIRONMENT}.", flag_values=values)
    _define_own_methods(values)
    rest = parse_command(values, arguments, "evaluate RUN_DIR [--FLAG=VALUE ...]")
    if rest is None:
        return
    run_dir = one_argument(rest, "evaluate", "RUN_DIR")
    from jaxrl_srpo import api, report
    from jaxrl_srpo.runs.devices import prepare_jax

    prepare_jax(1)
    artefacts = pathlib.Path(values.artefacts) if values.artefacts else None
    rows = api.evaluate(run_dir, values.episodes, artefacts, algorithm=_words(values.algorithm), environment=values.env)
    print(report.format_table(rows))


def _methods(arguments: list[str]) -> None:
    values = flags.FlagValues()
    _define_own_methods(values)
    rest = parse_command(values, arguments, "methods [--algorithm=package.module:METHOD]")
    if rest is None:
        return
    refuse_rest(rest, "methods takes flags only")
    from jaxrl_srpo.cli.methods_page import methods_page
    from jaxrl_srpo.methods import METHODS, find_method

    print(methods_page([*METHODS, *(find_method(name) for name in _words(values.algorithm))]), end="")


def _report(arguments: list[str]) -> None:
    rest = parse_command(flags.FlagValues(), arguments, "report RUN_DIR")
    if rest is None:
        return
    run_dir = one_argument(rest, "report", "RUN_DIR")
    from jaxrl_srpo import report

    paths = report.write_report(run_dir)
    print(report.format_table(report.collect(run_dir)))
    for path in paths:
        print(f"wrote {path}")


def _verify(arguments: list[str]) -> None:
    rest = parse_command(flags.FlagValues(), arguments, "verify RUN_DIR")
    if rest is None:
        return
    run_dir = one_argument(rest, "verify", "RUN_DIR")
    from jaxrl_srpo.runs.verify import verify

    verdict = verify(run_dir)
    for problem in verdict.problems:
        print(" ".join(problem.split()))
    if verdict.problems:
        raise UserError(f"{run_dir}: damaged in {len(verdict.problems)} places, which are named above")
    print(verdict.whole)


def _watch(arguments: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_boolean("once", False, "Print one snapshot of all members and end.", flag_values=values)
    define_seconds(values, "interval", 2.0, "Seconds between two looks at the files.", 0.1)
    _define_own_methods(values)
    rest = parse_command(values, arguments, "watch RUN_DIR [--FLAG=VALUE ...]")
    if rest is None:
        return
    run_dir = one_argument(rest, "watch", "RUN_DIR")
    from jaxrl_srpo.monitor.watch import watch
    from jaxrl_srpo.runs.workers import own_methods

    watch(run_dir, values.once, values.interval, own_methods(_words(values.algorithm)))


def _export(arguments: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("to", "tensorboard", "tensorboard, wandb, or both.", flag_values=values)
    flags.DEFINE_boolean("follow", False, "Go on with new rows until interrupted.", flag_values=values)
    _define_own_methods(values)
    rest = parse_command(values, arguments, "export RUN_DIR [--FLAG=VALUE ...]")
    if rest is None:
        return
    run_dir = one_argument(rest, "export", "RUN_DIR")
    from jaxrl_srpo.monitor import trackers
    from jaxrl_srpo.runs.workers import own_methods

    names = parse_words("to", values.to, tuple(trackers.TRACKERS))
    for place in trackers.export(run_dir, names, values.follow, own_methods(_words(values.algorithm))):
        print(f"wrote {place}")
