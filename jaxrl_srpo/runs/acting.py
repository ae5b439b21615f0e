"""Acting on this machine: from observations in the environment's units to its actions, in NumPy arrays."""

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.observations import flatten_observation, goal_keys_of_width
from jaxrl_srpo.data.units import Units
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.nn.policies import DeterministicPolicy
from jaxrl_srpo.nn.policies import act as act_by_policy
from jaxrl_srpo.population.member import call
from jaxrl_srpo.runs.scorer import acting_device
from jaxrl_srpo.types import Act, Array, Params

HostAct = Callable[[np.ndarray], np.ndarray]
"""Observations [B, observation_size] float32 to actions [B, action_size], all on the host."""


class CallablePolicy(abc.ABC):
    """What every policy that acts in an environment can be asked, wherever it was loaded from.

    It is copied and pickled with all that it needs, so that other processes can act by it.
    """

    environment: EnvironmentSpec | None
    observation_keys: tuple[str, ...]
    _act: HostAct

    @property
    @abc.abstractmethod
    def observation_size(self) -> int:
        """Width of one observation."""

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
        flat = self.flatten(observation)
        return self._act(flat[None])[0] if flat.ndim == 1 else self._act(flat)

    def flatten(self, observation: Any) -> np.ndarray:
        """An observation as the policy's networks take it, [observation_size] or [B, observation_size]."""
        size, keys = self.observation_size, self.observation_keys
        if isinstance(observation, Mapping) and not keys:
            # The data had vectors already, as D4RL's mazes have.
            keys = goal_keys_of_width(observation, size)
        flat = flatten_observation(observation, keys)
        if flat.ndim not in (1, 2) or flat.shape[-1] != size:
            raise ValueError(f"observation of shape {flat.shape}; expected [{size}] or [batch, {size}]")
        return flat

    def make_environment(self, **kwargs: Any) -> Any:
        """The Gymnasium environment it was evaluated in, with flat observations; `kwargs` go to `gymnasium.make`.

        Raises:
          UserError: if none is known, or it is not installed.
        """
        from jaxrl_srpo.envs.make import make_environment

        if self.environment is None:
            raise UserError("the policy's environment is not known; make one by gymnasium.make")
        return make_environment(dataclasses.replace(self.environment, kwargs=self.environment.kwargs | kwargs))


@dataclasses.dataclass(frozen=True)
class InUnits:
    """What acts on normalized observations, for those of the environment."""

    act: HostAct
    units: Units

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """[B, observation_size] -> [B, action_size], in the environment's units."""
        return self.units.denormalize_actions(self.act(self.units.normalize_observations(observations)))


def act_on_host(policy: Any, act: Act = act_by_policy) -> HostAct:
    """Acts on this machine's CPU as soon as possible, by a compiled call or by NumPy; see `HostActor`.

    Args:
      policy: a pytree.
      act: how it acts; a random one draws with a key of its own for each call.
    """
    return HostActor(policy, act)


class HostActor:
    """Acts as soon as possible: batches run compiled, a single observation of a deterministic policy in NumPy.

    A single observation is so little work that handing it to JAX would take several times as long as the work itself,
    and waiting for JAX's threads makes the slowest calls hundreds of times as long; NumPy computes the same within
    rounding.
    """

    _first_process: ClassVar[int] = 0
    """Where one was first made; a process that inherits it was forked."""

    def __init__(self, policy: Any, act: Act) -> None:
        self._policy, self._function, self._calls = policy, act, 0
        self._prepare()

    def _prepare(self) -> None:
        cls, policy, act = type(self), self._policy, self._function
        cls._first_process = cls._first_process or os.getpid()
        self._process = cls._first_process
        plain = isinstance(policy, DeterministicPolicy) and act is act_by_policy
        self._layers = _layers(policy.params) if plain else []
        # Observations follow committed parameters, which is faster than placing them.
        self._placed = jax.device_put(policy, acting_device()) if not self._forked else policy
        self._forward = jax.jit(functools.partial(_forward_by_key, act))

    def __getstate__(self) -> dict[str, Any]:
        """The policy in host memory, and how many calls have drawn."""
        return {"policy": jax.tree.map(np.asarray, self._policy), "act": self._function, "calls": self._calls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Goes on with the next draw."""
        self._policy, self._function, self._calls = state["policy"], state["act"], state["calls"]
        self._prepare()

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        if self._layers and len(observations) == 1:
            return _forward(self._layers, observations)
        if self._forked:
            # JAX's threads stay behind in the parent, and a call would wait for them for ever.
            raise UserError(
                "this process was forked after the policy was loaded, and JAX cannot run in it; start workers by "
                'multiprocessing.get_context("spawn")'
            )
        number = np.uint32(self._calls)
        self._calls += 1
        return np.asarray(self._forward(self._placed, observations, number))


def _forward_by_key(act: Act, policy: Any, observations: Array, number: Array) -> Array:
    actions: Array = call(act, policy=policy, observations=observations, key=jax.random.key(number))
    return actions


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
