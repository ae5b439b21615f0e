"""How fast policies act: SRPO's actor beside the policies of the other methods.

Every policy is that of its method in this package, compiled in JAX, at the sizes and with the numbers of steps and
candidates of its published preset for HalfCheetah, and with random weights, for speed does not depend on them; or with
`--run` a policy that was trained. The policies take turns, so that all see the same machine.

    python -m experiments.benchmarks.sampling_speed --out=docs/results/sampling_speed
    python -m experiments.benchmarks.sampling_speed --run=runs/all --out=runs/all/report
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxrl_srpo import methods
from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.report.published import Score, method_of, published_average
from jaxrl_srpo.types import Spec

from .. import common
from . import acting
from .acting import Acting
from .sampling_speed_report import (
    LOCOMOTION,
    REFERENCE,
    Latency,
    Measurement,
    describe,
    draw,
    header,
    summarize,
    write_csv,
)
from .throughput import HALFCHEETAH

MODULE = "benchmarks.sampling_speed"
DESCRIPTION = "Times policies and writes DIRECTORY/sampling_speed.csv, .md and .png."

NAME = "sampling_speed"
BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
# Larger batches may be left out for their time: a planner takes minutes for what an actor does in a millisecond.
_ALWAYS = 1
_DATASET, _FAMILY = "halfcheetah-medium-v2", "locomotion"
# The first that a method has.
_PRESETS = ("paper", "released", "d4rl")


def known() -> tuple[str, ...]:
    """The methods that learn from a dataset and have a published preset, SRPO first."""
    return tuple(method.name for method in methods.METHODS if method.stages and _published_preset(method))


def _published_preset(method: Method) -> str:
    """The preset that has the sizes of the method's source; empty without one."""
    return next((name for name in _PRESETS if name in method.presets), "")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      algorithms: methods whose policies are timed, SRPO's among them.
      run: run directory whose trained policies are timed instead; "" for none.
      batches: observations acted on at once.
      seconds: how long a policy acts at each batch, from host to host and again on the device; a call may take longer.
      rounds: turns that these seconds are taken in.
      limit: seconds that a call may take at batches above 1; larger ones are left out.
      spec: sizes of the problem where there is no run.
    """

    algorithms: tuple[str, ...] = ()
    run: str = ""
    batches: tuple[int, ...] = BATCHES
    seconds: float = 1.5
    rounds: int = 5
    limit: float = 5.0
    spec: Spec = HALFCHEETAH


def policies(options: Options) -> list[Acting]:
    """What is timed, SRPO's policy first.

    Raises:
      UserError: a run has no policy of SRPO to compare with, or is none.
    """
    if options.run:
        found = acting.trained(options.run)
        if REFERENCE not in [one.algorithm for one in found]:
            raise UserError(f"--run={options.run}: has no finished policy of SRPO, to which the others are compared")
        return sorted(found, key=lambda one: one.algorithm != REFERENCE)
    names = dict.fromkeys((REFERENCE, *options.algorithms))
    every = [methods.find_method(name) for name in names]
    return [acting.fresh(one, options.spec, _published_preset(one), _DATASET, _FAMILY) for one in every]


@dataclasses.dataclass(frozen=True)
class Runner:
    """A policy at one batch, with the seconds of its calls.

    Attributes:
      name: name of the policy.
      algorithm: its word in tables.
      host: acts from a NumPy array to a NumPy array.
      device: acts from an array on the device to one that is ready there; None if it never runs there.
      host_seconds: seconds of each call of `host`.
      device_seconds: seconds of each call of `device`.
    """

    name: str
    algorithm: str
    host: Callable[[], object]
    device: Callable[[], object] | None
    host_seconds: list[float] = dataclasses.field(default_factory=list)
    device_seconds: list[float] = dataclasses.field(default_factory=list)

    def turn(self, seconds: float, total: float) -> None:
        """Acts for `seconds` in both ways, or once; no more if it has acted for `total` already."""
        for call, taken in ((self.host, self.host_seconds), (self.device, self.device_seconds)):
            if call is not None and (not taken or sum(taken) < total):
                taken += time_calls(call, seconds)


def random_observations(batch: int, spec: Spec) -> np.ndarray:
    """[batch, observation_size] float32."""
    return np.random.default_rng(0).standard_normal((batch, spec.observation_size), np.float32)


def compile_runner(one: Acting, batch: int) -> Runner:
    """A policy compiled for one batch; its weights are constants of the program."""
    inputs = (random_observations(batch, one.spec), np.uint32(0))
    compiled = jax.jit(one.act).lower(*inputs).compile()
    placed = jax.device_put(inputs)
    return Runner(
        one.label,
        one.algorithm,
        host=lambda: np.asarray(compiled(*inputs)),
        device=lambda: jax.block_until_ready(compiled(*placed)),
    )


def loaded_runner(one: Acting, batch: int) -> Runner:
    """A policy as `load_policy` runs it: on this CPU, a single observation of a deterministic one in NumPy."""
    on_host, observations = one.on_host(), random_observations(batch, one.spec)
    return Runner(f"{one.label} by load_policy", "", host=lambda: on_host(observations), device=None)


def time_calls(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, one after another until `seconds` have passed."""
    taken: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds or not taken:
        before = now
        call()
        now = time.perf_counter()
        taken.append(now - before)
    return taken


def measure(options: Options, log: Callable[[str], None] = print) -> list[Measurement]:
    """Measures every policy at every batch that it can act on within the limit, saying each figure as it comes.

    Raises:
      UserError: as `policies`.
    """
    timed = policies(options)
    flop = {one.label: one.flop() for one in timed}
    found: list[Measurement] = []
    for batch in sorted(options.batches):
        able = [one for one in timed if batch <= _ALWAYS or expected_seconds(one.label, batch, found) <= options.limit]
        runners = [*(compile_runner(one, batch) for one in able), loaded_runner(timed[0], batch)]
        for runner in runners:
            runner.host()
        for _ in range(options.rounds):
            for runner in runners:
                runner.turn(options.seconds / options.rounds, options.seconds)
        for runner in runners:
            score = None if options.run else _score(runner.algorithm)
            found.append(_measurement(runner, batch, flop.get(runner.name, flop[timed[0].label]), score))
            log(describe(found[-1], found))
    return found


def expected_seconds(name: str, batch: int, found: Sequence[Measurement]) -> float:
    """Seconds of a call, in proportion to those of the largest batch measured; 0 if there is none."""
    own = [one for one in found if one.method == name]
    return own[-1].host.median * batch / own[-1].batch if own else 0.0


def _score(algorithm: str) -> Score | None:
    name = method_of(algorithm)
    return published_average(name, LOCOMOTION) if name else None


def _measurement(runner: Runner, batch: int, flop: int, score: Score | None) -> Measurement:
    device = Latency.of(runner.device_seconds) if runner.device else None
    return Measurement(runner.name, batch, Latency.of(runner.host_seconds), device, flop, score)


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
    write_csv(measurements, out / f"{NAME}.csv")
    write_atomically(out / f"{NAME}.md", summarize(measurements, _how(options)))
    draw(measurements).savefig(out / f"{NAME}.png", dpi=150)
    print(f"wrote {out / NAME}.csv, .md and .png")
    return measurements


def _how(options: Options) -> str:
    what = (
        f"Trained policies of {options.run}."
        if options.run
        else f"Policies of their published presets for {_DATASET} with random weights, observations "
        f"{options.spec.observation_size}, actions {options.spec.action_size}."
    )
    return (
        f"{what} They took turns in {options.rounds} rounds until each had acted for {options.seconds:g} s per batch, "
        f"at least once; batches above {_ALWAYS} are left out where a call would take more than {options.limit:g} s."
    )


def _options(line: common.CommandLine) -> Options:
    values = line.values
    return Options(
        algorithms=parse_words("algorithm", values.algorithm, known()),
        run=values.run,
        batches=tuple(map(int, parse_words("batches", values.batches, tuple(map(str, BATCHES))))),
        seconds=values.seconds,
        rounds=values.rounds,
        limit=values.limit,
    )


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Options()
    line.text("algorithm", ",".join(known()), "Methods whose policies are timed, SRPO's beside them.")
    line.text("run", "", "Run directory whose trained policies are timed instead.")
    line.text("batches", ",".join(map(str, default.batches)), "Observations acted on at once.")
    line.number("seconds", default.seconds, "How long each policy acts at each batch.", 0.0)
    line.whole("rounds", default.rounds, "Turns that these seconds are taken in.", 1)
    line.number("limit", default.limit, f"Seconds of a call; longer ones are left out above batch {_ALWAYS}.", 0.0)
    return line


def _act_at_once() -> None:
    """Keeps JAX from handing work to another thread, its default on CPUs.

    The caller waits for every action, so that would only add latency.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


if __name__ == "__main__":
    common.run(MODULE, main, _act_at_once)
