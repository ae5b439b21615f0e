"""How fast members learn online: environment steps and updates per second, beside one member stepped as CleanRL does.

SAC with an update per environment step. `GymnasiumRun` steps Gymnasium environments on the host while the device
learns, `FunctionalRun` has a pure-JAX environment and is one compiled program. Beside them a single member in plain
sequence: one Gymnasium environment, one compiled policy call and one compiled update per step, a NumPy buffer, and the
same networks, batch size and update. All take turns, burst by burst.

    python experiments/online_throughput.py --out=docs/results/online_throughput
"""

import csv
import dataclasses
import io
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from jaxrl_srpo.cli.command_line import exit_with, parse_experiment, parse_numbers, prepare_jax
from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.pendulum import Pendulum
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.agent import SAC
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.offline import Members
from jaxrl_srpo.population.online import FunctionalRun, GymnasiumRun, OnlineRun
from jaxrl_srpo.report.drawing import PALETTE, save
from jaxrl_srpo.types import Batch, Spec
from throughput_report import conditions

USAGE = """\
usage: python experiments/online_throughput.py --out=DIRECTORY [--FLAG=VALUE ...]

Times learning online and writes DIRECTORY/online_throughput.csv, .md and .png."""

SEQUENTIAL = "one member in sequence"
_WARMUP = 32
_CAPACITY = 10_000


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How fast one way of learning is in one environment.

    Attributes:
      environment: its name.
      what: `population` or `SEQUENTIAL`.
      members: learning at the same time.
      rates: environment steps, and as many updates, per second of all members together; one per burst.
    """

    environment: str
    what: str
    members: int
    rates: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Median steps per second."""
        return statistics.median(self.rates)


class Runner(Protocol):
    """Something that learns online."""

    members: int

    def run(self, steps: int) -> None:
        """`steps` steps and updates of every member; returns when they are done."""


class PopulationRunner:
    """Members that learn together."""

    def __init__(self, run: OnlineRun, members: int) -> None:
        self.members, self._run = members, run

    def run(self, steps: int) -> None:
        """See `Runner`."""
        assert isinstance(self._run, (FunctionalRun, GymnasiumRun))
        # Fetching the metrics waits for the device.
        self._run.run(steps)


class SequentialRunner:
    """One member that acts, steps and learns in turn, as single-file implementations do."""

    members = 1

    def __init__(self, environment_id: str, config: sac.Config) -> None:
        self._environment = gymnasium.make(environment_id)
        self._observation, _ = self._environment.reset(seed=0)
        space = self._environment.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._high = space.high
        spec = Spec(len(self._observation), len(self._high))
        self._config, self._key, self._size = config, jax.random.key(0), 0
        self._state = sac.init(self._key, spec, config, sac.Hyper())
        widths = {"observations": spec.observation_size, "actions": spec.action_size, "rewards": 0}
        widths |= {"next_observations": spec.observation_size, "discounts": 0}
        shapes = {name: (_CAPACITY, width) if width else (_CAPACITY,) for name, width in widths.items()}
        self._buffer = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._explore = jax.jit(lambda state, x, key: sac.explore(state, jnp.zeros((0,)), x[None], key)[0])
        self._update = jax.jit(lambda state, batch, key: sac.update(state, batch, key, sac.Hyper()), donate_argnums=0)
        self._random = np.random.default_rng(0)

    def run(self, steps: int) -> None:
        """See `Runner`."""
        for _ in range(steps):
            self._key, key_act, key_update = jax.random.split(self._key, 3)
            self._step(np.asarray(self._explore(self._state, np.float32(self._observation), key_act)))
            if self._size >= _WARMUP:
                rows = self._random.integers(0, min(self._size, _CAPACITY), self._config.batch_size)
                drawn: dict[str, Any] = {name: values[rows] for name, values in self._buffer.items()}
                batch = Batch(**drawn)
                self._state, _ = self._update(self._state, batch, key_update)
        jax.block_until_ready(self._state)

    def _step(self, action: np.ndarray) -> None:
        following, reward, terminated, truncated, _ = self._environment.step(self._high * action)
        values = (self._observation, action, float(reward), following, float(not terminated))
        for own, value in zip(self._buffer.values(), values, strict=True):
            own[self._size % _CAPACITY] = value
        self._size += 1
        self._observation = self._environment.reset()[0] if terminated or truncated else following


def make_population(environment_id: str, members: int, config: sac.Config) -> PopulationRunner:
    """A population in a Gymnasium environment, or in the pure-JAX `pendulum`."""
    shape = (members, 1)
    nothing = jnp.zeros(shape, jnp.int32)
    hyper = jax.tree.map(lambda x: jnp.full(shape, x, jnp.float32), sac.Hyper())
    described = Members(jax.random.split(jax.random.key(0), shape), table.Slice(nothing, nothing), hyper)
    loop = Loop(capacity=_CAPACITY, warmup_steps=_WARMUP, random_steps=0)
    devices = jax.devices()[:members]
    if environment_id == "pendulum":
        run: OnlineRun = FunctionalRun(Pendulum(), SAC, config, loop, members=described, frozen=None, devices=devices)
    else:
        specs = [EnvironmentSpec(environment_id)] * members
        run = GymnasiumRun(specs, SAC, config, loop, members=described, frozen=None, devices=devices)
    return PopulationRunner(run, members)


def measure(
    environment: str, members: Sequence[int], seconds: float, repetitions: int, config: sac.Config
) -> list[Measurement]:
    """All population sizes and the sequential member in one environment, in turns."""
    sequential = "Pendulum-v1" if environment == "pendulum" else environment
    runners: dict[tuple[str, int], Runner] = {(SEQUENTIAL, 1): SequentialRunner(sequential, config)}
    runners |= {("population", count): make_population(environment, count, config) for count in members}
    bursts = {}
    for key, runner in runners.items():
        runner.run(2 * _WARMUP)
        began = time.perf_counter()
        runner.run(_WARMUP)
        bursts[key] = max(1, round(seconds * _WARMUP / (time.perf_counter() - began)))
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in runners}
    for _ in range(repetitions):
        for key, runner in runners.items():
            began = time.perf_counter()
            runner.run(bursts[key])
            rates[key].append(bursts[key] * runner.members / (time.perf_counter() - began))
    return [Measurement(environment, *key, tuple(own)) for key, own in rates.items()]


def summarize(measurements: Sequence[Measurement], how: str) -> str:
    """`online_throughput.md`; `how` is a sentence on sizes and repetitions."""
    lines = ["# Throughput of learning online", "", f"{conditions()}. {how}", ""]
    lines += ["| environment | | members | steps/s = updates/s | spread | to one member in sequence |"]
    lines += ["|---|---|--:|--:|--:|--:|"]
    for one in measurements:
        base = next(x.rate for x in measurements if (x.environment, x.what) == (one.environment, SEQUENTIAL))
        spread = f"{min(one.rates):,.0f} to {max(one.rates):,.0f}"
        lines.append(
            f"| {one.environment} | {one.what} | {one.members} | {one.rate:,.0f} | {spread} | {one.rate / base:.2f} |"
        )
    return "\n".join(lines) + "\n"


def format_csv(measurements: Sequence[Measurement]) -> str:
    """One row per burst."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["environment", "what", "members", "burst", "steps_per_second"])
    for one in measurements:
        for number, rate in enumerate(one.rates):
            writer.writerow([one.environment, one.what, one.members, number, f"{rate:.6g}"])
    return text.getvalue()


def draw(measurements: Sequence[Measurement]) -> Figure:
    """Steps per second over the population size, a panel per environment; the line is one member in sequence."""
    names = list(dict.fromkeys(one.environment for one in measurements))
    figure = Figure(figsize=(4.4 * len(names), 3.6), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = [one for one in measurements if (one.environment, one.what) == (name, "population")]
        base = next(one for one in measurements if (one.environment, one.what) == (name, SEQUENTIAL))
        positions = range(len(own))
        panel.bar(positions, [one.rate for one in own], color=PALETTE[0], width=0.6)
        panel.axhline(base.rate, color=PALETTE[1], linestyle="--", label=f"{SEQUENTIAL}: {base.rate:,.0f}")
        for position, one in zip(positions, own, strict=True):
            panel.annotate(f"{one.rate:,.0f}", (position, one.rate), ha="center", va="bottom")
        panel.set_xticks(list(positions), [str(one.members) for one in own])
        panel.set(title=name, xlabel="members", ylabel="steps and updates per second, all members")
        panel.margins(y=0.18)
        panel.legend(frameon=False)
    return figure


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    values = _define_flags()
    out = parse_experiment(values, "online_throughput", USAGE, arguments)
    if out is None:
        return
    members = tuple(int(number) for number in parse_numbers("members", values.members))
    if min(members) < 1:
        raise UserError(f"--members={','.join(values.members)}: must be at least 1")
    config = sac.Config(batch_size=values.batch_size)
    measurements: list[Measurement] = []
    for name in values.environments:
        measurements += measure(name, members, values.seconds, values.repetitions, config)
    how = (
        f"SAC, networks 2 x {config.width}, batch {config.batch_size}, an update per environment step; medians of "
        f"{values.repetitions} bursts of {values.seconds:g} s in turns."
    )
    write(measurements, how, out)


def write(measurements: Sequence[Measurement], how: str, out: pathlib.Path) -> None:
    """Writes and prints the table."""
    write_atomically(out / "online_throughput.csv", format_csv(measurements))
    write_atomically(out / "online_throughput.md", summarize(measurements, how))
    save(draw(measurements), out / "online_throughput.png")
    print(summarize(measurements, how))
    print(f"wrote {out / 'online_throughput.md'}, .csv and .png")


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "Directory of the results.", flag_values=values)
    environments = ["Hopper-v5", "pendulum"]
    flags.DEFINE_list("environments", environments, "Gymnasium ids; pendulum: in pure JAX.", flag_values=values)
    flags.DEFINE_list("members", ["1", "4", "16"], "Population sizes.", flag_values=values)
    flags.DEFINE_integer("batch_size", 256, "Of an update.", 1, flag_values=values)
    flags.DEFINE_float("seconds", 3.0, "Length of a burst.", 0.01, flag_values=values)
    flags.DEFINE_integer("repetitions", 3, "Bursts of each.", 1, flag_values=values)
    return values


def run() -> NoReturn:
    """Entry point of the script; exits with 0, with 2 after bad input, or with 130 after an interrupt."""
    prepare_jax()
    exit_with("online_throughput", main, sys.argv[1:])


if __name__ == "__main__":
    run()
