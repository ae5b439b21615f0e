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
from jaxrl_srpo.report.literature import aggregate, read_lines, write_literature_table
from jaxrl_srpo.report.published import RECALLED, published_scores
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
    found = {(one.group, one.algorithm): one for one in aggregate(read_lines(run))}
    assert set(found) == {(group, name) for group in ("locomotion", "antmaze", "all") for name in ("srpo", "iql")}
    srpo = found["locomotion", "srpo"]
    # Of 50 52 54 60 70 80 90 100 the middle half; and the mean of 54 and 85.
    assert srpo.iqm.value == pytest.approx((54 + 60 + 70 + 80) / 4)
    assert srpo.mean.value == pytest.approx((54 + 85) / 2)
    assert (srpo.datasets, srpo.runs) == (2, 8)
    assert found["all", "srpo"].mean.value == pytest.approx((54 + 85 + 92.5) / 3)


def test_intervals_resample_every_dataset_on_its_own(run: pathlib.Path) -> None:
    """The variance of the mean of dataset means is the mean of their variances over seeds, over datasets and seeds."""
    (one,) = [x for x in aggregate(read_lines(run)) if (x.group, x.algorithm) == ("locomotion", "iql")]
    variances = [np.var(SCORES[name, "iql", ""]) for name in ("hopper-medium-v2", "halfcheetah-medium-v2")]
    half = stats.norm.ppf(0.975) * np.sqrt(sum(variances) / (2**2 * 4))
    assert one.mean.high - one.mean.low == pytest.approx(2 * half, rel=0.1)
    assert one.mean.low < one.mean.value < one.mean.high


def test_the_table_holds_the_best_beta_and_what_is_published(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    markdown, table, latex, _ = [path.read_text() for path in write_literature_table(run, tmp_path / "out")]
    scores, iql, srpo, published = [
        cells_of(line) for line in markdown.splitlines() if line.startswith("| hopper-medium")
    ]
    assert scores == ["hopper-medium-v2", "55.0 ± 12.9", "85.0 ± 12.9"]
    assert srpo[1:6] == ["SRPO", "beta=0.1", "4", "10", "85.0 ± 12.9"]
    assert srpo[6:] == ["95.5 (l)", "-10.5", "90.0"]
    assert iql[1:] == ["IQL actor", "", "4", "10", "55.0 ± 12.9", "67.5 ± 3.8 (CORL, l)", "-12.5", "60.0"]
    titles = next(cells_of(line) for line in markdown.splitlines() if line.startswith("| published"))
    named = dict(zip(titles, published, strict=True))
    assert (named["TD3+BC (CORL)"], named["TD3+BC"]) == ("60.4 (l)", "59.3 (lr)")
    assert (named["Diffusion-QL"], named["QGPO"]) == ("90.5 (o)", "98.0 (ls)")
    assert "r: recalled, not read" in markdown
    assert "SRPO: the best of 2 settings" in markdown
    assert "commit 0123abc" in markdown
    rows = list(csv.DictReader(io.StringIO(table)))
    own = {(row["dataset"], row["algorithm"]): float(row["mean"]) for row in rows if row["source"] == "run"}
    assert own["hopper-medium-v2", "srpo"] == 85.0
    assert {row["algorithm"] for row in rows if row["source"] == "published (paper)"} >= {"SRPO", "IQL", "QGPO"}
    assert all(row["marks"] for row in rows if row["source"] != "run")
    assert "85.0 $\\pm$ 12.9" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 4


def test_what_is_recalled_is_nowhere_printed_without_its_mark(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    markdown, *_ = [path.read_text() for path in write_literature_table(run, tmp_path / "out")]
    for name in SCORES:
        for score in published_scores(name[0]).values():
            assert (RECALLED in score.marks) == score.text().endswith("r)") == score.short().endswith("r)")
    # TD3+BC's mean of the three datasets as recalled is 62.1; the one that was read stands first.
    assert f"{(59.3 + 48.3 + 78.6) / 3:.1f}" not in markdown


def test_several_runs_stand_in_one_table(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As of methods whose presets disagree; an algorithm counts where it comes first."""
    other = write_run(tmp_path / "other")
    for file in ("sweep.json", "evaluations.csv"):
        text = (other / file).read_text().replace("srpo", "other").replace("SRPO", "Other")
        (other / file).write_text(text.replace(",80.0,", ",0.0,"))
    lines = read_lines([run, other])
    assert [tuple(line.rows) for line in lines] == [("iql", "srpo", "other")] * 3
    assert [read_lines(run)[0].scores["iql"].tolist()] == [lines[0].scores["iql"].tolist()]
    assert lines[0].scores["other"].tolist() != lines[0].scores["srpo"].tolist()
    markdown, *_ = [path.read_text() for path in write_literature_table([run, other], tmp_path / "out")]
    assert "| dataset | IQL actor | SRPO | Other |" in markdown


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_equal_evaluations_give_equal_bytes_in_any_order(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = write_run(tmp_path / "other", shuffled=True)
    first, second = (write_literature_table(path, tmp_path / path.name / "tables") for path in (run, other))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_single_seed_has_no_interval(run: pathlib.Path) -> None:
    text = (run / "evaluations.csv").read_text().splitlines()
    (run / "evaluations.csv").write_text("\n".join([text[0], *(line for line in text if ",0,," in line[:60])]) + "\n")
    assert all(np.isnan(one.iqm.low) for one in aggregate(read_lines(run)))


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
