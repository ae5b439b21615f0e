"""Commands on a run directory: `evaluate`, `report`, `watch`, `export` and `verify`."""

import pathlib

from absl import flags

from jaxrl_srpo.cli.command import OWN_ENVIRONMENT, Command, define_own_methods, no_flags, words
from jaxrl_srpo.cli.command_line import define_seconds, one_argument, parse_words
from jaxrl_srpo.errors import UserError


def _define_evaluate(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("episodes", None, "Episodes per member; as trained by default.", 1, flag_values=values)
    flags.DEFINE_string("artefacts", None, "Directory of finished stages, if the run used one.", flag_values=values)
    flags.DEFINE_string("env", None, f"Gymnasium id, for data that names none{OWN_ENVIRONMENT}.", flag_values=values)
    define_own_methods(values)


def _evaluate(values: flags.FlagValues, rest: list[str]) -> None:
    run_dir = one_argument(rest, "evaluate", "RUN_DIR")
    from jaxrl_srpo import api, report
    from jaxrl_srpo.runs.devices import prepare_jax

    prepare_jax(1)
    artefacts = pathlib.Path(values.artefacts) if values.artefacts else None
    rows = api.evaluate(run_dir, values.episodes, artefacts, algorithm=words(values.algorithm), environment=values.env)
    print(report.format_table(rows))


def _define_report(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "Directory for the page of several runs.", flag_values=values)


def _report(values: flags.FlagValues, rest: list[str]) -> None:
    from jaxrl_srpo import report

    if len(rest) > 1:
        if not values.out:
            raise UserError("--out: is required with several runs; for instance --out=comparison")
        print(f"wrote {report.compare_runs(rest, values.out)}")
        return
    run_dir = one_argument(rest, "report", "RUN_DIR")
    if values.out:
        raise UserError("--out: is for several runs; the report of one run goes into its own report/")
    paths = report.write_report(run_dir)
    print(report.format_table(report.collect(run_dir)))
    for path in paths:
        print(f"wrote {path}")


def _verify(values: flags.FlagValues, rest: list[str]) -> None:
    run_dir = one_argument(rest, "verify", "RUN_DIR")
    from jaxrl_srpo.runs.verify import verify

    verdict = verify(run_dir)
    for problem in verdict.problems:
        print(" ".join(problem.split()))
    if verdict.problems:
        raise UserError(f"{run_dir}: damaged in {len(verdict.problems)} places, which are named above")
    print(verdict.whole)


def _define_watch(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean("once", False, "Print one snapshot of all members and end.", flag_values=values)
    define_seconds(values, "interval", 2.0, "Seconds between two looks at the files.", 0.1)
    define_own_methods(values)


def _watch(values: flags.FlagValues, rest: list[str]) -> None:
    run_dir = one_argument(rest, "watch", "RUN_DIR")
    from jaxrl_srpo.monitor.watch import watch
    from jaxrl_srpo.runs.workers import own_methods

    watch(run_dir, values.once, values.interval, own_methods(words(values.algorithm)))


def _define_export(values: flags.FlagValues) -> None:
    flags.DEFINE_string("to", "tensorboard", "tensorboard, wandb, or both.", flag_values=values)
    flags.DEFINE_boolean("follow", False, "Go on with new rows until interrupted.", flag_values=values)
    define_own_methods(values)


def _export(values: flags.FlagValues, rest: list[str]) -> None:
    run_dir = one_argument(rest, "export", "RUN_DIR")
    from jaxrl_srpo.monitor import trackers
    from jaxrl_srpo.runs.workers import own_methods

    names = parse_words("to", values.to, tuple(trackers.TRACKERS))
    for place in trackers.export(run_dir, names, values.follow, own_methods(words(values.algorithm))):
        print(f"wrote {place}")


EVALUATE = Command("evaluate", "RUN_DIR", "evaluate the policies of a run again", _define_evaluate, _evaluate)
REPORT = Command(
    "report",
    "RUN_DIR",
    "write its tables, pictures and page again; of several runs one page: RUN_DIR RUN_DIR --out=DIR",
    _define_report,
    _report,
)
WATCH = Command("watch", "RUN_DIR", "show all members while they train, here or elsewhere", _define_watch, _watch)
EXPORT = Command("export", "RUN_DIR", "give its curves to TensorBoard or Weights & Biases", _define_export, _export)
VERIFY = Command("verify", "RUN_DIR", "say which of its files are damaged", no_flags, _verify)
