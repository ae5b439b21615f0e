"""The life of a policy: explore a world without reward, learn a task offline from what was seen, fine-tune it online.

State marginal matching explores Gymnasium-Robotics' PointMaze, or the star of halls, with no reward at all; what it saw
becomes a Minari dataset for each of several tasks, whose rewards are put on afterwards: 1 at a goal, where the episode
ends. SRPO learns every task offline, AWAC goes on with SRPO's actor and critic online. Data of the same size come from
random actions, from SAC that maximizes the entropy of its actions alone, and from RND.

    python -m experiments.exploration.life --out=docs/results/life
"""

import dataclasses
import functools
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo import api
from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.data import minari_writer
from jaxrl_srpo.envs import marginals
from jaxrl_srpo.envs.make import make_unflattened
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import bonuses, intrinsic, smm
from jaxrl_srpo.exploration.densities import Histogram
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import make_members
from jaxrl_srpo.population.online import GymnasiumRun
from jaxrl_srpo.report import Row
from jaxrl_srpo.report.exploration import draw_heat_maps

from .. import common
from .life_worlds import WORLDS, Goal, World

MODULE = "exploration.life"
DESCRIPTION = """\
Explores a world, learns tasks in it offline, and fine-tunes them online. Writes DIRECTORY/life.csv, life.md,
visits.png, a run directory with its own report for every explorer, and the datasets."""

ENVIRONMENTS = 10


class Explorer(NamedTuple):
    """A way to explore.

    Attributes:
      reward: the intrinsic reward of a world; None acts at random and learns nothing.
      settings: numbers of the reward.
    """

    reward: Callable[[World], intrinsic.Intrinsic] | None
    settings: Any = bonuses.Settings()


EXPLORERS = {
    "smm": Explorer(lambda world: smm.SMM(Histogram(world.grid, 1, world.remembered)), smm.Settings()),
    "rnd": Explorer(lambda world: bonuses.RND()),
    "maxent": Explorer(lambda world: bonuses.NoBonus()),
    "random": Explorer(None),
}


@dataclasses.dataclass(frozen=True)
class Life:
    """What to do.

    Attributes:
      place: name out of `WORLDS`.
      explorers: names out of `EXPLORERS`.
      chosen: goals, a task each; None for those of the world.
      steps: environment steps of exploration, per explorer.
      seed: seed of exploration.
      seeds: seeds of learning.
      online_steps: environment steps of fine-tuning; 0 leaves it out.
      overrides: settings of learning in place of the preset's.
    """

    place: str = "medium"
    explorers: tuple[str, ...] = tuple(EXPLORERS)
    chosen: tuple[Goal, ...] | None = None
    steps: int = 40_000
    seed: int = 0
    seeds: tuple[int, ...] = (0, 1)
    online_steps: int = 10_000
    overrides: tuple[tuple[str, Any], ...] = ()

    @functools.cached_property
    def world(self) -> World:
        """The world to explore and learn in."""
        return WORLDS[self.place]()

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The goals, a task each."""
        return self.world.goals if self.chosen is None else self.chosen

    def exploration(self, explorer: str) -> str:
        """Names what an explorer saw by all that determines it, so that other values never meet its data."""
        return f"{explorer}-{self.place}-{self.steps}-{self.seed}"


def explore(name: str, life: Life) -> np.ndarray:
    """What an explorer saw: packed rows [steps / ENVIRONMENTS, ENVIRONMENTS, width], in order."""
    explorer, world = EXPLORERS[name], life.world
    learns = explorer.reward is not None
    reward = explorer.reward(world) if explorer.reward else bonuses.NoBonus()
    # Random actions are those before learning starts, which then never does.
    warmup = 1_000 if learns else life.steps
    loop = Loop(
        environments=ENVIRONMENTS,
        update_to_data=world.update_to_data,
        capacity=life.steps,
        warmup_steps=warmup,
        random_steps=warmup,
    )
    settings = intrinsic.Settings(
        sac.Settings(temperature=world.temperature, learn_temperature=False), explorer.settings
    )
    run = GymnasiumRun(
        [world.environment],
        intrinsic.agent(name, reward),
        loop,
        members=make_members(jax.random.split(jax.random.key(life.seed), 1), [settings]),
        frozen=None,
    )
    try:
        run.run(life.steps // ENVIRONMENTS)
        rows = np.asarray(run.replay.rows[0, 0, : run.steps])
    finally:
        run.close()
    return rows.reshape(-1, ENVIRONMENTS, rows.shape[-1])


def make_dataset(name: str, rows: np.ndarray, goal: Goal, life: Life) -> str:
    """Writes what an explorer saw as a dataset of one task, unless it is there; returns its Minari id."""
    world, dataset_id = life.world, f"explored/{life.exploration(name)}-goal{goal[0]}-{goal[1]}-v0"

    def play(environment: gymnasium.Env) -> Iterator[dict[str, Any]]:
        return world.episodes(rows, goal, life.seed)

    description = {
        "algorithm_name": name,
        "description": f"{rows.shape[0] * rows.shape[1]} steps of exploration without reward, labeled with the "
        f"reward of goal {goal} afterwards.",
        "requirements": list(world.requirements),
        "seed": life.seed,
    }
    make_environment = functools.partial(make_unflattened, world.task(goal))
    minari_writer.write_dataset(dataset_id, make_environment, play, description, exist_ok=True)
    return dataset_id


def learn(datasets: Sequence[str], run_dir: pathlib.Path, life: Life, online_steps: int) -> list[Row]:
    """SRPO offline on every task of an explorer, and AWAC online from there."""
    settings = life.world.settings | dict(life.overrides)
    more: dict[str, Any] = {"online_steps": online_steps} if online_steps else {}
    return api.train(datasets, run_dir, life.seeds, "quick", **settings, **more)


def visits(rows: np.ndarray, world: World) -> np.ndarray:
    """How often each bin was arrived at in packed rows [T, E, width], [bins]."""
    return np.asarray(world.grid.counts(world.unpack(rows.reshape(-1, rows.shape[-1])).next_observations))


def reach(counts: np.ndarray, world: World) -> tuple[float, float]:
    """Entropy in nats of visited positions, and the share of the bins that can be visited that were."""
    reachable = jnp.asarray(world.reachable())
    return float(marginals.entropy(jnp.asarray(counts))), float(marginals.coverage(jnp.asarray(counts), reachable))


COLUMNS = (
    *("explorer", "entropy", "coverage", "goal", "way", "in_data"),
    *("algorithm", "beta", "seeds", "success", "worst_seed"),
)


def collect(name: str, life: Life, out: pathlib.Path) -> np.ndarray:
    """What an explorer saw, see `explore`; kept in OUT/explored."""
    kept = out / "explored" / f"{life.exploration(name)}.npy"
    if not kept.is_file():
        content = io.BytesIO()
        np.save(content, explore(name, life))
        write_atomically(kept, content.getvalue())
    return np.load(kept)


def live(name: str, life: Life, out: pathlib.Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The whole life of one explorer's policies; returns rows of `COLUMNS` and the visits of its exploration."""
    rows = collect(name, life, out)
    counts = visits(rows, life.world)
    datasets = [make_dataset(name, rows, goal, life) for goal in life.goals]
    # Fine-tuning continues what state marginal matching began; the others stop after learning offline.
    run_dir = out / "runs" / life.exploration(name)
    results = learn(datasets, run_dir, life, life.online_steps if name == "smm" else 0)
    entropy, coverage = reach(counts, life.world)
    shared = {"explorer": name, "entropy": entropy, "coverage": coverage}
    return [shared | own for own in _rows(results, datasets, life)], counts


def _rows(results: Sequence[Row], datasets: Sequence[str], life: Life) -> Iterator[dict[str, Any]]:
    for goal, dataset in zip(life.goals, datasets, strict=True):
        own = [row for row in results if row.dataset == dataset.removesuffix("-v0") or row.dataset == dataset]
        (data,) = [row for row in own if row.algorithm == "data"]
        for row in own:
            if row.algorithm != "data":
                yield {
                    "goal": f"{goal[0]},{goal[1]}",
                    "way": life.world.way(goal),
                    "in_data": data.mean,
                    "algorithm": row.algorithm,
                    "beta": row.beta,
                    "seeds": row.seeds,
                    "success": row.mean,
                    "worst_seed": row.worst_seed,
                }


def format_markdown(rows: Sequence[dict[str, Any]], life: Life) -> str:
    """A line per explorer and learner: how far it came, then its success in every task."""
    world, bins = life.world, int(life.world.reachable().sum())
    names = {"iql": "IQL actor", "srpo": "SRPO", "srpo_online": "SRPO, then AWAC online"}
    goals = {row["goal"]: row["way"] for row in rows}
    learners: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["algorithm"] in names:
            learners.setdefault((row["explorer"], row["algorithm"], row["beta"]), {})[row["goal"]] = row
    cells = []
    for (explorer, algorithm, beta), own in learners.items():
        label = names[algorithm] + ("" if beta is None else f", beta {beta:g}")
        first = next(iter(own.values()))
        successes = [f"{own[goal]['success']:.2f} ({own[goal]['in_data']:.3f})" for goal in goals]
        reached = sum(row["success"] >= 0.5 for row in own.values())
        figures = [f"{first['entropy']:.2f}", f"{first['coverage']:.2f}"]
        cells.append([explorer, *figures, label, *successes, f"{reached} of {len(goals)}"])
    titles = ["explorer", "entropy", "coverage", "learner", *(f"goal {goal}, {way}" for goal, way in goals.items())]
    lines = [
        f"World: {life.place}; {life.steps} environment steps of exploration without reward; entropy in nats over "
        f"{bins} bins of {world.grid.width:g} {world.unit} (at most {math.log(bins):.2f}); success rates are means "
        f"over {len(life.seeds)} seeds of the last evaluation; in brackets the share of the data's own episodes that "
        "reach the goal.",
        "",
        *common.markdown_table([*titles, "goals reached"], cells, words=4),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return
    life = _life(line)
    os.environ["MINARI_DATASETS_PATH"] = str((out / "datasets").absolute())
    rows: list[dict[str, Any]] = []
    seen: dict[str, dict[str, np.ndarray]] = {}
    for name in life.explorers:
        own, counts = live(name, life, out)
        rows += own
        seen[name] = {"everything seen": counts}
        draw_heat_maps(seen, life.world.grid, life.world.reachable(), out / "visits.png")
        write_atomically(out / "life.csv", common.format_csv(COLUMNS, rows, digits=4))
        write_atomically(out / "life.md", format_markdown(rows, life))
    print(format_markdown(rows, life))
    print(f"wrote {out / 'life.md'}, life.csv, visits.png, and reports in {out / 'runs'}/*/report")


def _life(line: common.CommandLine) -> Life:
    values = line.values
    names = parse_words("explorers", values.explorers, tuple(EXPLORERS))
    (place,) = parse_words("world", values.world, tuple(WORLDS))
    if values.steps % ENVIRONMENTS:
        raise UserError(
            f"--steps={values.steps}: must be a multiple of {ENVIRONMENTS}, the environments stepped together"
        )
    settings: dict[str, Any] = {"behavior_steps": values.behavior_steps, "critic_steps": values.critic_steps}
    settings |= {"policy_steps": values.policy_steps, "critic_evaluation_interval": values.critic_steps}
    if line.betas:
        settings["beta"] = line.betas
    life = Life(
        place=place,
        explorers=names,
        chosen=_goals(values.goals, WORLDS[place]().goal_form) if values.goals else None,
        steps=values.steps,
        seed=values.seed,
        seeds=tuple(range(values.seeds)),
        online_steps=values.online_steps,
        overrides=tuple(settings.items()),
    )
    for goal in life.goals:
        life.world.task(goal)
    return life


def _goals(words: Sequence[str], form: str) -> tuple[Goal, ...]:
    try:
        return tuple((int(first), int(second)) for first, second in (word.split(":") for word in words))
    except ValueError:
        raise UserError(f"--goals={','.join(words)}: give {form}, for instance 6:6") from None


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Life()
    line.text("world", default.place, f"One of {', '.join(WORLDS)}.")
    line.text("explorers", ",".join(EXPLORERS), "Explorers.")
    line.words("goals", None, "Goals: cells as ROW:COLUMN, in the star HALL:DISTANCE; the world's own by default.")
    line.whole("steps", default.steps, "Environment steps of exploration.", 1_000)
    line.whole("seed", default.seed, "Seed of exploration.", 0)
    line.whole("seeds", len(default.seeds), "Seeds of learning.", 1)
    line.whole("behavior_steps", 3_000, "Updates of the behavior stage.", 1)
    line.whole("critic_steps", 10_000, "Updates of the critic stage.", 1)
    line.whole("policy_steps", 2_000, "Updates of the policy stage.", 1)
    line.define_betas(None, "Temperatures of SRPO; the preset's by default.")
    line.whole("online_steps", default.online_steps, "Environment steps of fine-tuning.", 0)
    return line


if __name__ == "__main__":
    common.run(MODULE, main, continues=True)
