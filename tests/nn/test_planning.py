"""Plans against the released code's loop in plain NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.nn import planning
from jaxrl_srpo.nn.schedules import Discrete
from jaxrl_srpo.types import Array
from tests import temporal_reference


def test_noise_is_that_of_the_released_code() -> None:
    signal, schedule = temporal_reference.cosine_signal(20), Discrete(kind="cosine", steps=20)
    times = jnp.arange(1.0, 21.0)
    np.testing.assert_allclose(schedule.marginal(times).alpha, np.sqrt(signal[1:]), rtol=1e-5)
    betas = 1.0 - signal[1:] / signal[:-1]
    variances = betas * (1.0 - signal[:-1]) / (1.0 - signal[1:])
    found = [planning.posterior_variance(schedule, time) for time in times]
    np.testing.assert_allclose(found, variances, rtol=1e-4, atol=1e-9)


class Shrink(nn.Module):
    """A model that sees half of the noisy window, and more with the time."""

    @nn.compact
    def __call__(self, x: Array, times: Array) -> Array:
        return x * (0.5 + 0.01 * times[:, None, None])


class Hill(nn.Module):
    """A value that is highest where all of a window is 1."""

    @nn.compact
    def __call__(self, x: Array, times: Array) -> Array:
        return -jnp.sum((x - 1.0) ** 2, axis=(1, 2)) + times


def test_planning_is_that_of_the_released_code() -> None:
    """Its loop in NumPy, with the same noise: guidance, posterior, the known state, the choice by value."""
    plans, horizon, steps, stop, scale = 4, 3, 6, 2, 0.3
    schedule = Discrete(kind="cosine", steps=steps)
    prior = planning.Cloning(planning.Network({}, Shrink()), horizon, 1, schedule)
    planner = planning.Planner(prior, planning.Network({}, Hill()), plans, scale, 2, stop)
    observations, key = jnp.asarray([[0.3, -0.8], [0.1, 0.6]]), jax.random.key(5)
    found = jax.jit(lambda key: planner.act(observations, key))(key)

    states = np.repeat(np.asarray(observations, np.float64), plans, axis=0)
    signal = temporal_reference.cosine_signal(steps)
    key_start, key_steps = jax.random.split(key)
    x = np.asarray(jax.random.normal(key_start, (2 * plans, horizon, 3)), np.float64)
    x[:, 0, 1:] = states
    for i, t in enumerate(reversed(range(steps))):
        now, after = signal[t + 1], signal[t]
        beta = 1.0 - now / after
        variance = beta * (1.0 - after) / (1.0 - now)
        for _ in range(2):
            values = -((x - 1.0) ** 2).sum((1, 2))
            x = x + scale * variance * (-2.0 * (x - 1.0)) * (t >= stop)
            x[:, 0, 1:] = states
        clean = x * (0.5 + 0.01 * t)
        x = np.sqrt(after) * beta / (1.0 - now) * clean + (1.0 - after) * np.sqrt(1.0 - beta) / (1.0 - now) * x
        if t > 0:
            noise = jax.random.normal(jax.random.fold_in(key_steps, i), x.shape)
            x = x + np.sqrt(variance) * np.asarray(noise, np.float64)
        x[:, 0, 1:] = states
    best = values.reshape(2, plans).argmax(1) + plans * np.arange(2)
    assert len(set(np.asarray(x[:, 0, 0]).round(3))) == 2 * plans
    np.testing.assert_allclose(found, np.clip(x[best, 0, :1], -1.0, 1.0), rtol=0, atol=1e-5)
