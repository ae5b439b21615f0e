"""Finding the ends of the star's halls with what `star.py` saved: no reward was known while it was learned.

Every stored mixture of policies searches for the end of each hall in turn, without further training. With several
skills the prior over them follows their successes, or stays uniform for comparison.

    python -m experiments.exploration.star_goals --star=runs/star --out=docs/results/star_goals
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import goal_finding, policy_mixture
from jaxrl_srpo.exploration.goal_finding import Search
from jaxrl_srpo.exploration.policy_mixture import PolicyMixture
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.population.member import stack
from jaxrl_srpo.report.drawing import PALETTE, STYLE, save
from jaxrl_srpo.report.exploration import interval
from jaxrl_srpo.runs.devices import prepare_jax
from jaxrl_srpo.types import Array

from .. import common

MODULE = "exploration.star_goals"
DESCRIPTION = "Searches for goals with the policies that star.py saved. Writes star_goals.csv, .md and .png."

COLUMNS = ("variant", "prior", "seed", "goal", "search", "first", "successes", "steps_in_goal")


class Result(NamedTuple):
    """One variant.

    Attributes:
      name: name of the variant.
      prior: `adapts` or `uniform`; empty for a single skill.
      seeds: seeds of the policies.
      search: leaves [seeds, goals, searches, ...].
    """

    name: str
    prior: str
    seeds: tuple[int, ...]
    search: Search

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name + (f", prior {self.prior}" if self.prior else "")


def read(directory: pathlib.Path) -> dict[str, dict[int, PolicyMixture]]:
    """Mixtures by variant and seed.

    Raises:
      UserError: there are none.
    """
    found = sorted((directory / "policies").glob("*/*/mixture.json"))
    if not found:
        raise UserError(f"--star={directory}: holds no policies/VARIANT/SEED; give what star.py wrote with --out")
    variants: dict[str, dict[int, PolicyMixture]] = {}
    for path in found:
        variants.setdefault(path.parent.parent.name, {})[int(path.parent.name)] = policy_mixture.load(path.parent)
    return variants


def search(star: Star, mixtures: Sequence[PolicyMixture], episodes: int, searches: int, adapt: bool) -> Search:
    """Searches of all mixtures for all goals, leaves [mixtures, goals, searches, ...]; each has a key of its own."""

    def one(mixture: PolicyMixture, goal: Array, key: Array) -> Search:
        def reached(positions: Array) -> Array:
            return jnp.take(star.in_goals(positions), goal, axis=-1)

        return goal_finding.search(star, mixture, reached, episodes, key, adapt)

    goals = jnp.arange(star.halls)
    keys = jax.random.split(jax.random.key(int(adapt)), (len(mixtures), star.halls, searches))
    repeated = jax.vmap(one, (None, None, 0))
    return jax.jit(jax.vmap(jax.vmap(repeated, (None, 0, 0)), (0, None, 0)))(stack(mixtures), goals, keys)


def evaluate(star: Star, directory: pathlib.Path, episodes: int, searches: int) -> list[Result]:
    """All variants; those with skills with both priors."""
    results = []
    for name, by_seed in read(directory).items():
        mixtures = list(by_seed.values())
        for prior in ("adapts", "uniform") if mixtures[0].skills > 1 else ("",):
            found = jax.device_get(search(star, mixtures, episodes, searches, prior == "adapts"))
            results.append(Result(name, prior, tuple(by_seed), found))
    return results


def first_successes(result: Result) -> np.ndarray:
    """The episode of each search [seeds, goals, searches] that first reached the goal; see `Search.first`."""
    found = np.asarray(result.search.found)
    return np.where(found.any(-1), found.argmax(-1) + 1, found.shape[-1] + 1)


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row of `COLUMNS` per search."""
    return [
        {
            "variant": result.name,
            "prior": result.prior,
            "seed": result.seeds[place[0]],
            "goal": place[1],
            "search": place[2],
            "first": int(first),
            "successes": int(result.search.found[place].sum()),
            "steps_in_goal": int(result.search.steps[place].sum()),
        }
        for result in results
        for place, first in np.ndenumerate(first_successes(result))
    ]


def format_markdown(results: Sequence[Result], star: Star) -> str:
    """Means over seeds, each over all searches for all goals, with 95% confidence intervals."""
    searches, episodes = results[0].search.found.shape[-2:]
    cells = []
    for result in results:
        found, first = np.asarray(result.search.found, np.float64), first_successes(result)
        figures = [_mean(found.mean((1, 2, 3)), 2), _mean(found[..., -episodes // 4 :].mean((1, 2, 3)), 2)]
        figures += [_mean(first.mean((1, 2)), 1), f"{int((first > episodes).sum())} of {first.size}"]
        cells.append([result.label, str(len(found)), *figures])
    titles = ["variant", "seeds", "share of successes", "in the last quarter"]
    titles += ["episodes until the first", "searches in vain"]
    lines = [
        f"Star of {star.halls} halls, length {star.length:g}, {star.max_episode_steps} steps per episode. The end of "
        f"each hall in turn is the goal of {searches} searches of {episodes} episodes by the stored mixture, without "
        "training. Mean ± 95% confidence interval over seeds; an episode succeeds if it is in the goal at any "
        f"step; a search in vain counts as {episodes + 1} episodes.",
        "",
        *common.markdown_table(titles, cells),
    ]
    return "\n".join(lines) + "\n"


def _mean(values: np.ndarray, digits: int) -> str:
    return common.mean_cell(values, interval(values), digits)


def draw(results: Sequence[Result]) -> Figure:
    """Share of successes and episodes until the first, a line per variant with 95% confidence intervals over seeds."""
    ordered = sorted(results, key=lambda result: float(result.search.found.mean()))
    panels_of = (
        ("share of episodes in the goal", [np.asarray(one.search.found).mean((1, 2, 3)) for one in ordered]),
        ("episodes until the first success", [first_successes(one).mean((1, 2)) for one in ordered]),
    )
    with mpl.rc_context(STYLE):
        return _dots([one.label for one in ordered], panels_of)


def _dots(labels: Sequence[str], panels: Sequence[tuple[str, Sequence[np.ndarray]]]) -> Figure:
    """A panel per quantity, [seeds] for each label."""
    figure = Figure(figsize=(8.4, 0.28 * len(labels) + 0.9), layout="constrained")
    heights = np.arange(len(labels))
    for panel, (label, values) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        means, halves = [value.mean() for value in values], [np.nan_to_num(interval(value)) for value in values]
        panel.errorbar(means, heights, xerr=halves, fmt="o", color=PALETTE[0], elinewidth=0.8, markersize=4)
        panel.set(xlabel=label, xlim=(0, None))
        panel.set_yticks(heights, labels)
    return figure


def write(results: Sequence[Result], star: Star, out: pathlib.Path) -> str:
    """Writes the table and the picture; returns the table."""
    markdown = format_markdown(results, star)
    write_atomically(out / "star_goals.csv", common.format_csv(COLUMNS, rows(results)))
    write_atomically(out / "star_goals.md", markdown)
    save(draw(results), out / "star_goals.png")
    return markdown


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
    if values.star is None:
        raise UserError("--star: is required; the directory that star.py wrote with --out")
    star = Star(halls=values.halls, length=values.length).check()
    markdown = write(evaluate(star, pathlib.Path(values.star), values.episodes, values.searches), star, out)
    print(markdown)
    print(f"wrote {out / 'star_goals.md'}, .csv and .png")
    return markdown


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION, required="--star=DIRECTORY"), Star()
    line.text("star", None, "Directory that star.py wrote.")
    line.whole("halls", default.halls, "Number of halls, as given to star.py.", 1)
    line.number("length", default.length, "Length of the halls, as given to star.py.")
    line.whole("episodes", 100, "Episodes per search.", 4)
    line.whole("searches", 4, "Searches per goal.", 1)
    return line


if __name__ == "__main__":
    common.run(MODULE, main, prepare=lambda: prepare_jax(1))
