"""Commands as a person or a script gives them: one line and exit code 2 for mistakes, and one small real run."""

import csv
import json
import pathlib
import re
import shutil
from typing import Any

import gymnasium
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.cli import main, setting_flags
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, srpo
from jaxrl_srpo.report import collect
from tests import synthetic

# Whatever gets as far as training has not been refused, and need not be waited for.
SEVERAL = r"""
import contextlib, io, json, sys, traceback
from jaxrl_srpo.cli import main, setting_flags
from jaxrl_srpo.runs import trainer
def begun(*arguments):
    raise AssertionError("training has begun")
trainer.Trainer.train = begun
results = []
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.run(arguments)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""

TRAIN = ["train", "--datasets=DATA", "--out=OUT"]

# Arguments (DATA and NARROW are sound files, OUT is a new directory, BLOCKED lies below a file) and the line expected.
MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown command": (
        ["trian"],
        r"trian: unknown command; choose one of train, prepare, work, .*, verify, .*data, methods, completion$",
    ),
    "no datasets": (["train", "--out=OUT"], r"--datasets: is required; for instance --datasets=pointmaze/umaze"),
    "no out": (["train", "--datasets=DATA"], r"--out: is required"),
    "empty datasets": (["train", "--datasets=,", "--out=OUT"], r"--datasets: name at least one dataset"),
    "unknown dataset": (
        ["train", "--datasets=hopper-medum-v2", "--out=OUT"],
        r"unknown dataset 'hopper-medum-v2'; closest: hopper-medium-v2",
    ),
    "no such file": (["train", "--datasets=nowhere/x.hdf5", "--out=OUT"], r"no dataset file at nowhere/x.hdf5"),
    "a file twice": (["train", "--datasets=DATA,DATA", "--out=OUT"], r"--datasets: a value is given twice"),
    "seeds that are none": ([*TRAIN, "--seeds=a"], r"--seeds=a: give a range such as 0:4 or a list such as 0,1,5"),
    "seeds in steps": ([*TRAIN, "--seeds=0:4:2"], r"--seeds=0:4:2: give a range"),
    "no seeds": ([*TRAIN, "--seeds=4:4"], r"--seeds=4:4: give a range"),
    "a negative seed": ([*TRAIN, "--seeds=-1"], r"--seeds=-1: give a range .* from 0 to"),
    "seeds twice": ([*TRAIN, "--seeds=1,1"], r"--seeds: a value is given twice"),
    "a word for a number": ([*TRAIN, "--beta=high"], r"--beta=high: expects numbers, for instance --beta=0.05"),
    "a fraction for a count": ([*TRAIN, "--policy_steps=1.5"], r"--policy_steps=1.5: expects whole numbers"),
    "not a number": ([*TRAIN, "--beta=nan"], r"--beta=nan: must be a finite number"),
    "a negative number": ([*TRAIN, "--beta=-1"], r"--beta=-1.0: must be a finite number, not negative"),
    "an empty value": ([*TRAIN, "--beta="], r"--beta=: expects numbers"),
    "no updates": ([*TRAIN, "--critic_steps=0"], r"--critic_steps=0: must be at least 1"),
    "a bad choice": ([*TRAIN, "--weighting=best"], r"--weighting=best: choose one of sigma2, one, alpha_over_sigma"),
    "an unknown preset": (
        [*TRAIN, "--preset=fast"],
        r"--preset=fast: srpo has none of this name; choose one of quick, paper",
    ),
    "a preset of another method": (
        [*TRAIN, "--preset=corl"],
        r"--preset=corl: srpo has none of this name; choose one of quick, paper",
    ),
    "a preset that one of two methods lacks": (
        [*TRAIN, "--algorithm=srpo,awac", "--preset=paper"],
        r"--preset=paper: awac has none of this name; choose one of quick, official-mujoco, official-hand, corl",
    ),
    "an unknown method": ([*TRAIN, "--algorithm=cql"], r"--algorithm=cql: choose from srpo, .*package.module:METHOD"),
    "a method that is nowhere": (
        [*TRAIN, "--algorithm=nowhere_at_all:METHOD"],
        r"--algorithm=nowhere_at_all:METHOD: No module named 'nowhere_at_all'",
    ),
    "SAC without steps": ([*TRAIN, "--algorithm=sac"], r"--algorithm=sac: learns online alone; give --online_steps"),
    "an unknown precision": (
        [*TRAIN, "--precision=half"],
        r"--precision=half: choose one of auto, float32, tf32, bfloat16",
    ),
    "an unknown strategy": ([*TRAIN, "--strategy=pmap"], r"--strategy=pmap.*auto.*vmap.*map"),
    "an unknown flag": ([*TRAIN, "--betta=0.1"], r"Unknown command line flag 'betta'.*beta"),
    "an argument": ([*TRAIN, "hopper-medium-v2"], r"hopper-medium-v2: unexpected; train takes flags only"),
    "several values": (
        [*TRAIN, "--policy_steps=10,20"],
        r"--policy_steps: takes one value; settings that take several",
    ),
    "several words": ([*TRAIN, "--weighting=one,sigma2"], r"--weighting: takes one value"),
    "times crossed": (
        [*TRAIN, "--time_min=0.9", "--time_max=0.1"],
        r"--time_min=0.9: must not be above --time_max=0.1",
    ),
    "one of many combinations crossed": (
        [
            *TRAIN,
            f"--beta={','.join(str(0.01 * i) for i in range(1, 41))}",
            f"--time_min={','.join(str(0.01 * i) for i in range(1, 30))},0.9",
            "--time_max=0.95,0.5",
        ],
        r"--time_min=0.9: must not be above --time_max=0.5",
    ),
    "negative devices": ([*TRAIN, "--cpu_devices=-1"], r"--cpu_devices=-1: must not be negative"),
    "negative seconds": ([*TRAIN, "--checkpoint_seconds=-1"], r"checkpoint_seconds"),
    "an unknown environment": ([*TRAIN, "--env=Pendulun-v1"], r"'Pendulun-v1'.*closest: Pendulum-v1"),
    "another environment": (
        [*TRAIN, "--env=MountainCarContinuous-v0"],
        r"MountainCarContinuous-v0 is not the environment of.*--env",
    ),
    "out below a file": (["train", "--datasets=DATA", "--out=BLOCKED/run"], r"--out=.*: cannot be written"),
    "out is a file": (["train", "--datasets=DATA", "--out=BLOCKED"], r"--out=.*: cannot be written"),
    "an unknown tracker": ([*TRAIN, "--track=mlflow"], r"--track=mlflow: choose from tensorboard, wandb"),
    "watch nothing": (["watch"], r"watch: takes exactly one RUN_DIR; none was given"),
    "watch no run": (["watch", "nowhere"], r"nowhere is not a run directory, it does not exist"),
    "watch a damaged run": (["watch", "DAMAGED", "--once"], r"sweep.json is not valid JSON"),
    "watch without rest": (["watch", "nowhere", "--interval=0"], r"interval"),
    "export no run": (["export", "nowhere"], r"nowhere is not a run directory, it does not exist"),
    "export to nothing known": (["export", "nowhere", "--to=mlflow"], r"--to=mlflow: choose from tensorboard, wandb"),
    "evaluate nothing": (["evaluate"], r"evaluate: takes exactly one RUN_DIR; none was given"),
    "evaluate two": (["evaluate", "a", "b"], r"evaluate: takes exactly one RUN_DIR; 2 were given"),
    "evaluate no run": (["evaluate", "nowhere"], r"nowhere is not a run directory, it does not exist"),
    "evaluate nothing often": (["evaluate", "nowhere", "--episodes=0"], r"episodes"),
    "report no run": (["report", "nowhere"], r"nowhere.*run directory|run directory.*nowhere"),
    "report a damaged run": (["report", "DAMAGED"], r"sweep.json"),
    "report several runs nowhere": (["report", "one", "two"], r"--out: is required"),
    "report one run elsewhere": (["report", "one", "--out=two"], r"--out: is for several runs"),
    "evaluate a damaged run": (["evaluate", "DAMAGED"], r"sweep.json is not valid JSON"),
    "data": (["data"], r"data: choose one of info, plot, make, download$"),
    "data unknown": (
        ["data", "show", "DATA"],
        r"data show: unknown command; choose one of info, plot, make, download$",
    ),
    "data info nothing": (["data", "info"], r"data info: takes exactly one NAME_OR_PATH"),
    "data make unknown": (["data", "make", "regenerated/foo/medium-v0"], r"TASK one of ant, halfcheetah, hopper"),
    "data make neither": (["data", "make", "hopper-medium-v2"], r"cannot be made here; choose .* or regenerated/TASK"),
    "data make few": (["data", "make", "regenerated/hopper/medium-v0", "--steps=9"], r"--steps=9: must be at least 50"),
    "data download made": (["data", "download", "regenerated/a/b-v0"], r"is made here, not downloaded: .*data make"),
    "data info unmade": (["data", "info", "regenerated/hopper/medium-v0"], r"make it with `jaxrl-srpo data make rege"),
    "data make steps": (["data", "make", "pointmaze/umaze", "--steps=9"], r"--steps: is for .data make regenerated/"),
    "data make rows": (
        ["data", "make", "regenerated/hopper/medium-v0", "--rows=9"],
        r"--rows: is for .data make ogbench/",
    ),
    "data make ogbench": (["data", "make", "ogbench/cube-single-plai-v0"], r"closest: ogbench/cube-single-play-v0"),
    "data make ant": (["data", "make", "ogbench/antmaze-large-navigate-v0"], r"the others need trained experts"),
    "data make ogbench steps": (
        ["data", "make", "ogbench/scene-play-v0", "--steps=9"],
        r"--steps: is for .data make reg",
    ),
    "data make ogbench none": (
        ["data", "make", "ogbench/scene-play-v0", "--episodes=0"],
        r"--episodes=0: must be from 1",
    ),
    "data make ogbench short": (["data", "make", "ogbench/scene-play-v0", "--rows=1"], r"--rows=1: must be from 2"),
    "data make ogbench by none": (
        ["data", "make", "ogbench/scene-play-v0", "--processes=0"],
        r"--processes=0: must be",
    ),
    "data make ogbench much": (["data", "make", "ogbench/scene-play-v0", "--episodes=many"], r"episodes"),
    "data info unknown": (["data", "info", "hoper-medium-v2"], r"unknown dataset 'hoper-medium-v2'; closest: hopper"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="module")
def answers(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Exit code, output and error output of each mistake, all made in one process to import once."""
    directory = tmp_path_factory.mktemp("mistakes")
    (directory / "blocked").write_text("")
    (directory / "damaged").mkdir()
    (directory / "damaged" / "sweep.json").write_text('{"datasets": [')
    words = {"DATA": dataset, "OUT": directory / "out", "BLOCKED": directory / "blocked"}
    words["DAMAGED"] = directory / "damaged"

    def fill(argument: str) -> str:
        for word, path in words.items():
            argument = argument.replace(word, str(path))
        return argument

    given = [[fill(argument) for argument in arguments] for arguments, _ in MISTAKES.values()]
    result = synthetic.python("-c", SEVERAL, json.dumps(given))
    assert result.returncode == 0, result.stderr
    return dict(zip(MISTAKES, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gives_one_line_that_says_what_would_be_right(name: str, answers: dict[str, list[Any]]) -> None:
    code, output, errors = answers[name]
    assert code == 2, errors
    assert output == ""
    # What is said of the data before the mistake is found is no error.
    lines = [line for line in errors.splitlines() if "reward transform" not in line]
    assert len(lines) == 1, errors
    assert lines[0].startswith("jaxrl-srpo: ")
    assert re.search(MISTAKES[name][1], lines[0]), lines[0]


def test_a_mistake_in_a_process_of_its_own() -> None:
    result = synthetic.run(["frobnicate"])
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that ends well and says nothing else."""
    with pytest.raises(SystemExit) as stop:
        main.run(list(arguments))
    output = capsys.readouterr()
    assert stop.value.code == 0, output.err
    assert output.err == ""
    return output.out


COMMANDS = ("train", "prepare", "work", "evaluate", "report", "watch", "export", "methods", "data")


@pytest.mark.parametrize("command", [[], ["help"], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_is_short_and_names_what_there_is(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = output_of(capsys, *command).splitlines()
    assert "jaxrl-srpo" in "\n".join(lines)
    assert max(map(len, lines)) <= 120
    assert len(lines) < 60
    if command[:1] == ["train"]:
        for word in ("--datasets", "--seeds", "--preset", "--out", "--[no]evaluate", "--helpfull", "paper", "corl"):
            assert word in "\n".join(lines)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "--version") == f"jaxrl-srpo {jaxrl_srpo.__version__}\n"


def test_full_help_has_every_setting_by_method_and_the_values_of_the_presets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = output_of(capsys, "train", "--helpfull")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    for method in METHODS:
        for flag, setting in method.settings().items():
            name = f"--[no]{flag}" if isinstance(setting.default, bool) else f"--{flag}"
            assert sum(line.split()[:1] == [name] for line in lines) == 1, flag
    assert all(f"{title}:" in lines for title in setting_flags.groups(METHODS))
    # A flag stands in the group of the class that declares it.
    assert lines.index("SRPO:") < next(i for i, line in enumerate(lines) if line.startswith("  --beta ")) < len(lines)
    flat = " ".join(text.split())
    for values in ("awac_lambda=0.3333", "beta=", "awac_negative_q=True", "expectile=0.9, awr_temperature=10"):
        assert values in flat


@pytest.fixture(scope="module")
def trained(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """A run directory made by the command, and what the command printed."""
    out = tmp_path_factory.mktemp("trained") / "run"
    result = synthetic.run(synthetic.train_command([dataset], out, seeds="0:2", beta="0.1,0.3"))
    assert result.returncode == 0, result.stderr
    return out, result.stdout


@pytest.fixture
def run_dir(trained: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the run directory that a test may change."""
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def read_table(run_dir: pathlib.Path) -> list[dict[str, str]]:
    with (run_dir / "report" / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_writes_the_table_and_says_where(trained: tuple[pathlib.Path, str]) -> None:
    out, printed = trained
    rows = read_table(out)
    columns = ["dataset", "algorithm", "beta", "seeds", "episodes", "mean", "std", "published"]
    assert list(rows[0])[:8] == columns
    assert [(row["dataset"], row["algorithm"], row["beta"], row["seeds"], row["episodes"]) for row in rows] == [
        ("pendulum", "data", "", "", "4"),
        ("pendulum", "bc", "", "2", "1"),
        ("pendulum", "iql", "", "2", "1"),
        ("pendulum", "srpo", "0.1", "2", "1"),
        ("pendulum", "srpo", "0.3", "2", "1"),
    ]
    assert all(float(row["mean"]) <= 0.0 for row in rows)
    assert f"report: {out / 'report'}" in printed
    assert "SRPO" in printed
    assert (out / "report" / "table.md").exists()
    assert list((out / "report").glob("*.png"))


def test_the_run_directory_says_how_to_run_it_again(trained: tuple[pathlib.Path, str]) -> None:
    sweep = json.loads((trained[0] / "sweep.json").read_text())
    assert {"jax", "numpy", "flax", "python"} <= sweep["versions"].keys()
    assert any("--beta=0.1,0.3" in argument for argument in sweep["command"])
    assert [(m["seed"], m["dataset"]) for m in sweep["members"]] == [(s, "pendulum") for s in (0, 0, 1, 1)]
    assert sweep["settings"]["pendulum"]["policy_steps"] == synthetic.TINY["policy_steps"]


def test_report_writes_the_same_again(run_dir: pathlib.Path) -> None:
    before = (run_dir / "report" / "table.csv").read_bytes()
    shutil.rmtree(run_dir / "report")
    with pytest.raises(SystemExit) as stop:
        main.run(["report", str(run_dir)])
    assert stop.value.code == 0
    assert (run_dir / "report" / "table.csv").read_bytes() == before


def test_evaluate_plays_again_with_other_episodes(run_dir: pathlib.Path) -> None:
    before = {row["algorithm"] + row["beta"]: row for row in read_table(run_dir)}
    same = jaxrl_srpo.evaluate(run_dir)
    assert {row["algorithm"] + row["beta"]: row for row in read_table(run_dir)} == before
    rows = jaxrl_srpo.evaluate(run_dir, episodes=2)
    assert [row.episodes for row in same] == [4, 1, 1, 1, 1]
    assert [row.episodes for row in rows] == [4, 2, 2, 2, 2]


def test_evaluating_again_keeps_the_rows_of_training_time(run_dir: pathlib.Path) -> None:
    def rows() -> list[dict[str, str]]:
        with (run_dir / "evaluations.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    before = rows()
    assert {row["again"] for row in before} == {""}
    jaxrl_srpo.evaluate(run_dir, episodes=2)
    jaxrl_srpo.evaluate(run_dir, episodes=3)
    after = rows()
    assert after[: len(before)] == before
    finals = sum(row["final"] == "1" for row in before)
    assert [(row["again"], row["episodes"]) for row in after[len(before) :]] == [("1", "2")] * finals + [
        ("2", "3")
    ] * finals
    row = collect(run_dir)[-1]
    own = [float(one["mean"]) for one in before if one["algorithm"] == "srpo" and one["beta"] == "0.3"]
    assert row.episodes == 3
    assert row.best_mean == pytest.approx(np.mean(own), rel=1e-4)


def test_policies_act_in_the_units_of_the_environment(trained: tuple[pathlib.Path, str]) -> None:
    policy = jaxrl_srpo.load_policy(trained[0], seed=1, beta=0.3)
    observations = np.random.default_rng(0).normal(size=(5, 3))
    actions = policy(observations)
    assert (actions.shape, actions.dtype) == ((5, 1), np.float32)
    for observation, action in zip(observations, actions, strict=True):
        single = policy(observation)
        assert single.shape == (1,)
        np.testing.assert_allclose(single, action, rtol=1e-5, atol=1e-6)
    assert np.abs(actions).max() <= 2.0
    far = policy(1e6 * observations)
    np.testing.assert_allclose(np.abs(far), 2.0, rtol=1e-5)


def test_loaded_policies_score_as_in_the_table(trained: tuple[pathlib.Path, str]) -> None:
    with (trained[0] / "evaluations.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "1" and row["final"] == "1"]
    for algorithm, beta in [("srpo", "0.3"), ("iql", "")]:
        (row,) = [row for row in rows if (row["algorithm"], row["beta"]) == (algorithm, beta)]
        wanted = float(beta) if beta else None
        policy = jaxrl_srpo.load_policy(trained[0], seed=1, beta=wanted, algorithm=algorithm)
        np.testing.assert_allclose(episode_return(policy), float(row["return_mean"]), rtol=1e-3)


def episode_return(policy: Any) -> float:
    environment = gymnasium.make("Pendulum-v1")
    observation, _ = environment.reset(seed=0)
    total, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = environment.step(policy(observation))
        total, done = total + float(reward), terminated or truncated
    environment.close()
    return total


@pytest.mark.parametrize("shape", [(2,), (4,), (5, 4), (1, 5, 3), ()])
def test_observations_of_another_shape_are_refused(trained: tuple[pathlib.Path, str], shape: tuple[int, ...]) -> None:
    policy = jaxrl_srpo.load_policy(trained[0], seed=0, beta=0.1)
    with pytest.raises(ValueError, match=r"expected \[3\] or \[batch, 3\]"):
        policy(np.zeros(shape))


def test_of_several_members_the_one_with_the_best_last_score_is_loaded(trained: tuple[pathlib.Path, str]) -> None:
    with (trained[0] / "evaluations.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["algorithm"] == "srpo" and row["final"] == "1"]
    best = max(rows, key=lambda row: float(row["mean"]))
    messages: list[str] = []
    policy = jaxrl_srpo.load_policy(trained[0], log=messages.append)
    assert isinstance(policy, jaxrl_srpo.Policy)
    member = policy.member
    assert policy.chosen_by.startswith("the best of 4 by the last evaluation: return -")
    assert messages == [f"{trained[0]}: loaded {member.name(srpo.STAGE)}, {policy.chosen_by}"]
    jaxrl_srpo.load_policy(trained[0], seed=1, beta=0.3, log=messages.append)
    assert len(messages) == 1
    assert (str(member.seed), f"{member.settings['beta']:g}") == (best["seed"], best["beta"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"seed": 7}, "a member with seed=7 does not exist"),
        ({"beta": 0.2}, "a member with beta=0.2 does not exist"),
        ({"dataset": "other"}, "a member with dataset=other does not exist"),
        ({"algorithm": "ppo"}, "algorithm ppo: choose one of bc, iql, srpo"),
        ({"temperature": 0.2}, "temperature: no such setting"),
    ],
)
def test_members_that_are_not_there_are_named(
    trained: tuple[pathlib.Path, str], wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        jaxrl_srpo.load_policy(trained[0], **wanted)


def test_training_can_be_tracked(run_dir: pathlib.Path, dataset: pathlib.Path) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    options = jaxrl_srpo.Options(track=("tensorboard",))
    jaxrl_srpo.train(dataset, out=run_dir, seeds=range(2), beta=[0.1, 0.3], options=options, **synthetic.TINY)
    names = sorted(path.parent.name for path in (run_dir / "tensorboard").glob("pendulum/*/events.*"))
    assert names == [f"seed={seed},beta={beta}" for seed in range(2) for beta in (0.1, 0.3)]
