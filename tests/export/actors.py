"""Policies of every method with tiny networks that were not trained, and spaces to act in."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.units import Units
from jaxrl_srpo.export.metadata import Format, Metadata
from jaxrl_srpo.export.program import Program, program_of
from jaxrl_srpo.export.run import draw
from jaxrl_srpo.methods import METHODS
from jaxrl_srpo.methods.contract import Method, Stage, preset_values
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.types import Spec

FEW = {"steps": 3, "candidates": 4, "blocks": 1}
"""Solver steps, candidates and blocks of networks, by the ends of their flags."""
SAMPLERS = ("sampler_steps", "solver_steps", "diffusion_steps", "euler_steps")


class Space(NamedTuple):
    """Sizes, bounds and normalization of an environment."""

    observation_size: int
    low: list[float]
    high: list[float]
    mean: float = 0.0
    std: float = 1.0

    @property
    def units(self) -> Units:
        size = self.observation_size
        mean, std = np.full(size, self.mean, np.float32), np.full(size, self.std, np.float32)
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return Units(mean, std, action_low=low, action_high=high)


SPACES = {
    "plain": Space(3, [-1.0, -1.0], [1.0, 1.0]),
    "pendulum": Space(4, [-2.0], [2.0], 5.0, 3.0),
    "uneven": Space(2, [0.0, -0.4, -30.0], [1.0, 0.4, 10.0], -0.5, 0.1),
}


def acting_stages() -> Iterator[tuple[Method, Stage]]:
    """Every stage that acts, once, with the first method that has it."""
    seen = set()
    for method in METHODS:
        for stage in method.all_stages:
            if stage.acts and stage.name not in seen:
                seen.add(stage.name)
                yield method, stage


def values_of(method: Method) -> Values:
    """Settings of tiny networks."""
    values = preset_values([method], "quick", "synthetic", "locomotion")
    narrow = {flag: 8 for flag in values if flag.endswith(("width", "hidden"))}
    few = {flag: FEW[end] for flag in values for end in ("candidates", "blocks") if flag.endswith(f"_{end}")}
    steps = {flag: FEW["steps"] for flag in values if flag.endswith(SAMPLERS) and flag != "edp_diffusion_steps"}
    return values.replace(**narrow, **few, **steps)


def program(method: Method, stage: Stage, space: Space, seed: int = 0) -> Program:
    """A policy of random weights, of which no part is compiled."""
    values, sizes = values_of(method), Spec(space.observation_size, len(space.low), 12, episodes=2)
    template = stage.template(values, sizes)
    generator = np.random.default_rng(seed)

    def weights(leaf: Any) -> Any:
        # About as large as fresh weights are.
        scale = 1.0 / np.sqrt(max(1, leaf.shape[0] if leaf.ndim > 1 else 8))
        return jnp.asarray(scale * generator.standard_normal(leaf.shape), leaf.dtype)

    policy = stage.make_policy(values, sizes, jax.tree.map(weights, template))
    return program_of(stage, policy, space.units, space.observation_size, len(space.low))


def metadata(program: Program, format: Format, layers: list[str] | None = None, **changes: Any) -> Metadata:
    """Metadata as a run would give them."""
    values: dict[str, Any] = {
        "format": format,
        "dataset": "synthetic",
        "algorithm": program.stage.algorithm,
        "seed": 3,
        "settings": {"beta": 0.01},
        "swept": ["beta"],
        "chosen_by": "the only one that was asked for",
        "observation_size": program.observation_size,
        "action_size": program.action_size,
        "action_low": np.asarray(program.units.action_low).tolist(),
        "action_high": np.asarray(program.units.action_high).tolist(),
        "observation_keys": [],
        "environment": {"id": "Pendulum-v1", "kwargs": {}, "max_episode_steps": None, "goal_task": False},
        "noise": [one._asdict() for one in program.columns],
        "address": "0123456789abcdef",
        "fingerprint": "f" * 16,
        "versions": {"jax": "0"},
        "commit": "",
        "layers": layers or [],
    }
    return Metadata(**values | changes)


def inputs(program: Program, count: int, seed: int = 0) -> list[np.ndarray]:
    """Random observations in the environment's units, and noise if the policy draws."""
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((count, program.observation_size), np.float32)
    observations = program.units.observation_mean + program.units.observation_std * numbers
    noise = [draw(program.columns, count, generator)] if program.columns else []
    return [np.asarray(observations, np.float32), *noise]
