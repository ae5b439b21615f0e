"""Commands that train: `train`, `prepare` and `work`."""

import pathlib
from typing import Any

from absl import flags

from jaxrl_srpo.cli.command import OWN_ENVIRONMENT, Command, define_own_methods, words
from jaxrl_srpo.cli.command_line import (
    define_drop_reset_rows,
    define_seconds,
    one_argument,
    refuse_rest,
)
from jaxrl_srpo.data.names import parse_seeds
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import usable_cores


def _train(values: flags.FlagValues, rest: list[str]) -> None:
    _check(values, rest, "train")
    models = len(words(values.datasets)) * len(parse_seeds(values.seeds))
    _join_hosts(values, min(models, values.members_per_population or models))
    from jaxrl_srpo import api, report

    rows = api.train(**_sweep_arguments(values))
    if rows:
        print(report.format_table(rows))
        print(f"report: {pathlib.Path(values.out) / 'report'}")


def _prepare(values: flags.FlagValues, rest: list[str]) -> None:
    _check(values, rest, "prepare")
    if values.track:
        raise UserError("--track: is for train; `jaxrl-srpo export RUN_DIR --follow` does it beside workers")
    from jaxrl_srpo import api
    from jaxrl_srpo.runs.devices import prepare_jax

    prepare_jax(values.cpu_devices)

    api.prepare(**_sweep_arguments(values))
    own = [name for name in words(values.algorithm) if ":" in name]
    again = f" --algorithm={','.join(own)}" if own else ""
    again += f" --env={values.env}" if ":" in (values.env or "") else ""
    print(f"prepared; train it with any number of `jaxrl-srpo work {values.out}{again}`")


def _work(values: flags.FlagValues, rest: list[str]) -> None:
    run_dir, own = one_argument(rest, "work", "RUN_DIR"), words(values.algorithm)
    from jaxrl_srpo import report
    from jaxrl_srpo.runs import workers

    _join_hosts(values, workers.side_by_side(run_dir, own))
    rows = workers.work(run_dir, algorithm=own, environment=values.env)
    if rows:
        print(report.format_table(rows))


def _check(values: flags.FlagValues, rest: list[str], command: str) -> None:
    """Refuses other arguments than flags, and a sweep without datasets or a place."""
    refuse_rest(rest, f"{command} takes flags only")
    for name in ("datasets", "out"):
        if not values[name].value:
            raise UserError(f"--{name}: is required; for instance --datasets=pointmaze/umaze --out=runs/umaze")


def _define_sweep(values: flags.FlagValues) -> None:
    text = flags.DEFINE_string
    text("datasets", None, "Comma-separated names or paths.", flag_values=values)
    text(
        "config",
        None,
        "JSON or YAML file of flags, or a run's sweep.json.",
        flag_values=values,
    )
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
    text("env", None, f"Gymnasium id to evaluate in, for data that names none{OWN_ENVIRONMENT}.", flag_values=values)
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
    _define_devices(values)


def _define_work(values: flags.FlagValues) -> None:
    define_own_methods(values)
    _define_devices(values)
    flags.DEFINE_string("env", None, f"The run's environment{OWN_ENVIRONMENT}.", flag_values=values)


def _sweep_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """The arguments of `api.train` and `api.prepare`."""
    from jaxrl_srpo.cli import setting_flags

    given = setting_flags.given_settings(values, setting_flags.methods_for_flags([f"--algorithm={values.algorithm}"]))
    return {
        "datasets": words(values.datasets),
        "out": values.out,
        "seeds": parse_seeds(values.seeds),
        "preset": values.preset,
        "options": _options(values),
        "algorithm": words(values.algorithm),
        "budget": values.budget,
        **given,
    }


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
        track=tuple(words(values.track)),
    )


_GROUPS = {
    "What is trained": ("datasets", "seeds", "algorithm", "preset", "budget", "config", "out"),
    "Data": ("env", "mirror", "allow_invalid_data", "drop_reset_rows"),
    "How it runs": (
        "evaluate",
        "track",
        "artefacts",
        "checkpoint_seconds",
        "members_per_population",
        "strategy",
        "cpu_devices",
    ),
    "Several processes that train together": ("coordinator_address", "num_processes", "process_id"),
}
TRAIN = Command("train", "", "train a sweep and evaluate it", _define_sweep, _train, _GROUPS, settings=True)
PREPARE = Command(
    "prepare",
    "",
    "the same, but train nothing: workers will, see docs/clusters.md",
    _define_sweep,
    _prepare,
    _GROUPS,
    settings=True,
)
WORK = Command("work", "RUN_DIR", "train what a run lacks, beside any other workers", _define_work, _work)
