"""From what an explorer saw to the episodes of a task, without playing anything."""

import dataclasses
import pathlib

import numpy as np
import pytest

from experiments.exploration import life, life_worlds
from experiments.exploration.life_worlds import MazeWorld, StarWorld
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.envs.pointmaze import MAZES, Maze
from jaxrl_srpo.errors import UserError

MEDIUM = MAZES["medium"]


def seen(steps: int = 700, environments: int = 2) -> np.ndarray:
    """Random walks as packed rows [steps, environments, width], begun anew every 600 steps as in the maze."""
    random = np.random.default_rng(0)
    rows = np.zeros((steps, environments, 16), np.float32)
    position = np.zeros((environments, 2))
    for step in range(steps):
        if step % MEDIUM.max_episode_steps == 0:
            position[:] = 0.0
        rows[step, :, :2] = position
        position += random.normal(0.0, 0.2, position.shape)
        rows[step, :, 9:11] = position
        rows[step, :, 6:8] = random.uniform(-1.0, 1.0, (environments, 2))
    rows[..., -1] = 1.0
    return rows


def test_episodes_hold_every_transition_once_and_end_at_the_goal_or_where_exploration_was_cut() -> None:
    rows, world = seen(), MazeWorld("medium")
    episodes = list(world.episodes(rows, (4, 4), seed=0))
    actions = np.concatenate([episode["actions"] for episode in episodes])
    np.testing.assert_array_equal(actions, np.moveaxis(rows[..., 6:8], 1, 0).reshape(-1, 2))
    middle = np.array(Maze(MEDIUM.maze_map).center((4, 4)))
    reached = 0
    for episode in episodes:
        steps = len(episode["actions"])
        states, goals = (episode["observations"][name] for name in ("achieved_goal", "desired_goal"))
        assert states.shape == goals.shape == (steps + 1, 2)
        assert np.all(np.abs(goals - middle) <= life_worlds.GOAL_NOISE)
        near = np.linalg.norm(states[1:] - goals[1:], axis=1) <= life_worlds.SUCCESS_DISTANCE
        # Only the last step of an episode may be at the goal, for there it ends.
        assert not near[:-1].any()
        assert bool(episode["terminations"][-1]) is bool(near[-1])
        assert episode["rewards"].tolist() == [*[0.0] * (steps - 1), float(near[-1])]
        assert bool(episode["truncations"][-1]) is not bool(near[-1])
        reached += int(near[-1])
    assert reached > 0


def test_the_goal_moves_and_nothing_else() -> None:
    world = MazeWorld("medium")
    task = world.with_goal((2, 4))
    assert task.goal == (2, 4)
    assert set(Maze(task.maze_map).free) == set(Maze(MEDIUM.maze_map).free)
    with pytest.raises(UserError, match="cell 0,0 of the maze is a wall or a start"):
        world.task((0, 0))
    with pytest.raises(UserError, match="cell 9,9 of the maze is a wall or a start"):
        world.task((9, 9))


def test_only_bins_inside_the_maze_can_be_reached() -> None:
    world = MazeWorld("medium")
    # Each free cell of a meter has four bins of half a meter.
    assert world.reachable().sum() == 4 * len(Maze(MEDIUM.maze_map).free)
    entropy, coverage = life.reach(world.reachable().astype(np.float32), world)
    assert (entropy, coverage) == (pytest.approx(np.log(4 * len(Maze(MEDIUM.maze_map).free)), abs=1e-4), 1.0)


def test_every_arrival_is_counted_in_its_bin() -> None:
    rows = seen()
    counts = life.visits(rows, MazeWorld("medium")).reshape(12, 12)
    assert counts.sum() == 700 * 2
    x, y = rows[..., 9], rows[..., 10]
    inside = (x >= 0.0) & (x < 0.5) & (y >= -0.5) & (y < 0.0)
    assert counts[6, 5] == inside.sum() > 0


def test_the_table_has_what_was_learned_offline_and_what_became_of_it_online() -> None:
    plan = life.Life("star", chosen=((0, 5),))
    shared = {"explorer": "smm", "entropy": 4.0, "coverage": 1.0, "goal": "0,5", "way": "5 units away", "in_data": 0.25}
    rows = [
        shared | {"algorithm": algorithm, "beta": beta, "seeds": 2, "success": success, "worst_seed": 0.0}
        for algorithm, beta, success in (
            *[("bc", None, 0.1), ("iql", None, 0.5), ("srpo", 0.01, 0.4)],
            *[("srpo", 0.1, 0.6), ("srpo_online", 0.01, 0.9)],
        )
    ]
    lines = life.format_markdown(rows, plan).splitlines()
    assert lines[-4:] == [
        "| smm | 4.00 | 1.00 | IQL actor | 0.50 (0.250) | 1 of 1 |",
        "| smm | 4.00 | 1.00 | SRPO, beta 0.01 | 0.40 (0.250) | 0 of 1 |",
        "| smm | 4.00 | 1.00 | SRPO, beta 0.1 | 0.60 (0.250) | 1 of 1 |",
        "| smm | 4.00 | 1.00 | SRPO, then AWAC online, beta 0.01 | 0.90 (0.250) | 1 of 1 |",
    ]


def test_in_the_star_episodes_end_in_the_disc_around_their_goal() -> None:
    world, steps = StarWorld(), 220
    random = np.random.default_rng(0)
    actions = random.uniform(-1.0, 1.0, (steps, 1, 2)).astype(np.float32)
    # Along the first hall and back, so that its goal is passed more than once.
    positions = np.stack([6.0 * np.abs(np.sin(np.arange(steps + 1) / 9.0)), np.zeros(steps + 1)], -1).astype(np.float32)
    rows = np.concatenate([positions[:-1, None], actions, np.zeros((steps, 1, 1)), positions[1:, None]], -1)
    rows = np.concatenate([rows, np.ones((steps, 1, 1))], -1).astype(np.float32)
    episodes = list(world.episodes(rows, (0, 5), seed=0))
    np.testing.assert_array_equal(np.concatenate([each["actions"] for each in episodes]), actions[:, 0])
    ended = [bool(each["terminations"][-1]) for each in episodes]
    assert ended.count(True) >= 3
    for each, terminated in zip(episodes, ended, strict=True):
        near = np.abs(each["observations"][1:, 0] - 5.0) <= 0.5
        assert near.tolist() == [*[False] * (len(near) - 1), terminated]
        assert each["rewards"].sum() == float(terminated)
    with pytest.raises(UserError, match="3:5 is in no hall; there are halls 0 to 2, distances above 2 to 12"):
        world.task((3, 5))


def test_other_steps_and_seeds_in_one_directory_are_learned_from_by_themselves(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    first = life.Life("star", chosen=((0, 5),), steps=200)
    lives = [first, dataclasses.replace(first, seed=1), dataclasses.replace(first, steps=400)]
    learned = []
    for one in lives:
        rows = life.collect("random", one, tmp_path)
        dataset = load_dataset(life.make_dataset("random", rows, (0, 5), one))
        assert dataset.size == one.steps
        np.testing.assert_array_equal(np.sort(dataset.actions, 0), np.sort(rows[..., 2:4].reshape(-1, 2), 0))
        learned.append(dataset)
    assert len({dataset.name for dataset in learned}) == len({dataset.fingerprint for dataset in learned}) == 3
    assert len({life.Life.exploration(one, "random") for one in lives}) == 3
    # The same values find the same data again.
    again = life.collect("random", first, tmp_path)
    assert load_dataset(life.make_dataset("random", again, (0, 5), first)).fingerprint == learned[0].fingerprint


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--goals=6", "--goals=6: give free cells as ROW:COLUMN"),
        ("--goals=0:0", "is a wall or a start"),
        ("--explorers=ngu", "--explorers=ngu: choose from smm"),
        ("--world=moon", "--world=moon: choose from umaze"),
        ("--beta=warm", "--beta=warm: give numbers"),
        ("--steps=1005", "--steps=1005: must be a multiple of 10"),
    ],
)
def test_bad_input_is_refused(flag: str, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        life.main([f"--out={tmp_path}", flag])
