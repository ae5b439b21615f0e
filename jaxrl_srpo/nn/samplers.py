"""Samplers of diffusion models, from noise to data: DDPM, DDIM, DPM-Solver and DPM-Solver++.

They know networks as functions `Predict` and noise as arrays [B, ...] of any rank. What a network predicts becomes what
a sampler needs by `noise_of`, `data_of`, `clipped` and `guided`, which can be put into one another.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.nn.noise import Noise
from jaxrl_srpo.nn.schedules import Schedule
from jaxrl_srpo.types import Array, ScoreModel

Predict = Callable[[Array, Array], Array]
"""(x [B, ...] at one time, that time []) -> the noise or the data behind it, of the shape of x."""
Hook = Callable[[Array, Array], Array]
"""(x [B, ...] at one time, that time []) -> x changed, where guidance acts between steps."""
Variance = Literal["posterior", "beta"]
Prediction = Literal["noise", "data"]


def noise_of(model: ScoreModel, observations: Array) -> Predict:
    """The noise that a model sees at `observations` [B, observation_size]."""
    return lambda x, time: model.noise_prediction(x, jnp.broadcast_to(time, x.shape[:1]), observations)


def data_of(noise: Predict, schedule: Schedule, clip: bool = False) -> Predict:
    """The data (x - sigma eps) / alpha behind predicted noise, in [-1, 1] if `clip`."""

    def data(x: Array, time: Array) -> Array:
        alpha, sigma = schedule.marginal(time)
        found = (x - sigma * noise(x, time)) / alpha
        return jnp.clip(found, -1.0, 1.0) if clip else found

    return data


def clipped(noise: Predict, schedule: Schedule) -> Predict:
    """The noise of which the data behind it are in [-1, 1]."""
    data = data_of(noise, schedule, clip=True)

    def inside(x: Array, time: Array) -> Array:
        alpha, sigma = schedule.marginal(time)
        return (x - alpha * data(x, time)) / sigma

    return inside


def guided(noise: Predict, schedule: Schedule, energy: Hook, scale: Array | float) -> Predict:
    """The noise of a model whose score has `scale` times the gradient of `energy` (x, time) -> [B] added."""

    def with_gradient(x: Array, time: Array) -> Array:
        gradient = jax.grad(lambda x: jnp.sum(energy(x, time)))(x)
        return noise(x, time) - scale * schedule.marginal(time).sigma * gradient

    return with_gradient


def ddpm(
    schedule: Schedule,
    data: Predict,
    start: Array,
    noise: Noise,
    times: Array,
    variance: Variance = "posterior",
    clip: bool = False,
    before: Hook | None = None,
) -> Array:
    """Ancestral sampling (Ho et al., arXiv 2006.11239, eq. 6 and 7).

    Args:
      schedule: of the noise.
      data: predicts the data.
      start: noise [B, ...] at the first time.
      noise: of the steps.
      times: [steps + 1], falling to 0; the last step adds no noise.
      variance: of a step: that of the posterior given the data (beta-tilde), or beta.
      clip: keeps x in [-1, 1] after every step; where the data should be, `data_of` does it.
      before: changes x before each step.
    """
    steps = len(times) - 1
    added_noise = noise.normals(steps, start.shape)

    def step(x: Array, i: Array) -> tuple[Array, None]:
        x = x if before is None else before(x, times[i])
        now, after = schedule.marginal(times[i]), schedule.marginal(times[i + 1])
        # The transition from `after` to `now` keeps this share of the signal and adds this variance.
        log_ratio = schedule.log_alpha(times[i]) - schedule.log_alpha(times[i + 1])
        ratio, added = jnp.exp(log_ratio), -jnp.expm1(2.0 * log_ratio)
        mean = (after.alpha * added * data(x, times[i]) + ratio * after.sigma**2 * x) / now.sigma**2
        if variance == "posterior":
            deviation = after.sigma * jnp.sqrt(added) / now.sigma
        else:
            deviation = jnp.where(i < steps - 1, jnp.sqrt(added), 0.0)
        x = mean + deviation * added_noise(i)
        return jnp.clip(x, -1.0, 1.0) if clip else x, None

    return jax.lax.scan(step, start, jnp.arange(steps))[0]


def ddim(
    schedule: Schedule,
    data: Predict,
    start: Array,
    noise: Noise,
    times: Array,
    eta: float = 0.0,
    before: Hook | None = None,
) -> Array:
    """DDIM (Song et al., arXiv 2010.02502, eq. 12 and 16): nothing is random at `eta` 0, at 1 it is DDPM.

    Args:
      schedule: of the noise.
      data: predicts the data.
      start: noise [B, ...] at the first time.
      noise: of the steps.
      times: [steps + 1], falling.
      eta: share of the deviation of DDPM's steps.
      before: changes x before each step.
    """
    steps = len(times) - 1
    added_noise = noise.normals(steps, start.shape) if eta else None

    def step(x: Array, i: Array) -> tuple[Array, None]:
        x = x if before is None else before(x, times[i])
        now, after = schedule.marginal(times[i]), schedule.marginal(times[i + 1])
        found = data(x, times[i])
        seen = (x - now.alpha * found) / now.sigma
        added = -jnp.expm1(2.0 * (schedule.log_alpha(times[i]) - schedule.log_alpha(times[i + 1])))
        deviation = eta * after.sigma * jnp.sqrt(added) / now.sigma
        x = after.alpha * found + jnp.sqrt(after.sigma**2 - deviation**2) * seen
        return x if added_noise is None else x + deviation * added_noise(i), None

    return jax.lax.scan(step, start, jnp.arange(steps))[0]


def dpm_solver(
    schedule: Schedule,
    predict: Predict,
    start: Array,
    steps: int,
    order: int = 2,
    prediction: Prediction = "data",
) -> Array:
    """Singlestep solver of the probability-flow ODE, by `steps` evaluations at uniform times.

    With "noise" it is DPM-Solver (Lu et al., arXiv 2206.00927, algorithms 1 and 2), with "data" DPM-Solver++ (arXiv
    2211.01095). A step of order k takes k times at once, and the last steps what is left. Nothing is random or clipped.

    Args:
      schedule: of the noise.
      predict: predicts the noise or the data.
      start: noise [B, ...] at `schedule.start`.
      steps: evaluations of `predict`.
      order: of most steps, 1 to 3.
      prediction: what `predict` predicts.
    """
    times = jnp.linspace(schedule.start, schedule.end, steps + 1)
    x, first = start, 0
    for size, equal in itertools.groupby(orders_of(steps, order)):
        count = len(list(equal))
        taken = first + size * np.arange(count)[:, None] + np.arange(size + 1)

        def jump(x: Array, own: Array) -> tuple[Array, None]:
            return _jump(schedule, predict, x, own, prediction), None

        x, _ = jax.lax.scan(jump, x, times[taken])
        first += size * count
    return x


def orders_of(steps: int, order: int) -> list[int]:
    """The orders of the singlestep solver's steps, `steps` in all, as its released code has them."""
    whole, left = divmod(steps, order)
    if order == 3 and left == 0:
        return [3] * (whole - 1) + [2, 1]
    return [order] * whole + [left] * (left > 0)


def _jump(schedule: Schedule, predict: Predict, x: Array, times: Array, prediction: Prediction) -> Array:
    """One step from the first of `times` [order + 1] to the last; those between are evaluated on the way."""
    alpha, sigma = schedule.marginal(times)
    log_snr = schedule.log_alpha(times) - jnp.log(sigma)
    # Both forms are one in a half-logarithm h of the signal-to-noise ratio that rises or falls.
    if prediction == "noise":
        lead, weight, h = alpha, sigma, log_snr - log_snr[0]
    else:
        lead, weight, h = sigma, alpha, log_snr[0] - log_snr
    first = predict(x, times[0])

    def towards(i: int, higher: Array | float = 0.0) -> Array:
        return lead[i] / lead[0] * x - weight[i] * (jnp.expm1(h[i]) * first + higher)

    def phi(h: Array) -> Array:
        return jnp.expm1(h) / h - 1.0

    order = len(times) - 1
    if order == 1:
        return towards(1)
    second = predict(towards(1), times[1]) - first
    if order == 2:
        return towards(2, jnp.expm1(h[2]) * second * (h[2] / (2.0 * h[1])))
    third = predict(towards(2, h[2] / h[1] * phi(h[2]) * second), times[2]) - first
    return towards(3, h[3] / h[2] * phi(h[3]) * third)
