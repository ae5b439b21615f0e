"""Environments from their specs: flat observations, lean mazes, and errors that say what to do."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data import d4rl_layouts
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.envs.make import (
    STAR,
    find_registered,
    import_environment,
    is_registered_as,
    keys_of,
    make_environment,
    make_unflattened,
    with_time_limit,
)
from jaxrl_srpo.errors import UserError
from tests import own_tasks

pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")


def test_our_environments_are_registered_on_first_use() -> None:
    ids = [STAR, "jaxrl_srpo/Manipulation-v0", *(d4rl_layouts.NAMESPACE + task for task in d4rl_layouts.task_names())]
    for environment_id in ids:
        assert find_registered(environment_id).id == environment_id
        assert environment_id in gymnasium.registry
    assert find_registered("jaxrl_srpo/maze2d-large-dense-v1").kwargs["dense"]
    assert find_registered("jaxrl_srpo/antmaze-umaze-v2").max_episode_steps == 700


def test_keyword_arguments_and_time_limit_of_the_spec_are_used() -> None:
    environment = make_environment(EnvironmentSpec("Pendulum-v1", {"g": 5.0}, max_episode_steps=7))
    assert environment.spec is not None
    assert environment.spec.max_episode_steps == 7
    assert environment.unwrapped.g == 5.0  # type: ignore[attr-defined]
    assert find_registered("Pendulum-v1").max_episode_steps == 200


def test_an_environment_without_textures_moves_exactly_like_the_original() -> None:
    spec = pointmaze.environment_spec()
    original, lean = make_environment(spec), make_environment(spec, lean=True)
    assert type(original.unwrapped) is not type(lean.unwrapped)
    np.testing.assert_array_equal(original.reset(seed=7)[0], lean.reset(seed=7)[0])
    random = np.random.default_rng(0)
    for _ in range(spec.max_episode_steps or 0):
        # The bias drives the ball into walls.
        action = random.uniform(-0.8, 1.0, 2).astype(np.float32)
        expected, result = original.step(action), lean.step(action)
        np.testing.assert_array_equal(expected[0], result[0])
        assert expected[1:] == result[1:]
    assert result[3]


def test_observations_are_vectors_of_state_and_goal() -> None:
    spec = pointmaze.environment_spec()
    observation, _ = make_unflattened(spec).reset(seed=1)
    vector, _ = make_environment(spec).reset(seed=1)
    expected = np.concatenate([observation["observation"], observation["desired_goal"]]).astype(np.float32)
    np.testing.assert_array_equal(vector, expected)
    assert vector.dtype == np.float32


def test_mazes_leave_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for lean in (False, True):
        make_environment(pointmaze.environment_spec(), lean=lean).close()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EnvironmentSpec("Hoper-v4"), "unknown environment 'Hoper-v4'; closest: Hopper-v4"),
        (EnvironmentSpec("jaxrl_srpo/antmaze-u-v2"), "unknown environment .*closest: jaxrl_srpo/antmaze-umaze-v2"),
        (EnvironmentSpec("PointMaze_U-v3"), "unknown environment 'PointMaze_U-v3'; closest: PointMaze_UMaze-v3"),
        (EnvironmentSpec("Hopper-v2"), "needs mujoco-py, which is no longer supported; use Hopper-v4"),
        (EnvironmentSpec("Hopper-v4", {"legs": 2}), "environment Hopper-v4 does not take the arguments"),
        (EnvironmentSpec("CliffWalking-v1"), "observations of space Discrete.* cannot be made vectors"),
    ],
)
def test_environments_that_cannot_be_made_are_named(spec: EnvironmentSpec, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make_environment(spec)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("package", "environment"),
    [
        ("mujoco", "Hopper-v4"),
        ("gymnasium_robotics", "AntMaze_X-v4"),
        ("mujoco", "jaxrl_srpo/antmaze-umaze-v2"),
        ("gymnasium_robotics", "jaxrl_srpo/maze2d-umaze-v1"),
    ],
)
def test_a_missing_simulator_is_one_line(package: str, environment: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from jaxrl_srpo.data.dataset import EnvironmentSpec\n"
        "from jaxrl_srpo.envs.make import make_environment\n"
        "from jaxrl_srpo.errors import UserError\n"
        f"try: make_environment(EnvironmentSpec({environment!r}))\n"
        "except UserError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'jaxrl-srpo[mujoco]'" in run.stdout
    assert len(run.stdout.splitlines()) == 1


def test_arguments_that_an_environment_cannot_use_are_one_line() -> None:
    spec = EnvironmentSpec("Pendulum-v1", {"g": "heavy", "render_mode": "nonsense"})
    with pytest.raises(UserError, match=r"Pendulum-v1 (cannot be made with|does not take the arguments) .*nonsense"):
        make_unflattened(spec)


@pytest.mark.parametrize(
    ("entry_point", "same"),
    [
        ("gymnasium.envs.classic_control.pendulum:PendulumEnv", True),
        ("gymnasium.envs.classic_control:PendulumEnv", True),
        ("os:system", False),
        ("gymnasium_evil:Pendulum", False),
    ],
)
def test_an_id_means_what_an_installed_package_registers(entry_point: str, same: bool) -> None:
    assert is_registered_as("Pendulum-v1", entry_point) is same
    assert is_registered_as("jaxrl_srpo/Star-v0", "jaxrl_srpo.envs.star_task:StarTask")
    # Nobody's: `make_environment` says so.
    assert is_registered_as("Nobody-v0", entry_point)


def test_a_module_that_a_person_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ("import gymnasium", "from tests.own_tasks import Line", "gymnasium.register('Named-v0', Line)")
    (tmp_path / "tasks_of_a_test.py").write_text("\n".join(lines))
    assert import_environment("Pendulum-v1") == "Pendulum-v1"
    with pytest.raises(UserError, match="unknown environment 'tasks_of_a_test:Named-v0'"):
        make_environment(EnvironmentSpec("tasks_of_a_test:Named-v0"))
    with pytest.raises(UserError, match=r"'Named-v0'.*if a module of yours registers it: --env=MODULE:Named-v0"):
        make_environment(EnvironmentSpec("Named-v0"))
    assert import_environment("tasks_of_a_test:Named-v0") == "Named-v0"
    assert make_environment(EnvironmentSpec("Named-v0")).observation_space.shape == (3,)
    with pytest.raises(UserError, match="--env=nowhere_at_all:X-v0: No module named 'nowhere_at_all'"):
        import_environment("nowhere_at_all:X-v0")


@pytest.mark.parametrize(
    ("name", "keys", "width"),
    [
        ("LineVector-v0", (), 3),
        ("LineEntries-v0", ("position", "past/velocity"), 2),
        # At its start the position is equal to the first entry of the observation, which is the velocity.
        ("LineGoal-v0", ("achieved_goal", "observation", "desired_goal"), 5),
    ],
)
def test_dictionaries_become_vectors_of_one_width(name: str, keys: tuple[str, ...], width: int) -> None:
    own_tasks.register()
    environment = make_environment(EnvironmentSpec(name))
    assert keys_of(environment) == keys
    assert environment.observation_space.shape == environment.reset(seed=0)[0].shape == (width,)
    assert environment.step(np.ones(1, np.float32))[0].shape == (width,)


def test_the_data_decide_which_entries_of_a_goal_task_count() -> None:
    own_tasks.register()
    environment = make_environment(EnvironmentSpec("LineGoal-v0", observation_keys=("observation", "desired_goal")))
    assert environment.reset(seed=0)[0].shape == (4,)


def test_an_environment_without_a_time_limit_gets_one() -> None:
    own_tasks.register()
    endless, limited = EnvironmentSpec("LineEndless-v0"), EnvironmentSpec("LineVector-v0")
    assert with_time_limit(endless, 7).max_episode_steps == 7
    assert with_time_limit(endless, 0) == endless
    assert with_time_limit(limited, 7) == limited
    own = EnvironmentSpec("LineEndless-v0", max_episode_steps=3)
    assert with_time_limit(own, 7) == own
    assert with_time_limit(EnvironmentSpec("Nobody-v0"), 7) == EnvironmentSpec("Nobody-v0")
