"""The table as Markdown, CSV and plain text."""

import pathlib

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.rows import best_betas, collect
from jaxrl_srpo.report.table import format_table, write_table
from tests.report import written_run
from tests.report.written_run import EVALUATIONS, HOPPER


def test_best_beta_is_bold_and_the_protocol_is_stated(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path)
    assert {row.beta for row in best_betas(collect(run_dir))} == {0.05}
    write_table(run_dir)
    text = (run_dir / "report" / "table.md").read_text()
    assert f"| {HOPPER} | **SRPO** | **0.05** | 2 | 10 | **72.0 ± 2.8** | 95.5 (l) | 70.0 | 72.0 | 720.0 |" in text
    assert f"| {HOPPER} | SRPO | 0.2 | 2 | 10 | 50.0 ± 14.1 | 95.5 (l) | 40.0 | 60.0 | 500.0 |" in text
    for words in ("last evaluation", "n − 1", "0123abc", "quick", "jax 0.10.2, python 3.11.9", "2026-01-02", "0 for a"):
        assert words in text


def test_terminal_table_is_aligned_ascii(tmp_path: pathlib.Path) -> None:
    text = format_table(collect(written_run.write(tmp_path)))
    lines = text.splitlines()
    assert text.isascii()
    assert lines[0].startswith("dataset           algorithm         beta  seeds")
    assert lines[0].index("published") + len("published") == lines[5].index("95.5 (l)") + len("95.5 (l)")
    assert "72.0 +- 2.8" in lines[5]
    assert lines[5].endswith("* best beta")
    assert "last evaluation" in lines[-1]


def test_unfinished_members_stand_in_and_are_marked(tmp_path: pathlib.Path) -> None:
    unfinished = EVALUATIONS.replace("0.2,1000,1,10,normalized_score,40", "0.2,1000,0,10,normalized_score,40")
    row = collect(written_run.write(tmp_path, unfinished))[-1]
    assert (row.mean, row.unfinished) == (50.0, 1)
    assert "50.0 ± 14.1 (u)" in written_run.markdown(tmp_path)
    assert "(u) unfinished" in format_table(collect(tmp_path))


def test_weights_on_few_actions_are_marked(tmp_path: pathlib.Path) -> None:
    header = "stage,dataset,seed,setting,beta,step,updates_per_second,effective_sample_size\n"
    rows = [
        f"policy,{HOPPER},{seed},,{beta},900,9.0,{size}\n"
        for seed in (0, 1)
        for beta, size in ((0.05, 0.3), (0.2, 0.01))
    ]
    written_run.write(tmp_path, metrics=header + "".join(rows))
    assert "50.0 ± 14.1 (e)" in written_run.markdown(tmp_path)
    assert "72.0 ± 2.8 (e)" not in written_run.markdown(tmp_path)
    assert "an ESS below 0.02" in written_run.markdown(tmp_path)
    assert "(e) ESS too small" in format_table(collect(tmp_path))


def test_seeds_that_share_models_are_marked(tmp_path: pathlib.Path) -> None:
    settings = {"behavior_seeds": 1, "critic_seeds": 0}
    written_run.write(tmp_path, settings={HOPPER: settings})
    assert "72.0 ± 2.8 (s)" in written_run.markdown(tmp_path)
    said = "(s): seeds share earlier models (behavior_seeds=1): ± leaves out how those vary"
    assert said in written_run.markdown(tmp_path)
    assert "(s) seeds share earlier models" in format_table(collect(tmp_path))
    written_run.write(tmp_path, settings={HOPPER: settings | {"behavior_seeds": 0}})
    assert "(s)" not in written_run.markdown(tmp_path)


def test_scores_by_references_of_another_version_are_told(tmp_path: pathlib.Path) -> None:
    other = written_run.EVALUATIONS.replace("normalized_score", "normalized_score_other_version")
    written_run.write(tmp_path, other, datasets=[written_run.dataset(metric="normalized_score_other_version")])
    assert "in another version of the environment, which is paid otherwise" in written_run.markdown(tmp_path)
    rows = collect(tmp_path)
    assert {row.metric for row in rows} == {"normalized_score_other_version"}
    # Published scores are of D4RL's own.
    assert {row.published for row in rows} == {None}
    assert "score by D4RL's returns of another version" in format_table(rows)


def test_scores_by_references_of_their_own_are_marked(tmp_path: pathlib.Path) -> None:
    name = "regenerated/hopper/medium-v0"
    written_run.write(tmp_path / "own", EVALUATIONS.replace(HOPPER, name), datasets=[written_run.dataset(name)])
    for path, marked in ((tmp_path / "own", True), (written_run.write(tmp_path / "d4rl"), False)):
        write_table(path)
        for text in (format_table(collect(path)), (path / "report" / "table.md").read_text()):
            assert ("0 and 100 are the returns of random and expert of the same recipe" in text) == marked


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",10,normalized_score,60,", ",10,normalized_score,sixty,", r"line 3: mean is 'sixty', should be a number"),
        (f"{HOPPER},0,,0.2,500", f"{HOPPER},0.5,,0.2,500", r"line 2: seed is '0\.5', should be a whole number"),
        (f"{HOPPER},0,,0.2,500", f"{HOPPER},0,0.2,500", r"line 2: expected 16 cells"),
        (f"{HOPPER},0,,0.2,500", f"{HOPPER},0,,,0.2,500", r"line 2: expected 16 cells"),
        ("return_mean", "returns", r"has no column 'return_mean'"),
        (HOPPER, "walker2d-medium-v2", r"has dataset 'walker2d-medium-v2', sweep\.json has hopper-medium-v2"),
        ("normalized_score,60", "return,60", r"mixes metrics normalized_score, return"),
    ],
)
def test_damaged_evaluations_say_where(tmp_path: pathlib.Path, old: str, new: str, message: str) -> None:
    run_dir = written_run.write(tmp_path, EVALUATIONS.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        write_table(run_dir)
    assert "\n" not in str(caught.value)
    assert not (run_dir / "report").exists()


def test_betas_that_differ_little_can_be_told_apart(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(tmp_path, EVALUATIONS.replace(",0.05,", ",0.20000000001,"))
    text = written_run.markdown(run_dir)
    assert "| 0.2 | 2 |" in text
    assert "**0.20000000001**" in text
    assert ",0.20000000001,2," in (run_dir / "report" / "table.csv").read_text()


def test_a_method_of_ones_own_is_in_the_table_by_its_label(tmp_path: pathlib.Path) -> None:
    maze = written_run.dataset("maze", "success_rate", data_mean=0.2)
    own = written_run.own_evaluations()
    run_dir = written_run.write(tmp_path, own, datasets=[maze], stages=written_run.OWN_STAGES)
    assert "| maze | My method, online | 1 | 5 | 0.900 ± 0.000 |" in written_run.markdown(run_dir)
    assert "My method, online" in format_table(collect(run_dir))


@pytest.mark.parametrize(("data_return", "shown"), [(0.2, False), (14.0, True)])
def test_a_return_that_is_the_success_rate_is_no_column(
    tmp_path: pathlib.Path, data_return: float, shown: bool
) -> None:
    maze = written_run.dataset("maze", "success_rate", data_mean=0.2, return_mean=data_return)
    own = written_run.own_evaluations()
    run_dir = written_run.write(tmp_path, own, datasets=[maze], stages=written_run.OWN_STAGES)
    assert ("| return |" in written_run.markdown(run_dir)) == shown
    assert ("return" in format_table(collect(run_dir)).splitlines()[0]) == shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("D4RL/pointmaze/umaze-v2", "Minari's re-collected PointMaze, not D4RL's maze2d"),
        ("hopper_medium-regen", "a regenerated look-alike, not D4RL's data"),
        (HOPPER, ""),
    ],
)
def test_data_that_could_be_taken_for_d4rls_are_marked_in_every_table(
    tmp_path: pathlib.Path, name: str, words: str
) -> None:
    run = written_run.write(tmp_path, EVALUATIONS.replace(HOPPER, name), datasets=[written_run.dataset(name)])
    markdown, plain = written_run.markdown(run), format_table(collect(run))
    table = (run / "report" / "table.csv").read_text().splitlines()
    assert table[0].endswith(",origin,published_note")
    if not words:
        assert "(o)" not in markdown + plain
        assert table[1].endswith(",")
        return
    assert f"| {name} (o) |" in markdown
    assert f"- (o): {name}: {words}." in markdown
    assert f"\n{name} (o)  " in plain
    assert f"\n(o) {name}: {words}" in plain
    assert all(line.endswith(f',"{words}",' if "," in words else f",{words},") for line in table[1:])
