"""How fast policies act: SRPO's actor beside diffusion policies with their published numbers of steps and candidates.

Every policy is compiled in JAX with the same score network, twin Q and precision, those of preset `paper`; only what is
computed for an action differs. Weights are random, for speed does not depend on them. The policies take turns, so that
all see the same machine.

    python -m experiments.benchmarks.sampling_speed --out=docs/results/sampling_speed
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from experiments import common
from experiments.benchmarks.sampling_speed_report import (
    LOCOMOTION,
    Latency,
    Measurement,
    describe,
    draw,
    header,
    summarize,
    write_csv,
)
from experiments.benchmarks.throughput import HALFCHEETAH
from experiments.benchmarks.workload import matrix_flop
from jaxrl_srpo.cli.command_line import parse_words
from jaxrl_srpo.io.files import write_atomically
from jaxrl_srpo.methods import behavior, iql, srpo
from jaxrl_srpo.methods.contract import preset_values
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.nn.policies import DeterministicPolicy, QFunction
from jaxrl_srpo.report.published import published_average
from jaxrl_srpo.runs.policies import act_on_host
from jaxrl_srpo.types import Array, Critic, ScoreModel, Spec

MODULE = "benchmarks.sampling_speed"
DESCRIPTION = "Times policies and writes DIRECTORY/sampling_speed.csv, .md and .png."

NAME = "sampling_speed"
BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
# Larger batches may be left out for their time; up to here policies are compared.
_ALWAYS = 256


@dataclasses.dataclass(frozen=True)
class Method:
    """How a policy finds an action.

    Attributes:
      sampler: `ddpm`, `dpm_solver`, or `actor` for one pass of a deterministic network.
      steps: evaluations of the score network for a candidate.
      candidates: actions sampled for each observation, of which the highest min Q is taken.
      guided: whether each step adds the gradient of Q to the score.
      published: what the literature calls it.
    """

    sampler: Literal["actor", "ddpm", "dpm_solver"]
    steps: int
    candidates: int
    guided: bool
    published: str

    def sentence(self) -> str:
        """All of it in words."""
        if self.sampler == "actor":
            return "one pass of the actor"
        name = {"ddpm": "DDPM", "dpm_solver": "DPM-Solver++"}[self.sampler]
        guidance = " with Q gradient" if self.guided else ""
        return f"{name}, {self.steps} steps{guidance}, {self.candidates} candidate{'s' if self.candidates > 1 else ''}"


# Where papers and released codes differ, or do more than is timed here; it is printed below the table.
NOTES = (
    "Diffuser plans trajectories with a larger network, 64 at once; here it samples one action in 100 steps (its "
    "released locomotion configuration takes 20). Diffusion-QL takes one of 50 candidates in its released code; x 1 "
    "samples a single one. It draws by a softmax over Q, SfBC averages the best four; here the highest min Q is taken."
)
METHODS = {
    "SRPO": Method("actor", 1, 1, False, "SRPO"),
    "Diffusion-QL x 1": Method("ddpm", 5, 1, False, "Diffusion-QL"),
    "QGPO": Method("dpm_solver", 15, 1, True, "QGPO"),
    "Diffusion-QL": Method("ddpm", 5, 50, False, "Diffusion-QL"),
    "IDQL": Method("ddpm", 5, 64, False, "IDQL"),
    "Diffuser": Method("ddpm", 100, 1, True, "Diffuser"),
    "SfBC": Method("dpm_solver", 15, 32, False, "SfBC"),
}
_SAMPLERS = {"ddpm": diffusion.sample_ddpm, "dpm_solver": diffusion.sample}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      against: names out of `METHODS` that SRPO is compared with.
      batches: observations acted on at once.
      seconds: how long a policy acts at each batch, from host to host and again on the device; a call may take longer.
      rounds: turns that these seconds are taken in.
      limit: seconds that a call may take at batches above 256; larger ones are left out.
      spec: sizes of the problem.
    """

    against: tuple[str, ...] = tuple(METHODS)[1:]
    batches: tuple[int, ...] = BATCHES
    seconds: float = 1.5
    rounds: int = 5
    limit: float = 5.0
    spec: Spec = HALFCHEETAH


class Models(NamedTuple):
    """What policies are made of."""

    behavior: behavior.Model
    critic: QFunction
    actor: DeterministicPolicy


@struct.dataclass
class Guided:
    """A score model pushed towards higher Q, satisfying `types.ScoreModel`: score + grad_a Q(s, a_t).

    QGPO and Diffuser learn a value for every noise level; the twin Q at the noisy action costs about as much.
    """

    model: ScoreModel
    critic: Critic

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """[B, action_size]; in terms of noise the gradient counts -sigma_t."""
        gradient = jax.grad(lambda a: jnp.sum(jnp.mean(self.critic.q_values(observations, a), axis=-1)))(noisy_actions)
        noise = self.model.noise_prediction(noisy_actions, times, observations)
        return noise - diffusion.marginal(times).sigma[:, None] * gradient


def make_models(spec: Spec) -> Models:
    """Untrained networks of preset `paper` for locomotion."""
    values = preset_values([srpo.METHOD], "paper", "", "locomotion")

    @jax.jit
    def make(key: Array) -> Models:
        key_behavior, key_critic = jax.random.split(key)
        cloned = behavior.init(key_behavior, spec, behavior.STAGE.read(values))
        # The IQL actor is the same network as SRPO's.
        result = iql.result_of(iql.init(key_critic, spec, iql.STAGE.read(values)))
        return Models(behavior.model_of(cloned), result.critic, result.policy)

    return make(jax.random.key(0))


def act(method: Method, models: Models, observations: Array, seed: Array | int = 0) -> Array:
    """Actions [B, action_size] for observations [B, observation_size] as `method` finds them; actors need no seed."""
    if method.sampler == "actor":
        return models.actor.act(observations)
    model = Guided(models.behavior, models.critic) if method.guided else models.behavior
    repeated = jnp.repeat(observations, method.candidates, axis=0)
    key, size = jax.random.key(seed), models.actor.network.action_size
    actions = _SAMPLERS[method.sampler](model, key, repeated, size, method.steps)
    if method.candidates == 1:
        return actions
    return best_candidates(models.critic, repeated, actions, method.candidates)


def best_candidates(critic: Critic, repeated: Array, actions: Array, candidates: int) -> Array:
    """The action of the highest min Q out of every `candidates` successive ones, which are for the same observation."""
    q_values = jnp.min(critic.q_values(repeated, actions), axis=-1).reshape(-1, candidates)
    best = jnp.argmax(q_values, axis=-1)
    return actions.reshape(-1, candidates, actions.shape[-1])[jnp.arange(len(best)), best]


def action_flop(method: Method, models: Models, spec: Spec) -> int:
    """Matrix-product FLOP of one action, counted in the program that `act` traces to."""
    observation = jnp.zeros((1, spec.observation_size))
    traced = jax.make_jaxpr(functools.partial(act, method, models))(observation)
    return matrix_flop(traced.jaxpr)


@dataclasses.dataclass(frozen=True)
class Runner:
    """A policy at one batch, with the seconds of its calls.

    Attributes:
      name: name of the policy.
      how: how it finds an action.
      host: acts from a NumPy array to a NumPy array.
      device: acts from an array on the device to one that is ready there; None if it never runs there.
      host_seconds: seconds of each call of `host`.
      device_seconds: seconds of each call of `device`.
    """

    name: str
    how: str
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


def compile_runner(name: str, models: Models, batch: int, spec: Spec) -> Runner:
    """A policy of `METHODS`, compiled for one batch; its weights are constants of the program."""
    method = METHODS[name]
    inputs: tuple[np.ndarray | np.uint32, ...] = (random_observations(batch, spec),)
    if method.sampler != "actor":
        inputs += (np.uint32(0),)
    compiled = jax.jit(functools.partial(act, method, models)).lower(*inputs).compile()
    placed = jax.device_put(inputs)
    return Runner(
        name,
        method.sentence(),
        host=lambda: np.asarray(compiled(*inputs)),
        device=lambda: jax.block_until_ready(compiled(*placed)),
    )


def loaded_runner(models: Models, batch: int, spec: Spec) -> Runner:
    """SRPO's actor as `load_policy` runs it: on this CPU, a single observation in NumPy."""
    on_host, observations = act_on_host(models.actor), random_observations(batch, spec)
    how = "one pass of the actor in NumPy" if batch == 1 else "one pass of the actor"
    return Runner("SRPO by load_policy", how, host=lambda: on_host(observations), device=None)


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
    """Measures every policy at every batch that it can act on within the limit, saying each figure as it comes."""
    models = make_models(options.spec)
    flop = {name: action_flop(METHODS[name], models, options.spec) for name in ("SRPO", *options.against)}
    found: list[Measurement] = []
    for batch in sorted(options.batches):
        names = [name for name in flop if batch <= _ALWAYS or expected_seconds(name, batch, found) <= options.limit]
        runners = [compile_runner(name, models, batch, options.spec) for name in names]
        runners.append(loaded_runner(models, batch, options.spec))
        for runner in runners:
            runner.host()
        for _ in range(options.rounds):
            for runner in runners:
                runner.turn(options.seconds / options.rounds, options.seconds)
        for runner in runners:
            found.append(_measurement(runner, batch, flop.get(runner.name, flop["SRPO"])))
            log(describe(found[-1], found))
    return found


def expected_seconds(name: str, batch: int, found: Sequence[Measurement]) -> float:
    """Seconds of a call, in proportion to those of the largest batch measured; 0 if there is none."""
    own = [one for one in found if one.method == name]
    return own[-1].host.median * batch / own[-1].batch if own else 0.0


def _measurement(runner: Runner, batch: int, flop: int) -> Measurement:
    method = METHODS.get(runner.name)
    average = published_average(method.published, LOCOMOTION) if method else None
    score = average.mean if average else None
    device = Latency.of(runner.device_seconds) if runner.device else None
    return Measurement(
        method=runner.name,
        how=runner.how,
        batch=batch,
        host=Latency.of(runner.host_seconds),
        device=device,
        flop=flop,
        score=score,
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
    write_csv(measurements, out / f"{NAME}.csv")
    write_atomically(out / f"{NAME}.md", summarize(measurements, _how(options), NOTES))
    draw(measurements).savefig(out / f"{NAME}.png", dpi=150)
    print(f"wrote {out / NAME}.csv, .md and .png")
    return measurements


def _how(options: Options) -> str:
    return (
        f"Networks of preset `paper` with random weights, observations {options.spec.observation_size}, actions "
        f"{options.spec.action_size}: actor 2 x 256, score network 256 with 3 residual blocks of 1024, twin Q 2 x 256. "
        f"The policies took turns in {options.rounds} rounds until each had acted for {options.seconds:g} s per batch, "
        f"at least once; batches above {_ALWAYS} are left out where a call would take more than {options.limit:g} s."
    )


def _options(line: common.CommandLine) -> Options:
    values = line.values
    return Options(
        against=parse_words("against", values.against, tuple(METHODS)[1:]),
        batches=tuple(map(int, parse_words("batches", values.batches, tuple(map(str, BATCHES))))),
        seconds=values.seconds,
        rounds=values.rounds,
        limit=values.limit,
    )


def _command_line() -> common.CommandLine:
    line, default = common.CommandLine(MODULE, DESCRIPTION), Options()
    line.text("against", ",".join(default.against), "Policies that SRPO is compared with.")
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
