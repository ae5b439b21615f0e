"""Samplers against closed forms for Gaussian data, whose exact noise prediction is linear, and against each other.

Data N(m, s^2) diffuse to N(alpha m, v) with v = alpha^2 s^2 + sigma^2, the exact noise prediction is
sigma (x - alpha m) / v, and the flow of the ODE keeps (x - alpha m) / sqrt(v). Everything here is in float64.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.nn import samplers
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.nn.samplers import Prediction, Variance
from jaxrl_srpo.nn.schedules import Continuous, Discrete, DiscreteKind, Schedule
from jaxrl_srpo.types import Array

MEAN, SPREAD = np.asarray([[0.2, -0.3]]), 0.2
# The logarithm of the signal-to-noise ratio bends little here, so that few steps show the order of a solver.
SMOOTH = Continuous(end=0.2)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def exact_noise(schedule: Schedule) -> samplers.Predict:
    def noise(x: Array, time: Array) -> Array:
        alpha, sigma = schedule.marginal(time)
        return sigma * (x - alpha * MEAN) / ((alpha * SPREAD) ** 2 + sigma**2)

    return noise


def exact_data(schedule: Schedule, clip: bool = False) -> samplers.Predict:
    return samplers.data_of(exact_noise(schedule), schedule, clip)


def exact_flow(schedule: Schedule, start: Any, end: float) -> np.ndarray:
    (first, first_noise), (last, last_noise) = (
        [np.asarray(part) for part in schedule.marginal(jnp.float64(time))] for time in (schedule.start, end)
    )
    widths = [np.sqrt((a * SPREAD) ** 2 + s**2) for a, s in ((first, first_noise), (last, last_noise))]
    return last * MEAN + (np.asarray(start) - first * MEAN) * widths[1] / widths[0]


def start_of(count: int = 64) -> Array:
    return jax.random.normal(jax.random.key(0), (count, 2), jnp.float64)


def error_of_solver(steps: int, order: int, prediction: Prediction) -> float:
    predict = exact_noise(SMOOTH) if prediction == "noise" else exact_data(SMOOTH)
    end = samplers.dpm_solver(SMOOTH, predict, start_of(), steps, order, prediction)
    return float(np.max(np.abs(end - exact_flow(SMOOTH, start_of(), SMOOTH.end))))


@pytest.mark.parametrize("prediction", ["noise", "data"])
@pytest.mark.parametrize(("order", "steps"), [(1, 60), (2, 60), (3, 59)])
def test_half_the_step_divides_the_error_by_two_to_the_order(prediction: Prediction, order: int, steps: int) -> None:
    """59 and 119 evaluations of order 3 end with a step of order 2, whose own error is as small."""
    errors = [error_of_solver(count, order, prediction) for count in (steps, 2 * steps + (order == 3))]
    assert errors[1] < 1e-2
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_steps_share_the_evaluations() -> None:
    assert samplers.orders_of(15, 1) == [1] * 15
    assert samplers.orders_of(15, 2) == [2] * 7 + [1]
    assert samplers.orders_of(8, 2) == [2] * 4
    assert samplers.orders_of(15, 3) == [3] * 4 + [2, 1]
    assert samplers.orders_of(16, 3) == [3] * 5 + [1]
    assert samplers.orders_of(17, 3) == [3] * 5 + [2]
    assert [sum(samplers.orders_of(steps, 3)) for steps in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_data_that_are_one_point_take_one_data_prediction(order: int) -> None:
    """DPM-Solver++ is exact where the predicted data do not change: then x moves along a straight line to them."""
    predicted = jnp.asarray([[0.3, -0.6]])
    start = start_of()
    end = samplers.dpm_solver(SMOOTH, lambda x, time: jnp.broadcast_to(predicted, x.shape), start, 4, order, "data")
    (first, first_noise), (last, last_noise) = (SMOOTH.marginal(jnp.float64(t)) for t in (SMOOTH.start, SMOOTH.end))
    exact = last * predicted + last_noise * (start - first * predicted) / first_noise
    np.testing.assert_allclose(end, exact, atol=1e-12)


@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_ddim_without_noise_is_the_solver_of_first_order(prediction: Prediction) -> None:
    times = jnp.linspace(SMOOTH.start, SMOOTH.end, 8)
    steps = samplers.ddim(SMOOTH, exact_data(SMOOTH), start_of(), Keyed(jax.random.key(1)), times)
    predict = exact_noise(SMOOTH) if prediction == "noise" else exact_data(SMOOTH)
    np.testing.assert_allclose(steps, samplers.dpm_solver(SMOOTH, predict, start_of(), 7, 1, prediction), atol=1e-10)


def test_ddim_with_all_its_noise_is_ddpm() -> None:
    schedule, key = Discrete("vp", 5), jax.random.key(1)
    one = samplers.ddim(schedule, exact_data(schedule), start_of(), Keyed(key), schedule.times(), eta=1.0)
    other = samplers.ddpm(schedule, exact_data(schedule), start_of(), Keyed(key), schedule.times())
    np.testing.assert_allclose(one, other, atol=1e-10)


def gaussian_chain(schedule: Discrete, variance: Variance) -> tuple[np.ndarray, float]:
    """Mean and deviation that ancestral sampling ends with: every step is affine in x. Coefficients of DDPM, eq. 7."""
    bars = [float(schedule.marginal(jnp.float64(time)).alpha) ** 2 for time in range(schedule.steps, -1, -1)]
    first, second = np.zeros((1, 2)), 1.0
    for now, after in itertools.pairwise(bars):
        beta, width = 1.0 - now / after, now * SPREAD**2 + 1.0 - now
        of_data = np.sqrt(after) * beta / (1.0 - now)
        of_noisy = np.sqrt(now / after) * (1.0 - after) / (1.0 - now)
        slope = np.sqrt(now) * SPREAD**2 / width
        first = of_data * (MEAN + slope * (first - np.sqrt(now) * MEAN)) + of_noisy * first
        posterior = beta * (1.0 - after) / (1.0 - now)
        added = {"posterior": posterior, "beta": beta if after < 1.0 else 0.0}[variance]
        second = (of_data * slope + of_noisy) ** 2 * second + added
    return first[0], np.sqrt(second)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize(("kind", "steps"), [("vp", 5), ("cosine", 20), ("linear", 40)])
def test_few_ancestral_steps_err_as_the_formula_says(kind: DiscreteKind, steps: int, variance: Variance) -> None:
    schedule = Discrete(kind, steps)
    end = samplers.ddpm(
        schedule, exact_data(schedule), start_of(40_000), Keyed(jax.random.key(2)), schedule.times(), variance
    )
    mean, deviation = gaussian_chain(schedule, variance)
    np.testing.assert_allclose(end.mean(0), mean, atol=5.0 * deviation / 200.0)
    np.testing.assert_allclose(end.std(0), np.full(2, deviation), rtol=0.02)


def test_samplers_agree_on_the_distribution_as_the_steps_grow() -> None:
    schedule, key = Discrete("vp", 400), jax.random.key(3)
    data, start = exact_data(schedule), start_of(5_000)
    ends = {
        "posterior": samplers.ddpm(schedule, data, start, Keyed(key), schedule.times()),
        "beta": samplers.ddpm(schedule, data, start, Keyed(key), schedule.times(), "beta"),
        "ddim": samplers.ddim(schedule, data, start, Keyed(key), schedule.times()),
        "solver": samplers.dpm_solver(schedule, data, start, 60),
    }
    for name, end in ends.items():
        np.testing.assert_allclose(end.mean(0), MEAN[0], atol=0.02, err_msg=name)
        np.testing.assert_allclose(end.std(0), np.full(2, SPREAD), rtol=0.05, err_msg=name)


def test_data_are_clipped_where_that_is_asked_for() -> None:
    schedule = Discrete("vp", 5)
    time, x = jnp.float64(3.0), jnp.asarray([[5.0, -0.1]])
    alpha, sigma = schedule.marginal(time)
    free = exact_data(schedule)(x, time)
    held = samplers.data_of(lambda x, time: jnp.zeros_like(x), schedule, clip=True)(x, time)
    np.testing.assert_allclose(free, (x - sigma * exact_noise(schedule)(x, time)) / alpha)
    np.testing.assert_allclose(held, [[1.0, -0.1 / float(alpha)]])
    noise = samplers.clipped(lambda x, time: jnp.zeros_like(x), schedule)(x, time)
    np.testing.assert_allclose(alpha * held + sigma * noise, x, atol=1e-12)


def test_every_step_stays_inside_where_that_is_asked_for() -> None:
    schedule, seen = Discrete("vp", 5), []

    def before(x: Array, time: Array) -> Array:
        jax.debug.callback(lambda x, time: seen.append((float(time), float(np.abs(x).max()))), x, time, ordered=True)
        return x

    end = samplers.ddpm(
        schedule,
        exact_data(schedule),
        3.0 * start_of(),
        Keyed(jax.random.key(2)),
        schedule.times(),
        "beta",
        True,
        before,
    )
    jax.block_until_ready(end)
    jax.effects_barrier()
    assert [time for time, _ in seen] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert seen[0][1] > 3.0
    assert max(size for _, size in seen[1:]) == 1.0
    assert float(jnp.abs(end).max()) <= 1.0


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_what_a_hook_imposes_before_each_step_conditions_the_rest(sampler: Any) -> None:
    """Trajectories [B, horizon, width]: the first entry is given, the second is predicted to be half of it."""
    schedule, given = Discrete("cosine", 20), 0.8

    def data(x: Array, time: Array) -> Array:
        return jnp.stack([x[:, 0], 0.5 * x[:, 0]], axis=1)

    def impose(x: Array, time: Array) -> Array:
        return x.at[:, 0].set(given)

    start = jax.random.normal(jax.random.key(0), (16, 2, 3), jnp.float64)
    end = sampler(schedule, data, start, Keyed(jax.random.key(1)), schedule.times(), before=impose)
    np.testing.assert_allclose(end[:, 1], np.full((16, 3), 0.5 * given), atol=1e-3)


def test_guidance_by_a_linear_energy_shifts_a_gaussian() -> None:
    """exp(w c x) N(m, s^2) is N(m + w c s^2, s^2), and its energy at a time is linear, too: c alpha s^2 / v x."""
    slope, scale = jnp.asarray([[1.5, -2.0]]), 2.0

    def energy(x: Array, time: Array) -> Array:
        alpha, sigma = SMOOTH.marginal(time)
        return jnp.sum(slope * x, axis=-1) * alpha * SPREAD**2 / ((alpha * SPREAD) ** 2 + sigma**2)

    schedule = Continuous(end=0.02)
    noise = samplers.guided(exact_noise(schedule), schedule, energy, scale)
    end = samplers.dpm_solver(schedule, samplers.data_of(noise, schedule), start_of(20_000), 120, 3)
    alpha, _ = schedule.marginal(jnp.float64(schedule.end))
    np.testing.assert_allclose(end.mean(0) / alpha, (MEAN + scale * slope * SPREAD**2)[0], atol=0.01)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradients_flow_through_every_step(order: int) -> None:
    """The end is linear in a shift of the predicted data, so that finite differences give its derivative."""

    def end(shift: Array) -> Array:
        return jnp.sum(samplers.dpm_solver(SMOOTH, lambda x, t: exact_data(SMOOTH)(x, t) + shift, start_of(), 7, order))

    zero = jnp.zeros((), jnp.float64)
    np.testing.assert_allclose(jax.grad(end)(zero), end(zero + 1.0) - end(zero), rtol=1e-8)
