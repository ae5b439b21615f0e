"""Tables for LaTeX."""

from collections.abc import Sequence


def tabular(columns: str, titles: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a tabular for `booktabs`.

    Args:
      columns: a letter for the alignment of each.
      titles: of the columns.
      cells: the rows.
    """

    def line(row: Sequence[str]) -> str:
        return " & ".join(map(escaped, row)) + " \\\\"

    rules = ["\\toprule", line(titles), "\\midrule", *map(line, cells), "\\bottomrule"]
    return [f"\\begin{{tabular}}{{{columns}}}", *rules, "\\end{tabular}"]


def escaped(text: str) -> str:
    """Text as LaTeX takes it."""
    return text.replace(" ± ", " $\\pm$ ").replace("_", "\\_")
