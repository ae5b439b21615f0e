"""The variance-preserving diffusion of SRPO: schedule, noise and score, samplers, log-density.

Continuous time t in [0, 1]; a_t = alpha_t a + sigma_t eps with eps ~ N(0, I) (Song et al., arXiv 2011.13456;
the schedule's numbers are those of the published SRPO code).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_srpo.types import Array, ScoreModel

BETA_MIN = 0.1
BETA_MAX = 20.0
TIME_MIN = 1e-3


class Marginal(NamedTuple):
    """Scale of the signal and of the noise at a diffusion time."""

    alpha: Array
    sigma: Array


def log_alpha(times: Array) -> Array:
    """Log alpha_t = -t^2 (b1 - b0) / 4 - t b0 / 2, of any shape."""
    return -0.25 * times**2 * (BETA_MAX - BETA_MIN) - 0.5 * times * BETA_MIN


def marginal(times: Array) -> Marginal:
    """alpha_t and sigma_t = sqrt(1 - alpha_t^2), of the shape of `times`."""
    log = log_alpha(times)
    # expm1 keeps sigma accurate near t = 0, where 1 - alpha^2 cancels.
    return Marginal(jnp.exp(log), jnp.sqrt(-jnp.expm1(2.0 * log)))


def diffuse(actions: Array, noise: Array, times: Array) -> Array:
    """a_t = alpha_t a + sigma_t eps; `actions` and `noise` [B, action_size], `times` [B]."""
    alpha, sigma = marginal(times)
    return alpha[:, None] * actions + sigma[:, None] * noise


def score(model: ScoreModel, noisy_actions: Array, times: Array, observations: Array) -> Array:
    """Grad log mu_t(a_t | s) = -eps(a_t | s, t) / sigma_t, [B, action_size]."""
    return -model.noise_prediction(noisy_actions, times, observations) / marginal(times).sigma[:, None]


def time_of_log_snr(log_snr: Array) -> Array:
    """The time at which log(alpha_t / sigma_t) has a value; inverse of the schedule in closed form."""
    # 2 log alpha = -log(1 + exp(-2 lambda)) and log alpha is quadratic in t.
    target = jnp.logaddexp(-2.0 * log_snr, 0.0)
    slope = BETA_MAX - BETA_MIN
    return 2.0 * target / (jnp.sqrt(BETA_MIN**2 + 2.0 * slope * target) + BETA_MIN)


def predicted_action(model: ScoreModel, noisy_actions: Array, time: Array, observations: Array) -> Array:
    """The action (a_t - sigma_t eps) / alpha_t that the model sees behind the noise, [B, action_size] in [-1, 1].

    All of `noisy_actions` [B, action_size] are at one `time`.
    """
    alpha, sigma = marginal(time)
    noise = model.noise_prediction(noisy_actions, jnp.full(noisy_actions.shape[:1], time), observations)
    return jnp.clip((noisy_actions - sigma * noise) / alpha, -1.0, 1.0)


def sample(model: ScoreModel, key: Array, observations: Array, action_size: int, steps: int = 15) -> Array:
    """Actions [B, action_size] in [-1, 1] drawn from the diffusion model, one per observation.

    DPM-Solver++(2M) (Lu et al., arXiv 2211.01095): second order, deterministic after the first draw, `steps`
    evaluations of the network, steps uniform in log signal-to-noise ratio, the predicted action clipped to [-1, 1].
    """
    ends = jnp.asarray([1.0, TIME_MIN], jnp.float32)
    alpha, sigma = marginal(ends)
    log_snr = jnp.linspace(jnp.log(alpha[0] / sigma[0]), jnp.log(alpha[1] / sigma[1]), steps + 1)
    times = time_of_log_snr(log_snr)

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        x, previous = carry
        data = predicted_action(model, x, times[i], observations)
        h = log_snr[i + 1] - log_snr[i]
        # All steps have the same length, so the second-order correction always has weight 1/2; the first has none.
        correction = jnp.where(i == 0, 0.0, 0.5)
        direction = data + correction * (data - previous)
        now, after = marginal(times[i]), marginal(times[i + 1])
        x = (after.sigma / now.sigma) * x - after.alpha * jnp.expm1(-h) * direction
        return (x, data), None

    noise = jax.random.normal(key, (observations.shape[0], action_size))
    (x, _), _ = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), jnp.arange(steps))
    return jnp.clip(x, -1.0, 1.0)


def sample_ddpm(model: ScoreModel, key: Array, observations: Array, action_size: int, steps: int = 5) -> Array:
    """Actions [B, action_size] in [-1, 1] drawn from the diffusion model, one per observation.

    Ancestral sampling (Ho et al., arXiv 2006.11239, eq. 6 and 7): `steps` evaluations of the network at equally spaced
    times, each followed by a draw from the posterior given the predicted action, which is clipped to [-1, 1].
    """
    key_start, key_steps = jax.random.split(key)
    times = jnp.linspace(1.0, 0.0, steps + 1)

    def step(x: Array, i: Array) -> tuple[Array, None]:
        now, after = marginal(times[i]), marginal(times[i + 1])
        # The transition from `after` to `now` keeps this share of the signal and adds this variance.
        log_ratio = log_alpha(times[i]) - log_alpha(times[i + 1])
        ratio, variance = jnp.exp(log_ratio), -jnp.expm1(2.0 * log_ratio)
        data = predicted_action(model, x, times[i], observations)
        mean = (after.alpha * variance * data + ratio * after.sigma**2 * x) / now.sigma**2
        deviation = after.sigma * jnp.sqrt(variance) / now.sigma
        return mean + deviation * jax.random.normal(jax.random.fold_in(key_steps, i), x.shape), None

    start = jax.random.normal(key_start, (observations.shape[0], action_size))
    x, _ = jax.lax.scan(step, start, jnp.arange(steps))
    return jnp.clip(x, -1.0, 1.0)


def log_density(model: ScoreModel, actions: Array, observations: Array, steps: int = 100) -> Array:
    """Log mu(a | s) [B] in nats of the diffusion model, by the probability-flow ODE (arXiv 2011.13456, eq. 39).

    Integrates da/dt = beta_t / 2 (-a + eps / sigma_t) and its exact divergence from t = 0.001 to 1 with Runge-Kutta
    steps of order four on quadratically spaced times. The cost is `4 * steps * (1 + action_size)` network evaluations.
    """

    def drift(action: Array, observation: Array, time: Array) -> Array:
        rate = BETA_MIN + time * (BETA_MAX - BETA_MIN)
        noise = model.noise_prediction(action[None], time[None], observation[None])[0]
        return 0.5 * rate * (noise / marginal(time).sigma - action)

    def flow(action: Array, observation: Array, time: Array) -> tuple[Array, Array]:
        jacobian = jax.jacfwd(drift)(action, observation, time)
        return drift(action, observation, time), jnp.trace(jacobian)

    times = TIME_MIN + (1.0 - TIME_MIN) * jnp.linspace(0.0, 1.0, steps + 1) ** 2

    def one(action: Array, observation: Array) -> Array:
        def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
            x, total = carry
            t, h = times[i], times[i + 1] - times[i]
            k1, d1 = flow(x, observation, t)
            k2, d2 = flow(x + 0.5 * h * k1, observation, t + 0.5 * h)
            k3, d3 = flow(x + 0.5 * h * k2, observation, t + 0.5 * h)
            k4, d4 = flow(x + h * k3, observation, t + h)
            x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
            return (x, total + h / 6.0 * (d1 + 2.0 * d2 + 2.0 * d3 + d4)), None

        (x, total), _ = jax.lax.scan(step, (action, jnp.zeros(())), jnp.arange(steps))
        return total - 0.5 * jnp.sum(x**2) - 0.5 * x.shape[0] * jnp.log(2.0 * jnp.pi)

    return jax.vmap(one)(actions, observations)
