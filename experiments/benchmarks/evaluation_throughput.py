"""How fast evaluation is: environment steps per second, beside Gymnasium's vector environments.

For every environment 64 copies are stepped by what evaluation uses (one model for all copies; of OGBench one for each
thread), by Gymnasium environments in threads (what evaluation uses where the first does not apply), and by Gymnasium's
SyncVectorEnv and AsyncVectorEnv. They take turns, burst by burst, so that all see the same machine, and play the same
actions from the same starts, which their rewards confirm. At last one whole evaluation of a population is timed.

    python -m experiments.benchmarks.evaluation_throughput --out=docs/results/evaluation_throughput
"""

import dataclasses
import functools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium
import jax
import numpy as np

from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.batched import MujocoSimulator, make_simulator
from jaxrl_srpo.envs.make import make_environment, make_unflattened
from jaxrl_srpo.envs.ogbench import OGBenchSimulator
from jaxrl_srpo.envs.rollouts import Rollouts
from jaxrl_srpo.envs.simulator import GymnasiumSimulator, VectorSimulator
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import srpo
from jaxrl_srpo.methods.contract import preset_values
from jaxrl_srpo.nn import policies
from jaxrl_srpo.population.vectorize import act_members
from jaxrl_srpo.types import Spec

from .. import common
from .evaluation_throughput_report import (
    Evaluation,
    Measurement,
    describe,
    draw,
    header,
    summarize,
    write_csv,
)

MODULE = "benchmarks.evaluation_throughput"
DESCRIPTION = "Times environments and writes DIRECTORY/evaluation_throughput.csv, .md and .png."

NAME = "evaluation_throughput"
# Nothing falls over or reaches an end, so that everyone steps all copies all the time.
_UPRIGHT = {"terminate_when_unhealthy": False}
ENVIRONMENTS = {
    **{f"{name}-{v}": _UPRIGHT for v in ("v4", "v5") for name in ("Hopper", "Walker2d", "Ant")},
    **{f"HalfCheetah-{v}": {} for v in ("v4", "v5")},
    "PointMaze_UMaze-v3": {},
    # Of OGBench, which the extra `ogbench` installs; 64 copies of an arm in environments of their own take 10 GB.
    **{
        f"{name}-singletask-v0": {}
        for name in (
            "cube-single",
            "cube-double",
            "scene",
            "puzzle-3x3",
            "puzzle-4x4",
            "pointmaze-medium",
            "antmaze-large",
        )
    },
}
_NO_LIMIT = 10**9
_ROUND = 50


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      environments: Gymnasium ids out of `ENVIRONMENTS`.
      count: copies of each.
      seconds: least length of a burst.
      repetitions: bursts of each.
      evaluate: environment of the whole evaluation; empty for none.
      members: population size of the whole evaluation.
      episodes: episodes of each member there.
    """

    environments: tuple[str, ...] = ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4", "Ant-v4", "PointMaze_UMaze-v3")
    count: int = 64
    seconds: float = 2.0
    repetitions: int = 5
    evaluate: str = "HalfCheetah-v4"
    members: int = 90
    episodes: int = 20


class Contender(Protocol):
    """Copies of one environment that can be timed."""

    def reset(self, seeds: list[int]) -> None:
        """Starts copy i from seed i."""

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Steps all copies with actions [count, action_size]; returns rewards [count]."""

    def close(self) -> None:
        """Frees them."""


class Simulated:
    """Copies behind the interface that evaluation uses."""

    def __init__(self, simulator: VectorSimulator) -> None:
        self._simulator, self._rows = simulator, np.zeros(0, np.int64)

    def reset(self, seeds: list[int]) -> None:
        """See `Contender`."""
        self._simulator.reset(seeds)
        self._rows = np.arange(len(seeds))

    def step(self, actions: np.ndarray) -> np.ndarray:
        """See `Contender`."""
        return self._simulator.step(self._rows, actions).rewards

    def close(self) -> None:
        """See `Contender`."""
        self._simulator.close()


class Vectorized:
    """Gymnasium's vector environments."""

    def __init__(self, environments: Any) -> None:
        self._environments = environments

    def reset(self, seeds: list[int]) -> None:
        """See `Contender`."""
        self._environments.reset(seed=seeds)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """See `Contender`."""
        return np.array(self._environments.step(actions)[1], np.float64)

    def close(self) -> None:
        """See `Contender`."""
        self._environments.close()


def contenders(spec: EnvironmentSpec, count: int) -> dict[str, Contender]:
    """Everyone who steps `count` copies, by name."""
    ours = make_simulator(spec, count)
    found: dict[str, Contender] = {}
    if isinstance(ours, MujocoSimulator | OGBenchSimulator):
        found["one model"] = Simulated(ours)
        copies = [make_environment(spec, lean=True) for _ in range(count)]
        found["Gymnasium in threads"] = Simulated(GymnasiumSimulator(copies, ours.action_size))
    make = functools.partial(make_unflattened, spec)
    found["SyncVectorEnv"] = Vectorized(gymnasium.vector.SyncVectorEnv([make] * count))
    # A fork of a process with JAX's threads may hang; the server imports once and its children start fast.
    multiprocessing.set_forkserver_preload(["__main__", "gymnasium.envs.mujoco", "jaxrl_srpo.envs.make"])
    found["AsyncVectorEnv"] = Vectorized(gymnasium.vector.AsyncVectorEnv([make] * count, context="forkserver"))
    return found


def play(contender: Contender, actions: np.ndarray) -> tuple[float, np.ndarray]:
    """Plays actions [steps, count, action_size] from the starts; returns seconds of stepping and rewards [count]."""
    contender.reset(list(range(actions.shape[1])))
    total = np.zeros(actions.shape[1])
    began = time.perf_counter()
    for now in actions:
        total += contender.step(now)
    return time.perf_counter() - began, total


def burst(contender: Contender, actions: np.ndarray, seconds: float) -> float:
    """Environment steps per second, over rounds from the same starts that fill `seconds` of stepping."""
    taken, rounds = 0.0, 0
    while rounds == 0 or taken < seconds:
        taken += play(contender, actions)[0]
        rounds += 1
    return rounds * actions.shape[0] * actions.shape[1] / taken


def measure(options: Options, log: Callable[[str], None] = print) -> list[Measurement]:
    """Measures all environments, saying each figure as it comes.

    Raises:
      UserError: a contender's rewards are not Gymnasium's; its speed would mean nothing.
    """
    found: list[Measurement] = []
    for name in options.environments:
        spec = EnvironmentSpec(name, ENVIRONMENTS[name], _NO_LIMIT)
        rivals = contenders(spec, options.count)
        try:
            measured = _alternate(name, rivals, _actions(spec, options.count), options)
        finally:
            for rival in rivals.values():
                rival.close()
        for one in measured:
            log(describe(one, measured))
        found += measured
    return found


def _alternate(name: str, rivals: dict[str, Contender], actions: np.ndarray, options: Options) -> list[Measurement]:
    # The first round warms up, and shows that all do the same.
    rewards = {what: play(rival, actions)[1] for what, rival in rivals.items()}
    for what, own in rewards.items():
        if not np.array_equal(own, rewards["SyncVectorEnv"]):
            raise UserError(f"{name}: the rewards of {what!r} are not those of SyncVectorEnv")
    rates: dict[str, list[float]] = {what: [] for what in rivals}
    for _ in range(options.repetitions):
        for what, rival in rivals.items():
            rates[what].append(burst(rival, actions, options.seconds))
    return [Measurement(name, what, options.count, tuple(own)) for what, own in rates.items()]


def _actions(spec: EnvironmentSpec, count: int) -> np.ndarray:
    """[_ROUND, count, action_size] float32, uniform in [-1, 1]."""
    shape = make_environment(spec, lean=True).action_space.shape
    assert shape is not None
    return np.random.default_rng(0).uniform(-1.0, 1.0, (_ROUND, count, *shape)).astype(np.float32)


def evaluate(spec: EnvironmentSpec, members: int, episodes: int) -> Evaluation:
    """One evaluation of published actors with random weights, as training runs it."""
    began = time.perf_counter()
    with Rollouts([spec] * members, episodes, seed=0) as rollouts:
        construction = time.perf_counter() - began
        act = _random_actors(Spec(rollouts.observation_size, rollouts.action_size), members)
        act(np.zeros((members, episodes, rollouts.observation_size), np.float32))
        acting = 0.0

        def timed(observations: np.ndarray) -> np.ndarray:
            nonlocal acting
            called = time.perf_counter()
            actions = act(observations)
            acting += time.perf_counter() - called
            return actions

        began = time.perf_counter()
        lengths = rollouts.run(timed).lengths
        seconds = time.perf_counter() - began
    return Evaluation(
        environment=spec.id,
        members=members,
        episodes=episodes,
        steps=int(lengths.sum()),
        construction=construction,
        seconds=seconds,
        acting=acting,
    )


def _random_actors(spec: Spec, members: int) -> Callable[[np.ndarray], np.ndarray]:
    settings = srpo.STAGE.read(preset_values([srpo.METHOD], "paper", "", "locomotion"))
    frozen = srpo.Frozen(None, None)  # type: ignore[arg-type]  # A fresh actor reads neither of them.
    keys = jax.random.split(jax.random.key(0), members)

    def make(key: jax.Array) -> policies.DeterministicPolicy:
        return srpo.policy_of(srpo.init(key, spec, settings, frozen))

    actors, batched = jax.jit(jax.vmap(make))(keys), jax.default_backend() != "cpu"
    return lambda observations: np.asarray(
        act_members(policies.act, actors, jax.numpy.asarray(observations), keys, batched)
    )


def main(arguments: Sequence[str]) -> list[Measurement]:
    """Runs the command; nothing is returned after `--help`.

    Raises:
      UserError: after bad input.
      flags.Error: after bad flags.
    """
    line = _command_line()
    out = line.parse(arguments)
    if out is None:
        return []
    options = _options(line)
    print(header())
    measurements = measure(options)
    evaluation = None
    if options.evaluate:
        evaluation = evaluate(EnvironmentSpec(options.evaluate), options.members, options.episodes)
        print(evaluation.sentence())
    write_csv(measurements, out / f"{NAME}.csv")
    write_atomically(out / f"{NAME}.md", summarize(measurements, _how(options), evaluation))
    draw(measurements).savefig(out / f"{NAME}.png", dpi=150)
    print(f"wrote {out / NAME}.csv, .md and .png")
    return measurements


def _how(options: Options) -> str:
    return (
        f"{options.count} copies of each environment, random actions, rounds of {_ROUND} steps from the same starts. "
        f"Median of {options.repetitions} bursts of at least {options.seconds:g} s, taken in turns."
    )


def _options(line: common.CommandLine) -> Options:
    values = line.values
    evaluated = parse_words("evaluate", values.evaluate, tuple(ENVIRONMENTS)) if values.evaluate else ("",)
    if len(evaluated) > 1:
        raise UserError(f"--evaluate={values.evaluate}: give one environment")
    return Options(
        environments=parse_words("environments", values.environments, tuple(ENVIRONMENTS)),
        count=values.count,
        seconds=values.seconds,
        repetitions=values.repetitions,
        evaluate=evaluated[0],
        members=values.members,
        episodes=values.episodes,
    )


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Options()
    line.text("environments", ",".join(default.environments), "Gymnasium ids.")
    line.whole("count", default.count, "Copies of each environment.", 1)
    line.number("seconds", default.seconds, "Least length of a burst.", 0.0)
    line.whole("repetitions", default.repetitions, "Bursts of each.", 1)
    line.text("evaluate", default.evaluate, "Environment of the whole evaluation; empty: none.")
    line.whole("members", default.members, "Members of the whole evaluation.", 1)
    line.whole("episodes", default.episodes, "Episodes of each member.", 1)
    return line


if __name__ == "__main__":
    # One JAX device acts, as in an evaluation.
    common.run(MODULE, main, prepare=lambda: None)
