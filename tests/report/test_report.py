"""Tables and pictures from run files written by hand, with numbers that can be checked by hand."""

import csv
import io
import json
import sys

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.report import collect, format_table, write_maze_pictures, write_report, write_table
from jaxrl_srpo.report.curves import draw_learning_curves, draw_losses, write_curves
from jaxrl_srpo.report.records import read_evaluations
from jaxrl_srpo.report.rows import best_betas

HEADER = (
    "stage,algorithm,dataset,seed,setting,beta,step,final,episodes,metric,"
    "mean,std,return_mean,return_std,length_mean,success_rate\n"
)
HOPPER = "hopper-medium-v2"
EVALUATIONS = HEADER + "".join(
    f"{stage},{algorithm},{HOPPER},{seed},,{beta},{step},{final},10,normalized_score,{mean},1,{10 * mean},2,300,\n"
    for stage, algorithm, seed, beta, step, final, mean in [
        ("policy", "srpo", 0, "0.2", 500, 0, 80),
        ("policy", "srpo", 0, "0.2", 1000, 1, 60),
        ("policy", "srpo", 1, "0.2", 500, 0, 30),
        ("policy", "srpo", 1, "0.2", 1000, 1, 40),
        ("policy", "srpo", 0, "0.05", 1000, 1, 70),
        ("policy", "srpo", 1, "0.05", 1000, 1, 74),
        ("critic", "iql", 0, "", 2000, 1, 47),
        ("critic", "iql", 1, "", 2000, 1, 53),
        ("behavior", "bc", 0, "", 3000, 1, 44),
    ]
)
METRICS = """stage,dataset,seed,setting,beta,step,updates_per_second,loss,q_loss,actor_loss
behavior,hopper-medium-v2,0,,,100,50.0,2.0,,
behavior,hopper-medium-v2,0,,,200,50.0,1.0,,
critic,hopper-medium-v2,0,,,100,70.0,,900.0,
critic,hopper-medium-v2,0,,,200,70.0,,1.5,
policy,hopper-medium-v2,0,,0.05,100,90.0,,,-3.0
policy,hopper-medium-v2,1,,0.05,100,90.0,,,nan
policy,hopper-medium-v2,0,,0.2,100,90.0,,,-inf
"""


def _entry(name=HOPPER, metric="normalized_score", **more):
    facts = {"transitions": 999, "episodes": 7, "fingerprint": "ab", "reward_transform": "none", "family": "locomotion"}
    scores = {"data_mean": 44.5, "data_std": 3.25, "return_mean": 1430.0}
    return {"name": name, "metric": metric, **facts, **scores, "environment": None, **more}


def _run(path, evaluations=EVALUATIONS, metrics=None, **more):
    sweep = {
        "datasets": [_entry()],
        "versions": {"python": "3.11.9", "jax": "0.10.2"},
        "commit": "0123abc",
        "command": ["jaxrl-srpo", "train", "--seeds=0:2"],
        "created": "2026-01-02T03:04:05Z",
        "preset": "quick",
        "settings": {},
        "diverged": [],
        "something_new": 1,
    }
    path.mkdir(exist_ok=True)
    (path / "sweep.json").write_text(json.dumps({**sweep, **more}))
    if evaluations is not None:
        (path / "evaluations.csv").write_text(evaluations)
    if metrics is not None:
        (path / "metrics.csv").write_text(metrics)
    return path


def _table(run_dir):
    write_table(run_dir)
    return list(csv.DictReader(io.StringIO((run_dir / "report" / "table.csv").read_text())))


def test_rows_by_hand(tmp_path):
    rows = _table(_run(tmp_path))
    assert list(rows[0]) == [
        *("dataset", "algorithm", "beta", "seeds", "episodes", "mean", "std", "published"),
        *("metric", "setting", "return_mean", "best_mean", "worst_seed", "diverged", "success_rate", "unfinished"),
        *("effective_sample_size", "regret"),
    ]
    assert [(row["algorithm"], row["beta"]) for row in rows] == [
        ("data", ""),
        ("bc", ""),
        ("iql", ""),
        ("srpo", "0.05"),
        ("srpo", "0.2"),
    ]
    data, bc, iql, _, srpo = rows
    assert (data["mean"], data["std"], data["seeds"], data["episodes"]) == ("44.5", "3.25", "", "7")
    assert (bc["mean"], bc["std"], bc["seeds"], bc["published"]) == ("44", "0", "1", "")
    assert (iql["mean"], iql["std"], iql["published"]) == ("50", f"{np.sqrt(18):.8g}", "66.3")
    assert (srpo["mean"], srpo["std"], srpo["published"]) == ("50", f"{np.sqrt(200):.8g}", "95.5")
    # The last evaluations are 60 and 40, the best ones 80 and 40.
    assert (srpo["best_mean"], srpo["worst_seed"], srpo["return_mean"]) == ("60", "40", "500")
    assert (srpo["seeds"], srpo["episodes"], srpo["unfinished"]) == ("2", "10", "0")


def test_best_beta_is_bold_and_the_protocol_is_stated(tmp_path):
    run_dir = _run(tmp_path)
    assert {row.beta for row in best_betas(collect(run_dir))} == {0.05}
    write_table(run_dir)
    text = (run_dir / "report" / "table.md").read_text()
    assert f"| {HOPPER} | **SRPO** | **0.05** | 2 | 10 | **72.0 ± 2.8** | 95.5 | 70.0 | 72.0 | 720.0 |" in text
    assert f"| {HOPPER} | SRPO | 0.2 | 2 | 10 | 50.0 ± 14.1 | 95.5 | 40.0 | 60.0 | 500.0 |" in text
    for words in ("last evaluation", "n − 1", "0123abc", "quick", "jax 0.10.2, python 3.11.9", "2026-01-02", "0 for a"):
        assert words in text


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run_dir = _run(tmp_path, metrics=METRICS)
    paths = write_report(run_dir)
    first = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == ["table.csv", "table.md", "learning_curves.png", "losses.png"]
    assert write_report(run_dir) == paths
    assert [path.read_bytes() for path in paths] == first
    assert sorted(path.name for path in (run_dir / "report").iterdir()) == sorted(path.name for path in paths)


def test_terminal_table_is_aligned_ascii(tmp_path):
    text = format_table(collect(_run(tmp_path)))
    lines = text.splitlines()
    assert text.isascii()
    assert lines[0].startswith("dataset           algorithm          beta  seeds")
    assert lines[0].index("published") + len("published") == lines[5].index("95.5") + len("95.5")
    assert "72.0 +- 2.8" in lines[5]
    assert lines[5].endswith("* best beta")
    assert "last evaluation" in lines[-1]


def test_unfinished_members_stand_in_and_are_marked(tmp_path):
    unfinished = EVALUATIONS.replace("0.2,1000,1,10,normalized_score,40", "0.2,1000,0,10,normalized_score,40")
    row = collect(_run(tmp_path, unfinished))[-1]
    assert (row.mean, row.unfinished) == (50.0, 1)
    assert "50.0 ± 14.1 (u)" in _markdown(tmp_path)
    assert "(u) unfinished" in format_table(collect(tmp_path))


def test_weights_on_few_actions_are_marked(tmp_path):
    header = "stage,dataset,seed,setting,beta,step,updates_per_second,effective_sample_size\n"
    rows = [
        f"policy,{HOPPER},{seed},,{beta},900,9.0,{size}\n"
        for seed in (0, 1)
        for beta, size in ((0.05, 0.3), (0.2, 0.01))
    ]
    _run(tmp_path, metrics=header + "".join(rows))
    assert "50.0 ± 14.1 (e)" in _markdown(tmp_path)
    assert "72.0 ± 2.8 (e)" not in _markdown(tmp_path)
    assert "an ESS below 0.02" in _markdown(tmp_path)
    assert "(e) ESS too small" in format_table(collect(tmp_path))


def test_unfinished_rows_are_not_the_best(tmp_path):
    unfinished = EVALUATIONS.replace(",0.05,1000,1,", ",0.05,1000,0,")
    assert {row.beta for row in best_betas(collect(_run(tmp_path, unfinished)))} == {0.2}


def test_a_line_cut_by_a_kill_is_ignored(tmp_path):
    run_dir = _run(tmp_path, EVALUATIONS + f"policy,srpo,{HOPPER},0,,0.2,1500,1,10,normalized_score,6")
    assert len(read_evaluations(run_dir)) == 9
    assert collect(run_dir)[-1].mean == 50.0


def test_repeated_evaluations_after_a_resume_count_once(tmp_path):
    again = f"policy,srpo,{HOPPER},1,,0.20,1000,1,10,normalized_score,42,1,420,2,300,\n"
    row = collect(_run(tmp_path, EVALUATIONS + again))[-1]
    assert (row.seeds, row.mean) == (2, 51.0)


def test_success_rates_and_settings(tmp_path):
    lines = "".join(
        f"policy,srpo,maze,{seed},expectile={tau},0.1,10,1,20,success_rate,{rate},0.1,70,2,300,{rate}\n"
        for seed, tau, rate in [(0, 0.9, 0.9), (1, 0.9, 1.0), (0, 0.7, 0.5)]
    )
    maze = _entry("maze", "success_rate", data_mean=0.4, data_success_rate=0.4)
    rows = collect(_run(tmp_path, HEADER + lines, datasets=[maze]))
    assert [row.setting for row in rows] == ["", "expectile=0.7", "expectile=0.9"]
    assert rows[2].mean == rows[2].success_rate == pytest.approx(0.95)
    assert rows[0].success_rate == 0.4
    assert "**0.950 ± 0.071**" in _markdown(tmp_path)


def test_published_scores_stay_away_from_other_data_and_metrics(tmp_path):
    regenerated = EVALUATIONS.replace(HOPPER, "hopper_medium-regen")
    rows = collect(_run(tmp_path, regenerated, datasets=[_entry("hopper_medium-regen")]))
    assert all(row.published is None for row in rows)
    returns = EVALUATIONS.replace("normalized_score", "return")
    rows = collect(_run(tmp_path, returns, datasets=[_entry(metric="return")]))
    assert all(row.published is None for row in rows)


def test_scores_by_references_of_their_own_are_marked(tmp_path):
    name = "regenerated/hopper/medium-v0"
    _run(tmp_path / "own", EVALUATIONS.replace(HOPPER, name), datasets=[_entry(name)])
    for path, marked in ((tmp_path / "own", True), (_run(tmp_path / "d4rl"), False)):
        write_table(path)
        for text in (format_table(collect(path)), (path / "report" / "table.md").read_text()):
            assert ("0 and 100 are the returns of random and expert of the same recipe" in text) == marked


def test_diverged_members_are_counted_and_named(tmp_path):
    names = [f"policy {HOPPER} seed=1 beta=0.2", f"critic {HOPPER} seed=0", "policy other seed=0 beta=0.05"]
    rows = collect(_run(tmp_path, diverged=names))
    assert [(row.algorithm, row.beta, row.diverged) for row in rows] == [
        ("data", None, 0),
        ("bc", None, 0),
        ("iql", None, 1),
        ("srpo", 0.05, 0),
        ("srpo", 0.2, 1),
    ]
    assert f"`policy {HOPPER} seed=1 beta=0.2`" in _markdown(tmp_path)
    assert "14.1 (d)" in _markdown(tmp_path)


def test_training_without_an_environment_leaves_the_data_alone(tmp_path):
    run_dir = _run(tmp_path, evaluations=None, metrics=METRICS)
    assert [row.algorithm for row in collect(run_dir)] == ["data"]
    assert [path.name for path in write_report(run_dir)] == ["table.csv", "table.md", "losses.png"]
    assert draw_learning_curves(run_dir) is None


def test_a_run_that_has_just_begun(tmp_path):
    run_dir = _run(tmp_path, evaluations="", metrics=METRICS.splitlines(keepends=True)[0])
    assert [path.name for path in write_report(run_dir)] == ["table.csv", "table.md"]
    unscored = {key: None for key in ("data_mean", "data_std")}
    assert collect(_run(tmp_path, evaluations="", datasets=[_entry(**unscored)])) == []
    write_report(run_dir)
    assert format_table([]) == "no scores yet"
    assert "No scores yet." in _markdown(run_dir)


@pytest.mark.parametrize("command", [collect, write_table, write_curves, write_maze_pictures, write_report])
def test_not_a_run_directory(tmp_path, command):
    with pytest.raises(UserError, match=r"nowhere is not a run directory, it does not exist; give the --out"):
        command(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run directory, it has no sweep\.json"):
        command(tmp_path)
    assert list(tmp_path.iterdir()) == []


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
def test_damaged_evaluations_say_where(tmp_path, old, new, message):
    run_dir = _run(tmp_path, EVALUATIONS.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        write_table(run_dir)
    assert "\n" not in str(caught.value)
    assert not (run_dir / "report").exists()


def test_damaged_sweep_files(tmp_path):
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep\.json is not valid JSON"):
        collect(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match="has no list 'datasets'"):
        collect(tmp_path)
    entry = _entry()
    del entry["data_std"]
    with pytest.raises(UserError, match="dataset 'hopper-medium-v2' has no 'data_std'"):
        collect(_run(tmp_path, datasets=[entry]))


def test_learning_curves_show_means_of_all_seeds(tmp_path):
    figure = draw_learning_curves(_run(tmp_path))
    assert figure is not None
    left, right = figure.axes
    lines = {line.get_label(): line for line in right.get_lines()}
    np.testing.assert_array_equal(lines["SRPO, beta 0.2"].get_xydata(), [[500, 55], [1000, 50]])
    np.testing.assert_array_equal(lines["SRPO, beta 0.05"].get_xydata(), [[1000, 72]])
    assert np.asarray(lines["behaviour data"].get_ydata()).tolist() == [44.5, 44.5]
    assert np.asarray(lines["behaviour cloning"].get_ydata()).tolist() == [44.0, 44.0]
    assert np.asarray(lines["published score"].get_ydata()).tolist() == [95.5, 95.5]
    assert "IQL actor" in {line.get_label() for line in left.get_lines()}


def test_means_stop_where_a_seed_lags_behind(tmp_path):
    lagging = EVALUATIONS.replace(f"policy,srpo,{HOPPER},1,,0.2,1000,1,10,normalized_score,40,1,400,2,300,\n", "")
    figure = draw_learning_curves(_run(tmp_path, lagging))
    assert figure is not None
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    np.testing.assert_array_equal(lines["SRPO, beta 0.2"].get_xydata(), [[500, 55]])


def test_losses_have_a_panel_for_each_stage_and_quantity(tmp_path):
    figure = draw_losses(_run(tmp_path, metrics=METRICS))
    assert figure is not None
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "behaviour: loss",
        "critic: q loss",
        "policy: actor loss",
    ]
    assert [panel.get_yscale() for panel in figure.axes] == ["linear", "log", "linear"]
    np.testing.assert_array_equal(figure.axes[0].get_lines()[-1].get_ydata(), [2.0, 1.0])


def test_many_datasets_and_settings_are_drawn(tmp_path):
    names = [HOPPER, "maze/one", "third"]
    evaluations, metrics = EVALUATIONS, METRICS
    for name in names[1:]:
        evaluations += EVALUATIONS.partition("\n")[2].replace(HOPPER, name).replace(",,0.", ",lr=0.1;tau=2,0.")
        metrics += METRICS.partition("\n")[2].replace(HOPPER, name).replace(",,0.", ",lr=0.1;tau=2,0.")
    run_dir = _run(tmp_path, evaluations, metrics, datasets=[_entry(name) for name in names])
    assert len(collect(run_dir)) == 15
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in write_curves(run_dir))


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "report" / "table.csv"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_maze_trajectories_reach_the_painter(tmp_path):
    pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")
    maze = {"id": "PointMaze_UMaze-v3", "kwargs": {}, "max_episode_steps": 300, "goal_task": True}
    run_dir = _run(tmp_path, evaluations="", datasets=[_entry("pointmaze/umaze", environment=maze)])
    assert write_maze_pictures(run_dir) == []
    (run_dir / "trajectories").mkdir()
    path = np.linspace([-1.0, -1.0], [1.0, -1.0], 20)
    names = ("data_0", "data_1", "bc_0", "iql_0", "srpo_0", "srpo_10", "srpo_2")
    with open(run_dir / "trajectories" / "pointmaze_umaze.npz", "wb") as file:
        np.savez(file, **{name: path + 0.01 * i for i, name in enumerate(names)})  # type: ignore[arg-type]
    written = write_maze_pictures(run_dir)
    assert [path.name for path in written] == ["trajectories_pointmaze_umaze.png"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert list((run_dir / "report").iterdir()) == written


def test_damaged_trajectories_say_which_file(tmp_path):
    maze = {"id": "PointMaze_UMaze-v3"}
    run_dir = _run(tmp_path, datasets=[_entry("pointmaze/umaze", environment=maze)], evaluations="")
    (run_dir / "trajectories").mkdir()
    (run_dir / "trajectories" / "pointmaze_umaze.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match=r"pointmaze_umaze\.npz cannot be read"):
        write_maze_pictures(run_dir)


def test_reports_never_touch_pyplot(tmp_path):
    write_report(_run(tmp_path, metrics=METRICS))
    import jaxrl_srpo.report.curves as curves

    assert "pyplot" not in vars(curves)
    assert "gymnasium" not in vars(sys.modules["jaxrl_srpo.report"])


def _markdown(run_dir):
    write_table(run_dir)
    return (run_dir / "report" / "table.md").read_text()
