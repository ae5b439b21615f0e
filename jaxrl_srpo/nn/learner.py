"""A network that learns: its parameters and its optimizer's state travel together."""

from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.types import Array, Params


@struct.dataclass
class Learner:
    """Parameters and Adam's state of one network.

    Attributes:
      params: parameters, a pytree.
      opt_state: Adam's moments.
      network: the Flax module; None for parameters that are no network's, such as a temperature.
    """

    params: Params
    opt_state: optax.OptState
    network: Any = struct.field(pytree_node=False, default=None)

    @classmethod
    def create(cls, network: nn.Module, key: Array, *inputs: Array) -> Self:
        """A freshly initialized network for inputs of these shapes."""
        return cls.of(network.init(key, *inputs)["params"], network)

    @classmethod
    def of(cls, params: Params, network: nn.Module | None = None) -> Self:
        """Given parameters with a fresh optimizer."""
        return cls(params, optimizers.init(params), network)

    def __call__(self, *inputs: Array) -> Array:
        """The network's output."""
        return self.apply(self.params, *inputs)

    def apply(self, params: Params, *inputs: Array) -> Array:
        """The network's output with other parameters, as losses and target networks need it."""
        return networks.forward(self.network, params, *inputs)

    def apply_gradients(
        self, grads: Params, learning_rate: Array | float, weight_decay: Array | float = 0.0
    ) -> "Learner":
        """One step of Adam; of AdamW (decoupled decay) where there is a weight decay."""
        step = optimizers.adam(self.params, self.opt_state, grads, learning_rate, weight_decay)
        return self.replace(params=step.params, opt_state=step.opt_state)  # type: ignore[attr-defined]

    def copy_params(self) -> Params:
        """Parameters of a target network that starts equal."""
        return jax.tree.map(jnp.copy, self.params)
