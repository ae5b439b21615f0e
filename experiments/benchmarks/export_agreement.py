"""Exported policies beside JAX on many observations: `python -m experiments.benchmarks.export_agreement --run=RUN_DIR`.

Prints a table in Markdown, a row for every policy of the run and every format that can hold it.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export.loading import FilePolicy
from jaxrl_srpo.export.metadata import Format
from jaxrl_srpo.export.program import program_of
from jaxrl_srpo.export.writing import WRITERS, Agreement, compare, describe
from jaxrl_srpo.runs.policies import find
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import stages_of

FORMATS: tuple[Format, ...] = ("onnx", "stablehlo", "npz")


class Compared(NamedTuple):
    """A policy in a format, and how it agrees with JAX."""

    algorithm: str
    format: Format
    agreement: Agreement


def compared(run: RunDirectory, count: int) -> Iterator[Compared]:
    """Every acting stage of a run in every format that can hold it, on `count` observations."""
    for stage in stages_of(run.members()):
        if not stage.acts:
            continue
        found = find(run.path, algorithm=stage.algorithm, log=lambda message: None)
        facts = found.run.facts()[found.member.dataset]
        program = program_of(stage, found.policy(), facts.units, facts.observation_size, facts.action_size)
        for format in FORMATS:
            try:
                content = WRITERS[format](program, describe(found, facts, program, format))
            except UserError:
                # An npz file holds deterministic networks alone.
                continue
            yield Compared(stage.algorithm, format, compare(program, FilePolicy(content, format), count))


def row(one: Compared) -> str:
    """A row in Markdown."""
    own = one.agreement
    return f"| {one.algorithm} | {one.format} | {own.largest:.1e} | {own.tolerance:.1e} | {own.elsewhere:.2%} |"


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_string("run", None, "Run directory.", flag_values=values)
    flags.DEFINE_integer("observations", 10_000, "Random observations.", 1, flag_values=values)
    values(["export_agreement", *arguments])
    if not values.run:
        raise SystemExit("--run: is required; give a run directory")
    print("| algorithm | format | largest difference | allowed | another choice |\n|---|---|---|---|---|")
    for one in compared(RunDirectory(pathlib.Path(values.run)), values.observations):
        print(row(one), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
