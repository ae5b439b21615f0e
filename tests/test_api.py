"""What a program asks for; whole runs are tested with the command line and in `integration`."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo import api
from jaxrl_srpo.cli import main
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import iql
from jaxrl_srpo.report import Row, collect
from jaxrl_srpo.report.records import TrainingMetrics, read_metrics
from jaxrl_srpo.report.table import Table
from jaxrl_srpo.runs.options import Options
from jaxrl_srpo.runs.run_directory import RunDirectory
from tests import synthetic
from tests.data.swing import swing
from tests.data.test_recording import write_with_resets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "one.hdf5")


@pytest.fixture(scope="module")
def run_dir(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run of IQL, two seeds."""
    out = tmp_path_factory.mktemp("api") / "run"
    rows = jaxrl_srpo.train(
        dataset, out, seeds=np.arange(2), algorithm="iql", log=lambda message: None, **synthetic.TINY
    )
    assert all(isinstance(row, Row) for row in rows)
    assert [(row.algorithm, row.seeds) for row in rows] == [("data", None), ("iql", 2)]
    return out


def test_a_finished_run_is_continued_with_nothing_to_train(run_dir: pathlib.Path, dataset: pathlib.Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").glob("*/*")}
    messages: list[str] = []
    rows = jaxrl_srpo.train(
        dataset,
        out=run_dir,
        seeds=range(2),
        algorithm=iql.METHOD,
        expectile=np.asarray([0.7]),
        log=messages.append,
        **synthetic.TINY,
    )
    assert {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").glob("*/*")} == stamps
    assert messages[0] == "one: 196 transitions, 4 episodes, reward transform none"
    assert rows == collect(run_dir)


def test_a_run_is_asked_for_again_by_its_own_file(
    run_dir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = run_dir / "sweep.json"
    rows = jaxrl_srpo.train(config=asked, out=tmp_path / "again", log=lambda message: None)
    assert rows == collect(run_dir)
    # What is given goes before the file, also on a command line.
    jaxrl_srpo.prepare(config=asked, out=tmp_path / "python", seeds=[1])
    main.main(["prepare", f"--config={asked}", f"--out={tmp_path / 'shell'}", "--seeds=1", "--cpu_devices=8"])
    for name in ("python", "shell"):
        (member,) = RunDirectory(tmp_path / name).members()
        assert member == RunDirectory(run_dir).members()[1]
    assert f"jaxrl-srpo work {tmp_path / 'shell'}" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["datasets", "out"])
def test_what_is_required(missing: str, tmp_path: pathlib.Path) -> None:
    given: dict[str, Any] = {"datasets": "pointmaze/umaze", "out": tmp_path / "run"}
    del given[missing]
    with pytest.raises(UserError, match=f"--{missing}: is required; for instance {missing}="):
        jaxrl_srpo.train(**given)
    assert not (tmp_path / "run").exists()


def test_a_callback_gets_every_row_of_metrics(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    calls: list[tuple[str, int, Sequence[TrainingMetrics]]] = []
    jaxrl_srpo.train(
        dataset,
        tmp_path / "run",
        seeds=range(2),
        algorithm="iql",
        options=Options(evaluate=False),
        callback=lambda stage, step, metrics: calls.append((stage, step, metrics)),
        log=lambda message: None,
        **synthetic.TINY,
    )
    assert [(stage, step, [one.seed for one in metrics]) for stage, step, metrics in calls] == [
        ("critic", 4, [0, 1]),
        ("critic", 8, [0, 1]),
    ]
    written = read_metrics(tmp_path / "run")
    told = [one for _, _, metrics in calls for one in metrics]
    assert [one.result for one in told] == [one.result for one in written]
    for one, row in zip(told, written, strict=True):
        assert list(one.values) == list(row.values)
        assert one.values == pytest.approx(row.values, rel=1e-5)


def test_a_callback_that_fails_ends_the_run_which_goes_on_later(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    given: dict[str, Any] = {"out": tmp_path / "run", "seeds": [0], "algorithm": "iql", **synthetic.TINY}

    def fail(stage: str, step: int, metrics: Sequence[TrainingMetrics]) -> None:
        raise LookupError(f"{stage} at {step}")

    with pytest.raises(LookupError, match="critic at 4"):
        jaxrl_srpo.train(dataset, callback=fail, log=lambda message: None, **given)
    assert [row.seeds for row in jaxrl_srpo.train(dataset, log=lambda message: None, **given)] == [None, 1]


def test_prompts_and_notebooks_show_a_table(run_dir: pathlib.Path, dataset: pathlib.Path) -> None:
    rows = jaxrl_srpo.train(config=run_dir / "sweep.json", out=run_dir, log=lambda message: None)
    assert repr(rows).splitlines()[0].split()[:2] == ["dataset", "algorithm"]
    page = rows._repr_html_()
    assert page.count("<tr>") == 1 + len(rows)
    assert "<td>IQL actor</td>" in page
    assert Table([dataclasses.replace(rows[0], dataset="<b>")])._repr_html_().count("&lt;b&gt;") == 1


def test_a_budget_scales_the_preset_but_nothing_that_is_given(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=[0], budget=0.01, critic_steps=7, log=lambda message: None)
    (member,) = RunDirectory(tmp_path / "run").members()
    assert (member.settings["policy_steps"], member.settings["critic_steps"]) == (50, 7)
    assert not (tmp_path / "run" / "checkpoints").exists()


def refuse(call: Callable[..., Any], message: str, *arguments: Any, **values: Any) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, log=lambda line: None, **values)
    assert "\n" not in str(caught.value)


def test_two_files_of_one_name_are_refused(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = synthetic.write_pendulum(tmp_path / "one.hdf5", seed=3)
    refuse(jaxrl_srpo.prepare, "would both be called one", [dataset, other], tmp_path / "run")


def test_equal_data_of_one_task_are_refused(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(dataset, tmp_path / "other.hdf5")
    message = "--datasets: one and other hold the same transitions; name one of them"
    refuse(jaxrl_srpo.prepare, message, [dataset, tmp_path / "other.hdf5"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_leave_out_the_same_reset_rows(tmp_path: pathlib.Path) -> None:
    """The option is kept in sweep.json, so every worker reads what was prepared."""
    path = write_with_resets(tmp_path / "mine.hdf5")
    options = jaxrl_srpo.Options(evaluate=False, drop_reset_rows=True)
    jaxrl_srpo.prepare(path, tmp_path / "run", seeds=[0], options=options, log=lambda message: None)
    run = RunDirectory(tmp_path / "run")
    read = jaxrl_srpo.load_dataset(path, **Options.from_json(run.read()["options"]).reading())
    fact = run.facts()["mine"]
    assert (read.fingerprint, read.size) == (fact.fingerprint, fact.transitions)
    assert read.size == jaxrl_srpo.load_dataset(path).size - 5


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (b"na\xffme.hdf5", {}, "expected printable text in UTF-8"),
        (b"x.hdf5", {"reward_transform": "d4rl-locomotion"}, "every episode returns 50; choose d4rl-antmaze or none"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(
    tmp_path: pathlib.Path, name: bytes, values: dict[str, Any], message: str
) -> None:
    path = synthetic.write_pendulum(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        file["rewards"][:] = 1.0
        file["terminals"][:], file["timeouts"][:] = file["timeouts"][()], False
    path = path.rename(tmp_path / os.fsdecode(name))
    refuse(jaxrl_srpo.prepare, message, path, tmp_path / "run", **values)
    assert not (tmp_path / "run").exists()


def test_evaluating_needs_something_finished(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    jaxrl_srpo.prepare(dataset, tmp_path / "run", seeds=[0], log=lambda message: None)
    refuse(jaxrl_srpo.evaluate, "no stage is finished yet", tmp_path / "run")
    refuse(jaxrl_srpo.evaluate, "nowhere is not a run directory, it does not exist", tmp_path / "nowhere")


def test_a_negative_number_of_members_is_refused() -> None:
    with pytest.raises(UserError, match="--members_per_population=-1: must not be"):
        jaxrl_srpo.Options(members_per_population=-1)


def test_the_command_is_named_by_the_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/somewhere/bin/jaxrl-srpo", "/somewhere/jaxrl_srpo/__main__.py"):
        monkeypatch.setattr("sys.argv", [program, "train", "--out=x"])
        assert api.command() == ["jaxrl-srpo", "train", "--out=x"]


def line_data(path: pathlib.Path, observation_size: int = 3) -> pathlib.Path:
    """Data with the sizes of `tests.own_tasks`, which name no environment."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = random.normal(size=(60, observation_size)).astype(np.float32)
        file["actions"] = random.uniform(-2.0, 2.0, (60, 1)).astype(np.float32)
        file["rewards"] = random.normal(size=60).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(60, bool), np.arange(60) % 20 == 19
        file.attrs.update(action_low=[-2.0], action_high=[2.0])
    return path


def test_an_environment_may_be_named_after_training(tmp_path: pathlib.Path) -> None:
    messages: list[str] = []
    out = tmp_path / "run"
    data = line_data(tmp_path / "line.hdf5")
    jaxrl_srpo.train(data, out, seeds=[0], algorithm="iql", log=messages.append, **synthetic.TINY)
    assert any("no environment is known; give one with --env=ID; `jaxrl-srpo evaluate" in line for line in messages)
    with pytest.raises(UserError, match="no environment is known; give one with --env=ID"):
        jaxrl_srpo.evaluate(out)
    with pytest.raises(UserError, match="Acrobot-v1 is not the environment of line"):
        jaxrl_srpo.evaluate(out, environment="Acrobot-v1")
    rows = jaxrl_srpo.evaluate(out, environment="tests.own_tasks:LineVector-v0")
    assert [(row.algorithm, row.seeds) for row in rows] == [("data", None), ("iql", 1)]
    # From now on the run knows it.
    assert jaxrl_srpo.evaluate(out)[1].mean == rows[1].mean
    policy = jaxrl_srpo.load_policy(out)
    assert policy.make_environment().reset(seed=0)[0].shape == (3,)
    with pytest.raises(UserError, match=r"--env=Pendulum-v1: line in .* is evaluated in LineVector-v0; leave"):
        jaxrl_srpo.evaluate(out, environment="Pendulum-v1")


def test_a_policy_takes_the_dictionaries_of_its_environment(tmp_path: pathlib.Path) -> None:
    data = line_data(tmp_path / "line.hdf5", observation_size=5)
    options = Options(environment="tests.own_tasks:LineGoal-v0")
    jaxrl_srpo.train(data, tmp_path / "run", seeds=[0], algorithm="iql", options=options, **synthetic.TINY)
    policy = jaxrl_srpo.load_policy(tmp_path / "run", log=lambda message: None)
    environment = gymnasium.make("LineGoal-v0")
    start = environment.reset(seed=0)[0]
    flat = np.concatenate([start["achieved_goal"], start["observation"], start["desired_goal"]])
    np.testing.assert_array_equal(policy(start), policy(flat))


def test_a_batch_in_a_forked_process_is_refused(run_dir: pathlib.Path) -> None:
    code = f"""
import multiprocessing, warnings
import numpy as np
import jaxrl_srpo
warnings.simplefilter("ignore")
policy = jaxrl_srpo.load_policy({str(run_dir)!r}, seed=0)
policy(np.zeros((4, 3)))

def ask(observation):
    try:
        return policy(observation).shape
    except jaxrl_srpo.UserError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    for answer in pool.map(ask, [np.zeros(3), np.zeros((4, 3))]):
        print(answer)
"""
    ended = synthetic.python("-c", code)
    assert ended.returncode == 0, ended.stderr
    one, batch = ended.stdout.splitlines()
    assert one == "(1,)"
    assert batch.startswith("this process was forked after the policy was loaded, and JAX cannot run in it")
    assert 'get_context("spawn")' in batch


@pytest.fixture(scope="module")
def run_of_arrays(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run of IQL on arrays, one seed."""
    out = tmp_path_factory.mktemp("arrays") / "run"
    rows = jaxrl_srpo.train(swing(), out, seeds=[0], algorithm="iql", log=lambda message: None, **synthetic.TINY)
    assert [(row.dataset, row.algorithm) for row in rows] == [("my-data", "data"), ("my-data", "iql")]
    return out


def test_a_run_of_arrays_is_continued_with_equal_ones(run_of_arrays: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = shutil.copytree(run_of_arrays, tmp_path / "run")
    np.savez(tmp_path / "my-data.npz", **swing())
    more = {"algorithm": "iql", "log": lambda message: None, **synthetic.TINY}
    for given in (jaxrl_srpo.Dataset.from_arrays(**swing()), swing(), tmp_path / "my-data.npz"):
        before = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").glob("*/*")}
        jaxrl_srpo.train(given, run, seeds=[0], **more)
        assert {path: path.stat().st_mtime_ns for path in (run / "checkpoints").glob("*/*")} == before
    rows = jaxrl_srpo.train([swing(), swing(seed=1) | {"name": "other"}], run, seeds=[0, 1], **more)
    assert [(row.dataset, row.seeds) for row in rows if row.algorithm == "iql"] == [("my-data", 2), ("other", 2)]
    with pytest.raises(UserError, match="holds a run on other data named my-data; choose another"):
        jaxrl_srpo.train(swing(seed=1), run, seeds=[0], **more)


def test_a_run_of_arrays_is_evaluated_and_acts_without_data(
    run_of_arrays: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run = shutil.copytree(run_of_arrays, tmp_path / "run")
    assert [row.algorithm for row in jaxrl_srpo.evaluate(run)] == ["data", "iql"]
    policy = jaxrl_srpo.load_policy(run, log=lambda message: None)
    assert policy(policy.make_environment().reset(seed=0)[0]).shape == (1,)
    # What is finished needs none either.
    assert jaxrl_srpo.work(run, log=lambda message: None)


def test_workers_say_that_the_data_were_arrays(tmp_path: pathlib.Path) -> None:
    lines: list[str] = []
    jaxrl_srpo.prepare(swing(), tmp_path / "run", seeds=[0], algorithm="iql", log=lines.append, **synthetic.TINY)
    assert "my-data: arrays of this program, which workers do not have; `train` with equal ones trains them" in lines
    refuse(jaxrl_srpo.work, "the data of my-data were arrays of a Python program, which no other", tmp_path / "run")


def test_names_datasets_and_dictionaries_may_be_mixed(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    given = [dataset, jaxrl_srpo.Dataset.from_arrays(**swing(1)), swing(2) | {"name": "third"}]
    jaxrl_srpo.prepare(given, tmp_path / "run", seeds=[0], algorithm="iql", log=lambda message: None)
    facts = RunDirectory(tmp_path / "run").facts()
    assert {name: fact.given for name, fact in facts.items()} == {
        "one": str(dataset),
        "my-data": None,
        "third": None,
    }
    message = "--datasets: two are called my-data; give each a name of its own"
    refuse(jaxrl_srpo.prepare, message, [swing(1), swing(2)], tmp_path / "other")
    message = "--datasets: my-data and third hold the same transitions; name one of them"
    refuse(jaxrl_srpo.prepare, message, [swing(1), swing(1) | {"name": "third"}], tmp_path / "other")
    refuse(jaxrl_srpo.prepare, "datasets: int is no dataset; give a name, a path", 7, tmp_path / "other")
    assert not (tmp_path / "other").exists()
