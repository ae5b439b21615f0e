"""From what an explorer saw to the episodes of a task, without playing anything."""

import numpy as np
import pytest

import explore_learn_finetune as life
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
    rows, task = seen(), life.with_goal(MEDIUM, (4, 4))
    episodes = list(life.episodes(rows, task, seed=0))
    actions = np.concatenate([episode["actions"] for episode in episodes])
    np.testing.assert_array_equal(actions, np.moveaxis(rows[..., 6:8], 1, 0).reshape(-1, 2))
    middle = np.array(Maze(task.maze_map).center((4, 4)))
    reached = 0
    for episode in episodes:
        steps = len(episode["actions"])
        states, goals = (episode["observations"][name] for name in ("achieved_goal", "desired_goal"))
        assert states.shape == goals.shape == (steps + 1, 2)
        assert np.all(np.abs(goals - middle) <= life.GOAL_NOISE)
        near = np.linalg.norm(states[1:] - goals[1:], axis=1) <= life.SUCCESS_DISTANCE
        # Only the last step of an episode may be at the goal, for there it ends.
        assert not near[:-1].any()
        assert bool(episode["terminations"][-1]) is bool(near[-1])
        assert episode["rewards"].tolist() == [*[0.0] * (steps - 1), float(near[-1])]
        assert bool(episode["truncations"][-1]) is not bool(near[-1])
        reached += int(near[-1])
    assert reached > 0


def test_the_goal_moves_and_nothing_else() -> None:
    task = life.with_goal(MEDIUM, (2, 4))
    assert task.goal == (2, 4)
    assert set(Maze(task.maze_map).free) == set(Maze(MEDIUM.maze_map).free)
    with pytest.raises(UserError, match="cell 0,0 of the maze is a wall or a start"):
        life.with_goal(MEDIUM, (0, 0))


def test_only_bins_inside_the_maze_can_be_reached() -> None:
    plan = life.Life()
    # Each free cell of a metre has four bins of half a metre.
    assert life.reachable_bins(plan).sum() == 4 * len(Maze(MEDIUM.maze_map).free)
    entropy, coverage = life.reach(life.reachable_bins(plan).astype(np.float32), plan)
    assert (entropy, coverage) == (pytest.approx(np.log(4 * len(Maze(MEDIUM.maze_map).free)), abs=1e-4), 1.0)


def test_every_arrival_is_counted_in_its_bin() -> None:
    plan, rows = life.Life(), seen()
    counts = life.visits(rows, plan).reshape(12, 12)
    assert counts.sum() == 700 * 2
    x, y = rows[..., 9], rows[..., 10]
    inside = (x >= 0.0) & (x < 0.5) & (y >= -0.5) & (y < 0.0)
    assert counts[6, 5] == inside.sum() > 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--goals=6", "--goals=6: give cells as ROW:COLUMN"),
        ("--goals=0:0", "is a wall or a start"),
        ("--explorers=ngu", "--explorers=ngu: choose from smm"),
        ("--steps=1005", "--steps=1005: must be a multiple of 10"),
    ],
)
def test_bad_input_is_refused(flag: str, message: str, tmp_path: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match=message):
        life.main([f"--out={tmp_path}", flag])
