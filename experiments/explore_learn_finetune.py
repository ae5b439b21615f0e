"""The life of a policy: explore a maze without reward, learn a task offline from what was seen, fine-tune it online.

State marginal matching explores Gymnasium-Robotics' PointMaze with no reward at all; what it saw becomes a Minari
dataset for each of several tasks, whose rewards are put on afterwards: 1 at a goal cell, where the episode ends. SRPO
learns every task offline, AWAC goes on with SRPO's actor and critic online. Data of the same size come from random
actions, from SAC that maximises the entropy of its actions alone, and from RND.

    python experiments/explore_learn_finetune.py --out=docs/results/life
"""

import csv
import dataclasses
import io
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxrl_srpo import api, marginals
from jaxrl_srpo.algorithms import exploration, intrinsic, sac, smm
from jaxrl_srpo.command_line import exit_with, parse_experiment, parse_words, prepare_jax
from jaxrl_srpo.data import minari_writer, table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.densities import Histogram
from jaxrl_srpo.envs.pointmaze import MAZES, Cell, Maze, MazeTask
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.files import write_atomically
from jaxrl_srpo.iteration import Loop
from jaxrl_srpo.marginals import Grid
from jaxrl_srpo.online import GymnasiumRun
from jaxrl_srpo.population import Members
from jaxrl_srpo.report import Row
from jaxrl_srpo.report.exploration import draw_heat_maps
from jaxrl_srpo.types import Batch, Spec

USAGE = """\
usage: python experiments/explore_learn_finetune.py --out=DIRECTORY [--FLAG=VALUE ...]

Explores a maze, learns tasks in it offline, and fine-tunes them online. Writes DIRECTORY/life.csv, life.md,
visits.png, a run directory with its own report for every explorer, and the datasets."""

ENVIRONMENTS = 10
SUCCESS_DISTANCE = 0.45
GOAL_NOISE = 0.25
BIN = 0.5


class Explorer(NamedTuple):
    """A way to explore.

    Attributes:
      reward: the intrinsic reward, given the bins of positions; None acts at random and learns nothing.
      hyper: its numbers.
    """

    reward: Callable[[Grid], intrinsic.Intrinsic] | None
    hyper: Any = exploration.Hyper()


# Visits of the last four episodes of each environment are remembered, so that the target moves with the policy.
EXPLORERS = {
    "smm": Explorer(lambda grid: smm.SMM(Histogram(grid, 1, 4_000.0)), smm.Hyper()),
    "rnd": Explorer(lambda grid: exploration.RND()),
    "maxent": Explorer(lambda grid: exploration.Nothing()),
    "random": Explorer(None),
}
TEMPERATURE = 0.1


@dataclasses.dataclass(frozen=True)
class Life:
    """What to do.

    Attributes:
      maze: out of `pointmaze.MAZES`.
      explorers: out of `EXPLORERS`.
      goals: goal cells (row, column), a task each.
      steps: environment steps of exploration, per explorer.
      seed: of the exploration.
      seeds: of learning.
      online_steps: environment steps of fine-tuning; 0 leaves it out.
      overrides: settings of learning in place of the preset's.
    """

    maze: str = "medium"
    explorers: tuple[str, ...] = tuple(EXPLORERS)
    goals: tuple[Cell, ...] = ((2, 4), (4, 2), (5, 4), (6, 6))
    steps: int = 40_000
    seed: int = 0
    seeds: tuple[int, ...] = (0, 1)
    online_steps: int = 10_000
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def task(self) -> MazeTask:
        """The maze with its own goal."""
        return MAZES[self.maze]

    @property
    def grid(self) -> Grid:
        """Bins of positions over the inside of the maze."""
        rows, columns = len(self.task.rows), len(self.task.rows[0])
        low = (1.0 - columns / 2.0, 1.0 - rows / 2.0)
        return Grid(low, BIN, (int((columns - 2) / BIN), int((rows - 2) / BIN)), (0, 1))


def explore(name: str, life: Life) -> np.ndarray:
    """What an explorer saw: packed rows [steps / ENVIRONMENTS, ENVIRONMENTS, width], in order."""
    explorer = EXPLORERS[name]
    learns = explorer.reward is not None
    reward = explorer.reward(life.grid) if explorer.reward else exploration.Nothing()
    # Random actions are those before learning starts, which then never does.
    warmup = 1_000 if learns else life.steps
    loop = Loop(ENVIRONMENTS, update_to_data=0.1, capacity=life.steps, warmup_steps=warmup, random_steps=warmup)
    numbers = sac.Hyper(temperature_learning_rate=0.0, temperature=TEMPERATURE)
    hyper = jax.tree.map(lambda x: jnp.full((1, 1), x, jnp.float32), intrinsic.Hyper(numbers, explorer.hyper))
    nothing = jnp.zeros((1, 1), jnp.int32)
    members = Members(jax.random.split(jax.random.key(life.seed), (1, 1)), table.Slice(nothing, nothing), hyper)
    run = GymnasiumRun(
        [_unrewarded(life.task)], intrinsic.agent(name, reward), sac.Config(), loop, members=members, frozen=None
    )
    try:
        run.run(life.steps // ENVIRONMENTS)
        rows = np.asarray(run.replay.rows[0, 0, : run.steps])
    finally:
        run.close()
    return rows.reshape(-1, ENVIRONMENTS, rows.shape[-1])


def _unrewarded(task: MazeTask) -> EnvironmentSpec:
    """The maze without an end at its goal."""
    kwargs = task.environment.kwargs | {"continuing_task": True, "reset_target": False}
    return EnvironmentSpec(task.environment_id, kwargs, task.max_episode_steps)


def unpack(rows: np.ndarray) -> Batch:
    """Rows [N, width] of the maze as transitions; observations are position, velocity and the goal of the time."""
    return table.unpack(jnp.asarray(rows), Spec(6, 2))


def with_goal(task: MazeTask, goal: Cell) -> MazeTask:
    """The same maze with its goal elsewhere."""
    rows = [row.replace("g", ".") for row in task.rows]
    row, column = goal
    if rows[row][column] != ".":
        raise UserError(f"--goals: cell {row},{column} of the maze is a wall or a start; choose a free cell")
    rows[row] = rows[row][:column] + "g" + rows[row][column + 1 :]
    return dataclasses.replace(task, rows=tuple(rows))


def episodes(rows: np.ndarray, task: MazeTask, seed: int) -> Iterator[dict[str, Any]]:
    """What was seen [T, E, width] as episodes of a task: they end at its goal, and the rest begins another one.

    As in the task itself, the goal of each episode lies up to `GOAL_NOISE` from the middle of its cell.
    """
    random = np.random.default_rng([seed, *task.goal])
    middle = np.array(Maze(task.maze_map).center(task.goal))
    limit = task.max_episode_steps
    for environment in range(rows.shape[1]):
        for start in range(0, len(rows), limit):
            own = unpack(rows[start : start + limit, environment])
            begin, length = 0, len(own.rewards)
            while begin < length:
                goal = middle + random.uniform(-GOAL_NOISE, GOAL_NOISE, 2)
                distances = np.linalg.norm(np.asarray(own.next_observations)[begin:, :2] - goal, axis=1)
                reached = distances <= SUCCESS_DISTANCE
                end = begin + (int(np.argmax(reached)) + 1 if reached.any() else length - begin)
                yield _episode(own, begin, end, goal, bool(reached.any()))
                begin = end


def _episode(own: Batch, begin: int, end: int, goal: np.ndarray, reached: bool) -> dict[str, Any]:
    before, after = np.asarray(own.observations)[begin:end], np.asarray(own.next_observations)[begin:end]
    states = np.concatenate([before[:1], after])[:, :4].astype(np.float64)
    steps = end - begin
    last = np.arange(steps) == steps - 1
    return {
        "observations": {
            "achieved_goal": states[:, :2].copy(),
            "desired_goal": np.tile(goal, (steps + 1, 1)),
            "observation": states,
        },
        "actions": np.asarray(own.actions)[begin:end],
        "rewards": (last & reached).astype(np.float64),
        "terminations": last & reached,
        "truncations": last & (not reached),
    }


def make_dataset(name: str, rows: np.ndarray, goal: Cell, life: Life) -> str:
    """Writes what an explorer saw as a dataset of one task; returns its Minari id."""
    dataset_id = f"pointmaze/{life.maze}-{name}-goal{goal[0]}-{goal[1]}-v0"
    task = with_goal(life.task, goal)

    def play(environment: gymnasium.Env) -> Iterator[dict[str, Any]]:
        del environment
        return episodes(rows, task, life.seed)

    description = {
        "algorithm_name": name,
        "description": f"{rows.shape[0] * rows.shape[1]} steps of exploration without reward, labelled with the "
        f"reward of cell {goal} afterwards.",
        "requirements": ["mujoco", "gymnasium-robotics>=1.4"],
        "seed": life.seed,
    }
    minari_writer.write_dataset(dataset_id, task.environment, play, description, exist_ok=True)
    return dataset_id


def learn(datasets: Sequence[str], run_dir: pathlib.Path, life: Life, online_steps: int) -> list[Row]:
    """SRPO offline on every task of an explorer, and AWAC online from there."""
    more: dict[str, Any] = {"online_steps": online_steps} if online_steps else {}
    return api.train(datasets, run_dir, life.seeds, "quick", **dict(life.overrides), **more)


def visits(rows: np.ndarray, life: Life) -> np.ndarray:
    """How often each bin was arrived at in packed rows [T, E, width], [bins]."""
    return np.asarray(life.grid.counts(unpack(rows.reshape(-1, rows.shape[-1])).next_observations))


def reach(counts: np.ndarray, life: Life) -> tuple[float, float]:
    """Entropy in nats of visited positions, and the share of the bins inside the maze that were visited."""
    reachable = jnp.asarray(reachable_bins(life))
    return float(marginals.entropy(jnp.asarray(counts))), float(marginals.coverage(jnp.asarray(counts), reachable))


def reachable_bins(life: Life) -> np.ndarray:
    """Bins whose middle lies in a free cell, bool [bins]."""
    maze = Maze(life.task.maze_map)
    centers = {maze.center(cell) for cell in maze.free}
    return np.array([any(max(abs(x - a), abs(y - b)) <= 0.5 for a, b in centers) for x, y in life.grid.centers()])


COLUMNS = ("explorer", "entropy", "coverage", "goal", "way", "in_data", "algorithm", "seeds", "success", "worst_seed")


def live(name: str, life: Life, out: pathlib.Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The whole life of one explorer's policies; returns rows of `COLUMNS` and the visits of its exploration."""
    kept = out / "explored" / f"{name}-{life.maze}-{life.steps}-{life.seed}.npy"
    if not kept.is_file():
        content = io.BytesIO()
        np.save(content, explore(name, life))
        write_atomically(kept, content.getvalue())
    rows = np.load(kept)
    counts = visits(rows, life)
    datasets = [make_dataset(name, rows, goal, life) for goal in life.goals]
    # Fine-tuning continues what state marginal matching began; the others stop after learning offline.
    results = learn(datasets, out / "runs" / name, life, life.online_steps if name == "smm" else 0)
    entropy, coverage = reach(counts, life)
    shared = {"explorer": name, "entropy": entropy, "coverage": coverage}
    return [shared | own for own in _rows(results, datasets, life)], counts


def _rows(results: Sequence[Row], datasets: Sequence[str], life: Life) -> Iterator[dict[str, Any]]:
    starts = [(i, row.index("r")) for i, row in enumerate(life.task.rows) if "r" in row]
    for goal, dataset in zip(life.goals, datasets, strict=True):
        own = [row for row in results if row.dataset == dataset.removesuffix("-v0") or row.dataset == dataset]
        (data,) = [row for row in own if row.algorithm == "data"]
        for row in own:
            if row.algorithm != "data":
                yield {
                    "goal": f"{goal[0]},{goal[1]}",
                    "way": _way(life.task, starts[0], goal),
                    "in_data": data.mean,
                    "algorithm": row.algorithm,
                    "seeds": row.seeds,
                    "success": row.mean,
                    "worst_seed": row.worst_seed,
                }


def _way(task: MazeTask, start: Cell, goal: Cell) -> int:
    """Cells on a shortest way."""
    return len(Maze(task.maze_map).path(start, goal, np.random.default_rng(0)))


def format_csv(rows: Sequence[dict[str, Any]]) -> str:
    """`COLUMNS` of every row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def format_markdown(rows: Sequence[dict[str, Any]], life: Life) -> str:
    """A line per explorer: how far it came, then the success of SRPO in every task."""
    bins = int(reachable_bins(life).sum())
    names = {"srpo": "SRPO", "awac_online": "fine-tuned"}
    lines = [
        f"PointMaze {life.maze}, {life.steps} environment steps of exploration without reward; entropy in nats over "
        f"{bins} bins of {BIN:g} m (at most {math.log(bins):.2f}); success rates are means over {len(life.seeds)} "
        "seeds of the last evaluation; in brackets the share of the data's own episodes that reach the goal.",
        "",
    ]
    goals = {row["goal"]: row["way"] for row in rows}
    header = [f"goal {goal}, {way} cells away" for goal, way in goals.items()]
    lines.append("| explorer | entropy | coverage | learner | " + " | ".join(header) + " | goals reached |")
    lines.append("|---|--:|--:|---" + "|--:" * (len(header) + 1) + "|")
    for explorer in dict.fromkeys(row["explorer"] for row in rows):
        for algorithm, label in names.items():
            own = {row["goal"]: row for row in rows if (row["explorer"], row["algorithm"]) == (explorer, algorithm)}
            if own:
                first = next(iter(own.values()))
                cells = [f"{own[goal]['success']:.2f} ({own[goal]['in_data']:.3f})" for goal in goals]
                reached = sum(row["success"] >= 0.5 for row in own.values())
                figures = f"{first['entropy']:.2f} | {first['coverage']:.2f}"
                lines.append(f"| {explorer} | {figures} | {label} | {' | '.join(cells)} | {reached} of {len(goals)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "life", USAGE, arguments)
    if out is None:
        return
    life = _life(values)
    os.environ["MINARI_DATASETS_PATH"] = str((out / "datasets").absolute())
    rows: list[dict[str, Any]] = []
    seen: dict[str, dict[str, np.ndarray]] = {}
    for name in life.explorers:
        own, counts = live(name, life, out)
        rows += own
        seen[name] = {"everything seen": counts}
        draw_heat_maps(seen, life.grid, reachable_bins(life), out / "visits.png")
        write_atomically(out / "life.csv", format_csv(rows))
        write_atomically(out / "life.md", format_markdown(rows, life))
    print(format_markdown(rows, life))
    print(f"wrote {out / 'life.md'}, life.csv, visits.png, and reports in {out / 'runs'}/*/report")


def _life(values: flags.FlagValues) -> Life:
    try:
        goals = tuple((int(row), int(column)) for row, column in (goal.split(":") for goal in values.goals))
    except ValueError:
        raise UserError(f"--goals={','.join(values.goals)}: give cells as ROW:COLUMN, for instance 6:6") from None
    names = parse_words("explorers", values.explorers, tuple(EXPLORERS))
    (maze,) = parse_words("maze", values.maze, tuple(MAZES))
    if values.steps % ENVIRONMENTS:
        raise UserError(
            f"--steps={values.steps}: must be a multiple of {ENVIRONMENTS}, the environments stepped together"
        )
    steps = {"behavior_steps": values.behavior_steps, "critic_steps": values.critic_steps}
    steps |= {"policy_steps": values.policy_steps, "critic_evaluation_interval": values.critic_steps}
    life = Life(
        maze,
        names,
        goals,
        values.steps,
        values.seed,
        tuple(range(values.seeds)),
        values.online_steps,
        tuple(steps.items()),
    )
    for goal in goals:
        with_goal(life.task, goal)
    return life


def _define_flags() -> flags.FlagValues:
    values, default = flags.FlagValues(), Life()
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    text("out", None, "Directory of the results.", flag_values=values)
    text("maze", default.maze, "Maze.", flag_values=values)
    text("explorers", ",".join(EXPLORERS), "Explorers.", flag_values=values)
    goals = [f"{row}:{column}" for row, column in default.goals]
    flags.DEFINE_list("goals", goals, "Goal cells as ROW:COLUMN.", flag_values=values)
    number("steps", default.steps, "Environment steps of exploration.", 1_000, flag_values=values)
    number("seed", default.seed, "Seed of exploration.", 0, flag_values=values)
    number("seeds", len(default.seeds), "Seeds of learning.", 1, flag_values=values)
    number("behavior_steps", 3_000, "Updates of the behaviour stage.", 1, flag_values=values)
    number("critic_steps", 10_000, "Updates of the critic stage.", 1, flag_values=values)
    number("policy_steps", 2_000, "Updates of the policy stage.", 1, flag_values=values)
    number("online_steps", default.online_steps, "Environment steps of fine-tuning.", 0, flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    prepare_jax()
    exit_with("explore_learn_finetune", main, sys.argv[1:], "interrupted; the same command continues")


if __name__ == "__main__":
    run()
