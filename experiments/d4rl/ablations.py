"""What each part of SRPO's regularizer gives: beta, weight omega(t), subtracted noise, and the ensemble of times.

All variants share behavior models and critics, which are trained once: only policies differ. A run of each variant
lies in DIRECTORY/runs, and every one of them continues where it was killed.

    python -m experiments.d4rl.ablations --datasets=hopper-medium-v2 --preset=paper --out=docs/results/ablations
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrl_srpo import api
from jaxrl_srpo.cli.command_line import parse_numbers, parse_words
from jaxrl_srpo.data.origins import origin
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report.drawing import PALETTE, STYLE, save
from jaxrl_srpo.report.records import Evaluation, read_evaluations
from jaxrl_srpo.report.rows import Row, last_evaluation
from jaxrl_srpo.report.table import METRIC_LABELS
from jaxrl_srpo.runs.options import Options

from .. import common

MODULE = "d4rl.ablations"
DESCRIPTION = """\
Trains variants of SRPO on shared behavior models and critics. Writes DIRECTORY/ablations.csv, ablations.md, and a
picture of each ablation."""

Overrides = Mapping[str, Any]


class Ablation(NamedTuple):
    """Variants of one part: settings by what the legend calls them."""

    title: str
    variants: Mapping[str, Overrides]


ABLATIONS = {
    "beta": Ablation("temperature beta", {"SRPO": {}}),
    "weighting": Ablation(
        "weight omega(t)",
        {
            "sigma² (published)": {"weighting": "sigma2"},
            "1": {"weighting": "one"},
            "alpha / sigma": {"weighting": "alpha_over_sigma"},
        },
    ),
    "noise": Ablation(
        "noise in the regularizer's gradient",
        {"subtracted (paper)": {"minus_noise": True}, "kept (released code)": {"minus_noise": False}},
    ),
    "times": Ablation(
        "diffusion times",
        {
            "t in [0.02, 0.98] (published)": {"time_min": 0.02, "time_max": 0.98},
            "t = 0.02": {"time_min": 0.02, "time_max": 0.02},
            "t = 0.1": {"time_min": 0.1, "time_max": 0.1},
            "t = 0.5": {"time_min": 0.5, "time_max": 0.5},
        },
    ),
}


class Score(NamedTuple):
    """The last evaluation of one policy; its fields are the columns of `ablations.csv`."""

    ablation: str
    variant: str
    dataset: str
    beta: float
    seed: int
    score: float


class Outcome(NamedTuple):
    """What an ablation gave.

    Attributes:
      scores: the score of every policy.
      baselines: rows of the data, cloning and the IQL actor, which all variants share.
      metric: what scores and baselines measure.
    """

    scores: list[Score]
    baselines: list[Row]
    metric: str


class Plan(NamedTuple):
    """What to train, see `jaxrl_srpo.api.train`."""

    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    budget: float
    betas: tuple[float, ...]
    artefacts: pathlib.Path
    out: pathlib.Path


def carry_out(name: str, plan: Plan) -> Outcome:
    """Trains all variants of an ablation, or what is missing of them."""
    outcome = Outcome([], [], "")
    for number, (variant, overrides) in enumerate(ABLATIONS[name].variants.items()):
        run_dir = plan.out / "runs" / f"{name}-{number}"
        rows = api.train(
            plan.datasets,
            run_dir,
            plan.seeds,
            plan.preset,
            Options(artefacts=plan.artefacts),
            budget=plan.budget,
            beta=list(plan.betas),
            **overrides,
        )
        baselines = [row for row in rows if row.algorithm != "srpo"]
        outcome = Outcome([*outcome.scores, *_scores(name, variant, run_dir)], baselines, rows[0].metric)
    return outcome


def _scores(name: str, variant: str, run_dir: pathlib.Path) -> list[Score]:
    found: dict[tuple[str, float, int], list[Evaluation]] = {}
    for one in read_evaluations(run_dir):
        if one.algorithm == "srpo" and one.beta is not None:
            found.setdefault((one.dataset, one.beta, one.seed), []).append(one)
    return [
        Score(name, variant, dataset, beta, seed, last_evaluation(own).mean)
        for (dataset, beta, seed), own in sorted(found.items())
    ]


def draw(name: str, outcome: Outcome) -> Figure:
    """Scores over beta, a panel per dataset and a line per variant; bands reach from the lowest to the highest seed."""
    datasets = list(dict.fromkeys(one.dataset for one in outcome.scores))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 4.2 * len(datasets), 4.4), layout="constrained")
        panels = figure.subplots(1, len(datasets), squeeze=False)[0]
        for panel, dataset in zip(panels, datasets, strict=True):
            _draw_panel(panel, [one for one in outcome.scores if one.dataset == dataset])
            _draw_levels(panel, [row for row in outcome.baselines if row.dataset == dataset])
            betas = sorted({one.beta for one in outcome.scores})
            panel.set(title=dataset, xlabel="beta", xscale="log")
            panel.set_xticks(betas, [f"{beta:g}" for beta in betas])
            panel.minorticks_off()
        panels[0].set_ylabel(METRIC_LABELS[outcome.metric])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, title=ABLATIONS[name].title)
    return figure


def _draw_panel(panel: Axes, scores: Sequence[Score]) -> None:
    for color, variant in zip(PALETTE, dict.fromkeys(one.variant for one in scores), strict=False):
        own = [one for one in scores if one.variant == variant]
        betas = sorted({one.beta for one in own})
        by_beta = [[one.score for one in own if one.beta == beta] for beta in betas]
        panel.plot(betas, [np.mean(values) for values in by_beta], "o-", color=color, label=variant)
        panel.fill_between(betas, [*map(min, by_beta)], [*map(max, by_beta)], color=color, alpha=0.12, linewidth=0)


def _draw_levels(panel: Axes, baselines: Sequence[Row]) -> None:
    dashes = {"data": "--", "iql": ":", "bc": "-."}
    for row in baselines:
        panel.axhline(row.mean, color="#6B6B6B", linestyle=dashes[row.algorithm], linewidth=1.2, label=row.title)


def format_csv(scores: Sequence[Score]) -> str:
    """One row per policy."""
    return common.format_csv(Score._fields, [one._asdict() for one in scores], digits=6)


def format_markdown(scores: Sequence[Score], plan: Plan) -> str:
    """Mean ± standard deviation over seeds, a column per beta."""
    betas = sorted({one.beta for one in scores})
    rows = []
    for ablation, variant, dataset in dict.fromkeys((one.ablation, one.variant, one.dataset) for one in scores):
        own = [one for one in scores if (one.ablation, one.variant, one.dataset) == (ablation, variant, dataset)]
        cells = [_cell([one.score for one in own if one.beta == beta]) for beta in betas]
        rows.append([ABLATIONS[ablation].title, variant, dataset + (" (o)" if origin(dataset) else ""), *cells])
    text = [
        f"SRPO, preset {plan.preset}, {plan.budget:g} of its updates, {len(plan.seeds)} seeds: mean ± sample standard "
        "deviation over seeds of the last evaluation. All rows of a dataset share its behavior models and critics.",
        "",
        *common.markdown_table(["ablation", "variant", "dataset", *(f"beta {beta:g}" for beta in betas)], rows, 3),
    ]
    origins = {name: words for name in dict.fromkeys(one.dataset for one in scores) if (words := origin(name))}
    if origins:
        text += ["", *(f"(o) {name}: {words}." for name, words in origins.items())]
    return "\n".join(text) + "\n"


def _cell(values: Sequence[float]) -> str:
    return common.mean_cell(values, common.deviation(values), 1) if values else ""


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
    plan, names = _plan(line, out), parse_words("ablations", line.values.ablations, tuple(ABLATIONS))
    scores: list[Score] = []
    for name in names:
        outcome = carry_out(name, plan)
        scores += outcome.scores
        save(draw(name, outcome), out / f"{name}.png")
        write_atomically(out / "ablations.csv", format_csv(scores))
        write_atomically(out / "ablations.md", format_markdown(scores, plan))
    print(format_markdown(scores, plan))
    print(f"wrote {out / 'ablations.md'}, ablations.csv and {', '.join(f'{name}.png' for name in names)}")


def _plan(line: common.CommandLine, out: pathlib.Path) -> Plan:
    return Plan(
        datasets=line.datasets,
        seeds=line.seeds,
        preset=line.values.preset,
        budget=line.values.budget,
        betas=parse_numbers("beta", line.values.beta),
        artefacts=line.artefacts or out / "artefacts",
        out=out,
    )


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, required="--datasets=NAME_OR_PATH,...")
    line.define_datasets()
    line.define_seeds("0:4")
    line.text("ablations", ",".join(ABLATIONS), "Ablations to carry out.")
    line.define_preset("quick", ["paper", "quick"])
    line.define_budget()
    line.define_betas(["0.001", "0.003", "0.01", "0.03", "0.1"], "Betas of every variant.")
    line.define_artefacts("Directory of finished stages; OUT/artefacts by default.")
    return line


if __name__ == "__main__":
    common.run(MODULE, main, continues=True)
