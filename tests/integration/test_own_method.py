"""A method of a user's own, in a module of the current folder: what the package's methods get, it gets too."""

import itertools
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import csv_log
from jaxrl_srpo.methods import find_method
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.report import collect
from jaxrl_srpo.report.curves import draw_learning_curves
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from tests import run_comparison, synthetic
from tests.integration import kills

MODULE = '''
"""Cloning with a penalty on large actions."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy


@struct.dataclass
class Settings:
    """Settings of the method."""

    prefix: ClassVar[str] = "gentle"
    title: ClassVar[str] = "Gentle cloning"

    steps: int = setting(1000, "updates of gentle cloning", minimum=1, scaled=True)
    batch_size: int = setting(32, "batch size of gentle cloning", minimum=1)
    gentleness: float = setting(0.5, "weight of the penalty on large actions", swept=True)
    width: int = setting(8, "width of the gentle actor", minimum=1)
    evaluation_interval: int = setting(
        100, "updates between evaluations of gentle cloning", minimum=1, scaled=True, protocol=True
    )


def init(key, spec, settings):
    network = networks.Actor(spec.action_size, settings.width, 1)
    return Learner.create(network, key, jnp.zeros((1, spec.observation_size)))


def loss(params, actor, batch, settings):
    actions = actor.apply(params, batch.observations)
    size = jnp.mean(actions**2)
    return jnp.mean((actions - batch.actions) ** 2) + settings.gentleness * size, size


def update(state, batch, settings):
    (value, size), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state, batch, settings)
    return state.apply_gradients(grads, 1e-2), {"loss": value, "action_size": size}


STAGE = Stage(
    name="gentle",
    algorithm="gentle",
    label="Gentle cloning",
    settings=Settings,
    init=init,
    update=update,
    policy=lambda result: DeterministicPolicy(result.params, result.network),
    learns_values=False,
    metrics={"loss": "distance and penalty", "action_size": "mean square of the actions"},
)

METHOD = Method(
    name="gentle",
    title="Gentle cloning",
    source="a test",
    stages=(STAGE,),
    presets={"quick": Preset("a test", lambda dataset, family: {"episodes": 1})},
)
'''
NAME = "gentle_cloning:METHOD"
ALGORITHM = f"--algorithm={NAME}"
# Several commands in one process, to import once; what each printed.
COMMANDS = """
import contextlib, io, json, sys
from jaxrl_srpo.cli import main
results = []
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.run(arguments)
        except SystemExit as stop:
            code = stop.code
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


def train(out: str) -> list[str]:
    settings = {
        "datasets": "pendulum.hdf5",
        "out": out,
        "cpu_devices": 2,
        "seeds": "0:2",
        "algorithm": NAME,
        "gentle_gentleness": "0.5,8",
        "gentle_steps": 60,
        "gentle_evaluation_interval": 25,
        "log_interval": 5,
        "checkpoint_seconds": 0,
    }
    return ["train", *synthetic.flags(**settings)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the method, a dataset and a finished run of two seeds and two values of its own setting."""
    directory = tmp_path_factory.mktemp("own")
    (directory / "gentle_cloning.py").write_text(MODULE)
    synthetic.write_pendulum(directory / "pendulum.hdf5")
    kills.finish(train("run"), directory / "run", directory)
    return directory


@pytest.fixture(scope="module")
def method(folder: pathlib.Path) -> Method:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        return find_method(NAME)


@pytest.fixture(scope="module")
def answers(folder: pathlib.Path) -> dict[str, list[Any]]:
    """Exit code, output and error output of commands on the finished run, by name."""
    commands = {
        "help": ["train", ALGORITHM, "--helpfull"],
        "methods": ["methods", ALGORITHM],
        "report": ["report", "run"],
        "watch": ["watch", "run", "--once", ALGORITHM],
        "work": ["work", "run"],
        "evaluate": ["evaluate", "run"],
        "export": ["export", "run", ALGORITHM],
        "evaluate again": ["evaluate", "run", "--episodes=2", ALGORITHM],
    }
    result = synthetic.python("-c", COMMANDS, json.dumps(list(commands.values())), directory=folder)
    assert result.returncode == 0, result.stderr
    return dict(zip(commands, json.loads(result.stdout), strict=True))


def test_its_members_metrics_and_scores_are_in_the_files(folder: pathlib.Path) -> None:
    metrics = csv_log.read_rows(folder / "run" / "metrics.csv")
    assert {row["setting"] for row in metrics} == {"gentle_gentleness=0.5", "gentle_gentleness=8"}
    assert {row["stage"] for row in metrics} == {"gentle"}
    last = {(row["seed"], row["setting"]): float(row["action_size"]) for row in metrics if row["step"] == "60"}
    for seed in ("0", "1"):
        assert last[seed, "gentle_gentleness=8"] < last[seed, "gentle_gentleness=0.5"]
    scores = csv_log.read_rows(folder / "run" / "evaluations.csv")
    assert sorted({int(row["step"]) for row in scores}) == [25, 50, 60]


def test_its_table_and_its_learning_curve_need_no_code(folder: pathlib.Path) -> None:
    assert "gentle_cloning" not in vars(jaxrl_srpo)
    rows = collect(folder / "run")
    assert [(row.algorithm, row.setting, row.seeds) for row in rows[1:]] == [
        ("gentle", "gentle_gentleness=0.5", 2),
        ("gentle", "gentle_gentleness=8", 2),
    ]
    figure = draw_learning_curves(folder / "run")
    assert figure is not None
    labels = [str(line.get_label()) for panel in figure.axes for line in panel.get_lines()]
    assert any("Gentle cloning" in label for label in labels)


def test_killed_and_started_again_it_ends_bitwise_the_same(
    folder: pathlib.Path, method: Method, tmp_path: pathlib.Path
) -> None:
    out = folder / "killed"
    kills.kill_in_stage(train("killed"), out, "gentle", 4, 0.02, folder)
    kills.finish(train("killed"), out, folder)
    run_comparison.assert_same_results(out, folder / "run", [method])
    assert run_comparison.table(out, "metrics.csv") == run_comparison.table(folder / "run", "metrics.csv")


@pytest.mark.parametrize("command", ["work", "evaluate"])
def test_what_needs_its_code_asks_for_it_in_one_line(answers: dict[str, list[Any]], command: str) -> None:
    code, output, errors = answers[command]
    assert (code, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("jaxrl-srpo: run: holds members of gentle, which is no method of this package")
    assert line.endswith("--algorithm=package.module:METHOD")


def test_its_settings_are_in_the_help_and_on_the_page(answers: dict[str, list[Any]]) -> None:
    code, text, errors = answers["help"]
    assert code == 0, errors
    lines = text.splitlines()
    assert "Gentle cloning:" in lines
    assert any(line.split()[:1] == ["--gentle_gentleness"] for line in lines)
    assert "episodes=1" in text
    code, page, errors = answers["methods"]
    assert code == 0, errors
    assert "| Gentle cloning | `--gentle_gentleness`* | 0.5 |" in page
    assert "| action_size | mean square of the actions |" in page


@pytest.mark.parametrize("command", ["report", "watch", "evaluate again"])
def test_it_is_reported_watched_and_evaluated_again(answers: dict[str, list[Any]], command: str) -> None:
    code, text, errors = answers[command]
    assert code == 0, errors
    assert "gentle" in text.lower()


def test_it_is_exported(answers: dict[str, list[Any]], folder: pathlib.Path) -> None:
    pytest.importorskip("tensorboardX", reason="extra `tensorboard` is not installed")
    code, text, errors = answers["export"]
    assert code == 0, errors
    assert "wrote run/tensorboard" in text
    assert len(list((folder / "run" / "tensorboard").glob("pendulum/*/events.*"))) == 4


def test_its_policies_are_loaded_by_the_method_itself(folder: pathlib.Path, method: Method) -> None:
    with pytest.raises(UserError, match="holds members of gentle"):
        jaxrl_srpo.load_policy(folder / "run")
    policy = jaxrl_srpo.load_policy(folder / "run", algorithm=method, seed=1, gentle_gentleness=8.0)
    assert isinstance(policy, jaxrl_srpo.Policy)
    assert policy.member.settings["gentle_gentleness"] == 8.0
    actions = policy(np.zeros((4, 3)))
    assert actions.shape == (4, 1)
    assert np.all(np.abs(actions) < 2.0)


def test_a_program_trains_it_as_the_command_does(folder: pathlib.Path, method: Method, tmp_path: pathlib.Path) -> None:
    jaxrl_srpo.train(
        folder / "pendulum.hdf5",
        tmp_path / "run",
        seeds=range(2),
        algorithm=method,
        gentle_gentleness=[0.5, 8.0],
        gentle_steps=60,
        gentle_evaluation_interval=25,
        log_interval=5,
        log=lambda message: None,
        options=jaxrl_srpo.Options(evaluate=False),
    )
    run_comparison.assert_same_results(tmp_path / "run", folder / "run", [method])


RETURNS = '''
"""Cloning towards what follows: a stage that keeps a number for each transition, and one that learns from these."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy


@struct.dataclass
class TailSettings:
    """Settings of the tails."""

    prefix: ClassVar[str] = "tails"
    batch_size: ClassVar[int] = 1

    steps: int = setting(4, "updates in which all tails are summed", minimum=1)


def init_tails(spec):
    return {"tails": jnp.zeros(spec.transitions), "step": jnp.int32(0)}


def update_tails(state, settings, data):
    """Rewards of the transition and of the next two of its episode, a block of the dataset in each update."""
    block = -(-len(state["tails"]) // settings.steps)
    index = state["step"] * block + jnp.arange(block)
    first = data.take(index)
    following = [jnp.where(first.steps_left >= k, data.take(index + k).rewards, 0.0) for k in range(3)]
    tails = state["tails"].at[index].set(sum(following), mode="drop")
    return {"tails": tails, "step": state["step"] + 1}, {"loss": jnp.mean(tails)}


TAILS = Stage(
    name="tails",
    algorithm="tails",
    label="Tails",
    settings=TailSettings,
    init=init_tails,
    update=update_tails,
    result=lambda state: state["tails"],
    policy=None,
    columns=("steps_left",),
    per_transition=True,
)


@struct.dataclass
class Settings:
    """Settings of the regression."""

    prefix: ClassVar[str] = "follow"

    steps: int = setting(8, "updates of the regression", minimum=1)
    batch_size: int = setting(16, "batch size of the regression", minimum=1)


def init(key, spec, settings):
    return Learner.create(networks.Actor(spec.action_size, 8, 1), key, jnp.zeros((1, spec.observation_size)))


def update(state, batch, settings, frozen):
    """The metric shows that the numbers are those of the batch's own transitions."""
    def loss(params):
        return jnp.mean((state.apply(params, batch.observations) - batch.next_actions) ** 2)

    value, grads = jax.value_and_grad(loss)(state.params)
    wrong = jnp.sum(jnp.where(batch.steps_left == 0.0, jnp.abs(frozen[batch.index] - batch.rewards), 0.0))
    return state.apply_gradients(grads, 1e-2), {"loss": value, "wrong": wrong}


STAGE = Stage(
    name="follow",
    algorithm="follow",
    label="Follow",
    settings=Settings,
    init=init,
    update=update,
    policy=lambda result: DeterministicPolicy(result.params, result.network),
    needs=(TAILS,),
    frozen=lambda results: results["tails"],
    columns=("next_actions", "steps_left"),
)
METHOD = Method("follow", "a test", (TAILS, STAGE), {"quick": Preset("a test", lambda dataset, family: {})})
'''


def tails_of(data: jaxrl_srpo.Dataset) -> np.ndarray:
    """Sums of up to three rewards from each transition on, within its episode."""
    starts = np.append(0, np.flatnonzero(data.episode_ends) + 1)
    episodes = [data.rewards[begin:end] for begin, end in itertools.pairwise(starts)]
    return np.concatenate([[own[i : i + 3].sum() for i in range(len(own))] for own in episodes])


def test_a_stage_may_keep_something_of_every_transition(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of datasets of different sizes, whose members then train in programs of their own; it gives no policy."""
    (tmp_path / "tails_method.py").write_text(RETURNS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    method = find_method("tails_method:METHOD")
    sizes = {"long": 4, "short": 3}
    paths = [synthetic.write_pendulum(tmp_path / f"{name}.hdf5", episodes=count) for name, count in sizes.items()]
    jaxrl_srpo.train(paths, tmp_path / "run", range(2), algorithm=method, episodes=1, log_interval=4)

    run = RunDirectory(tmp_path / "run", methods=[method])
    for member in run.members():
        data = jaxrl_srpo.load_dataset(tmp_path / f"{member.dataset}.hdf5")
        np.testing.assert_allclose(load_result(run, method.stages[0], member), tails_of(data), rtol=1e-5)
    metrics = csv_log.read_rows(tmp_path / "run" / "metrics.csv")
    assert [float(row["wrong"]) for row in metrics if row["stage"] == "follow"] == [0.0] * 8
    assert {row["algorithm"] for row in csv_log.read_rows(tmp_path / "run" / "evaluations.csv")} == {"follow"}
    policy = jaxrl_srpo.load_policy(tmp_path / "run", dataset="short", seed=1, algorithm=method)
    assert policy(np.zeros(3, np.float32)).shape == (1,)
