"""Policies as they act: those of a run, and those of methods with fresh networks of published sizes."""

import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Function, Method, preset_values
from jaxrl_srpo.runs.acting import act_on_host
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from jaxrl_srpo.runs.sweep import stages_of
from jaxrl_srpo.types import Array, Spec

from .workload import matrix_flop, untrained_result


class Acting(NamedTuple):
    """A policy of one member.

    Attributes:
      algorithm: its word in tables.
      label: what tables call it.
      spec: sizes of the problem.
      policy: what acts, a pytree.
      function: how it acts, see `types.Act`.
    """

    algorithm: str
    label: str
    spec: Spec
    policy: Any
    function: Function

    def act(self, observations: Array | np.ndarray, seed: Array | int = 0) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        actions: Array = self.function(self.policy, observations, jax.random.key(seed))
        return actions

    def on_host(self) -> Any:
        """The same from a NumPy array to a NumPy array, as `load_policy` does it."""
        return act_on_host(self.policy, self.function)

    def flop(self) -> int:
        """Matrix-product FLOP of one action, counted in the program that `act` traces to."""
        return matrix_flop(jax.make_jaxpr(self.act)(jnp.zeros((1, self.spec.observation_size))).jaxpr)


def fresh(method: Method, spec: Spec, preset: str, dataset: str, family: str) -> Acting:
    """The policy of a method with networks that were not trained, for speed does not depend on their weights.

    Args:
      method: whose last policy it is.
      spec: sizes of the problem.
      preset: gives the sizes of the networks.
      dataset: for which the preset is read.
      family: of the dataset.
    """
    values = preset_values([method], preset, dataset, family)
    last = [stage for stage in method.stages if stage.acts][-1]
    make = jax.jit(functools.partial(untrained_result, last, values, spec))
    policy = last.make_policy(values, spec, make(jax.random.key(0)))
    return Acting(last.algorithm, last.label, spec, policy, last.act)


def trained(run_dir: str | os.PathLike[str]) -> list[Acting]:
    """The policies of a run's first dataset, one of each algorithm that is finished.

    Raises:
      UserError: not a run directory, or nothing in it is finished.
    """
    run = RunDirectory(pathlib.Path(run_dir))
    every = run.members()
    members = [member for member in every if member.dataset == every[0].dataset]
    found = []
    for stage in stages_of(members):
        finished = [member for member in members if stage in member.stages and run.has_result(stage, member)]
        if stage.acts and finished:
            first = finished[0]
            policy = stage.make_policy(first.settings, first.spec, load_result(run, stage, first))
            found.append(Acting(stage.algorithm, stage.label, first.spec, policy, stage.act))
    if not found:
        raise UserError(f"{run_dir}: no stage is finished yet; continue it with the command that started it")
    return found
