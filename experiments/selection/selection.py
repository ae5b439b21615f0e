"""Which score, and how many episodes, find the best policy of a population.

    python -m experiments.selection.selection --run=runs/hopper,runs/halfcheetah --out=docs/results/selection

Plays every policy of finished runs of one dataset each, so that the true means are known; then compares what
`jaxrl-srpo select` says of them, without the environment and with few episodes, which are drawn from those played.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.selection.bandit import PULLS_AT_ONCE
from jaxrl_srpo.selection.choosing import select
from jaxrl_srpo.selection.records import SCORES

from .. import common
from . import measures
from .measures import Interval
from .truth import Truth, play_all

MODULE = "selection.selection"
DESCRIPTION = "Writes DIRECTORY/selection.md, .csv and .png, and what was played, by which the same command goes on."
BUDGETS = (50, 100, 200)
PRIORS = ("fqe", "supported")


class Population(NamedTuple):
    """A run with what is true of its policies and what is said of them.

    Attributes:
      truth: returns of P policies.
      scores: [P] by name.
      curves: regret [repeats, episodes] by way of spending episodes.
    """

    truth: Truth
    scores: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]


def measure(run_dir: pathlib.Path, episodes: int, repeats: int, out: pathlib.Path, settings: Any) -> Population:
    """Plays and scores the policies of a run, and spends episodes on them again and again."""
    truth = play_all(run_dir, episodes, out / f"returns_{run_dir.name}.json")
    rows = {row.name: row for row in select(run_dir, **settings).rows}
    # A name without its dataset is what both sides have.
    names = [name.replace(f" {truth.dataset} ", " ") for name in truth.names]
    scores = {score: np.array([getattr(rows[name], score) for name in names]) for score in SCORES}
    ways = measures.spendings(truth.returns, {name: scores[name] for name in PRIORS}, max(BUDGETS), PULLS_AT_ONCE)
    curves = {name: measures.regret_curve(way, truth.means, repeats) for name, way in ways.items()}
    return Population(truth, scores, curves)


def score_rows(population: Population) -> list[dict[str, Any]]:
    """A row of figures for each score of a population."""
    means, rows = population.truth.means, []
    for name, scores in population.scores.items():
        found = measures.rank_correlation(scores, means)
        rows.append(
            {
                "population": population.truth.dataset,
                "way": name,
                "policies": int(np.isfinite(scores).sum()),
                "rank_correlation": found.value,
                "low": found.low,
                "high": found.high,
                "regret_1": measures.regret(scores, means, 1),
                "regret_5": measures.regret(scores, means, 5),
            }
        )
    return rows


def spending_rows(population: Population) -> list[dict[str, Any]]:
    """A row of figures for each way of spending episodes on a population, by budget."""
    return [
        {"population": population.truth.dataset, "way": name, "episodes": budget}
        | dict(zip(("regret", "low", "high"), measures.mean_interval(curve[:, budget - 1]), strict=True))
        for name, curve in population.curves.items()
        for budget in BUDGETS
    ]


def markdown(populations: Sequence[Population], repeats: int) -> str:
    """All tables."""
    lines = ["# Choosing a policy", ""]
    for population in populations:
        truth, means = population.truth, population.truth.means
        lines += [
            f"## {truth.dataset}",
            "",
            f"{len(means)} policies, {truth.returns.shape[1]} episodes each; {truth.metric}: best {means.max():.1f}, "
            f"median {np.median(means):.1f}, worst {means.min():.1f}; a policy picked at random has a regret of "
            f"{means.max() - means.mean():.1f}.",
            "",
        ]
        cells = [
            [
                row["way"],
                str(row["policies"]),
                Interval(row["rank_correlation"], row["low"], row["high"]).text(),
                f"{row['regret_1']:.2f}",
                f"{row['regret_5']:.2f}",
            ]
            for row in score_rows(population)
        ]
        lines += common.markdown_table(
            ["without the environment", "policies", "rank correlation", "regret@1", "regret@5"], cells
        )
        lines += ["", f"Regret after episodes, mean of {repeats} repetitions:", ""]
        spent = spending_rows(population)
        cells = [
            [name, *(Interval(row["regret"], row["low"], row["high"]).text() for row in spent if row["way"] == name)]
            for name in population.curves
        ]
        lines += [*common.markdown_table(["episodes", *map(str, BUDGETS)], cells), ""]
    return "\n".join(lines)


def draw(populations: Sequence[Population], path: pathlib.Path) -> None:
    """Regret against the episodes spent, a panel for each population; levels are what scores alone choose."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from jaxrl_srpo.report.drawing import PALETTE, STYLE, save

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(populations), 4.2), layout="constrained")
        for column, population in enumerate(populations):
            axes = figure.add_subplot(1, len(populations), column + 1)
            for color, (name, curve) in zip(PALETTE, population.curves.items(), strict=False):
                axes.plot(np.arange(1, curve.shape[1] + 1), curve.mean(0), color=color, label=name)
            for dashes, name in zip(("--", ":"), PRIORS, strict=True):
                level = measures.regret(population.scores[name], population.truth.means, 1)
                axes.axhline(level, color="#7F7F7F", linestyle=dashes, label=f"no episodes, by {name}")
            axes.set(title=population.truth.dataset, xlabel="episodes spent", xlim=(1, max(BUDGETS)), ylim=(0, None))
            if column == 0:
                axes.set_ylabel(f"regret of the chosen policy\n({population.truth.metric.replace('_', ' ')})")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        save(figure, path)


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = common.CommandLine(MODULE, DESCRIPTION, required="--run=RUN_DIR,...")
    line.words("run", [], "Finished runs of one dataset each.")
    line.whole("episodes", 50, "Episodes of each policy by which its true mean is known.", 2)
    line.whole("repeats", 200, "Repetitions of every way of spending episodes.", 2)
    line.words("settings", [], "Settings of fitted Q evaluation as NAME=NUMBER, for instance fqe_width=64.")
    out = line.parse(arguments)
    if out is None:
        return
    values = line.values
    if not values.run:
        raise UserError("--run: is required; for instance --run=runs/hopper")
    settings = _numbers(values.settings)
    runs = [pathlib.Path(name) for name in values.run]
    populations = [measure(run, values.episodes, values.repeats, out, settings) for run in runs]
    text = markdown(populations, values.repeats)
    rows = [row for one in populations for row in (*score_rows(one), *spending_rows(one))]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_atomically(out / "selection.md", text)
    write_atomically(out / "selection.csv", common.format_csv(columns, rows))
    draw(populations, out / "selection.png")
    print(text)


def _numbers(words: Sequence[str]) -> dict[str, Any]:
    """Settings given as NAME=NUMBER.

    Raises:
      UserError: a word is not of this form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = int(value) if value.isdigit() else float(value)
        except ValueError:
            raise UserError(f"--settings={word}: give NAME=NUMBER, such as fqe_width=64") from None
    return found


if __name__ == "__main__":
    common.run(MODULE, main, continues=True)
