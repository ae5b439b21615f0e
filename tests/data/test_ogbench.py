"""OGBench's files are read as the package itself reads and relabels them, and what is wrong with one is one line."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data import ogbench
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.data.facts import dataset_facts
from jaxrl_srpo.data.loading import read_dataset
from jaxrl_srpo.data.ogbench_tasks import Name, find_task
from jaxrl_srpo.data.weighting import weighted_rows
from jaxrl_srpo.errors import DatasetError
from tests.data.ogbench_files import solve, solved_tasks, trajectories, write

CUBE = "cube-single-play"
# One environment for each kind of goal, and those in which the order of parts may be mistaken.
FAMILIES = {
    "pointmaze-medium": "navigate",
    "antmaze-large": "explore",
    "humanoidmaze-medium": "stitch",
    "antsoccer-arena": "navigate",
    "cube-single": "play",
    "cube-double": "noisy",
    "cube-triple": "play",
    "cube-quadruple": "play",
    "scene": "play",
    "puzzle-3x3": "play",
    "puzzle-4x5": "noisy",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where OGBench's files are looked for; nothing of this machine's own is found."""
    monkeypatch.setenv("HOME", os.fspath(tmp_path / "home"))
    monkeypatch.setenv("JAXRL_SRPO_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setenv(ogbench.DIRECTORY_VARIABLE, os.fspath(tmp_path / "ogbench"))
    return tmp_path / "ogbench"


def solved_cube() -> dict[str, np.ndarray]:
    """Trajectories of 6 and 4 stored rows; task 2 is solved in rows 2, 3, 5 (a last one) and 8."""
    columns = trajectories("cube-single", (6, 4))
    for row in (2, 3, 5, 8):
        solve(columns, row, find_task(Name("cube-single", "play", task=2)))
    return columns


class TestReading:
    def read(self, folder: pathlib.Path, task: str = "-task2", **columns: Any) -> Dataset:
        write(folder / f"{CUBE}-v0.npz", solved_cube() | columns)
        return read_dataset(f"{CUBE}-singletask{task}-v0")

    def test_the_last_row_of_a_trajectory_gives_a_next_state_only(self, folder: pathlib.Path) -> None:
        data, columns = self.read(folder), solved_cube()
        kept = [0, 1, 2, 3, 4, 6, 7, 8]
        np.testing.assert_array_equal(data.observations, columns["observations"][kept])
        np.testing.assert_array_equal(data.actions, columns["actions"][kept])
        np.testing.assert_array_equal(data.next_observations, columns["observations"][np.array(kept) + 1])
        assert {values.dtype for values in (data.observations, data.actions, data.rewards)} == {np.dtype(np.float32)}

    def test_success_is_a_terminal_and_no_end_of_an_episode(self, folder: pathlib.Path) -> None:
        data = self.read(folder)
        assert data.rewards.tolist() == [-1, -1, 0, 0, -1, -1, -1, 0]
        assert np.flatnonzero(data.terminals).tolist() == [2, 3, 7]
        assert np.flatnonzero(data.episode_ends).tolist() == [4, 7]
        assert data.episode_lengths.tolist() == [5, 3]
        assert data.episode_returns.tolist() == [-3, -2]
        assert data.timeouts == 2
        assert data.goes_on_after_terminals

    def test_it_is_known_by_its_task(self, folder: pathlib.Path) -> None:
        data = self.read(folder, "")
        assert (data.name, data.family) == ("cube-single-play-singletask-v0", "ogbench")
        assert data.source == os.fspath(folder / f"{CUBE}-v0.npz")
        environment = EnvironmentSpec("cube-single-singletask-task2-v0", max_episode_steps=200, goal_task=True)
        assert data.environment == environment
        assert data.reference is None
        np.testing.assert_array_equal([data.action_low, data.action_high], [[-1.0] * 5, [1.0] * 5])
        write(folder / f"{CUBE}-v0.npz", solved_cube())
        assert read_dataset(f"{CUBE}-singletask-v0", env="Hopper-v4").environment == EnvironmentSpec("Hopper-v4")

    def test_tasks_differ_in_rewards_alone(self, folder: pathlib.Path) -> None:
        second, default, fifth = (self.read(folder, task) for task in ("-task2", "", "-task5"))
        assert second.fingerprint == default.fingerprint != fifth.fingerprint
        assert second.inputs_fingerprint == fifth.inputs_fingerprint != second.fingerprint
        np.testing.assert_array_equal(second.observations, fifth.observations)
        assert not fifth.terminals.any()
        other = self.read(folder, "-task2", actions=np.zeros((10, 5), np.float32))
        assert other.inputs_fingerprint != second.inputs_fingerprint

    def test_tasks_share_memory_that_nobody_writes_to(self, folder: pathlib.Path) -> None:
        write(folder / f"{CUBE}-v0.npz", solved_cube())
        one, other = (read_dataset(f"{CUBE}-singletask-task{number}-v0") for number in (1, 2))
        assert one.observations is other.observations
        with pytest.raises(ValueError, match="read-only"):
            one.observations[0] = 0.0

    def test_a_file_that_changed_is_read_again(self, folder: pathlib.Path) -> None:
        first = self.read(folder)
        other = self.read(folder, observations=np.zeros((10, 28), np.float32))
        assert first.fingerprint != other.fingerprint

    def test_wider_floats_and_numbers_for_flags_are_taken(self, folder: pathlib.Path) -> None:
        columns = solved_cube()
        wide: dict[str, Any] = {
            name: columns[name].astype(np.float64) for name in ("observations", "actions", "qpos", "terminals")
        }
        assert self.read(folder, **wide).fingerprint == self.read(folder).fingerprint

    def test_trajectories_of_one_row_give_nothing(self, folder: pathlib.Path) -> None:
        columns: dict[str, Any] = trajectories("cube-single", (3, 1, 2, 1))
        data = self.read(folder, **columns)
        assert data.episode_lengths.tolist() == [2, 1]
        np.testing.assert_array_equal(data.next_observations, columns["observations"][[1, 2, 5]])

    def test_facts_count_trajectories_that_reach_the_goal(self, folder: pathlib.Path) -> None:
        facts = dataset_facts(self.read(folder, "-task1"), reward_transform="none")
        assert (facts.metric, facts.data_mean, facts.episodes, facts.return_mean) == ("success_rate", 0.0, 2, -4.0)
        facts = dataset_facts(self.read(folder), reward_transform="none")
        assert (facts.data_success_rate, facts.return_mean, facts.longest_episode) == (1.0, -2.5, 5)
        assert facts.inputs_fingerprint == self.read(folder).inputs_fingerprint

    def test_trajectories_are_weighted_as_wholes(self, folder: pathlib.Path) -> None:
        chosen = weighted_rows(self.read(folder), 10.0)
        assert set(chosen) == {5, 6, 7}


class TestFinding:
    def test_places_are_looked_at_in_turn(self, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
        places = [folder, tmp_path / "home" / ".ogbench" / "data", tmp_path / "cache" / "ogbench"]
        assert ogbench.folders() == places
        for place in reversed(places):
            file = write(place / f"{CUBE}-v0.npz", solved_cube())
            assert read_dataset(f"{CUBE}-singletask-v0").source == os.fspath(file)

    def test_a_path_ends_with_the_name_of_a_task(self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "mine" / "scene-noisy-v0.npz", trajectories("scene"))
        given = os.fspath(tmp_path / "mine" / "scene-noisy-singletask-task3-v0")
        data = read_dataset(given)
        assert (data.name, data.source) == (
            "scene-noisy-singletask-task3-v0",
            os.fspath(tmp_path / "mine" / "scene-noisy-v0.npz"),
        )
        monkeypatch.chdir(tmp_path)
        relative = "mine/scene-noisy-singletask-task3-v0"
        assert dataset_facts(read_dataset(relative), reward_transform="none", given=relative).given == given

    def test_the_part_for_validation_is_a_dataset_of_its_own(self, folder: pathlib.Path) -> None:
        write(folder / f"{CUBE}-v0.npz", solved_cube())
        write(folder / f"{CUBE}-v0-val.npz", trajectories("cube-single", (3,)))
        assert read_dataset(f"{CUBE}-singletask-v0").size == 8
        validation = read_dataset(f"{CUBE}-singletask-v0-val")
        assert (validation.name, validation.size) == (f"{CUBE}-singletask-v0-val", 2)

    def test_a_folder_of_files_is_read_in_order(self, folder: pathlib.Path) -> None:
        parts = [trajectories("cube-single", (4, 3), seed) for seed in range(3)]
        for number, columns in enumerate(parts):
            write(folder / f"{CUBE}-100m-v0" / f"{CUBE}-v0-{number:03}.npz", columns)
            write(folder / f"{CUBE}-100m-v0" / f"{CUBE}-v0-{number:03}-val.npz", trajectories("cube-single", (2,)))
        data = read_dataset(f"{CUBE}-100m-singletask-task4-v0")
        whole = {name: np.concatenate([columns[name] for columns in parts]) for name in parts[0]}
        write(folder / f"{CUBE}-v0.npz", whole)
        assert data.source == os.fspath(folder / f"{CUBE}-100m-v0")
        assert data.fingerprint == read_dataset(f"{CUBE}-singletask-task4-v0").fingerprint
        assert read_dataset(f"{CUBE}-100m-singletask-task4-v0-val").size == 3

    def test_more_rows_than_memory_holds_are_refused_before_they_are_read(
        self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(folder / f"{CUBE}-v0.npz", solved_cube())
        monkeypatch.setattr(ogbench, "memory", lambda: 4000)
        with pytest.raises(DatasetError, match=r"its 10 rows take 0 GiB in memory; this machine has 0 GiB$"):
            read_dataset(f"{CUBE}-singletask-v0")

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                "cube-single-play-singletask-v0",
                "^cube-single-play-v0.npz is not in .*/ogbench, .*/.ogbench/data, .*/cache/ogbench; make it with "
                "`jaxrl-srpo data make ogbench/cube-single-play-v0`, or fetch it from https://huggingface.co/.* or "
                "https://rail.eecs.berkeley.edu/datasets/ogbench/cube-single-play-v0.npz$",
            ),
            (
                "/none/scene-play-singletask-v0-val",
                "^scene-play-v0-val.npz is not in /none; .* ogbench/scene-play-v0`,",
            ),
            (
                "cube-octuple-play-100m-singletask-v0",
                "^cube-octuple-play-100m-v0: no folder of this name with its files",
            ),
            (
                "cube-single-play-v0",
                "^cube-single-play-v0: has no rewards; name a task of it: cube-single-play-singletask",
            ),
            ("/none/cube-single-play-v0.npz", "^cube-single-play-v0: has no rewards; name a task of it"),
            (
                "cube-singel-play-singletask-v0",
                "^cube-singel-play-singletask-v0: is no dataset of OGBench that is read here; .* closest: cube-single",
            ),
            ("visual-scene-play-singletask-v0", "those of images and with goals are not; closest: scene-play"),
            ("antmaze-large-navigate-oraclerep-v0", "is no dataset of OGBench that is read here"),
        ],
    )
    def test_what_is_not_there_is_told_with_the_way_to_it(self, given: str, message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            read_dataset(given)

    def test_hdf5_files_may_have_any_name(self, tmp_path: pathlib.Path) -> None:
        file = tmp_path / "cube-single-play-singletask-v0"
        file.write_bytes(b"nothing")
        with pytest.raises(DatasetError, match="HDF5"):
            read_dataset(file)


def changed(name: str, row: Any, value: Any) -> dict[str, np.ndarray]:
    """A column of the cube's file with another value in it."""
    values = solved_cube()[name].copy()
    values[row] = value
    return {name: values}


FLOATS = np.zeros((10, 28), np.float32)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"qpos": None}, r"missing field qpos; found observations, actions, terminals, qvel$"),
        ({"terminals": None}, "missing field terminals"),
        ({"observations": FLOATS[:9]}, r"observations has shape \(9, 28\); expected \(10, 28\)"),
        ({"observations": FLOATS[:, :27]}, r"observations has shape \(10, 27\); expected \(10, 28\)"),
        ({"observations": FLOATS.astype(np.uint8)}, "observations holds uint8; expected floats"),
        ({"observations": np.zeros((10, 64, 64, 3), np.uint8)}, r"observations has shape \(10, 64, 64, 3\)"),
        ({"observations": FLOATS.astype(str)}, "observations holds <U32; expected real numbers"),
        ({"observations": FLOATS.astype(object)}, "observations holds object; expected real numbers"),
        ({"actions": np.zeros((10, 5), np.int32)}, "actions holds int32; expected floats"),
        ({"qpos": np.zeros((10, 20), np.float32)}, r"qpos has shape \(10, 20\); expected \(10, 21\)"),
        ({"terminals": np.zeros((10, 1), bool)}, r"terminals has shape \(10, 1\); expected one number for each"),
        ({"terminals": np.ones(1, bool)}, r"terminals has shape \(1,\)"),
        ({"terminals": np.full(10, 2)}, "terminals, row 0: 2; expected 0 or 1"),
        ({"terminals": np.zeros(10, bool)}, "terminals, row 9: 0; the last row must end a trajectory"),
        ({"terminals": np.ones(10, bool)}, "none of its 10 rows is a transition; terminals mark them all"),
        (
            changed("observations", (1, 3), np.nan),
            "transitions: observations, row 1, dimension 3: nan .* must be finite",
        ),
        (changed("actions", (1, 3), np.inf), "transitions: actions, row 1, dimension 3: inf"),
        (changed("actions", (1, 3), 1.5), r"transitions: actions, row 1, dimension 3: 1.5 is outside \[-1, 1\]"),
        (changed("qpos", (2, 1), np.nan), "transitions: qpos, row 2, dimension 1: nan; every value must be finite"),
    ],
)
def test_a_malformed_file_is_one_line(folder: pathlib.Path, columns: dict[str, Any], message: str) -> None:
    content = {name: value for name, value in (solved_cube() | dict(columns)).items() if value is not None}
    file = write(folder / f"{CUBE}-v0.npz", content)
    with pytest.raises(DatasetError, match=f"^{file}: {message}") as error:
        read_dataset(f"{CUBE}-singletask-v0")
    assert "\n" not in str(error.value)


def test_buttons_are_needed_where_the_environment_has_some(folder: pathlib.Path) -> None:
    columns = trajectories("puzzle-3x3")
    write(folder / "puzzle-3x3-play-v0.npz", {k: v for k, v in columns.items() if k != "button_states"})
    with pytest.raises(DatasetError, match="missing field button_states"):
        read_dataset("puzzle-3x3-play-singletask-v0")


def test_what_is_wrong_with_values_is_a_warning_where_that_is_wanted(folder: pathlib.Path) -> None:
    write(folder / f"{CUBE}-v0.npz", solved_cube() | changed("actions", (1, 3), 1.5))
    data = read_dataset(f"{CUBE}-singletask-v0", allow_invalid=True)
    assert [line.partition(": ")[2][:38] for line in data.warnings] == ["transitions: actions, row 1, dimension"]


@pytest.mark.parametrize("name", ["cut", "text", "empty"])
def test_a_damaged_file_is_one_line(folder: pathlib.Path, name: str) -> None:
    file = write(folder / f"{CUBE}-v0.npz", solved_cube())
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "text": b"text", "empty": b""}[name])
    with pytest.raises(DatasetError, match=r"cube-single-play-v0.npz is no NumPy archive \(.npz\), or is cut: .+"):
        read_dataset(f"{CUBE}-singletask-v0")


@pytest.mark.parametrize("environment", FAMILIES)
def test_every_row_of_every_task_is_as_the_package_reads_it(folder: pathlib.Path, environment: str) -> None:
    package = pytest.importorskip("ogbench", reason="OGBench is not installed")
    from jaxrl_srpo.envs.make import make_environment

    kind = FAMILIES[environment]
    file = write(folder / f"{environment}-{kind}-v0.npz", solved_tasks(environment, kind))
    write(folder / f"{environment}-{kind}-v0-val.npz", trajectories(environment, (3,)))
    made = make_environment(EnvironmentSpec(f"{environment}-singletask-v0"))
    try:
        for number in range(1, 6):
            name = f"{environment}-{kind}-singletask-task{number}-v0"
            made.unwrapped._reward_task_id = number  # type: ignore[attr-defined]
            theirs, _ = package.make_env_and_datasets(
                name, dataset_path=os.fspath(file), dataset_only=True, cur_env=made.unwrapped
            )
            compare(read_dataset(name), theirs)
    finally:
        made.close()


def compare(ours: Dataset, theirs: Mapping[str, np.ndarray]) -> None:
    for column in ("observations", "actions", "next_observations", "rewards"):
        np.testing.assert_array_equal(getattr(ours, column), theirs[column])
    np.testing.assert_array_equal(1.0 - ours.terminals, theirs["masks"])
    np.testing.assert_array_equal(ours.episode_ends, theirs["terminals"])
    assert 0 < ours.terminals.sum() < ours.size
