"""Finding the ends of the star's halls with what `star.py` saved: no reward was known while it was learned.

Every stored historical average searches for the end of each hall in turn, 100 episodes without further training. With
several skills the prior over them follows their successes, or stays uniform for comparison.

    python experiments/star_goals.py --star=runs/star --out=docs/results/star_goals
"""

import csv
import io
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from jaxrl_srpo import goal_finding, historical
from jaxrl_srpo.cli import exit_with, parse_experiment, prepare_jax
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.files import write_atomically
from jaxrl_srpo.goal_finding import Search
from jaxrl_srpo.historical import HistoricalAverage
from jaxrl_srpo.population import stack
from jaxrl_srpo.report.drawing import PALETTE, save
from jaxrl_srpo.report.exploration import interval
from jaxrl_srpo.types import Array

USAGE = """\
usage: python experiments/star_goals.py --star=DIRECTORY --out=DIRECTORY [--FLAG=VALUE ...]

Searches for goals with the policies that star.py saved. Writes star_goals.csv, .md and .png."""

COLUMNS = ("variant", "prior", "seed", "goal", "first", "successes", "steps_in_goal")


class Result(NamedTuple):
    """One variant.

    Attributes:
      name: of the variant.
      prior: `adapts` or `uniform`; empty for a single skill.
      seeds: of the policies.
      search: leaves [seeds, goals, ...].
    """

    name: str
    prior: str
    seeds: tuple[int, ...]
    search: Search

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name + (f", prior {self.prior}" if self.prior else "")


def read(directory: pathlib.Path) -> dict[str, dict[int, HistoricalAverage]]:
    """Historical averages by variant and seed.

    Raises:
      UserError: there are none.
    """
    found = sorted((directory / "policies").glob("*/*/mixture.json"))
    if not found:
        raise UserError(f"--star={directory}: holds no policies/VARIANT/SEED; give what star.py wrote with --out")
    variants: dict[str, dict[int, HistoricalAverage]] = {}
    for path in found:
        variants.setdefault(path.parent.parent.name, {})[int(path.parent.name)] = historical.load(path.parent)
    return variants


def search(star: Star, mixtures: Sequence[HistoricalAverage], episodes: int, adapt: bool) -> Search:
    """The searches of all mixtures for all goals, leaves [mixtures, goals, ...]."""

    def one(mixture: HistoricalAverage, goal: Array, key: Array) -> Search:
        def reached(positions: Array) -> Array:
            return jnp.take(star.in_goals(positions), goal, axis=-1)

        return goal_finding.search(star, mixture, reached, episodes, key, adapt)

    goals, keys = jnp.arange(star.halls), jax.random.split(jax.random.key(0), (len(mixtures), star.halls))
    return jax.jit(jax.vmap(jax.vmap(one, (None, 0, 0)), (0, None, 0)))(stack(mixtures), goals, keys)


def evaluate(star: Star, directory: pathlib.Path, episodes: int) -> list[Result]:
    """All variants; those with skills with both priors."""
    results = []
    for name, by_seed in read(directory).items():
        mixtures = list(by_seed.values())
        for prior in ("adapts", "uniform") if mixtures[0].skills > 1 else ("",):
            found = jax.device_get(search(star, mixtures, episodes, prior == "adapts"))
            results.append(Result(name, prior, tuple(by_seed), found))
    return results


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row of `COLUMNS` per variant, seed and goal."""
    return [
        {
            "variant": result.name,
            "prior": result.prior,
            "seed": seed,
            "goal": goal,
            "first": int(jax.tree.map(lambda x, i=i, goal=goal: jnp.asarray(x[i, goal]), result.search).first()),
            "successes": int(result.search.found[i, goal].sum()),
            "steps_in_goal": int(result.search.steps[i, goal].sum()),
        }
        for result in results
        for i, seed in enumerate(result.seeds)
        for goal in range(result.search.found.shape[1])
    ]


def format_markdown(results: Sequence[Result], star: Star) -> str:
    """Means over seeds, each over all goals, with 95% confidence intervals."""
    episodes = results[0].search.found.shape[-1]
    lines = [
        f"Star of {star.halls} halls, length {star.length:g}, {star.max_episode_steps} steps per episode. The end of "
        f"each hall in turn is the goal of {episodes} episodes of the stored historical average, without training. "
        "Mean ± 95% confidence interval over seeds; an episode succeeds if it is in the goal at any step; a search in "
        f"vain counts as {episodes + 1} episodes.",
        "",
        "| variant | seeds | share of successes | in the last quarter | episodes until the first | goals never found |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    table = rows(results)
    for result in results:
        found = np.asarray(result.search.found, np.float64)
        own = [row for row in table if (row["variant"], row["prior"]) == (result.name, result.prior)]
        first = np.asarray([row["first"] for row in own], np.float64).reshape(found.shape[:2])
        cells = [_mean(found.mean((1, 2)), 2), _mean(found[..., -episodes // 4 :].mean((1, 2)), 2)]
        cells += [_mean(first.mean(1), 1), f"{int((first > episodes).sum())} of {first.size}"]
        lines.append(f"| {result.label} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean(values: np.ndarray, digits: int) -> str:
    half = interval(values)
    return f"{values.mean():.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def draw(results: Sequence[Result]) -> Figure:
    """How many of the searches, of all seeds and goals, have found their goal, over the episodes of the search."""
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    panel = figure.subplots()
    # Until the first success both priors are the same.
    for number, result in enumerate(one for one in results if one.prior != "uniform"):
        found = np.maximum.accumulate(np.asarray(result.search.found), axis=-1).mean((0, 1))
        panel.step(
            np.arange(1, len(found) + 1),
            found,
            where="post",
            color=PALETTE[number % len(PALETTE)],
            linestyle=("-", "--", ":")[number // len(PALETTE) % 3],
            label=result.name,
        )
    panel.set(xlabel="episodes of the search", ylabel="share of searches that found their goal", ylim=(-0.02, 1.02))
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def write(results: Sequence[Result], star: Star, out: pathlib.Path) -> str:
    """Writes the table and the picture; returns the table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    markdown = format_markdown(results, star)
    write_atomically(out / "star_goals.csv", text.getvalue())
    write_atomically(out / "star_goals.md", markdown)
    save(draw(results), out / "star_goals.png")
    return markdown


def main(arguments: Sequence[str]) -> str:
    """Runs the command; returns the table, nothing after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "star_goals", USAGE, arguments)
    if out is None:
        return ""
    if values.star is None:
        raise UserError("--star: is required; the directory that star.py wrote with --out")
    star = Star(halls=values.halls, length=values.length).check()
    markdown = write(evaluate(star, pathlib.Path(values.star), values.episodes), star, out)
    print(markdown)
    print(f"wrote {out / 'star_goals.md'}, .csv and .png")
    return markdown


def _define_flags() -> flags.FlagValues:
    values, default = flags.FlagValues(), Star()
    flags.DEFINE_string("star", None, "Directory that star.py wrote.", flag_values=values)
    flags.DEFINE_string("out", None, "Directory of the results.", flag_values=values)
    flags.DEFINE_integer("halls", default.halls, "Number of halls, as given to star.py.", 1, flag_values=values)
    flags.DEFINE_float("length", default.length, "Length of the halls, as given to star.py.", flag_values=values)
    flags.DEFINE_integer("episodes", 100, "Episodes per goal.", 4, flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    prepare_jax(1)
    exit_with("star_goals", main, sys.argv[1:])


if __name__ == "__main__":
    run()
