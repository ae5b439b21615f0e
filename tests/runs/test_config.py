"""A sweep in a file."""

import json
import pathlib
from typing import Any

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs.config import as_arguments, as_flags, read_config
from jaxrl_srpo.runs.sweep import Sweep

YAML = """\
datasets: [pointmaze/umaze, "cube-single-play-singletask-task{1:3}-v0"]
seeds: 1:4
beta: [0.05, 1e-2]
critic_steps: 200
behavior_cosine: true
budget: 0.5
"""


def write(path: pathlib.Path, content: str) -> pathlib.Path:
    path.write_text(content)
    return path


def test_a_file_reads_as_a_command_line_would(tmp_path: pathlib.Path) -> None:
    config = read_config(write(tmp_path / "sweep.yaml", YAML))
    assert as_flags(config) == [
        "--datasets=pointmaze/umaze,cube-single-play-singletask-task{1:3}-v0",
        # YAML itself would make 64 of it.
        "--seeds=1:4",
        "--beta=0.05,1e-2",
        "--critic_steps=200",
        "--behavior_cosine=true",
        "--budget=0.5",
    ]
    del config["behavior_cosine"]
    assert as_arguments(config) == {
        "datasets": ["pointmaze/umaze", "cube-single-play-singletask-task{1:3}-v0"],
        "seeds": (1, 2, 3),
        "beta": (0.05, 0.01),
        "critic_steps": (200,),
        "budget": 0.5,
    }


def test_json_and_yaml_say_the_same(tmp_path: pathlib.Path) -> None:
    content = {"seeds": [0, 1], "beta": 0.1, "behavior_cosine": True, "preset": "paper"}
    config = read_config(write(tmp_path / "sweep.json", json.dumps(content)))
    assert config == read_config(write(tmp_path / "sweep.yml", json.dumps(content)))
    expected = {"seeds": (0, 1), "beta": (0.1,), "behavior_cosine": True, "preset": "paper"}
    assert as_arguments(config) == expected


def test_what_a_sweep_asks_for_comes_back(tmp_path: pathlib.Path) -> None:
    given: dict[str, Any] = {"beta": (0.05, 0.2), "critic_steps": (7,), "behavior_cosine": (True,)}
    sweep = Sweep(("pointmaze/umaze",), (3, 0), "quick", given, 0.25, ("srpo", "iql"))
    asked = json.loads(json.dumps(sweep.asked()))
    run = {"asked": asked, "stages": [], "members": []}
    again = as_arguments(read_config(write(tmp_path / "sweep.json", json.dumps(run))))
    names, seeds, preset, budget = (again.pop(name) for name in ("datasets", "seeds", "preset", "budget"))
    algorithms = tuple(again.pop("algorithm"))
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in again.items()}
    assert Sweep(tuple(names), seeds, preset, values, budget, algorithms) == sweep


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seeds: [", "cannot be read as JSON or YAML"),
        ("", "should hold the arguments of train by name"),
        ("- 1", "should hold the arguments of train by name"),
        ("beta: {low: 1}", "beta should be a number, a word, or a list of these"),
        ("beta: []", "beta should be a number, a word, or a list of these"),
        ("algorithm: os:system", "names code to import, os:system; only the command line may"),
        ("env: [my.module:Env-v0]", "names code to import, my.module:Env-v0; only the command line may"),
        ("members: []\nstages: []", "does not say what was asked for, as runs of earlier versions do not"),
        ("!!python/object/apply:os.system [touch ran]", "should hold the arguments of train by name"),
    ],
)
def test_what_is_no_sweep(tmp_path: pathlib.Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config(write(tmp_path / "sweep.yaml", content))
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("betta: 0.1", "betta: no argument of train and no setting"),
        ("beta: high", "--beta=high: expects numbers"),
        ("budget: much", "--budget=much: expects a number"),
        ("behavior_cosine: 1", "--behavior_cosine=1: expects true or false"),
        ("seeds: 4:1", "--seeds=4:1: give a range"),
    ],
)
def test_what_is_no_argument(tmp_path: pathlib.Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_arguments(read_config(write(tmp_path / "sweep.yaml", content)))


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"--config=.*none\.yaml: cannot be read"):
        read_config(tmp_path / "none.yaml")
