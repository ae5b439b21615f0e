"""The random numbers by which policies act: drawn by a key here, or given from outside, where a file acts without JAX.

A policy that draws has one method, `act_with(observations, noise)`, which asks `noise` for what it needs. B is the
number of observations; every shape that it asks for begins with B or with a multiple of it, the rows of an observation
in a row.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxrl_srpo.types import Array

Kind = Literal["normal", "gumbel"]
Shape = tuple[int, ...]


class Noise(Protocol):
    """A source of random numbers."""

    def split(self) -> tuple["Noise", "Noise"]:
        """Two sources of independent numbers."""

    def normal(self, shape: Shape) -> Array:
        """Standard normal numbers; a source gives them once."""

    def gumbel(self, shape: Shape) -> Array:
        """Standard Gumbel numbers, for choices by softmax; a source gives them once."""

    def normals(self, count: int, shape: Shape) -> Callable[[Array], Array]:
        """Standard normal numbers of `shape` for each of `count` steps, by the number of the step."""


class Keyed(NamedTuple):
    """Draws by a key, each step's numbers when it comes to them."""

    key: Array

    def split(self) -> tuple["Keyed", "Keyed"]:
        """Of the two halves of the key."""
        first, second = jax.random.split(self.key)
        return Keyed(first), Keyed(second)

    def normal(self, shape: Shape) -> Array:
        """See `Noise`."""
        return jax.random.normal(self.key, shape)

    def gumbel(self, shape: Shape) -> Array:
        """See `Noise`."""
        return jax.random.gumbel(self.key, shape)

    def normals(self, count: int, shape: Shape) -> Callable[[Array], Array]:
        """See `Noise`; there are as many as are asked for."""
        return lambda i: jax.random.normal(jax.random.fold_in(self.key, i), shape)


class Columns(NamedTuple):
    """Successive columns of the noise of one observation, all of one distribution."""

    kind: Kind
    size: int


@dataclasses.dataclass
class Given:
    """Numbers that were drawn elsewhere, handed out in the order in which a policy asks for them.

    Attributes:
      noise: [B, n], a row for each observation.
      taken: the columns that were asked for so far.
    """

    noise: Array
    taken: list[Columns] = dataclasses.field(default_factory=list)

    def split(self) -> tuple["Given", "Given"]:
        """Both take from the same columns."""
        return self, self

    def normal(self, shape: Shape) -> Array:
        """See `Noise`."""
        return self._take("normal", shape)

    def gumbel(self, shape: Shape) -> Array:
        """See `Noise`."""
        return self._take("gumbel", shape)

    def normals(self, count: int, shape: Shape) -> Callable[[Array], Array]:
        """See `Noise`."""
        numbers = jnp.concatenate([self._take("normal", shape)[None] for _ in range(count)])
        return lambda i: numbers[i]

    def _take(self, kind: Kind, shape: Shape) -> Array:
        first = sum(columns.size for columns in self.taken)
        size = (shape[0] // self.noise.shape[0]) * math.prod(shape[1:])
        self.taken.append(Columns(kind, size))
        return self.noise[:, first : first + size].reshape(shape)


class Drawing(abc.ABC):
    """A policy that draws: what acts by `noise` acts by a key."""

    @abc.abstractmethod
    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> actions [B, action_size] in [-1, 1]."""

    def act(self, observations: Array, key: Array) -> Array:
        """[B, observation_size] -> actions [B, action_size] in [-1, 1], drawn by a key."""
        return self.act_with(observations, Keyed(key))


class _Measured(Given):
    """Hands out zeros, to see what is asked for."""

    def _take(self, kind: Kind, shape: Shape) -> Array:
        self.taken.append(Columns(kind, (shape[0] // self.noise.shape[0]) * math.prod(shape[1:])))
        return jnp.zeros(shape)


def columns_of(policy: Any, observation_size: int) -> list[Columns]:
    """The columns of noise by which a `Drawing` policy acts, neighbors of one kind joined."""

    def act(policy: Any, observations: Array) -> Array:
        actions: Array = policy.act_with(observations, measured)
        return actions

    measured = _Measured(jnp.zeros((1, 0)))
    jax.eval_shape(act, policy, jnp.zeros((1, observation_size)))
    return _joined(measured.taken)


def _joined(columns: Sequence[Columns]) -> list[Columns]:
    joined: list[Columns] = []
    for one in columns:
        if joined and joined[-1].kind == one.kind:
            joined[-1] = Columns(one.kind, joined[-1].size + one.size)
        else:
            joined.append(one)
    return joined
