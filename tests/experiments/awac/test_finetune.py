"""The tables of offline, then online learning, from evaluations written by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from experiments.awac import finetune
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.rows import Row
from tests.experiments.awac.evaluations import evaluation

LABELS = {"awac": "AWAC", "awac_online": "AWAC, online"}


def row(algorithm: str, mean: float, dataset: str = "hopper", **more: Any) -> Row:
    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(Row)}
    values |= {"dataset": dataset, "algorithm": algorithm, "mean": mean, "std": 1.5, "setting": ""}
    return Row(**values | {"label": LABELS[algorithm], "online": algorithm == "awac_online"} | more)


def test_fine_tuning_has_the_score_before_and_each_seeds_lowest_early_one() -> None:
    scores = {0: (50.0, 30.0), 1_000: (45.0, 20.0), 2_000: (40.0, 35.0), 5_000: (1.0, 1.0), 20_000: (70.0, 60.0)}
    online = [
        evaluation("awac_online", step, mean, seed, dataset="hopper", metric="normalized_score")
        for step, means in scores.items()
        for seed, mean in enumerate(means)
    ]
    (one,) = finetune.fine_tuned([row("awac", 40.0), row("awac_online", 65.0, regret=0.6, unfinished=1)], online)
    assert (one.before, one.early, one.after, one.steps, one.seeds) == (40.0, 30.0, 65.0, 20_000, 2)
    line = finetune.fine_tuning_table([one]).splitlines()[-1]
    assert line == "| hopper | AWAC, online |  | 2 | 20,000 | 40.0 | 30.0 | 65.0 ± 1.5 (unfinished) | 0.600 |  |"


def test_published_scores_name_the_file_that_they_are_of() -> None:
    rows = [row("awac", 3.0, dataset="D4RL/door/human-v2", seeds=4, effective_sample_size=0.25)]
    line = finetune.offline_table(rows).splitlines()[-1]
    assert line == "| D4RL/door/human-v2 | AWAC |  | 4 | 3.0 ± 1.5 | 2.39 (door-human-v1) | 0.250 |"
    marked = finetune.offline_table([dataclasses.replace(rows[0], origin="Minari's")]).splitlines()[-1]
    assert marked.startswith("| D4RL/door/human-v2 (o) | AWAC")


def test_a_directory_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        finetune.main([f"--run={tmp_path / 'none'}", f"--out={tmp_path / 'out'}"])
