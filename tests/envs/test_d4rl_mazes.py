"""D4RL's mazes: coordinates, starts, goals and ends as in D4RL, and its ant against one that is set up another way."""

import csv
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.make import find_registered, make_environment
from jaxrl_srpo.envs.rollouts import Rollouts, scores
from tests import synthetic

mujoco = pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")

# D4RL's maps as it writes them: U_MAZE_TEST, BIG_MAZE_TEST and HARDEST_MAZE_TEST of d4rl/locomotion/maze_env.py.
ANT_MAPS = {
    "umaze": "11111 1R001 11101 1G001 11111",
    "medium": "11111111 1R011001 10010001 11000111 10010001 10100101 100010G1 11111111",
    "large": (
        "111111111111 1R0001000001 101101010101 100000010001 101111011101 100101000001 110101010111 100100010G01 "
        "111111111111"
    ),
}
# MazeEnv's maps of d4rl/pointmaze/maze_model.py.
POINT_MAPS = {
    "open": "####### #OOOOO# #OOGOO# #OOOOO# #######",
    "umaze": "##### #GOO# ###O# #OOO# #####",
    "medium": "######## #OO##OO# #OO#OOO# ##OOO### #OO#OOO# #O#OO#O# #OOO#OG# ########",
    "large": (
        "############ #OOOO#OOOOO# #O##O#O#O#O# #OOOOOO#OOO# #O####O###O# #OO#O#OOOOO# ##O#O#O#O### #OO#OOO#OGO# "
        "############"
    ),
    "eval-umaze": "##### #OOG# #O### #OOO# #####",
    "eval-medium": "######## #OOOOOG# #O#O##O# #OOOO#O# ###OO### #OOOOOO# #OO##OO# ########",
    "eval-large": (
        "############ #OO#OOO#OGO# ##O###O#O#O# #OO#O#OOOOO# #O##O#OO##O# #OOOOOO#OOO# #O##O#O#O### #OOOO#OOOOO# "
        "############"
    ),
}

# Centers of the goals' cells; the start is the origin.
ANT_GOALS = {"umaze": (0.0, 8.0), "medium": (20.0, 20.0), "large": (32.0, 24.0)}


@pytest.fixture
def ant() -> Iterator[Any]:
    environment = make("antmaze-umaze-v2")
    yield environment
    environment.close()


def make(task: str) -> Any:
    return make_environment(EnvironmentSpec("jaxrl_srpo/" + task))


def walls(environment: Any) -> np.ndarray:
    """Centers [W, 3] of the boxes of the compiled model, in the world."""
    model = environment.unwrapped.model
    return model.geom_pos[model.geom_type == mujoco.mjtGeom.mjGEOM_BOX]


def random_actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 8)).astype(np.float32)


def d4rl_ant() -> tuple[Any, Any]:
    """D4RL's ant on its floor, with D4RL's gear of 1 and range of 30, by MuJoCo's editor instead of the XML tree."""
    import gymnasium.envs.mujoco.mujoco_env as module

    spec = mujoco.MjSpec.from_file(str(pathlib.Path(module.__file__).parent / "assets" / "ant.xml"))
    spec.option.timestep = 0.02
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
    for geom in spec.geoms:
        geom.solref[:2], geom.solimp[:3] = [0.02, 1.0], [0.8, 0.8, 0.01]
        if geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
            ends = geom.fromto.reshape(2, 3)
            length, radius = np.linalg.norm(ends[1] - ends[0]), geom.size[0]
            height = length + radius
            mass = 5.0 * np.pi * radius**2 * height
            across, along = mass * (3 * radius**2 + height**2) / 12, mass * radius**2 / 2
            body, direction = geom.parent, (ends[1] - ends[0]) / length
            body.explicitinertial, body.mass, body.ipos = True, mass, ends.mean(axis=0)
            matrix = across * np.eye(3) + (along - across) * np.outer(direction, direction)
            body.fullinertia = matrix[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    for motor in spec.actuators:
        motor.gear[0], motor.ctrlrange = 1.0, [-30.0, 30.0]
    model = spec.compile()
    return model, mujoco.MjData(model)


def test_every_d4rl_maze_is_evaluated_in_its_own_environment() -> None:
    names = [name for name in d4rl.known_names() if name.startswith(("antmaze", "maze2d"))]
    assert len(names) == 26
    for name in names:
        spec = d4rl.environment(name)
        assert spec is not None
        expected = name.replace("-play", "").replace("-diverse", "").replace("-v0", "-v2")
        assert spec.id == "jaxrl_srpo/" + (expected if name.startswith("antmaze") else name)
        assert find_registered(spec.id).max_episode_steps == d4rl.time_limit(name)
        assert spec.goal_task == ("dense" not in name)


@pytest.mark.parametrize("size", list(ANT_MAPS))
def test_antmaze_has_the_walls_and_time_limit_of_d4rl(size: str) -> None:
    environment = make(f"antmaze-{size}-v2")
    rows = ANT_MAPS[size].split()
    expected = [
        (4.0 * (j - 1), 4.0 * (i - 1), 1.0) for i, row in enumerate(rows) for j, c in enumerate(row) if c == "1"
    ]
    np.testing.assert_array_equal(walls(environment), expected)
    model = environment.unwrapped.model
    boxes = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    np.testing.assert_array_equal(model.geom_size[boxes], np.broadcast_to([2.0, 2.0, 1.0], (len(expected), 3)))
    assert environment.spec.max_episode_steps == (700 if size == "umaze" else 1000)


@pytest.mark.parametrize("size", list(POINT_MAPS))
@pytest.mark.parametrize("dense", [False, True])
def test_maze2d_has_the_walls_and_goal_of_d4rl(size: str, dense: bool) -> None:
    environment = make(f"maze2d-{size}{'-dense' if dense else ''}-v{0 if size == 'open' else 1}")
    rows = POINT_MAPS[size].split()
    expected = [(i + 1.0, j + 1.0, 0.0) for i, row in enumerate(rows) for j, c in enumerate(row) if c == "#"]
    np.testing.assert_array_equal(walls(environment), expected)
    goals = [(i, j) for i, row in enumerate(rows) for j, c in enumerate(row) if c == "G"]
    np.testing.assert_array_equal([environment.unwrapped.goal], goals)


def test_antmaze_observations_are_positions_and_then_velocities(ant: Any) -> None:
    observation, _ = ant.reset(seed=3)
    for action in random_actions(20):
        data = ant.unwrapped.data
        assert observation.shape == (29,)
        np.testing.assert_array_equal(observation[:15], data.qpos.astype(np.float32))
        np.testing.assert_array_equal(observation[15:], data.qvel.astype(np.float32))
        np.testing.assert_allclose(np.linalg.norm(observation[3:7]), 1.0, atol=1e-6)
        observation = ant.step(action)[0]
    assert (ant.action_space.low.tolist(), ant.action_space.high.tolist()) == ([-1.0] * 8, [1.0] * 8)


@pytest.mark.parametrize("size", list(ANT_MAPS))
def test_antmaze_starts_at_the_origin_and_has_another_goal_in_each_episode(size: str) -> None:
    environment = make(f"antmaze-{size}-v2")
    starts, goals = [], []
    for seed in range(300):
        starts.append(environment.reset(seed=seed)[0])
        goals.append(environment.unwrapped.goal)
    start, offsets = np.array(starts), np.array(goals) - ANT_GOALS[size]
    center = np.array([0.0, 0.0, 0.75])
    assert np.all(np.abs(start[:, :3] - center) <= 0.1)
    assert np.abs(start[:, :3].mean(axis=0) - center).max() < 0.02
    np.testing.assert_allclose(start[:, 15:].std(), 0.1, atol=0.01)
    # The sum of uniform numbers up to 1 and up to 0.5.
    assert np.all((offsets >= 0.0) & (offsets <= 1.5))
    np.testing.assert_allclose(offsets.mean(axis=0), 0.75, atol=0.08)
    np.testing.assert_allclose(offsets.std(axis=0), np.sqrt((1 + 0.25) / 12), atol=0.05)


def test_antmaze_ends_with_reward_1_within_half_a_metre_of_the_goal(ant: Any) -> None:
    (action,) = random_actions(1)
    ant.reset(seed=0)
    place = ant.step(action)[0][:2].astype(np.float64)
    for distance, reached in ((0.499, True), (0.501, False)):
        ant.reset(seed=0)
        ant.unwrapped.goal = place + distance * np.array([0.6, -0.8])
        _, reward, terminated, truncated, info = ant.step(action)
        assert (reward, terminated, truncated, info["success"]) == (float(reached), reached, False, reached)


def test_antmaze_is_cut_at_its_time_limit_though_the_ant_has_fallen(ant: Any) -> None:
    ant.reset(seed=0)
    # On its back.
    position = np.zeros(15)
    position[2], position[4] = 0.5, 1.0
    ant.unwrapped.set_state(position, np.zeros(14))
    for step in range(1, 701):
        _, reward, terminated, truncated, _ = ant.step(np.zeros(8, np.float32))
        assert (reward, terminated, truncated) == (0.0, False, step == 700)


@pytest.mark.parametrize("task", ["antmaze-large-v2", "maze2d-large-v1"])
def test_equal_seeds_give_equal_episodes(task: str) -> None:
    def play(environment: Any, seed: int) -> np.ndarray:
        size = environment.action_space.shape[0]
        observations = [environment.reset(seed=seed)[0]]
        observations += [environment.step(action[:size])[0] for action in random_actions(30)]
        return np.append(np.concatenate(observations), environment.unwrapped.goal)

    one, two = make(task), make(task)
    first = play(one, 5)
    assert not np.array_equal(first, play(one, 6))
    np.testing.assert_array_equal(first, play(one, 5))
    np.testing.assert_array_equal(first, play(two, 5))


def test_the_ant_moves_like_d4rls_that_is_set_up_another_way(ant: Any) -> None:
    model, data = d4rl_ant()
    expected_mass = (
        5.0 * np.pi * (4 / 3 * 0.25**3 + 0.08**2 * (8 * (np.sqrt(0.08) + 0.08) + 4 * (np.sqrt(0.32) + 0.08)))
    )
    for ours in (ant.unwrapped.model, model):
        np.testing.assert_allclose(ours.body_mass.sum(), expected_mass)
    ant.reset(seed=1)
    data.qpos[:], data.qvel[:] = ant.unwrapped.data.qpos, ant.unwrapped.data.qvel
    mujoco.mj_forward(model, data)
    contacts = 0
    for action in 1.5 * random_actions(30):
        observation = ant.step(action)[0]
        data.ctrl[:] = np.clip(30.0 * action.astype(np.float64), -30.0, 30.0)
        for _ in range(5):
            mujoco.mj_step(model, data)
            contacts += data.ncon
        np.testing.assert_allclose(observation, np.concatenate([data.qpos, data.qvel]), rtol=1e-4, atol=1e-4)
    assert contacts > 20
    np.testing.assert_allclose(data.time, 3.0)


def test_the_ant_cannot_pass_a_wall(ant: Any) -> None:
    ant.reset(seed=0)
    position = np.array([0.0, 0.0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1])
    velocity = np.zeros(14)
    # D4RL's umaze has its second row's wall at y = 4, from x = -4 to x = 4: to y the way is shut, to x it is free.
    for direction, reach in (((1.0, 0.0), (2.5, 7.0)), ((0.0, 1.0), (0.5, 2.0))):
        velocity[:2] = direction
        ant.unwrapped.set_state(position, 8.0 * velocity)
        for _ in range(10):
            observation = ant.step(np.zeros(8, np.float32))[0]
        assert reach[0] < observation[:2] @ direction < reach[1]


def test_maze2d_places_walls_where_d4rls_observations_have_them() -> None:
    environment = make("maze2d-umaze-v1")
    environment.reset(seed=0)
    # The ball of radius 0.1 is stopped by the faces at 1.5, 3.5 and 4.5 in the world, which is 1.2 further.
    for start, force, end in (((1, 1), (-1, 0), (0.4, 1)), ((3, 1), (0, 1), (3, 3.2)), ((3, 1), (1, 0), (3.2, 1))):
        environment.unwrapped.set_state(np.array(start, float), np.zeros(2))
        for _ in range(150):
            observation = environment.step(np.array(force, np.float32))[0]
        np.testing.assert_allclose(observation[:2], end, atol=0.02)
    np.testing.assert_allclose(environment.unwrapped.data.body("particle").xpos[:2] - 1.2, observation[:2], atol=1e-6)
    np.testing.assert_array_equal(
        observation, np.append(environment.unwrapped.data.qpos, environment.unwrapped.data.qvel).astype(np.float32)
    )


def test_maze2d_starts_in_all_free_cells() -> None:
    environment = make("maze2d-umaze-v1")
    starts = np.array([environment.reset(seed=seed)[0] for seed in range(300)])
    cells = np.round(starts[:, :2])
    assert np.abs(starts[:, :2] - cells).max() <= 0.1
    _, counts = np.unique(cells, axis=0, return_counts=True)
    assert len(counts) == 7
    assert counts.min() > 20
    np.testing.assert_allclose(starts[:, 2:].std(), 0.1, atol=0.01)


@pytest.mark.parametrize("dense", [False, True])
def test_maze2d_rewards_every_step_at_the_goal_and_goes_on(dense: bool) -> None:
    environment = make("maze2d-umaze-dense-v1" if dense else "maze2d-umaze-v1")
    environment.reset(seed=0)
    for distance in (0.3, 0.49, 0.51, 1.0):
        environment.unwrapped.set_state(np.array([1.0, 1.0 + distance]), np.zeros(2))
        _, reward, terminated, truncated, info = environment.step(np.zeros(2, np.float32))
        assert reward == pytest.approx(np.exp(-distance) if dense else float(distance < 0.5))
        assert (terminated, truncated, info["success"]) == (False, False, distance < 0.5)


def test_maze2d_scores_are_normalized_sums_of_rewards() -> None:
    spec = d4rl.environment("maze2d-open-v0")
    assert spec is not None

    def to_the_goal(observations: np.ndarray) -> np.ndarray:
        return np.clip(3.0 * (np.array([2.0, 3.0]) - observations[..., :2]) - observations[..., 2:], -1.0, 1.0)

    with Rollouts([spec], 3, 0) as rollouts:
        episodes = rollouts.run(to_the_goal)
    assert episodes.lengths.tolist() == [[150] * 3]
    assert episodes.successes.all()
    assert np.all((episodes.returns > 20) & (episodes.returns <= 150))
    reference = d4rl.reference("maze2d-open-v0")
    np.testing.assert_allclose(
        scores(episodes, 0, reference).values, 100.0 * (episodes.returns[0] - 0.01) / (20.66 - 0.01)
    )


def test_a_file_in_the_layout_of_antmaze_trains_and_is_evaluated(tmp_path: pathlib.Path) -> None:
    random, size = np.random.default_rng(0), 400
    with h5py.File(tmp_path / "antmaze_umaze-mine.hdf5", "w") as file:
        file["observations"] = np.cumsum(random.normal(0.0, 0.02, (size, 29)), axis=0).astype(np.float32)
        file["actions"] = random_actions(size)
        file["rewards"] = (np.arange(size) % 100 == 99).astype(np.float32)
        file["terminals"] = np.zeros(size, bool)
        file["timeouts"] = np.arange(size) % 100 == 99
    result = synthetic.run(
        synthetic.train_command([tmp_path / "antmaze_umaze-mine.hdf5"], tmp_path / "run", seeds="0", beta="0.1")
    )
    assert result.returncode == 0, result.stderr
    (facts,) = json.loads((tmp_path / "run" / "sweep.json").read_text())["datasets"]
    assert EnvironmentSpec.from_json(facts["environment"]) == EnvironmentSpec(
        "jaxrl_srpo/antmaze-umaze-v2", goal_task=True
    )
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["algorithm"] for row in rows} == {"bc", "iql", "srpo"}
    for row in rows:
        assert row["metric"] == "normalized_score"
        assert float(row["mean"]) == 100.0 * float(row["return_mean"]) == 100.0 * float(row["success_rate"])
        assert float(row["length_mean"]) == 700.0 or float(row["mean"]) > 0.0
    assert (tmp_path / "run" / "report" / "trajectories_antmaze_umaze-mine.png").is_file()
