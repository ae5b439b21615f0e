"""State marginal matching and seven other ways to explore, in the star-shaped navigation task, without any reward.

A variant is a population: all its seeds train in one compiled program, environments included. Every row of the table
says how evenly states are visited by (last) the policy at the end, (average) the mixture of the policies of the second
half, one drawn per episode, and (buffer) everything that was ever collected. The first two are 100 episodes
with sampled actions. Bins are the 84 one-unit cells of the default star, so that no entropy exceeds log 84 = 4.43 nats.

    python -m experiments.exploration.star --out=docs/results/star
"""

import io
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.envs import marginals
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import bonuses, intrinsic, policy_mixture, smm
from jaxrl_srpo.exploration.densities import VAE, Histogram, NearestNeighbors
from jaxrl_srpo.exploration.policy_mixture import PolicyMixture
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import sac
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.online import FunctionalRun
from jaxrl_srpo.report.exploration import Curve, draw_curves, draw_heat_maps, interval
from jaxrl_srpo.types import Array

from .. import common
from .visits import arrivals, count_visits, mixtures, one_member_per_seed

MODULE = "exploration.star"
DESCRIPTION = """\
Explores a star of halls by state marginal matching and its baselines. Writes DIRECTORY/star.csv, star.md,
visits.png, curves.png, and the mixture of every run's policies to DIRECTORY/policies/."""

SOURCES = ("last", "average", "buffer")
COLUMNS = ("variant", "seed", "source", "entropy", "coverage", "halls", "kl", "seconds")
EPISODES = 100
CHUNKS = 20


class Variant(NamedTuple):
    """One line of the table.

    Attributes:
      reward: the intrinsic reward of a star.
      settings: numbers of the reward.
      temperature: SAC's alpha, fixed.
      skills: number of skills.
    """

    reward: Callable[[Star], intrinsic.Intrinsic]
    settings: Any
    temperature: float = 1.0
    skills: int = 1


def _histogram(memory: float | None = None, skills: int = 1, **options: Any) -> Callable[[Star], intrinsic.Intrinsic]:
    return lambda star: smm.SMM(Histogram(star.grid(), skills, memory), skills, **options)


# Transitions: an episode of each of the ten environments.
RECENT = 1_000.0
VARIANTS = {
    "smm": Variant(_histogram(), smm.Settings()),
    "smm-cold": Variant(_histogram(), smm.Settings(), temperature=0.1),
    "smm-recent": Variant(_histogram(RECENT), smm.Settings()),
    "smm-recent-cold": Variant(_histogram(RECENT), smm.Settings(), temperature=0.1),
    "smm-vae": Variant(lambda star: smm.SMM(VAE(2, beta=0.05)), smm.Settings()),
    "smm-vae-released": Variant(lambda star: smm.SMM(VAE(2)), smm.Settings()),
    "smm-neighbors": Variant(lambda star: smm.SMM(NearestNeighbors(2, sac.Settings().batch_size)), smm.Settings()),
    "sm4": Variant(_histogram(RECENT, 4), smm.Settings(), skills=4),
    "sm4-released-sign": Variant(_histogram(RECENT, 4, released_sign=True), smm.Settings(), skills=4),
    "maxent": Variant(lambda star: bonuses.NoBonus(), bonuses.Settings()),
    "maxent-cold": Variant(lambda star: bonuses.NoBonus(), bonuses.Settings(), temperature=0.1),
    "icm": Variant(lambda star: bonuses.ICM(), bonuses.Settings()),
    "rnd": Variant(lambda star: bonuses.RND(), bonuses.Settings()),
    "forward-error": Variant(lambda star: bonuses.ForwardError(), bonuses.Settings()),
    "inverse-error": Variant(lambda star: bonuses.InverseError(), bonuses.Settings()),
    "count": Variant(lambda star: bonuses.Count(Histogram(star.grid())), bonuses.Settings(bonus=10.0)),
    "pseudo-count": Variant(lambda star: bonuses.PseudoCount(VAE(2)), bonuses.Settings()),
}


class Options(NamedTuple):
    """What to run.

    Attributes:
      variants: names out of `VARIANTS`.
      seeds: one member each.
      star: the task.
      steps: environment steps per member.
    """

    variants: tuple[str, ...] = tuple(VARIANTS)
    seeds: tuple[int, ...] = tuple(range(5))
    star: Star = Star()
    steps: int = 60_000


class Result(NamedTuple):
    """A variant's outcome.

    Attributes:
      name: name of the variant.
      counts: visits [seeds, bins] by source.
      halls: halls whose goal was reached, [seeds], by source.
      curve: entropy of the last policy over training.
      seconds: time to train all seeds, without compiling.
    """

    name: str
    counts: dict[str, np.ndarray]
    halls: dict[str, np.ndarray]
    curve: Curve
    seconds: float


def train(name: str, options: Options, out: pathlib.Path) -> Result:
    """Trains a variant, measures it, and saves the mixture of every seed's policies."""
    variant, star, seeds = VARIANTS[name], options.star, options.seeds
    run = make_run(variant, options)
    iterations = options.steps // _loop(options.steps).environments
    snapshots: list[TanhGaussianPolicy] = []
    curve: list[np.ndarray] = []
    steps: list[int] = []
    seconds = 0.0
    for stop in tqdm(np.linspace(0, iterations, CHUNKS + 1).astype(int)[1:], desc=name, dynamic_ncols=True):
        began = time.monotonic()
        progress = run.run(int(stop) - run.iteration)
        seconds += time.monotonic() - began
        if np.any(progress.diverged_at >= 0):
            raise UserError(f"{name}: a member diverged; try other --seeds")
        snapshots.append(run.policies)
        last = visits(star, mixtures(snapshots[-1:], variant.skills, len(seeds)))
        curve.append(np.asarray(marginals.entropy(jnp.asarray(count_visits(star.grid(), last)))))
        steps.append(run.steps)
    averages = mixtures(snapshots[CHUNKS // 2 :], variant.skills, len(seeds))
    for seed, mixture in zip(seeds, averages, strict=True):
        policy_mixture.save(out / "policies" / name / str(seed), mixture)
    states = {"last": last, "average": visits(star, averages), "buffer": arrivals(run, variant.skills)}
    return Result(
        name=name,
        counts={source: count_visits(star.grid(), states[source]) for source in SOURCES},
        halls={source: _halls(star, states[source]) for source in SOURCES},
        curve=Curve(np.asarray(steps), np.stack(curve, axis=-1)),
        seconds=seconds,
    )


def save(result: Result, options: Options, out: pathlib.Path) -> None:
    """Keeps a variant's outcome, so that the command started again goes on with the next one."""
    arrays: dict[str, Any] = {f"counts_{source}": result.counts[source] for source in SOURCES}
    arrays |= {f"halls_{source}": result.halls[source] for source in SOURCES}
    content = io.BytesIO()
    np.savez_compressed(
        content,
        asked=_asked(options),
        steps=result.curve.steps,
        values=result.curve.values,
        seconds=result.seconds,
        **arrays,
    )
    write_atomically(_file(out, result.name), content.getvalue())


def load(name: str, options: Options, out: pathlib.Path) -> Result | None:
    """The outcome of a variant that was finished before with the same numbers; None if there is none."""
    if not _file(out, name).is_file():
        return None
    with np.load(_file(out, name)) as kept:
        if str(kept["asked"]) != _asked(options):
            return None
        counts, halls = ({source: kept[f"{what}_{source}"] for source in SOURCES} for what in ("counts", "halls"))
        return Result(
            name=name,
            counts=counts,
            halls=halls,
            curve=Curve(kept["steps"], kept["values"]),
            seconds=float(kept["seconds"]),
        )


def _file(out: pathlib.Path, name: str) -> pathlib.Path:
    return out / "finished" / f"{name}.npz"


def _asked(options: Options) -> str:
    """What a variant's outcome depends on besides its name."""
    return repr(options._replace(variants=()))


def make_run(variant: Variant, options: Options) -> FunctionalRun:
    """One population of all seeds, ready to run."""
    settings = intrinsic.Settings(
        sac.Settings(temperature=variant.temperature, learn_temperature=False), variant.settings
    )
    return FunctionalRun(
        options.star,
        intrinsic.agent("", variant.reward(options.star), variant.skills),
        _loop(options.steps),
        members=one_member_per_seed(options.seeds, settings),
        frozen=None,
        # Seeds are padded to a multiple of the devices.
        devices=jax.devices()[: len(options.seeds)],
    )


def visits(star: Star, policies: Sequence[PolicyMixture]) -> np.ndarray:
    """What `EPISODES` episodes of each mixture arrive at, [members, states, 2]."""
    states = [_rollouts(star, mixture) for mixture in policies]
    return np.stack([np.asarray(each).reshape(-1, star.spec.observation_size) for each in states])


def rows(result: Result, options: Options) -> list[dict[str, Any]]:
    """One row of `COLUMNS` per seed and source."""
    reachable = jnp.asarray(options.star.reachable())
    table_rows: list[dict[str, Any]] = []
    for source in SOURCES:
        counts = jnp.asarray(result.counts[source])
        figures: dict[str, Any] = {
            "entropy": marginals.entropy(counts),
            "coverage": marginals.coverage(counts, reachable),
            "halls": result.halls[source],
            "kl": marginals.divergence(counts, jnp.zeros(counts.shape[-1]), reachable),
        }
        for index, seed in enumerate(options.seeds):
            own = {name: float(values[index]) for name, values in figures.items()}
            seconds = result.seconds / len(options.seeds)
            table_rows.append({"variant": result.name, "seed": seed, "source": source, **own, "seconds": seconds})
    return table_rows


def format_markdown(table_rows: Sequence[dict[str, Any]], options: Options) -> str:
    """The table: mean over seeds and 95% confidence interval of its entropies."""
    star, count = options.star, int(options.star.reachable().sum())
    cells = []
    for name in dict.fromkeys(row["variant"] for row in table_rows):
        own = [row for row in table_rows if row["variant"] == name]
        figures = [cell for source in SOURCES for cell in _cells([row for row in own if row["source"] == source])]
        cells.append([name, *figures, f"{own[0]['seconds']:.0f}"])
    titles = [title for source in SOURCES for title in (f"{source} H", "coverage", "halls")]
    lines = [
        f"Star of {star.halls} halls, length {star.length:g}, stride {star.stride:g}, {star.max_episode_steps} steps "
        f"per episode; {options.steps} environment steps; {len(options.seeds)} seeds; entropy H in nats over {count} "
        f"bins of one unit (at most {math.log(count):.2f}), mean ± 95% confidence interval over seeds; coverage is the "
        "share of bins visited; halls are those whose end was reached.",
        "",
        *common.markdown_table(["variant", *titles, "s per seed"], cells),
    ]
    return "\n".join(lines) + "\n"


def write(results: Sequence[Result], options: Options, out: pathlib.Path) -> str:
    """Writes the table and the pictures of what was done so far; returns the table."""
    table_rows = [row for result in results for row in rows(result, options)]
    write_atomically(out / "star.csv", common.format_csv(COLUMNS, table_rows))
    markdown = format_markdown(table_rows, options)
    write_atomically(out / "star.md", markdown)
    star = options.star
    first = {result.name: {source: result.counts[source][0] for source in SOURCES} for result in results}
    draw_heat_maps(first, star.grid(), star.reachable(), out / "visits.png")
    curves = {result.name: result.curve for result in results}
    ceiling = math.log(star.reachable().sum())
    draw_curves(curves, "entropy of the last policy (nats)", ceiling, out / "curves.png")
    return markdown


def _loop(steps: int) -> Loop:
    # A thousand steps before learning starts; short runs, as in tests, learn from the first chunk on all the same.
    warmup = min(1_000, steps // (2 * CHUNKS))
    return Loop(environments=10, update_to_data=0.2, capacity=steps, warmup_steps=warmup, random_steps=warmup)


@jax.jit(static_argnames="star")
def _rollouts(star: Star, mixture: PolicyMixture) -> Array:
    return policy_mixture.rollouts(star, mixture, EPISODES, jax.random.key(0))


def _halls(star: Star, states: np.ndarray) -> np.ndarray:
    """Halls whose goal is among the states [members, states, 2], [members]."""
    return np.asarray(star.in_goals(jnp.asarray(states))).any(axis=1).sum(axis=-1)


def _cells(own: Sequence[dict[str, Any]]) -> list[str]:
    """Entropy, coverage and halls of one variant and source."""
    entropy = np.asarray([row["entropy"] for row in own])
    coverage, halls = (np.mean([row[name] for row in own]) for name in ("coverage", "halls"))
    return [common.mean_cell(entropy, interval(entropy), 2), f"{coverage:.2f}", f"{halls:.1f}"]


def main(arguments: Sequence[str]) -> str:
    """Runs the command; returns the table, nothing after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out, values = line.parse(arguments), line.values
    if out is None:
        return ""
    star = Star(halls=values.halls, length=values.length).check()
    names = parse_words("variants", values.variants, tuple(VARIANTS))
    options = Options(names, line.seeds, star, values.steps)
    began, results, markdown = time.monotonic(), list[Result](), ""
    for name in names:
        result = load(name, options, out)
        if result is None:
            result = train(name, options, out)
            save(result, options, out)
        results.append(result)
        markdown = write(results, options, out)
    print(markdown)
    print(f"wrote {out / 'star.md'}, star.csv and pictures in {time.monotonic() - began:.0f} s")
    return markdown


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Options()
    line.text("variants", ",".join(VARIANTS), "What to compare.")
    line.define_seeds("0:5")
    line.whole("halls", default.star.halls, "Number of halls.", 1)
    line.number("length", default.star.length, "Length of the halls.")
    # Ten iterations of ten environments per chunk.
    line.whole("steps", default.steps, "Environment steps per seed.", 2_000)
    return line


if __name__ == "__main__":
    common.run(MODULE, main, continues=True)
