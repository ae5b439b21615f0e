"""How fast members learn online: environment steps and updates per second, beside one member stepped as CleanRL does.

SAC with an update per environment step. `GymnasiumRun` steps Gymnasium environments on the host while the device
learns, `FunctionalRun` has a pure-JAX environment and is one compiled program. Beside them a single member in plain
sequence: one Gymnasium environment, one compiled policy call and one compiled update per step, a NumPy buffer, and the
same networks, batch size and update. All take turns, burst by burst.

    python -m experiments.benchmarks.online_throughput --out=docs/results/online_throughput
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium
import jax
import numpy as np
from matplotlib.figure import Figure

from jaxrl_srpo.cli.command_line import parse_numbers
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.pendulum import Pendulum
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import make_members
from jaxrl_srpo.population.online import FunctionalRun, GymnasiumRun
from jaxrl_srpo.report.drawing import PALETTE, save
from jaxrl_srpo.types import Batch, Spec

from .. import common
from .machine import conditions

MODULE = "benchmarks.online_throughput"
DESCRIPTION = "Times learning online and writes DIRECTORY/online_throughput.csv, .md and .png."

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

    def __init__(self, run: FunctionalRun | GymnasiumRun, members: int) -> None:
        self.members, self._run = members, run

    def run(self, steps: int) -> None:
        """See `Runner`."""
        # Fetching the metrics waits for the device.
        self._run.run(steps)


class SequentialRunner:
    """One member that acts, steps and learns in turn, as single-file implementations do."""

    members = 1

    def __init__(self, environment_id: str, settings: sac.Settings) -> None:
        self._environment = gymnasium.make(environment_id)
        self._observation, _ = self._environment.reset(seed=0)
        space = self._environment.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        self._high = space.high
        spec = Spec(len(self._observation), len(self._high))
        self._settings, self._key, self._size = settings, jax.random.key(0), 0
        self._state = jax.jit(lambda key: sac.init(key, spec, settings))(self._key)
        widths = {"observations": spec.observation_size, "actions": spec.action_size, "rewards": 0}
        widths |= {"next_observations": spec.observation_size, "discounts": 0}
        shapes = {name: (_CAPACITY, width) if width else (_CAPACITY,) for name, width in widths.items()}
        self._buffer = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._explore = jax.jit(lambda state, x, key: sac.explore(state, x[None], key)[0])
        self._update = jax.jit(lambda state, batch, key: sac.update(state, batch, key, settings), donate_argnums=0)
        self._random = np.random.default_rng(0)

    def run(self, steps: int) -> None:
        """See `Runner`."""
        for _ in range(steps):
            self._key, key_act, key_update = jax.random.split(self._key, 3)
            self._step(np.asarray(self._explore(self._state, np.float32(self._observation), key_act)))
            if self._size >= _WARMUP:
                rows = self._random.integers(0, min(self._size, _CAPACITY), self._settings.batch_size)
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


def make_population(environment_id: str, members: int, settings: sac.Settings) -> PopulationRunner:
    """A population in a Gymnasium environment, or in the pure-JAX `pendulum`."""
    described = make_members(jax.random.split(jax.random.key(0), members), [settings] * members, groups=members)
    loop = Loop(capacity=_CAPACITY, warmup_steps=_WARMUP, random_steps=0)
    shared: dict[str, Any] = {
        "agent": sac.AGENT,
        "loop": loop,
        "members": described,
        "frozen": None,
        "devices": jax.devices()[:members],
    }
    if environment_id == "pendulum":
        return PopulationRunner(FunctionalRun(Pendulum(), **shared), members)
    return PopulationRunner(GymnasiumRun([EnvironmentSpec(environment_id)] * members, **shared), members)


def measure(
    environment: str, members: Sequence[int], seconds: float, repetitions: int, settings: sac.Settings
) -> list[Measurement]:
    """All population sizes and the sequential member in one environment, in turns."""
    sequential = "Pendulum-v1" if environment == "pendulum" else environment
    timed = [_Timed(SEQUENTIAL, SequentialRunner(sequential, settings))]
    timed += [_Timed("population", make_population(environment, count, settings)) for count in members]
    for one in timed:
        one.runner.run(2 * _WARMUP)
        one.steps = max(1, round(seconds * _WARMUP / one.seconds(_WARMUP)))
    for _ in range(repetitions):
        for one in timed:
            one.rates.append(one.steps * one.runner.members / one.seconds(one.steps))
    return [Measurement(environment, one.what, one.runner.members, tuple(one.rates)) for one in timed]


@dataclasses.dataclass
class _Timed:
    """A runner with the length of its bursts and their rates."""

    what: str
    runner: Runner
    steps: int = 0
    rates: list[float] = dataclasses.field(default_factory=list)

    def seconds(self, steps: int) -> float:
        """How long these steps take."""
        began = time.perf_counter()
        self.runner.run(steps)
        return time.perf_counter() - began


def summarize(measurements: Sequence[Measurement], how: str) -> str:
    """`online_throughput.md`; `how` is a sentence on sizes and repetitions."""
    cells = []
    for one in measurements:
        base = next(x.rate for x in measurements if (x.environment, x.what) == (one.environment, SEQUENTIAL))
        spread = f"{min(one.rates):,.0f} to {max(one.rates):,.0f}"
        cells.append(
            [one.environment, one.what, str(one.members), f"{one.rate:,.0f}", spread, f"{one.rate / base:.2f}"]
        )
    titles = ["environment", "", "members", "steps/s = updates/s", "spread", "to one member in sequence"]
    lines = ["# Throughput of learning online", "", f"{conditions()}. {how}", ""]
    return "\n".join([*lines, *common.markdown_table(titles, cells, words=2)]) + "\n"


def format_csv(measurements: Sequence[Measurement]) -> str:
    """One row per burst."""
    rows = [
        {
            "environment": one.environment,
            "what": one.what,
            "members": one.members,
            "burst": number,
            "steps_per_second": rate,
        }
        for one in measurements
        for number, rate in enumerate(one.rates)
    ]
    return common.format_csv(("environment", "what", "members", "burst", "steps_per_second"), rows, digits=6)


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
    line = _command_line()
    out, values = line.parse(arguments), line.values
    if out is None:
        return
    members = tuple(int(number) for number in parse_numbers("members", values.members))
    if min(members) < 1:
        raise UserError(f"--members={','.join(values.members)}: must be at least 1")
    settings = sac.Settings(batch_size=values.batch_size)
    measurements: list[Measurement] = []
    for name in values.environments:
        measurements += measure(name, members, values.seconds, values.repetitions, settings)
    how = (
        f"SAC, networks 2 x {settings.width}, batch {settings.batch_size}, an update per environment step; medians of "
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


def _command_line() -> common.CommandLine:
    line = common.CommandLine(MODULE, DESCRIPTION)
    line.words("environments", ["Hopper-v5", "pendulum"], "Gymnasium ids; pendulum: in pure JAX.")
    line.words("members", ["1", "4", "16"], "Population sizes.")
    line.whole("batch_size", 256, "Batch size of an update.", 1)
    line.number("seconds", 3.0, "Length of a burst.", 0.01)
    line.whole("repetitions", 3, "Bursts of each.", 1)
    return line


if __name__ == "__main__":
    common.run(MODULE, main)
