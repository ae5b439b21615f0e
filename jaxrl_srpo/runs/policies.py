"""Trained policies of a run directory, ready to act."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.observations import flatten_observation
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.iql import Policy as ActorParameters
from jaxrl_srpo.methods.settings import FIELDS
from jaxrl_srpo.methods.stages import STAGES, Stage
from jaxrl_srpo.runs.run_directory import DatasetFacts, RunDirectory
from jaxrl_srpo.runs.sweep import Member
from jaxrl_srpo.types import Params

Act = Callable[[np.ndarray], np.ndarray]
"""Observations [B, observation_size] float32 to actions [B, action_size]."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """A trained policy; call it with one observation or a batch of them.

    Attributes:
      member: the training run it comes from.
      environment: where it was evaluated; None if unknown.
    """

    member: Member
    environment: EnvironmentSpec | None
    _act: Act

    def __call__(self, observation: Any) -> np.ndarray:
        """Actions in the environment's units.

        Args:
          observation: [observation_size] or [B, observation_size]; or the dictionary that a goal environment gives.

        Returns:
          [action_size] or [B, action_size] float32.

        Raises:
          ValueError: if the observation has another width.
        """
        flat = np.asarray(flatten_observation(observation), np.float32)
        size = self.member.spec.observation_size
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
    algorithm: str = "srpo",
    artefacts: pathlib.Path | None = None,
    **values: float,
) -> Policy:
    """Loads one policy of a run.

    Where the arguments leave several members, the one with the best last evaluation is taken (the first, if there
    are no evaluations): give `seed` and `beta` to be sure which one it is.

    Args:
      run_dir: run directory.
      dataset: name in the table.
      seed: of the member.
      beta: temperature of the member.
      algorithm: `srpo`, the baseline `iql` trained beside the critic, `awac`, or its baseline `cloning`.
      artefacts: directory of finished stages, if the run used a shared one.
      **values: other swept settings of the member, for instance `expectile=0.9`.

    Raises:
      UserError: if the run has no such finished member.
    """
    from jaxrl_srpo.runs.trainer import load_result

    stages = {stage.algorithm: stage for stage in STAGES.values() if stage.algorithm != "bc"}
    if algorithm not in stages:
        raise UserError(f"algorithm {algorithm}: choose one of {', '.join(sorted(stages))}")
    stage = stages[algorithm]
    run = RunDirectory(pathlib.Path(run_dir), artefacts)
    wanted = {"dataset": dataset, "seed": seed} | {"beta": beta} | values
    members = [m for m in run.members() if _matches(m, wanted)]
    finished = [m for m in members if run.artefact(stage, m.address(stage)).exists()]
    if not finished:
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        state = "is not finished" if members else "does not exist"
        raise UserError(f"{run_dir}: a member with {asked or algorithm} {state}; sweep.json lists the members")
    member = max(finished, key=lambda m: _last_score(run.path, stage, m))
    facts = run.facts()[member.dataset]
    policy = stage.policy(load_result(run, stage, member))
    return Policy(member, facts.environment_spec, _actor(policy, facts))


def _matches(member: Member, wanted: dict[str, Any]) -> bool:
    own = {"dataset": member.dataset, "seed": member.seed} | dataclasses.asdict(member.settings)
    unknown = wanted.keys() - own.keys()
    if unknown:
        raise UserError(f"{', '.join(sorted(unknown))}: no such setting; one of {', '.join(FIELDS)}")
    return all(value is None or own[name] == value for name, value in wanted.items())


def _last_score(run_dir: pathlib.Path, stage: Stage, member: Member) -> float:
    from jaxrl_srpo.report.records import read_evaluations

    row = {name: str(value) for name, value in member.row(stage).items()}
    own = [
        entry
        for entry in (read_evaluations(run_dir) if (run_dir / "evaluations.csv").exists() else [])
        if (entry.stage, entry.dataset, str(entry.seed), entry.setting) == tuple(row.values())[:4]
        and (entry.beta is None or f"{entry.beta:g}" == row["beta"])
    ]
    return own[-1].mean if own else float("-inf")


def _actor(policy: Any, facts: DatasetFacts) -> Act:
    act = act_on_cpu(policy)
    return lambda observations: facts.scale(act(facts.normalize(observations)))


def act_on_cpu(policy: Any) -> Act:
    """Acts on this CPU as soon as possible: observations [B, observation_size] float32 to actions [B, action_size].

    Batches run compiled. A single observation is so little work that handing it to JAX would take several times as
    long as the work itself, and waiting for JAX's threads makes the slowest calls hundreds of times as long; NumPy
    computes the same within rounding, for the policies of SRPO and IQL.
    """
    layers = _layers(policy.params) if isinstance(policy, ActorParameters) else []
    # Observations follow committed parameters, which is faster than placing them.
    placed = jax.device_put(policy, jax.local_devices(backend="cpu")[0])
    forward = jax.jit(lambda policy, observations: policy.act(observations))

    def act(observations: np.ndarray) -> np.ndarray:
        if layers and len(observations) == 1:
            return _forward(layers, observations)
        return np.asarray(forward(placed, observations))

    return act


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
