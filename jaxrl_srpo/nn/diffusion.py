"""The variance-preserving diffusion of SRPO: noise and score, samplers, log-density.

Continuous time t in [0, 1]; a_t = alpha_t a + sigma_t eps with eps ~ N(0, I), of the schedule `schedules.VP`.
"""

import jax
import jax.numpy as jnp

from jaxrl_srpo.nn import samplers
from jaxrl_srpo.nn.noise import Noise
from jaxrl_srpo.nn.schedules import VP
from jaxrl_srpo.types import Array, ScoreModel

TIME_MIN = VP.end

marginal = VP.marginal
diffuse = VP.diffuse
time_of_log_snr = VP.time_of_log_snr


def score(model: ScoreModel, noisy_actions: Array, times: Array, observations: Array) -> Array:
    """Grad log mu_t(a_t | s) = -eps(a_t | s, t) / sigma_t, [B, action_size]."""
    return -model.noise_prediction(noisy_actions, times, observations) / marginal(times).sigma[:, None]


def sample(model: ScoreModel, noise: Noise, observations: Array, action_size: int, steps: int = 15) -> Array:
    """Actions [B, action_size] in [-1, 1] drawn from the diffusion model, one per observation.

    DPM-Solver++(2M) (Lu et al., arXiv 2211.01095): second order, deterministic after the first draw, `steps`
    evaluations of the network, steps uniform in log signal-to-noise ratio, the predicted action clipped to [-1, 1].
    """
    predict = samplers.data_of(samplers.noise_of(model, observations), VP, clip=True)
    ends = jnp.asarray([1.0, TIME_MIN], jnp.float32)
    alpha, sigma = marginal(ends)
    log_snr = jnp.linspace(jnp.log(alpha[0] / sigma[0]), jnp.log(alpha[1] / sigma[1]), steps + 1)
    times = time_of_log_snr(log_snr)

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        x, previous = carry
        data = predict(x, times[i])
        h = log_snr[i + 1] - log_snr[i]
        # All steps have the same length, so the second-order correction always has weight 1/2; the first has none.
        correction = jnp.where(i == 0, 0.0, 0.5)
        direction = data + correction * (data - previous)
        now, after = marginal(times[i]), marginal(times[i + 1])
        x = (after.sigma / now.sigma) * x - after.alpha * jnp.expm1(-h) * direction
        return (x, data), None

    start = noise.normal((observations.shape[0], action_size))
    (x, _), _ = jax.lax.scan(step, (start, jnp.zeros_like(start)), jnp.arange(steps))
    return jnp.clip(x, -1.0, 1.0)


def sample_ddpm(model: ScoreModel, noise: Noise, observations: Array, action_size: int, steps: int = 5) -> Array:
    """Actions [B, action_size] in [-1, 1] drawn from the diffusion model, one per observation.

    Ancestral sampling (Ho et al., arXiv 2006.11239, eq. 6 and 7): `steps` evaluations of the network at equally spaced
    times, each followed by a draw from the posterior given the predicted action, which is clipped to [-1, 1].
    """
    noise_start, noise_steps = noise.split()
    start = noise_start.normal((observations.shape[0], action_size))
    data = samplers.data_of(samplers.noise_of(model, observations), VP, clip=True)
    x = samplers.ddpm(VP, data, start, noise_steps, jnp.linspace(1.0, 0.0, steps + 1))
    return jnp.clip(x, -1.0, 1.0)


def log_density(model: ScoreModel, actions: Array, observations: Array, steps: int = 100) -> Array:
    """Log mu(a | s) [B] in nats of the diffusion model, by the probability-flow ODE (arXiv 2011.13456, eq. 39).

    Integrates da/dt = beta_t / 2 (-a + eps / sigma_t) and its exact divergence from t = 0.001 to 1 with Runge-Kutta
    steps of order four on quadratically spaced times. The cost is `4 * steps * (1 + action_size)` network evaluations.
    """

    def drift(action: Array, observation: Array, time: Array) -> Array:
        rate = VP.beta_min + time * (VP.beta_max - VP.beta_min)
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
