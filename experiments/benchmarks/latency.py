"""How long one call of an exported policy takes: `python -m experiments.benchmarks.latency --run=RUN_DIR`.

Prints a table in Markdown of median and 99th percentile of many calls on this CPU, each of the runtimes by turns.
"""

import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

import jaxrl_srpo
from jaxrl_srpo.export.metadata import Format

from .machine import conditions

FORMATS: dict[str, Format] = {"NumPy (npz)": "npz", "ONNX Runtime": "onnx", "StableHLO": "stablehlo"}
BATCHES = (1, 64)


class Latency(NamedTuple):
    """Microseconds of one call.

    Attributes:
      runtime: what runs the policy.
      batch: observations of a call.
      median: of all calls.
      slow: 99th percentile.
    """

    runtime: str
    batch: int
    median: float
    slow: float


def measure(run_dir: str, calls: int, rounds: int) -> list[Latency]:
    """Latencies of the last policy of a run.

    Args:
      run_dir: of a policy that every format can hold.
      calls: in each round.
      rounds: in each of which every runtime has its turn.
    """
    policies: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for runtime, format in FORMATS.items():
            out = pathlib.Path(folder) / format
            jaxrl_srpo.export_policy(run_dir, out, format, log=lambda message: None)
            policies[runtime] = jaxrl_srpo.load_policy(out)
    run = jaxrl_srpo.load_policy(run_dir, log=lambda message: None)
    size, compiled = run.observation_size, jax.jit(_function(run_dir))
    policies["compiled JAX"] = lambda observations: np.asarray(compiled(observations))
    found = []
    for batch in BATCHES:
        observations = np.random.default_rng(0).standard_normal((batch, size), np.float32)
        seconds: dict[str, list[float]] = {runtime: [] for runtime in policies}
        for _ in range(rounds):
            for runtime, policy in policies.items():
                seconds[runtime] += timed(policy, observations, calls)
        for runtime, own in seconds.items():
            found.append(Latency(runtime, batch, 1e6 * float(np.median(own)), 1e6 * float(np.percentile(own, 99))))
    return found


def _function(run_dir: str) -> Callable[..., jax.Array]:
    from jaxrl_srpo.export.program import program_of
    from jaxrl_srpo.runs.policies import find

    found = find(run_dir, log=lambda message: None)
    facts = found.run.facts()[found.member.dataset]
    program = program_of(found.stage, found.policy(), facts.units, facts.observation_size, facts.action_size)
    return lambda observations: program(observations)


def timed(act: Callable[[np.ndarray], np.ndarray], observations: np.ndarray, calls: int) -> list[float]:
    """Seconds of each call, after a few that are not counted."""
    for _ in range(10):
        act(observations)
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        act(observations)
        seconds.append(time.perf_counter() - start)
    return seconds


def table(latencies: Sequence[Latency]) -> str:
    """Rows in Markdown."""
    lines = ["| runtime | batch | median | 99th percentile |", "|---|---|---|---|"]
    lines += [f"| {one.runtime} | {one.batch} | {one.median:.1f} us | {one.slow:.1f} us |" for one in latencies]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_string("run", None, "Run directory.", flag_values=values)
    flags.DEFINE_integer("calls", 1000, "Calls of each runtime in a round.", 1, flag_values=values)
    flags.DEFINE_integer("rounds", 5, "Rounds.", 1, flag_values=values)
    values(["latency", *arguments])
    if not values.run:
        raise SystemExit("--run: is required; give a run directory")
    print(table(measure(values.run, values.calls, values.rounds)))
    print(conditions())


if __name__ == "__main__":
    main(sys.argv[1:])
