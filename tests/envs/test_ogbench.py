"""OGBench's environments: rows that share a few of them do what an environment of one's own does, to the last bit."""

import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data import ogbench_tasks
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import make, ogbench
from jaxrl_srpo.envs.batched import make_simulator
from jaxrl_srpo.envs.rollouts import Rollouts, scores
from jaxrl_srpo.envs.simulator import GymnasiumSimulator, VectorSimulator
from jaxrl_srpo.errors import UserError

pytest.importorskip("ogbench", reason="OGBench is not installed")

STEPS = 12
IDS = (
    "cube-double",
    "scene",
    "puzzle-3x3",
    "pointmaze-medium",
    "antmaze-large",
    "antsoccer-arena",
    "humanoidmaze-medium",
)


def spec_of(name: str, task: str = "", **fields: Any) -> EnvironmentSpec:
    return EnvironmentSpec(f"{name}-singletask{task}-v0", goal_task=True, **fields)


def actions_of(simulator: VectorSimulator, rows: int) -> np.ndarray:
    """[STEPS, rows, action_size], of which some leave the bounds."""
    random = np.random.default_rng(0)
    return random.uniform(-1.2, 1.2, (STEPS, rows, simulator.action_size)).astype(np.float32)


def play(simulator: VectorSimulator, seeds: list[int]) -> list[np.ndarray]:
    """Everything that copies give, from their starts on."""
    rows = np.arange(len(seeds))
    found = [simulator.reset(seeds).observations]
    for actions in actions_of(simulator, len(seeds)):
        found += simulator.step(rows, actions)
    return found


@pytest.mark.parametrize("name", IDS)
def test_rows_do_what_environments_of_their_own_do(name: str) -> None:
    simulator = make_simulator(spec_of(name), 3, workers=2)
    assert isinstance(simulator, ogbench.OGBenchSimulator)
    actions = actions_of(simulator, 3)
    # Two rows of one start, which their actions part.
    found = play(simulator, [5, 6, 5])
    for row, seed in [(0, 5), (1, 6), (2, 5)]:
        alone = make.make_environment(spec_of(name))
        with ogbench.seeded(alone.unwrapped, seed):
            observation, _ = alone.reset(seed=seed)
        np.testing.assert_array_equal(found[0][row], observation)
        for step in range(STEPS):
            observation, reward, terminated, truncated, info = alone.step(actions[step, row])
            own = [values[row] for values in found[1 + 5 * step : 6 + 5 * step]]
            np.testing.assert_array_equal(own[0], observation)
            assert own[1:] == [reward, terminated, truncated, bool(info["success"])]
        alone.close()
    simulator.close()


@pytest.mark.parametrize("name", ["cube-single", "pointmaze-medium"])
def test_starts_follow_from_their_seeds_alone(name: str) -> None:
    simulator = make_simulator(spec_of(name), 2, workers=1)
    first = play(simulator, [3, 4])
    np.random.seed(9)  # noqa: NPY002
    again, other = play(simulator, [3, 4]), simulator.reset([7, 3])
    after = np.random.uniform()  # noqa: NPY002
    np.random.seed(9)  # noqa: NPY002
    assert after == np.random.uniform()  # noqa: NPY002
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(other.observations[1], first[0][0])
    assert not np.array_equal(other.observations[0], first[0][0])
    simulator.close()


def test_environments_whose_goals_change_are_not_shared() -> None:
    varied = spec_of("pointmaze-medium", kwargs={"add_noise_to_goal": True})
    many = EnvironmentSpec("pointmaze-medium-v0")
    assert not ogbench.is_single_task(varied)
    assert not ogbench.is_single_task(many)
    simulator = make_simulator(varied, 1)
    assert isinstance(simulator, GymnasiumSimulator)
    simulator.close()


def test_some_rows_are_reset_while_others_stand_still() -> None:
    simulator = make_simulator(spec_of("scene"), 3, workers=1)
    first = simulator.reset([1, 2, 3]).observations
    steps = [simulator.step(np.array([0, 2]), np.full((2, 5), 0.5, np.float32)).observations for _ in range(3)]
    again = simulator.reset([1], np.array([0]))
    np.testing.assert_array_equal(again.observations[0], first[0])
    later = simulator.step(np.array([0, 1]), np.full((2, 5), 0.5, np.float32)).observations
    np.testing.assert_array_equal(later[0], steps[0][0])
    assert not np.array_equal(later[1], later[0])
    simulator.close()


def test_buttons_lock_the_drawer_of_their_own_row_only() -> None:
    simulator = make_simulator(spec_of("scene", "-task1"), 2, workers=1)
    simulator.reset([0, 0])
    place = simulator._places[0]  # type: ignore[attr-defined]
    kept = simulator._kept  # type: ignore[attr-defined]
    kept[0]["_cur_button_states"], kept[1]["_cur_button_states"] = np.array([0, 1]), np.array([1, 0])
    dampings = []
    for row in (0, 1, 0):
        place.enter(simulator._data[row], kept[row])  # type: ignore[attr-defined]
        dampings.append(place.model.joint("drawer_slide").damping[0])
    assert dampings[0] == dampings[2] != dampings[1]
    simulator.close()


def test_an_episode_ends_where_the_goal_is_reached() -> None:
    spec = spec_of("pointmaze-medium", "-task5", max_episode_steps=ogbench_tasks.time_limit("pointmaze-medium"))

    with Rollouts([spec], 2, seed=0) as rollouts:
        episodes = rollouts.run(lambda observations: np.zeros((1, 2, 2)))
    assert episodes.lengths.tolist() == [[1000, 1000]]
    assert episodes.returns.tolist() == [[-1000.0, -1000.0]]
    assert scores(episodes, 0, None).metric == "success_rate"
    simulator = make_simulator(spec, 1)
    simulator.reset([0])
    place = simulator._places[0]  # type: ignore[attr-defined]
    simulator._data[0].qpos[:] = place.environment.cur_goal_xy  # type: ignore[attr-defined]
    step = simulator.step(np.array([0]), np.zeros((1, 2), np.float32))
    assert (step.rewards[0], step.terminated[0], step.truncated[0], step.successes[0]) == (0.0, True, False, True)
    simulator.close()


def test_mazes_leave_no_files_behind(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    make.make_environment(spec_of("pointmaze-medium")).close()
    assert not list(tmp_path.iterdir())


def test_nothing_is_said_and_nothing_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys\n"
        "from jaxrl_srpo.envs import batched, ogbench\n"
        "from jaxrl_srpo.data.dataset import EnvironmentSpec\n"
        "assert 'ogbench' not in sys.modules and 'mujoco' not in sys.modules\n"
        "batched.make_simulator(EnvironmentSpec('cube-single-singletask-v0'), 2).close()\n"
        "import os\n"
        "assert 'MUJOCO_GL' not in os.environ\n"
        "import mujoco\n"
        "assert mujoco.get_mju_user_warning() is None\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(UserError, match=r"needs OGBench \(.*\); pip install 'jaxrl-srpo\[ogbench\]'$"):
        ogbench.register("scene-singletask-task1-v0")
    ogbench.register("Hopper-v4")
