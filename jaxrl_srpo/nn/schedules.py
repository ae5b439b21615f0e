"""Noise schedules of variance-preserving diffusion: how much signal and how much noise there is at a time.

x_t = alpha_t x + sigma_t eps with eps ~ N(0, I) and alpha_t^2 + sigma_t^2 = 1 (Song et al., arXiv 2011.13456). Time 0
is the data. A schedule is a hashable value without arrays, so that it can be a static part of a policy.
"""

import abc
import dataclasses
import functools
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.types import Array

DiscreteKind = Literal["vp", "cosine", "linear"]
DISCRETE_KINDS = get_args(DiscreteKind)


class Marginal(NamedTuple):
    """Scale of the signal and of the noise at a diffusion time."""

    alpha: Array
    sigma: Array


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
    """What samplers need to know of a schedule; `log_alpha` makes one of it.

    Attributes:
      start: time of pure noise, where sampling begins.
      end: smallest time that networks are trained at, where the solvers of the ODE end.
    """

    start: float
    end: float

    @abc.abstractmethod
    def log_alpha(self, times: Array) -> Array:
        """Log alpha_t, of any shape."""

    def marginal(self, times: Array) -> Marginal:
        """alpha_t and sigma_t = sqrt(1 - alpha_t^2), of the shape of `times`."""
        log = self.log_alpha(times)
        # expm1 keeps sigma accurate near t = 0, where 1 - alpha^2 cancels.
        return Marginal(jnp.exp(log), jnp.sqrt(-jnp.expm1(2.0 * log)))

    def diffuse(self, x: Array, noise: Array, times: Array) -> Array:
        """x_t of `x` and `noise` [B, size] at `times` [B]."""
        alpha, sigma = self.marginal(times)
        return alpha[:, None] * x + sigma[:, None] * noise


@dataclasses.dataclass(frozen=True)
class Continuous(Schedule):
    """Times in [0, 1] and a rate of noise that rises linearly from `beta_min` to `beta_max`."""

    start: float = 1.0
    end: float = 1e-3
    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, times: Array) -> Array:
        """Log alpha_t = -t^2 (b1 - b0) / 4 - t b0 / 2, of any shape."""
        return -0.25 * times**2 * (self.beta_max - self.beta_min) - 0.5 * times * self.beta_min

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The time at which log(alpha_t / sigma_t) has a value, in closed form."""
        # 2 log alpha = -log(1 + exp(-2 lambda)) and log alpha is quadratic in t.
        target = jnp.logaddexp(-2.0 * log_snr, 0.0)
        slope = self.beta_max - self.beta_min
        return 2.0 * target / (jnp.sqrt(self.beta_min**2 + 2.0 * slope * target) + self.beta_min)


VP = Continuous()
"""The schedule of SRPO, QGPO and SfBC; the numbers are those of their published codes."""


@dataclasses.dataclass(frozen=True)
class Discrete(Schedule):
    """Times 0, 1 ... `steps`, as DDPM counts them (Ho et al., arXiv 2006.11239); log alpha is linear between them.

    Attributes:
      kind: of beta_t, the variance that step t of T adds. "vp", of Diffusion-QL and IDQL, is
        1 - exp(-0.1 / T - (10 - 0.1) (2t - 1) / (2 T^2)): the largest rate is 10 here, not 20. "cosine", of Diffuser,
        is that of arXiv 2102.09672, eq. 17. "linear", of EDP, rises from 0.1 / T to 20 / T. None exceeds 0.999.
      steps: T.
    """

    start: float = dataclasses.field(init=False)
    end: float = dataclasses.field(init=False, default=1.0)
    kind: DiscreteKind = "vp"
    steps: int = 5

    def __post_init__(self) -> None:
        """All steps from the last one on are noise."""
        object.__setattr__(self, "start", float(self.steps))

    def times(self) -> Array:
        """All times from noise to data, [steps + 1]."""
        return jnp.arange(self.steps, -1, -1, dtype=float)

    def log_alpha(self, times: Array) -> Array:
        """Log alpha_t, of any shape."""
        table = jnp.asarray(_log_alphas(self.kind, self.steps), times.dtype)
        below = jnp.clip(jnp.floor(times), 0, self.steps - 1)
        first = below.astype(jnp.int32)
        return table[first] + (times - below) * (table[first + 1] - table[first])


def betas(kind: DiscreteKind, steps: int) -> np.ndarray:
    """The variance that each of `steps` adds, [steps] float64; see `Discrete`."""
    now = np.arange(1, steps + 1)
    match kind:
        case "vp":
            return -np.expm1(-0.1 / steps - 0.5 * (10.0 - 0.1) * (2 * now - 1) / steps**2)
        case "cosine":
            signal = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2.0) ** 2
            return np.clip(1.0 - signal[1:] / signal[:-1], 0.0, 0.999)
        case "linear":
            return np.clip(np.linspace(0.1 / steps, 20.0 / steps, steps), 0.0, 0.999)


@functools.cache
def _log_alphas(kind: DiscreteKind, steps: int) -> np.ndarray:
    """Log alpha at times 0 to `steps`, float64."""
    return np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas(kind, steps)))])
