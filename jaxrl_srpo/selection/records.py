"""What `select` keeps: a row for each policy, and which of them were chosen."""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import sealed
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.runs.policies import Policy, load_policy

EPISODES = "episodes"
"""What ranks policies that were played."""
SCORES: Mapping[str, str] = {
    "supported": "value by fitted Q evaluation where the data speak of the policy; the others come last",
    "fqe": "value by fitted Q evaluation: Q of the policy at the first states of episodes",
    "one_step": "what it gains over the data in one step, by the Q of the data's own policy",
    "critic": "its own critic's value at the first states",
    "cloning": "closeness to the data's actions, minus the mean squared distance",
    "ess": "share of the data that speaks of it, by kernel weights",
}
"""What policies may be ranked by without an environment; more is better."""


_GUESS = (
    "  a guess, as no score without the environment is reliable; --episodes=100 plays and knows (docs/selecting.md)"
)
_OTHERS = [name for name in SCORES if name != "fqe"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One policy and its scores; NaN where there is none.

    Attributes:
      dataset: name in the table.
      algorithm: word of the policy, as in `evaluations.csv`.
      seed: of the member.
      setting: swept settings other than beta, as `expectile=0.9`, ';' between them.
      beta: temperature; None where the policy does not depend on it.
      fqe: value by fitted Q evaluation, in the rewards that the run learned from, discounted.
      fqe_low: lower end of its 95% interval over first states.
      fqe_high: upper end.
      supported: the same value if the data speak of the policy enough to believe it, see `scores.supported`.
      one_step: gain over the data in one step, in the same units.
      critic: value by its own critic.
      cloning: minus the mean squared distance to the data's actions.
      ess: effective share of the data.
      episodes: episodes that the bandit played of it.
      mean: their mean, in `metric`.
      metric: of `mean`; empty where nothing was played.
      note: what is doubtful.
    """

    dataset: str
    algorithm: str
    seed: int
    setting: str
    beta: float | None
    fqe: float = math.nan
    fqe_low: float = math.nan
    fqe_high: float = math.nan
    supported: float = math.nan
    one_step: float = math.nan
    critic: float = math.nan
    cloning: float = math.nan
    ess: float = math.nan
    episodes: int = 0
    mean: float = math.nan
    metric: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """The policy without its dataset, for instance `srpo seed=0 beta=0.1`."""
        beta = "" if self.beta is None else f"beta={self.beta:g}"
        return " ".join(part for part in (self.algorithm, f"seed={self.seed}", beta, *self.setting.split(";")) if part)

    def call(self, run_dir: object) -> str:
        """The Python call that loads the policy."""
        numbers = [f"beta={self.beta!r}"] if self.beta is not None else []
        numbers += [part for part in self.setting.split(";") if part]
        given = [f'"{run_dir}"', f'"{self.dataset}"', f"seed={self.seed}", *numbers, f'algorithm="{self.algorithm}"']
        return f"jaxrl_srpo.load_policy({', '.join(given)})"


@dataclasses.dataclass(frozen=True)
class Selection:
    """The policies of a run in the order of preference, dataset by dataset.

    Attributes:
      run_dir: of the run.
      rows: all policies, the best of each dataset first.
      by: the score that ranks them, one of `SCORES`, or `EPISODES`.
    """

    run_dir: pathlib.Path
    rows: tuple[Row, ...]
    by: str

    @property
    def chosen(self) -> dict[str, Row]:
        """The policy in use for each dataset."""
        return {row.dataset: row for row in reversed(self.rows)}

    def load(self, dataset: str | None = None, **options: Any) -> Policy:
        """The chosen policy; of the only dataset by default.

        Args:
          dataset: name in the table.
          **options: `algorithm` for a method of a user's own and `artefacts`, see `load_policy`.

        Raises:
          UserError: the run has several datasets, or another one.
        """
        names = list(self.chosen)
        if dataset is None and len(names) == 1:
            dataset = names[0]
        if dataset not in names:
            raise UserError(f"dataset {dataset}: choose one of {', '.join(names)}")
        row = self.chosen[dataset]
        parts = (part.split("=") for part in row.setting.split(";") if part)
        settings: dict[str, Any] = {name: float(value) for name, value in parts}
        named: dict[str, Any] = {"algorithm": row.algorithm} | options
        return load_policy(self.run_dir, dataset=dataset, seed=row.seed, beta=row.beta, **named, **settings)


def ranked(rows: Sequence[Row], by: str) -> list[Row]:
    """Rows by dataset, the best first; those without the score last, in their order.

    Args:
      rows: of any datasets.
      by: name of a field, more is better; `EPISODES` stands for their mean.
    """
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    field = "mean" if by == EPISODES else by

    def place(row: Row) -> tuple[int, bool, float]:
        value = getattr(row, field)
        return datasets.index(row.dataset), math.isnan(value), -value

    return sorted(rows, key=place)


def write_selection(selection: Selection, settings: Mapping[str, Any]) -> list[pathlib.Path]:
    """Writes `selection.csv` and `selection.json` into the run directory; returns their paths."""
    table, facts = (selection.run_dir / name for name in ("selection.csv", "selection.json"))
    columns = [field.name for field in dataclasses.fields(Row)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["rank", *columns], lineterminator="\n")
    writer.writeheader()
    for rank, row in _with_ranks(selection.rows):
        writer.writerow({"rank": rank} | {name: _cell(getattr(row, name)) for name in columns})
    write_atomically(table, text.getvalue())
    chosen = {name: {"policy": row.name, "load": row.call(selection.run_dir)} for name, row in selection.chosen.items()}
    write_atomically(facts, sealed.text_of({"by": selection.by, "settings": dict(settings), "chosen": chosen}))
    return [table, facts]


def format_selection(selection: Selection) -> str:
    """The table for a terminal, and how to load what was chosen."""
    lines: list[str] = []
    played = any(row.episodes for row in selection.rows)
    for dataset, first in selection.chosen.items():
        rows = [(rank, row) for rank, row in _with_ranks(selection.rows) if row.dataset == dataset]
        titles = [dataset, *(["episodes", "mean"] if played else []), "FQE value [95%]", *_OTHERS, "rank"]
        cells = [[row.name, *_played(row, played), _interval(row), *_others(row), str(rank)] for rank, row in rows]
        lines += _aligned([titles, *cells])
        lines += [f"{row.name}: {row.note}" for _, row in rows if row.note]
        how = "the highest mean of its episodes" if selection.by == EPISODES else f"the highest {selection.by}"
        lines += ["", f"chosen: {first.name}, {how}", f"  {first.call(selection.run_dir)}"]
        lines += [""] if selection.by == EPISODES else [_GUESS, ""]
    return "\n".join(lines).rstrip()


def _with_ranks(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """Each row with its place in its dataset, from 1."""
    count: dict[str, int] = {}
    found = []
    for row in rows:
        count[row.dataset] = count.get(row.dataset, 0) + 1
        found.append((count[row.dataset], row))
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def _played(row: Row, played: bool) -> list[str]:
    return [str(row.episodes), _number(row.mean)] if played else []


def _interval(row: Row) -> str:
    return _number(row.fqe) + ("" if math.isnan(row.fqe_low) else f" [{row.fqe_low:.4g}, {row.fqe_high:.4g}]")


def _others(row: Row) -> list[str]:
    return ["yes" if math.isfinite(row.supported) else "no", *(_number(getattr(row, name)) for name in _OTHERS[1:])]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column is read from the left and whose others are numbers."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
