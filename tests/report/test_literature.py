"""The table beside the literature, made from stored evaluations whose aggregates can be computed by hand."""

import csv
import io
import json
import pathlib
import random

import numpy as np
import pytest
from scipy import stats

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.literature import aggregate, final_scores, read_lines, write_literature_table
from tests.report import written_run

# Last scores of four seeds; SRPO has two betas, of which the second is better on average.
SCORES = {
    ("hopper-medium-v2", "srpo", "0.05"): [50.0, 60.0, 70.0, 100.0],
    ("hopper-medium-v2", "srpo", "0.1"): [80.0, 90.0, 70.0, 100.0],
    ("hopper-medium-v2", "iql", ""): [40.0, 50.0, 60.0, 70.0],
    ("halfcheetah-medium-v2", "srpo", "0.2"): [50.0, 52.0, 54.0, 60.0],
    ("halfcheetah-medium-v2", "iql", ""): [44.0, 45.0, 46.0, 47.0],
    ("antmaze-umaze-v2", "srpo", "0.02"): [90.0, 95.0, 100.0, 85.0],
    ("antmaze-umaze-v2", "iql", ""): [80.0, 75.0, 90.0, 85.0],
}


def write_run(path: pathlib.Path, metric: str = "normalized_score", shuffled: bool = False) -> pathlib.Path:
    lines = []
    for (dataset, algorithm, beta), scores in SCORES.items():
        stage = {"srpo": "policy", "iql": "critic"}[algorithm]
        for seed, score in enumerate(scores):
            for step, final, mean in ((500, 0, score + 5.0), (1000, 1, score)):
                row = [stage, algorithm, dataset, seed, "", beta, step, final, 10, metric, mean, 1, mean, 1, 9, ""]
                lines.append(",".join(map(str, row)))
    if shuffled:
        random.Random(0).shuffle(lines)
    names = dict.fromkeys(dataset for dataset, _, _ in SCORES)
    facts = {"transitions": 9, "episodes": 3, "fingerprint": "ab", "reward_transform": "none", "environment": None}
    datasets = [
        {"name": name, "metric": metric, "family": "antmaze" if "antmaze" in name else "locomotion", **facts}
        for name in names
    ]
    sweep = {
        "datasets": datasets,
        "stages": written_run.STAGES,
        "versions": {"jax": "0.10.2"},
        "commit": "0123abc",
        "created": "2026-01-02",
        "command": ["x"],
    }
    path.mkdir()
    (path / "sweep.json").write_text(json.dumps(sweep))
    (path / "evaluations.csv").write_text(written_run.HEADER + "\n".join([*lines, ""]))
    return path


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_run(tmp_path / "run")


def test_aggregates_are_those_of_the_last_evaluations(run: pathlib.Path) -> None:
    lines = read_lines(run)
    found = {(one.group, one.algorithm): one for one in aggregate(lines, final_scores(run, lines))}
    assert set(found) == {(group, name) for group in ("locomotion", "antmaze", "all") for name in ("srpo", "iql")}
    srpo = found["locomotion", "srpo"]
    # Of 50 52 54 60 70 80 90 100 the middle half; and the mean of 54 and 85.
    assert srpo.iqm.value == pytest.approx((54 + 60 + 70 + 80) / 4)
    assert srpo.mean.value == pytest.approx((54 + 85) / 2)
    assert (srpo.datasets, srpo.runs) == (2, 8)
    assert found["all", "srpo"].mean.value == pytest.approx((54 + 85 + 92.5) / 3)


def test_intervals_resample_every_dataset_on_its_own(run: pathlib.Path) -> None:
    """The variance of the mean of dataset means is the mean of their variances over seeds, over datasets and seeds."""
    lines = read_lines(run)
    (one,) = [x for x in aggregate(lines, final_scores(run, lines)) if (x.group, x.algorithm) == ("locomotion", "iql")]
    variances = [np.var(SCORES[name, "iql", ""]) for name in ("hopper-medium-v2", "halfcheetah-medium-v2")]
    half = stats.norm.ppf(0.975) * np.sqrt(sum(variances) / (2**2 * 4))
    assert one.mean.high - one.mean.low == pytest.approx(2 * half, rel=0.1)
    assert one.mean.low < one.mean.value < one.mean.high


def test_the_table_holds_the_best_beta_and_what_is_published(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    markdown, table, latex, _ = [path.read_text() for path in write_literature_table(run, tmp_path / "out")]
    (line,) = [line for line in markdown.splitlines() if line.startswith("| hopper-medium-v2")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:8] == ["hopper-medium-v2", "0.1", "4", "10", "85.0 ± 12.9", "95.5", "-10.5", "90.0"]
    assert "59.3" in cells  # TD3+BC, as published.
    assert "commit 0123abc" in markdown
    rows = list(csv.DictReader(io.StringIO(table)))
    own = {(row["dataset"], row["algorithm"]): float(row["mean"]) for row in rows if row["source"] == "run"}
    assert own["hopper-medium-v2", "srpo"] == 85.0
    assert {row["algorithm"] for row in rows if row["source"] == "published"} >= {"SRPO", "IQL", "QGPO"}
    assert "85.0 $\\pm$ 12.9" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 2


def test_equal_evaluations_give_equal_bytes_in_any_order(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = write_run(tmp_path / "other", shuffled=True)
    first, second = (write_literature_table(path, tmp_path / path.name / "tables") for path in (run, other))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_single_seed_has_no_interval(run: pathlib.Path) -> None:
    text = (run / "evaluations.csv").read_text().splitlines()
    (run / "evaluations.csv").write_text("\n".join([text[0], *(line for line in text if ",0,," in line[:60])]) + "\n")
    lines = read_lines(run)
    assert all(np.isnan(one.iqm.low) for one in aggregate(lines, final_scores(run, lines)))


def test_other_metrics_are_refused(tmp_path: pathlib.Path) -> None:
    run = write_run(tmp_path / "run", metric="success_rate")
    with pytest.raises(UserError, match="has no D4RL-normalized score"):
        write_literature_table(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_of_others_are_marked(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    name = "D4RL/door/human_x-v2"
    for file in ("sweep.json", "evaluations.csv"):
        (run / file).write_text((run / file).read_text().replace("hopper-medium-v2", name))
    markdown, table, latex, _ = [path.read_text() for path in write_literature_table(run, tmp_path / "out")]
    words = "Minari's conversion of D4RL's Adroit data, for a later port of the environment"
    assert f"| {name} (o) |" in markdown
    assert f"- (o) {name}: {words}." in markdown
    assert f"\\par{{\\footnotesize (o) D4RL/door/human\\_x-v2: {words}.}}" in latex
    origins = {row["dataset"]: row["origin"] for row in csv.DictReader(io.StringIO(table))}
    assert origins == {name: words, "halfcheetah-medium-v2": "", "antmaze-umaze-v2": ""}
