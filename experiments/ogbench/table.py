"""Single tasks of OGBench (arXiv 2410.20092) by the protocol of arXiv 2502.02538, as one sweep.

    python -m experiments.ogbench.table --make --families=cube-single-play --out=runs/cube-single
    python -m experiments.ogbench.table --families=scene-play --tasks=2 --seeds=0:4 --budget=0.1 --out=runs/scene

The first makes the data if they are not here, and trains five tasks x 8 seeds x four methods. The five tasks of a
family share their behavior models. Killed and started again, it goes on where it was.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrl_srpo import api
from jaxrl_srpo.data import ogbench, ogbench_tasks
from jaxrl_srpo.envs.ogbench_making import make_dataset
from jaxrl_srpo.errors import DatasetError, UserError
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.report.ogbench_table import write_ogbench_table
from jaxrl_srpo.runs.options import Options

from .. import common

MODULE = "ogbench.table"
DESCRIPTION = """\
Trains methods on single tasks of OGBench and writes RUN_DIR/report/ogbench_table.md, .csv and .tex; RUN_DIR is the
directory of --out."""
ALGORITHMS = ("srpo", "iql", "awac", "td3_bc")


def names_of(families: Sequence[str], tasks: Sequence[str], folder: str = "") -> list[str]:
    """The datasets of tasks by family.

    Args:
      families: such as `cube-single-play`, or with `-100m`.
      tasks: numbers 1 to 5, as text.
      folder: where their files lie; "" looks in OGBench's folders.

    Raises:
      UserError: there is no such family or task.
    """
    found = []
    for family in families:
        for task in tasks:
            name = f"{family}-singletask-task{task}-v0"
            if ogbench_tasks.parse(name) is None:
                raise UserError(
                    f"--families={family}, --tasks={task}: {name} is no task of OGBench; families are like "
                    f"cube-single-play, tasks 1 to {ogbench_tasks.TASKS}"
                )
            found.append(str(pathlib.Path(folder, name)) if folder else name)
    return found


def missing(names: Sequence[str]) -> list[str]:
    """The files of datasets that are not here, by name."""
    absent: list[str] = []
    for given in names:
        name = ogbench.find_name(given)
        assert name is not None
        try:
            ogbench.find_files(given, name)
        except DatasetError:
            absent.append(name.file)
    return list(dict.fromkeys(absent))


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """Settings given as NAME=VALUE, values as in JSON or plain words.

    Raises:
      UserError: a word is not of this form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UserError(f"--settings={word}: give NAME=VALUE, such as critic_width=256")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return
    values = line.values
    names = names_of(values.families, values.tasks, values.folder)
    for file in missing(names) if values.make else ():
        made = make_dataset(f"ogbench/{file}", out=values.folder or None)
        print_message("\n".join(made.lines))
    options = Options(artefacts=line.artefacts, members_per_population=values.members_per_population)
    overrides = settings_of(values.settings) | ({"beta": line.betas} if line.betas else {})
    api.train(
        names,
        out,
        line.seeds,
        values.preset,
        options,
        algorithm=values.algorithm,
        budget=values.budget,
        **overrides,
    )
    paths = write_ogbench_table(out, out / "report")
    print(paths[0].read_text())
    print("\n".join(f"wrote {path}" for path in paths))


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, "Run directory; one that holds a part of this sweep is continued.")
    line.words("families", ["cube-single-play"], "Families of tasks, such as cube-single-play,scene-play.")
    line.words("tasks", [str(number + 1) for number in range(ogbench_tasks.TASKS)], "Numbers of tasks.")
    line.words("algorithm", list(ALGORITHMS), "Methods.")
    line.text("folder", "", "Where the .npz files lie; OGBench's folders otherwise.")
    line.define_seeds("0:8")
    line.define_preset("ogbench", ["ogbench", "quick"])
    line.define_budget()
    line.define_betas([], "Betas of SRPO; 0.05 otherwise.")
    line.words("settings", [], "Values in place of the preset's: critic_width=256,episodes=20.")
    line.define_artefacts()
    line.whole("members_per_population", 0, "Most members trained together; 0: all that can be.", 0)
    line.switch("make", "Make the data that are not here, first.")
    return line


if __name__ == "__main__":
    common.run(MODULE, main, continues=True)
