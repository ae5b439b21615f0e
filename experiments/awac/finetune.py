"""Offline learning and what becomes of it online: AWAC beside cloning, SRPO, IQL and SAC, with published scores.

Every method learns from the same datasets, then goes on in their environments: AWAC and IQL from themselves, SRPO by
AWAC from SRPO's actor and critic, SAC from its own offline updates, and SAC from scratch. Running the command again
continues it; a directory that holds all of it is only read.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl_srpo import api
from jaxrl_srpo.cli.command_line import parse_numbers, parse_words
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import METHODS
from jaxrl_srpo.report import Row, collect
from jaxrl_srpo.report.curves import draw_fine_tuning
from jaxrl_srpo.report.drawing import save
from jaxrl_srpo.report.published import published_score
from jaxrl_srpo.report.records import Evaluation, read_evaluations
from jaxrl_srpo.report.rows import marked_dataset, origin_notes

from .. import common

MODULE = "awac.finetune"
DESCRIPTION = """\
Trains in the run directory of --run, or goes on there, and writes DIRECTORY/fine_tuning.md, .csv and .png. Without
--datasets it only reads what --run holds."""

PRESETS = tuple(dict.fromkeys(name for method in METHODS for name in method.presets))


class Published(NamedTuple):
    """Scores before and after learning online, and whose they are."""

    before: float
    after: float
    source: str


# CORL: its README, 1,000,000 updates, then as many steps; d3rlpy: its benchmarks, 25,000 updates, then 1,000,000 steps,
# 10 seeds.
PUBLISHED = {
    ("antmaze-umaze-v2", "awac_online"): Published(52.75, 98.75, "CORL"),
    ("antmaze-umaze-diverse-v2", "awac_online"): Published(56.0, 0.0, "CORL"),
    ("pen-cloned-v1", "awac_online"): Published(88.66, 86.82, "CORL"),
    ("door-cloned-v1", "awac_online"): Published(0.93, 0.01, "CORL"),
    ("hammer-cloned-v1", "awac_online"): Published(1.80, 0.24, "CORL"),
    ("relocate-cloned-v1", "awac_online"): Published(-0.04, -0.04, "CORL"),
    ("antmaze-umaze-v0", "awac_online"): Published(52.0, 92.0, "d3rlpy"),
    ("antmaze-umaze-v0", "iql_online"): Published(92.0, 98.0, "d3rlpy"),
    ("antmaze-medium-play-v0", "iql_online"): Published(71.0, 91.0, "d3rlpy"),
    ("antmaze-large-play-v0", "iql_online"): Published(52.0, 69.0, "d3rlpy"),
}
# Minari's datasets of the same demonstrations as D4RL's, which the published scores are of.
SAME_DEMONSTRATIONS = {
    f"D4RL/{task}/{kind}-v2": f"{task}-{kind}-v1"
    for task in ("pen", "door", "hammer", "relocate")
    for kind in ("human", "cloned", "expert")
}
EARLY = 0.1


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """One method on one dataset, means over seeds.

    Attributes:
      dataset: its name.
      algorithm: the online stage.
      label: what readers know it by.
      setting: beta and other swept settings.
      seeds: number of seeds.
      before: score before the first step.
      early: mean over seeds of each seed's lowest score in the first tenth of the steps, one evaluation at least.
      after: score at the last evaluation.
      spread: sample standard deviation of `after` over seeds.
      steps: environment steps at the last evaluation.
      unfinished: number of seeds that have more steps to go.
      regret: see `report.table.Row`.
      published: before and after, and whose they are; empty if there are none.
    """

    dataset: str
    algorithm: str
    label: str
    setting: str
    seeds: int
    before: float
    early: float
    after: float
    spread: float
    steps: int
    unfinished: int
    regret: float | None
    published: str


def fine_tuned(rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> list[FineTuned]:
    """What learning online changed, in the order of the table."""
    return [_fine_tuned(row, [one for one in evaluations if _belongs(one, row)]) for row in rows if row.online]


def _belongs(one: Evaluation, row: Row) -> bool:
    return (one.dataset, one.algorithm, one.setting, one.beta) == (row.dataset, row.algorithm, row.setting, row.beta)


def _fine_tuned(row: Row, own: Sequence[Evaluation]) -> FineTuned:
    last = max(one.step for one in own)
    seeds = sorted({one.seed for one in own})
    limit = max(EARLY * last, min(one.step for one in own if one.step > 0))
    lowest = [min(one.mean for one in own if one.seed == seed and 0 < one.step <= limit) for seed in seeds]
    published = PUBLISHED.get((row.dataset, row.algorithm))
    return FineTuned(
        dataset=row.dataset,
        algorithm=row.algorithm,
        label=row.title,
        setting=_setting(row),
        seeds=len(seeds),
        before=float(np.mean([one.mean for one in own if one.step == 0])),
        early=float(np.mean(lowest)),
        after=row.mean,
        spread=row.std,
        steps=last,
        unfinished=row.unfinished,
        regret=row.regret,
        published=f"{published.before:g} -> {published.after:g} ({published.source})" if published else "",
    )


def _setting(row: Row) -> str:
    return ", ".join(part for part in ("" if row.beta is None else f"beta={row.beta:g}", row.setting) if part)


def offline_table(rows: Iterable[Row]) -> str:
    """The offline scores as Markdown."""
    titles = ["dataset", "algorithm", "setting", "seeds", "score", "published", "effective sample size"]
    cells = [
        [
            marked_dataset(row),
            row.title,
            _setting(row),
            str(row.seeds or ""),
            _score(row.mean, row.std, row.unfinished),
            _published(row),
            "" if row.effective_sample_size is None else f"{row.effective_sample_size:.3f}",
        ]
        for row in rows
        if not row.online
    ]
    return "\n".join(common.markdown_table(titles, cells, words=3))


def _score(mean: float, spread: float, unfinished: int) -> str:
    return f"{mean:.1f} ± {spread:.1f}{' (unfinished)' if unfinished else ''}"


def _published(row: Row) -> str:
    """The published score, also of D4RL's file of the same demonstrations, which is then named."""
    other = SAME_DEMONSTRATIONS.get(row.dataset)
    found = None if other is None else published_score(other, row.algorithm)
    score = row.published if other is None else found and found.mean
    return "" if score is None else f"{score:g}" + (f" ({other})" if other else "")


def fine_tuning_table(results: Iterable[FineTuned]) -> str:
    """The scores online as Markdown."""
    titles = [
        "dataset",
        "method",
        "setting",
        "seeds",
        "steps",
        "before",
        "lowest early",
        "after",
        "regret",
        "published",
    ]
    cells = [
        [
            one.dataset,
            one.label,
            one.setting,
            str(one.seeds),
            f"{one.steps:,}",
            f"{one.before:.1f}",
            f"{one.early:.1f}",
            _score(one.after, one.spread, one.unfinished),
            "" if one.regret is None else f"{one.regret:.3f}",
            one.published,
        ]
        for one in results
    ]
    return "\n".join(common.markdown_table(titles, cells, words=3))


def write_results(run: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes `fine_tuning.md`, `fine_tuning.csv` and `fine_tuning.png` of a run directory; returns their paths.

    Raises:
      UserError: not a run directory, or a file in it is damaged.
    """
    rows, evaluations = collect(run), read_evaluations(run)
    results = fine_tuned(rows, evaluations)
    text = ["# Offline, then online", "", "Score of each seed's last evaluation, mean ± standard deviation over seeds."]
    text += ["", "## On the dataset", "", offline_table(rows)]
    if notes := origin_notes(rows):
        text += ["", *(f"(o) {note}." for note in notes)]
    if results:
        text += [
            "",
            "## Online",
            "",
            "Before the first step; each seed's lowest score in the first tenth of the steps;",
        ]
        text += ["the last evaluation; regret: what is missing to 1 on average.", "", fine_tuning_table(results)]
    paths = [out / "fine_tuning.md", out / "fine_tuning.csv"]
    write_atomically(paths[0], "\n".join(text) + "\n")
    write_atomically(paths[1], _csv(results))
    figure = draw_fine_tuning(run)
    if figure is not None:
        paths.append(out / "fine_tuning.png")
        save(figure, paths[-1])
    return paths


def _csv(results: Sequence[FineTuned]) -> str:
    columns = [field.name for field in dataclasses.fields(FineTuned) if field.name != "label"]
    return common.format_csv(columns, [{name: getattr(one, name) for name in columns} for one in results], digits=None)


def main(arguments: Sequence[str]) -> list[pathlib.Path]:
    """Runs the command; nothing is returned after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return []
    values = line.values
    if values.datasets:
        settings: dict[str, Any] = {
            "offline_steps": values.offline_steps,
            "critic_steps": values.offline_steps,
            "online_steps": values.online_steps,
            "online_evaluation_interval": max(1, values.online_steps // 20),
        }
        if values.awac_lambda:
            settings["awac_lambda"] = parse_numbers("awac_lambda", values.awac_lambda)
        algorithms = parse_words("algorithm", values.algorithm, [method.name for method in METHODS])
        api.train(line.datasets, values.run, line.seeds, values.preset, algorithm=algorithms, **settings)
    paths = write_results(pathlib.Path(values.run), out)
    print(paths[0].read_text())
    for path in paths:
        print(f"wrote {path}")
    return paths


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, "Directory of the tables and the picture.", "--run=RUN_DIR")
    line.define_datasets(help="Comma-separated names or paths; none reads --run.")
    line.text("run", "runs/awac_finetune", "Run directory; continued if it exists.")
    line.define_seeds("0:4")
    line.define_preset("quick", PRESETS)
    line.text("algorithm", ",".join(method.name for method in METHODS), "Methods.")
    line.words("awac_lambda", None, "Temperatures of AWAC; the preset's by default.")
    line.whole("offline_steps", 50_000, "Updates of AWAC, cloning, IQL and SAC.", 1)
    line.whole("online_steps", 100_000, "Environment steps.", 1)
    return line


if __name__ == "__main__":
    common.run(MODULE, main)
