"""OGBench's tasks: their tables beside what the package itself says, their names, and the rewards of crafted states."""

import dataclasses

import numpy as np
import pytest

from jaxrl_srpo.data import ogbench_tasks
from jaxrl_srpo.data.ogbench_tasks import Name, Task, parse
from jaxrl_srpo.errors import DatasetError, UserError
from tests.data.ogbench_files import solve, trajectories

ENVIRONMENTS = ogbench_tasks.environments()
TASKS = [(environment, number) for environment in ENVIRONMENTS for number in range(1, 6)]
# MuJoCo does not load its model in 1.2.2: its teleporters' colors are missing.
BROKEN = "humanoidmaze-teleport"


def task_of(environment: str, number: int) -> Task:
    return ogbench_tasks.find_task(Name(environment, "play", task=number))


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name", "file", "environment_id"),
        [
            (
                "cube-single-play-singletask-v0",
                Name("cube-single", "play", task=0),
                "cube-single-play-v0",
                "cube-single-singletask-task2-v0",
            ),
            (
                "scene-noisy-singletask-task5-v0",
                Name("scene", "noisy", task=5),
                "scene-noisy-v0",
                "scene-singletask-task5-v0",
            ),
            (
                "antmaze-giant-explore-singletask-task3-v0-val",
                Name("antmaze-giant", "explore", task=3, validation=True),
                "antmaze-giant-explore-v0-val",
                "antmaze-giant-singletask-task3-v0",
            ),
            (
                "puzzle-4x6-play-100m-singletask-v0",
                Name("puzzle-4x6", "play", large=True, task=0),
                "puzzle-4x6-play-100m-v0",
                "puzzle-4x6-singletask-task2-v0",
            ),
            ("antsoccer-arena-stitch-v0", Name("antsoccer-arena", "stitch"), "antsoccer-arena-stitch-v0", None),
        ],
    )
    def test_they_are_taken_apart(self, text: str, name: Name, file: str, environment_id: str | None) -> None:
        assert parse(text) == name
        assert name.file == file
        assert environment_id is None or name.environment_id == environment_id

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "cube-single-play-singletask-task0-v0",
            "cube-single-play-singletask-task6-v0",
            "cube-single-play-singletask-task10-v0",
            "cube-single-play-v1",
            "cube-single-navigate-v0",
            "cube-single-play-oraclerep-v0",
            "cube-sextuple-play-v0",
            "visual-cube-single-play-v0",
            "powderworld-easy-play-v0",
            "pointmaze-medium-explore-v0",
            "antmaze-large-play-v2",
            "scene-play-singletask-task٣-v0",
        ],
    )
    def test_others_are_none(self, text: str) -> None:
        assert parse(text) is None

    def test_all_that_are_known_are_taken_apart(self) -> None:
        names = ogbench_tasks.known_names()
        assert len(names) == len(set(names)) == 52
        assert all(parse(name) is not None for name in names)

    @pytest.mark.parametrize(
        ("name", "single"),
        [
            (Name("cube-double", "play"), "cube-double-play-singletask{}-v0"),
            (Name("scene", "noisy", large=True, validation=True), "scene-noisy-100m-singletask{}-v0"),
        ],
        ids=["file", "folder"],
    )
    def test_data_without_a_task_say_which_there_are(self, name: Name, single: str) -> None:
        with pytest.raises(DatasetError) as error:
            ogbench_tasks.find_task(name)
        assert str(error.value) == (
            f"{name.file}: has no rewards; name a task of it: {single.format('')} (task 2) or "
            f"{single.format('-task1')} to {single.format('-task5')}"
        )


class TestRewards:
    @pytest.mark.parametrize(("environment", "number"), TASKS)
    def test_only_a_state_that_solves_all_parts_is_free_and_last(self, environment: str, number: int) -> None:
        columns, task = trajectories(environment, (3, 3)), task_of(environment, number)
        if task.buttons:
            columns["button_states"][:] = 1 - np.array(task.buttons)
        solve(columns, 1, task)
        rewards, solved = task.rewards(columns["qpos"], columns.get("button_states"))
        parts = max(1, len(task.cubes) + len(task.buttons) + len(task.slides))
        assert rewards.dtype == np.float32
        assert rewards.tolist() == [-parts, 0.0, -parts, -parts, -parts, -parts]
        assert solved.tolist() == [False, True, False, False, False, False]

    def test_each_part_counts(self) -> None:
        task, columns = task_of("scene", 1), trajectories("scene", (5,))
        for row in range(5):
            solve(columns, row, task)
        columns["qpos"][0, 14] += 0.05
        columns["button_states"][1] = (0, 1)
        columns["qpos"][2, 23] += 0.05
        columns["qpos"][3, 24] += 0.05
        columns["qpos"][3, 15] += 0.05
        rewards, solved = task.rewards(columns["qpos"], columns["button_states"])
        assert rewards.tolist() == [-1.0, -1.0, -1.0, -2.0, 0.0]
        assert solved.tolist() == [False, False, False, False, True]

    @pytest.mark.parametrize(
        ("environment", "radius", "place"),
        [("pointmaze-medium", 1.0, 0), ("antmaze-medium", 0.5, 0), ("antsoccer-arena", 0.5, 15)],
    )
    def test_a_place_is_reached_within_its_radius(self, environment: str, radius: float, place: int) -> None:
        task, columns = task_of(environment, 1), trajectories(environment, (4,))
        for row, distance in enumerate((0.99 * radius, radius, 1.01 * radius, -radius)):
            solve(columns, row, task)
            columns["qpos"][row, place + row % 2] += distance
        assert task.rewards(columns["qpos"], None)[0].tolist() == [0.0, 0.0, -1.0, 0.0]


class TestTables:
    def test_every_environment_has_five_tasks(self) -> None:
        assert len(ENVIRONMENTS) == len(set(ENVIRONMENTS)) == 24
        assert len(ogbench_tasks.environment_ids()) == 24 * 6
        for environment, number in TASKS:
            widths, task = ogbench_tasks.widths(environment), task_of(environment, number)
            assert len(task.buttons) == widths.buttons
            assert widths.qpos >= 14 + 7 * len(task.cubes) + len(task.buttons) + len(task.slides) or not task.cubes

    @pytest.mark.parametrize(
        ("environment", "number"),
        [
            ("cube-single", 2),
            ("cube-octuple", 2),
            ("scene", 2),
            ("puzzle-3x3", 4),
            ("puzzle-4x4", 4),
            ("puzzle-4x5", 2),
            ("puzzle-4x6", 2),
            ("antsoccer-medium", 4),
            ("humanoidmaze-giant", 1),
            ("pointmaze-teleport", 1),
        ],
    )
    def test_the_default_task(self, environment: str, number: int) -> None:
        assert Name(environment, "play", task=0).number == ogbench_tasks.default_task(environment) == number

    def test_a_goal_of_every_kind(self) -> None:
        assert task_of("antmaze-giant", 4) == Task(place=(44, 16))
        assert task_of("cube-double", 5) == Task(cubes=((0.425, 0.0, 0.02), (0.425, 0.0, 0.06)))
        scene = Task(cubes=((0.33, -0.356, 0.065986),), buttons=(1, 0), slides=(0.0, 0.0))
        assert task_of("scene", 4) == scene
        assert task_of("puzzle-3x3", 1) == Task(buttons=(1, 1, 0, 1, 0, 1, 0, 1, 1))
        assert task_of("antsoccer-arena", 4) == Task(place=(0, 20), body=15)


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name != BROKEN])
def test_goals_sizes_and_limits_are_those_of_the_package(environment: str) -> None:
    pytest.importorskip("ogbench", reason="OGBench is not installed")
    from jaxrl_srpo.data.dataset import EnvironmentSpec
    from jaxrl_srpo.envs.make import make_environment

    made = make_environment(EnvironmentSpec(f"{environment}-singletask-v0"))
    try:
        own, widths = made.unwrapped, ogbench_tasks.widths(environment)
        assert own._reward_task_id == ogbench_tasks.default_task(environment)  # type: ignore[attr-defined]
        assert made.spec is not None
        assert made.spec.max_episode_steps == ogbench_tasks.time_limit(environment)
        assert made.observation_space.shape == (widths.observation,)
        assert made.action_space.shape == (widths.action,)
        assert own.model.nq == widths.qpos  # type: ignore[attr-defined]
        for number in range(1, 6):
            own._reward_task_id = number  # type: ignore[attr-defined]
            made.reset(seed=0)
            assert _goal(own, widths.buttons) == task_of(environment, number), number
    finally:
        made.close()


def _goal(environment: object, buttons: int) -> Task:
    """The goal that an environment of OGBench's has now."""
    own = vars(environment)
    if "cur_goal_xy" in own:
        x, y = own["cur_goal_xy"]
        body = 15 if "ball" in type(environment).__name__.lower() else 0
        return Task(place=(x, y), body=body, radius=own["_goal_tol"])
    places = own["_data"].mocap_pos.tolist() if "_num_cubes" in own else []
    states = own["_target_button_states"].tolist() if buttons else []
    slides = (own["_target_drawer_pos"], own["_target_window_pos"]) if "_target_drawer_pos" in own else ()
    return dataclasses.replace(Task(), cubes=tuple(map(tuple, places)), buttons=tuple(states), slides=slides)


def test_an_environment_that_the_package_cannot_make_is_one_line() -> None:
    pytest.importorskip("ogbench", reason="OGBench is not installed")
    from jaxrl_srpo.data.dataset import EnvironmentSpec
    from jaxrl_srpo.envs.make import make_environment

    with pytest.raises(UserError, match=f"^environment {BROKEN}-singletask-v0 cannot be made with"):
        make_environment(EnvironmentSpec(f"{BROKEN}-singletask-v0"))
