"""Trained policies of a run directory, ready to act."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.data.observations import flatten_observation, goal_keys_of_width
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.nn.policies import DeterministicPolicy
from jaxrl_srpo.nn.policies import act as act_by_policy
from jaxrl_srpo.population.member import call
from jaxrl_srpo.report.records import Evaluation, Result, read_evaluations
from jaxrl_srpo.report.rows import last_evaluation
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.scorer import acting_device
from jaxrl_srpo.runs.setup import load_result
from jaxrl_srpo.runs.sweep import Member, stages_of
from jaxrl_srpo.runs.workers import own_methods
from jaxrl_srpo.types import Act, Array, Params

HostAct = Callable[[np.ndarray], np.ndarray]
"""Observations [B, observation_size] float32 to actions [B, action_size], all on the host."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained policy; call it with one observation or a batch of them.

    Attributes:
      member: the training run it comes from.
      environment: where it was evaluated; None if unknown.
      chosen_by: why it and no other member that the arguments of `load_policy` leave.
      observation_keys: entries of dictionary observations that make a vector; empty if the data had vectors.
    """

    member: Member
    environment: EnvironmentSpec | None
    chosen_by: str
    observation_keys: tuple[str, ...]
    _act: HostAct

    def __call__(self, observation: Any) -> np.ndarray:
        """Actions in the environment's units.

        Args:
          observation: [observation_size] or [B, observation_size]; or the dictionary that the data's environment
            gives.

        Returns:
          [action_size] or [B, action_size] float32.

        Raises:
          ValueError: if the observation has another width.
          UserError: if a dictionary lacks an entry, or a batch is given in a process forked after the policy was
            loaded.
        """
        size, keys = self.member.spec.observation_size, self.observation_keys
        if isinstance(observation, Mapping) and not keys:
            # The data had vectors already, as D4RL's mazes have.
            keys = goal_keys_of_width(observation, size)
        flat = flatten_observation(observation, keys)
        if flat.ndim not in (1, 2) or flat.shape[-1] != size:
            raise ValueError(f"observation of shape {flat.shape}; expected [{size}] or [batch, {size}]")
        return self._act(flat[None])[0] if flat.ndim == 1 else self._act(flat)

    def make_environment(self, **kwargs: Any) -> Any:
        """The Gymnasium environment it was evaluated in, with flat observations; `kwargs` go to `gymnasium.make`.

        Raises:
          UserError: if none is known, or it is not installed.
        """
        from jaxrl_srpo.envs.make import make_environment

        if self.environment is None:
            raise UserError(f"{self.member.dataset}: its environment is not known")
        return make_environment(dataclasses.replace(self.environment, kwargs=self.environment.kwargs | kwargs))


def load_policy(
    run_dir: str | os.PathLike[str],
    dataset: str | None = None,
    seed: int | None = None,
    beta: float | None = None,
    algorithm: str | Method | None = None,
    artefacts: pathlib.Path | None = None,
    log: Callable[[str], None] | None = None,
    **values: float,
) -> Policy:
    """Loads one policy of a run.

    Where the arguments leave several members, the one with the best last evaluation is taken (the first, if there
    are no evaluations), and a message says which: give `seed` and `beta` to be sure.

    Args:
      run_dir: run directory.
      dataset: name in the table.
      seed: of the member.
      beta: temperature of the member.
      algorithm: word of the policy in `evaluations.csv`: `srpo`, the baseline `iql` trained beside the critic, `awac`,
        its baseline `cloning`, and so on; or a method of a user's own. By default the last offline stage of the run's
        first member.
      artefacts: directory of finished stages, if the run used a shared one.
      log: receives the message; it goes to standard error by default.
      **values: other swept settings of the member, for instance `expectile=0.9`.

    Raises:
      UserError: if the run has no such finished member.
    """
    own = own_methods([algorithm]) if isinstance(algorithm, Method) else []
    run = RunDirectory(pathlib.Path(run_dir), artefacts, own)
    members = run.members()
    stage = _stage(members, algorithm)
    wanted = {"dataset": dataset, "seed": seed, "beta": beta} | values
    _check_names(members, wanted)
    members = [member for member in members if stage in member.stages and _matches(member, wanted)]
    finished = [member for member in members if run.has_result(stage, member)]
    if not finished:
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        state = "is not finished" if members else "does not exist"
        raise UserError(f"{run_dir}: a member with {asked or stage.algorithm} {state}; sweep.json lists the members")
    member, chosen_by = _choose(run, stage, finished)
    if len(finished) > 1:
        (log or print_message)(f"{run_dir}: loaded {member.name(stage)}, {chosen_by}")
    facts = run.facts()[member.dataset]
    policy = stage.make_policy(member.settings, member.spec, load_result(run, stage, member))
    act = _in_units(act_on_host(policy, stage.act), facts)
    return Policy(member, facts.environment_spec, chosen_by, tuple(facts.observation_keys), act)


def _choose(run: RunDirectory, stage: Stage, finished: Sequence[Member]) -> tuple[Member, str]:
    """The member of the best last evaluation, and the choice in words."""
    if len(finished) == 1:
        return finished[0], "the only one that was asked for"
    evaluations = _last_evaluations(run.path)
    scored = [member for member in finished if member.result(stage) in evaluations]
    if not scored:
        return finished[0], f"the first of {len(finished)}, none of which was evaluated"
    best = max(scored, key=lambda member: evaluations[member.result(stage)].mean)
    row = evaluations[best.result(stage)]
    return best, (
        f"the best of {len(finished)} by the last evaluation: {row.metric} {row.mean:g} over {row.episodes} episodes"
    )


def _stage(members: Sequence[Member], algorithm: str | Method | None) -> Stage:
    """The stage whose policy is asked for."""
    if algorithm is None or isinstance(algorithm, Method):
        method = algorithm or members[0].method
        return [stage for stage in method.stages or method.all_stages if stage.acts][-1]
    stages = {stage.algorithm: stage for stage in stages_of(members) if stage.acts}
    if algorithm not in stages:
        raise UserError(f"algorithm {algorithm}: choose one of {', '.join(sorted(stages))}")
    return stages[algorithm]


def _check_names(members: Sequence[Member], wanted: dict[str, Any]) -> None:
    known = {"dataset", "seed", "beta"}.union(*(member.settings for member in members))
    if unknown := wanted.keys() - known:
        raise UserError(f"{', '.join(sorted(unknown))}: no such setting; one of {', '.join(sorted(known))}")


def _matches(member: Member, wanted: dict[str, Any]) -> bool:
    own = {"dataset": member.dataset, "seed": member.seed} | dict(member.settings)
    return all(value is None or own.get(name) == value for name, value in wanted.items())


def _last_evaluations(run_dir: pathlib.Path) -> dict[Result, Evaluation]:
    """The last evaluation of every stage of every member."""
    rows: dict[Result, list[Evaluation]] = {}
    for row in read_evaluations(run_dir):
        rows.setdefault(row.result, []).append(row)
    return {result: last_evaluation(own) for result, own in rows.items()}


def _in_units(act: HostAct, facts: DatasetFacts) -> HostAct:
    units = facts.units
    return lambda observations: units.denormalize_actions(act(units.normalize_observations(observations)))


def act_on_host(policy: Any, act: Act = act_by_policy) -> HostAct:
    """Acts on this machine's CPU as soon as possible, by a compiled call or by NumPy.

    Batches run compiled. A single observation is so little work that handing it to JAX would take several times as
    long as the work itself, and waiting for JAX's threads makes the slowest calls hundreds of times as long; NumPy
    computes the same within rounding, for deterministic policies.

    Args:
      policy: a pytree.
      act: how it acts; a random one draws with a key of its own for each call.
    """
    layers = _layers(policy.params) if isinstance(policy, DeterministicPolicy) and act is act_by_policy else []
    # Observations follow committed parameters, which is faster than placing them.
    placed = jax.device_put(policy, acting_device())
    calls = itertools.count()
    process = os.getpid()

    @jax.jit
    def forward(policy: Any, observations: Array, number: Array) -> Array:
        actions: Array = call(act, policy=policy, observations=observations, key=jax.random.key(number))
        return actions

    def run(observations: np.ndarray) -> np.ndarray:
        if layers and len(observations) == 1:
            return _forward(layers, observations)
        if os.getpid() != process:
            # JAX's threads stay behind in the parent, and a call would wait for them for ever.
            raise UserError(
                "this process was forked after the policy was loaded, and JAX cannot run in it; start workers by "
                'multiprocessing.get_context("spawn")'
            )
        return np.asarray(forward(placed, observations, np.uint32(next(calls))))

    return run


class _Layer(NamedTuple):
    """Affine layer: kernel [fan_in, features] and bias [features]."""

    kernel: np.ndarray
    bias: np.ndarray


def _layers(params: Params) -> list[_Layer]:
    """The layers of a `networks.Actor`, in order."""
    (mlp,) = params.values()
    dense = [mlp[f"Dense_{i}"]["Dense_0"] for i in range(len(mlp))]
    return [_Layer(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in dense]


def _forward(layers: Sequence[_Layer], x: np.ndarray) -> np.ndarray:
    """What `networks.Actor` computes."""
    for layer in layers[:-1]:
        x = x @ layer.kernel
        x += layer.bias
        np.maximum(x, 0.0, out=x)
    return np.tanh(x @ layers[-1].kernel + layers[-1].bias)
