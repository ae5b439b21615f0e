"""What the experiments share: command lines, entry points, and tables."""

import csv
import io
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from absl import flags

from jaxrl_srpo.cli.command_line import exit_with, parse_experiment, parse_numbers
from jaxrl_srpo.data.names import parse_seeds
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import keep_sums_in_order
from jaxrl_srpo.report.table import markdown_line
from jaxrl_srpo.runs.devices import prepare_jax


class CommandLine:
    """The flags of an experiment, `--out` among them, and the values that a command gives them.

    Args:
      module: where it is, for instance `d4rl.table`; messages call it so.
      description: what `--help` says below the usage.
      out: what `--out` is.
      required: other flags that must be given, as the usage shows them.

    Attributes:
      values: values by flag; the defaults before `parse`.
    """

    def __init__(
        self, module: str, description: str, out: str = "Directory of the results.", required: str = ""
    ) -> None:
        self.values = flags.FlagValues()
        self._name = module.replace(".", "/")
        given = f"{required} --out=DIRECTORY".strip()
        self._usage = f"usage: python -m experiments.{module} {given} [--FLAG=VALUE ...]\n\n{description}"
        self.text("out", None, out)

    def text(self, name: str, default: str | None, help: str) -> None:
        """Defines a flag that takes a word."""
        flags.DEFINE_string(name, default, help, flag_values=self.values)

    def words(self, name: str, default: Sequence[str] | None, help: str) -> None:
        """Defines a flag that takes a comma-separated list."""
        flags.DEFINE_list(name, None if default is None else list(default), help, flag_values=self.values)

    def choice(self, name: str, default: str, choices: Sequence[str], help: str) -> None:
        """Defines a flag that takes one of several words."""
        flags.DEFINE_enum(name, default, list(choices), help, flag_values=self.values)

    def whole(
        self, name: str, default: int | None, help: str, minimum: int | None = None, maximum: int | None = None
    ) -> None:
        """Defines a flag that takes a whole number."""
        flags.DEFINE_integer(name, default, help, minimum, maximum, flag_values=self.values)

    def number(self, name: str, default: float | None, help: str, minimum: float | None = None) -> None:
        """Defines a flag that takes a number."""
        flags.DEFINE_float(name, default, help, minimum, flag_values=self.values)

    def switch(self, name: str, help: str) -> None:
        """Defines a flag that is off unless given."""
        flags.DEFINE_boolean(name, False, help, flag_values=self.values)

    def define_datasets(self, default: str = "", help: str = "Comma-separated names or paths.") -> None:
        """Defines `--datasets`; see `datasets`."""
        self.text("datasets", default, help)

    def define_seeds(self, default: str) -> None:
        """Defines `--seeds`; see `seeds`."""
        self.text("seeds", default, "Seeds: a range 0:4, or a list 0,1,5.")

    def define_preset(self, default: str, choices: Sequence[str], help: str = "See jaxrl-srpo train --help.") -> None:
        """Defines `--preset`."""
        self.choice("preset", default, choices, help)

    def define_budget(self) -> None:
        """Defines `--budget`."""
        self.number("budget", 1.0, "Share of the preset's updates.")

    def define_betas(self, default: Sequence[str] | None, help: str) -> None:
        """Defines `--beta`; see `betas`."""
        self.words("beta", default, help)

    def define_artefacts(self, help: str = "Directory of finished stages shared between runs.") -> None:
        """Defines `--artefacts`; see `artefacts`."""
        self.text("artefacts", None, help)

    def parse(self, arguments: Sequence[str]) -> pathlib.Path | None:
        """Takes the values of a command; returns its `--out`, or None after printing help.

        Raises:
          UserError: for anything but flags, or for an `--out` that is missing or a file.
          flags.Error: for bad flags.
        """
        return parse_experiment(self.values, self._name, self._usage, arguments)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names or paths of `--datasets`.

        Raises:
          UserError: there are none.
        """
        names = tuple(name for name in self.values.datasets.split(",") if name)
        if not names:
            raise UserError("--datasets: is required; for instance --datasets=pointmaze/umaze")
        return names

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of `--seeds`.

        Raises:
          UserError: it is neither a range nor a list.
        """
        return parse_seeds(self.values.seeds)

    @property
    def betas(self) -> tuple[float, ...]:
        """The numbers of `--beta`; empty if it was not given.

        Raises:
          UserError: one of them is no number.
        """
        return parse_numbers("beta", self.values.beta) if self.values.beta else ()

    @property
    def artefacts(self) -> pathlib.Path | None:
        """The directory of `--artefacts`; None if it was not given."""
        return pathlib.Path(self.values.artefacts) if self.values.artefacts else None


def run(
    module: str,
    main: Callable[[Sequence[str]], object],
    prepare: Callable[[], object] = prepare_jax,
    continues: bool = False,
) -> NoReturn:
    """Entry point of an experiment; exits with 0, with 2 after bad input, or with 130 after an interrupt.

    Args:
      module: module of the experiment, for instance `d4rl.table`.
      main: gets the arguments of the command line.
      prepare: called before anything is computed.
      continues: whether the same command goes on where it was interrupted.
    """
    interrupted = "interrupted; the same command continues" if continues else "interrupted"

    def prepared(arguments: Sequence[str]) -> None:
        keep_sums_in_order(os.environ)
        prepare()
        main(arguments)

    exit_with(module, prepared, sys.argv[1:], interrupted)


def format_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], digits: int | None = 5) -> str:
    """Rows as CSV with a header.

    Args:
      columns: names of the columns.
      rows: values by column; None is written as nothing.
      digits: significant digits of floating-point numbers; None for all of them.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _csv_cell(value, digits) for name, value in row.items()})
    return text.getvalue()


def _csv_cell(value: Any, digits: int | None) -> Any:
    return f"{value:.{digits}g}" if isinstance(value, float) and digits is not None else value


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a Markdown table; the first `words` columns are read from the left, the others are numbers."""
    rule = "|---" * words + "|--:" * (len(titles) - words) + "|"
    return [markdown_line(titles), rule, *(markdown_line(row) for row in rows)]


def mean_cell(values: Sequence[float] | np.ndarray, spread: float | np.ndarray, digits: int) -> str:
    """`mean ± spread`; the mean alone where the spread is NaN."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if math.isnan(spread) else f"{mean} ± {spread:.{digits}f}"


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
