"""AWAC on mixed Pendulum-v1 data: 5 episodes of a good policy in 50 random ones, then online learning.

The data are made here: SAC learns in the pure-JAX Pendulum, its policy plays 5 episodes of Gymnasium's, and uniformly
random actions play 50. Cloning what is mostly random fails, weighing it by advantages does not, so that the problem
tells the methods apart within minutes. All seeds and temperatures are one population.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import h5py
import jax
import numpy as np

from jaxrl_srpo import api
from jaxrl_srpo.envs.pendulum import Pendulum
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import make_members
from jaxrl_srpo.population.online import FunctionalRun
from jaxrl_srpo.report.records import Evaluation, read_evaluations

from .. import common

MODULE = "awac.pendulum"
DESCRIPTION = "Makes the data, trains on them, and says in DIRECTORY/awac_pendulum.md what came out as it should."
LAMBDAS = (0.1, 0.3, 1.0)
OFFLINE, ONLINE = 10_000, 5_000
SETTINGS: dict[str, Any] = {
    "normalize_observations": False,
    "offline_steps": OFFLINE,
    "online_steps": ONLINE,
    "awac_reward_scale": 0.125,
    "offline_evaluation_interval": 2_500,
    "online_evaluation_interval": 250,
    "log_interval": 500,
    "episodes": 10,
}
"""Besides those of the preset `quick`: batch 256, an actor and critics of 2 x 256, softmax weights, L2 decay 1e-4."""


@dataclasses.dataclass(frozen=True)
class Check:
    """A figure that should come out, what was asked of it, and whether it did."""

    name: str
    value: float
    wanted: str
    passed: bool


def train_expert(steps: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The mode of a SAC policy after `steps` in the pure-JAX Pendulum, observations [3] to torques [1]."""
    members = make_members([jax.random.key(seed)], [sac.Settings(learning_rate=1e-3)])
    loop = Loop(capacity=steps, warmup_steps=500, random_steps=500)
    run = FunctionalRun(Pendulum(), sac.AGENT, loop, members=members, frozen=np.zeros(1))
    run.run(steps)
    policy = jax.tree.map(lambda x: x[0], run.policies)
    act = jax.jit(lambda observation: 2.0 * policy.act(observation[None])[0])
    return lambda observation: np.asarray(act(observation))


def write_data(path: pathlib.Path, expert: Callable[[np.ndarray], np.ndarray], good: int, random: int) -> list[float]:
    """Writes episodes of Pendulum-v1 in D4RL's layout; returns the returns of the good ones."""
    numbers = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards", "timeouts")}
    returns = []
    environment = gymnasium.make("Pendulum-v1")
    for episode in range(good + random):
        observation, _ = environment.reset(seed=1_000 + episode)
        rewards: list[float] = []
        truncated = False
        while not truncated:
            action = expert(observation) if episode < good else numbers.uniform(-2.0, 2.0, 1).astype(np.float32)
            columns["observations"].append(observation)
            columns["actions"].append(action)
            observation, reward, _, truncated, _ = environment.step(action)
            rewards.append(float(reward))
            columns["timeouts"].append(truncated)
        columns["rewards"] += rewards
        returns.append(sum(rewards))
    environment.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = np.asarray(values, bool if name == "timeouts" else np.float32)
        file["terminals"] = np.zeros(len(columns["rewards"]), bool)
        file.attrs.update(env_id="Pendulum-v1", action_low=[-2.0], action_high=[2.0])
    return returns[:good]


def checks(softmax: Sequence[Evaluation], exp: Sequence[Evaluation]) -> list[Check]:
    """What the two runs should show, and do or do not; means over seeds."""
    cloning, exp_offline = _mean(softmax, "cloning", "", OFFLINE), _mean(exp, "awac", "", OFFLINE)
    offline = {value: _mean(softmax, "awac", f"awac_lambda={value:g}", OFFLINE) for value in LAMBDAS}
    middle = "awac_lambda=0.3"
    ended = _mean(softmax, "awac_online", middle, ONLINE)
    # A dip is one of a seed; the mean over seeds would hide it.
    dip = max(
        _mean([row for row in softmax if row.seed == seed], "awac", middle, OFFLINE)
        - min(row.mean for row in softmax if _is(row, "awac_online", middle, seed) and row.step <= 1_000)
        for seed in {row.seed for row in softmax}
    )
    gap, forms = offline[0.3] - cloning, abs(offline[0.3] - exp_offline)
    ordered = offline[0.1] >= offline[0.3] >= offline[1.0]
    return [
        Check("cloning, 10k updates", cloning, "at most -1000", cloning <= -1000.0),
        Check("AWAC lambda 0.3, 10k updates", offline[0.3], "at least -250", offline[0.3] >= -250.0),
        Check("AWAC minus cloning", gap, "at least 700", gap >= 700.0),
        Check("largest dip of a seed in the first 1k steps", dip, "at most 60", dip <= 60.0),
        Check("softmax and clipped exp apart", forms, "at most 30", forms <= 30.0),
        Check("AWAC lambda 0.1 minus lambda 1", offline[0.1] - offline[1.0], "lambda 0.1 >= 0.3 >= 1", ordered),
        Check("AWAC lambda 0.3 after 5k steps online", ended, "no bound", True),
    ]


def summarize(found: Sequence[Check], rows: Sequence[Evaluation], good: Sequence[float]) -> str:
    """The checks and the scores as Markdown."""
    seeds = sorted({row.seed for row in rows})
    figures = [[c.name, f"{c.value:.0f}", c.wanted, "yes" if c.passed else "**no**"] for c in found]
    settings = [("cloning", "")] + [("awac", f"awac_lambda={value:g}") for value in LAMBDAS]
    scores = []
    for algorithm, setting in settings:
        points = [(algorithm, step) for step in (2_500, 5_000, OFFLINE)]
        points += [("awac_online", step) for step in (1_000, ONLINE)] if algorithm == "awac" else []
        cells = [_cell([row for row in rows if _is(row, name, setting) and row.step == step]) for name, step in points]
        scores.append([f"{algorithm} {setting}".strip(), *cells, *[""] * (5 - len(cells))])
    lines = [
        "# AWAC on mixed Pendulum-v1 data",
        "",
        f"Return of 10 episodes, mean over seeds {', '.join(map(str, seeds))} with the lowest and highest seed. The "
        f"good episodes in the data return {np.mean(good):.0f} on average.",
        "",
        *common.markdown_table(["", "figure", "asked", "met"], figures),
        "",
        *common.markdown_table(["algorithm", "2.5k updates", "5k", "10k", "online, 1k steps", "5k"], scores),
    ]
    return "\n".join(lines) + "\n"


def _is(row: Evaluation, algorithm: str, setting: str, seed: int | None = None) -> bool:
    return (row.algorithm, row.setting) == (algorithm, setting) and seed in (None, row.seed)


def _mean(rows: Sequence[Evaluation], algorithm: str, setting: str, step: int) -> float:
    return float(np.mean([row.mean for row in rows if _is(row, algorithm, setting) and row.step == step]))


def _cell(rows: Sequence[Evaluation]) -> str:
    values = [row.mean for row in rows]
    return f"{np.mean(values):.0f} ({min(values):.0f}, {max(values):.0f})" if values else ""


def main(arguments: Sequence[str]) -> list[Check]:
    """Runs the command; nothing is returned after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return []
    values, seeds, data = line.values, line.seeds, out / "pendulum_mixed.hdf5"
    good = write_data(data, train_expert(values.expert_steps, seed=0), good=5, random=50)
    print(f"good episodes return {np.mean(good):.0f} on average", flush=True)
    shared: dict[str, Any] = {"seeds": seeds, "algorithm": "awac", **SETTINGS}
    api.train(data, out / "softmax", awac_lambda=LAMBDAS, **shared)
    api.train(data, out / "exp", awac_lambda=0.3, awac_weighting="exp", **shared)
    rows = read_evaluations(out / "softmax")
    found = checks(rows, read_evaluations(out / "exp"))
    write_atomically(out / "awac_pendulum.md", summarize(found, rows, good))
    print((out / "awac_pendulum.md").read_text())
    return found


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION, "Directory of data, runs and results.")
    line.define_seeds("0:3")
    line.whole("expert_steps", 15_000, "Steps that SAC learns for.", 1_000)
    return line


if __name__ == "__main__":
    common.run(MODULE, main)
