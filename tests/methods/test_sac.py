"""SAC on problems whose answers are known, and on Pendulum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxrl_srpo.data import table
from jaxrl_srpo.envs.pendulum import Pendulum
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.agent import SAC
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.offline import Members
from jaxrl_srpo.population.online import FunctionalRun
from jaxrl_srpo.types import Batch, Spec

SPEC = Spec(1, 1)
CONFIG = sac.Config(batch_size=64, width=32)
HYPER = sac.Hyper(learning_rate=3e-3, actor_learning_rate=3e-3, temperature_learning_rate=0.0, temperature=0.1)


def learn(batch: Batch, hyper: sac.Hyper, steps: int) -> sac.State:
    """A state trained on one batch."""

    @jax.jit
    def run(state: sac.State) -> sac.State:
        def body(i: Any, state: sac.State) -> sac.State:
            return sac.update(state, batch, jax.random.fold_in(jax.random.key(1), i), hyper)[0]

        return jax.lax.fori_loop(0, steps, body, state)

    return run(sac.init(jax.random.key(0), SPEC, CONFIG, hyper))


def one_step(rewards: Any, discounts: float = 0.0) -> Batch:
    actions = jnp.linspace(-0.99, 0.99, 64)[:, None]
    zeros = jnp.zeros((64, 1))
    return Batch(zeros, actions, rewards(actions[:, 0]), zeros, jnp.full((64,), discounts))


def q_values(state: sac.State, batch: Batch) -> np.ndarray:
    return np.asarray(sac._q_values(state.q.params, CONFIG, batch.observations, batch.actions))


def test_terminal_transitions_are_worth_their_reward() -> None:
    batch = one_step(lambda a: 1.0 - a**2)
    values = q_values(learn(batch, HYPER, 800), batch)
    np.testing.assert_allclose(values, np.repeat(np.asarray(batch.rewards)[:, None], 2, axis=1), atol=0.06)


def test_a_bandits_policy_has_the_density_that_maximises_reward_and_entropy() -> None:
    """The optimum is proportional to exp(r / alpha); for r = -(a - 0.3)^2 and alpha = 0.1 its mean is known."""
    batch = one_step(lambda a: -((a - 0.3) ** 2))
    state = learn(batch, HYPER, 1500)
    samples = state.policy.distribution(jnp.zeros((4000, 1))).sample(jax.random.key(2))[0]

    def density(a: float) -> float:
        return float(np.exp(-((a - 0.3) ** 2) / 0.1))

    total = integrate.quad(density, -1, 1)[0]
    mean = integrate.quad(lambda a: a * density(a), -1, 1)[0] / total
    variance = integrate.quad(lambda a: (a - mean) ** 2 * density(a), -1, 1)[0] / total
    # A squashed Gaussian is not exactly of that family.
    assert float(jnp.mean(samples)) == pytest.approx(mean, abs=0.05)
    assert float(jnp.std(samples)) == pytest.approx(np.sqrt(variance), rel=0.2)


def test_the_temperature_rises_while_entropy_is_too_low_and_falls_while_it_is_too_high() -> None:
    batch = one_step(lambda a: -((a - 0.3) ** 2))
    for target, rises in ((5.0, True), (-5.0, False)):
        hyper = HYPER.replace(temperature_learning_rate=1e-2, target_entropy=target)  # type: ignore[attr-defined]
        state = learn(batch, hyper, 20)
        assert bool(state.log_temperature.params > np.log(0.1)) is rises


def test_log_densities_integrate_to_one_and_are_finite_at_the_bounds() -> None:
    distribution = sac.SquashedGaussian(jnp.full((1, 1), 0.4), jnp.full((1, 1), -0.5))

    def density(a: float) -> float:
        return float(jnp.exp(distribution.log_prob(jnp.full((1, 1), a, jnp.float32)))[0])

    points = np.linspace(-0.9999, 0.9999, 4001)
    values = jnp.exp(jax.vmap(lambda a: distribution.log_prob(a.reshape(1, 1))[0])(jnp.asarray(points, jnp.float32)))
    assert np.trapezoid(np.asarray(values), points) == pytest.approx(1.0, abs=2e-3)
    assert all(np.isfinite(density(a)) for a in (-1.0, 1.0))
    actions, log_probs = distribution.sample(jax.random.key(0))
    np.testing.assert_allclose(log_probs, distribution.log_prob(actions), rtol=1e-4)


def test_it_learns_to_swing_up_a_pendulum() -> None:
    """Random actions return about -1200, a swing-up -150."""
    shape = (1, 1)
    nothing = jnp.zeros(shape, jnp.int32)
    hyper = sac.Hyper(learning_rate=3e-3, actor_learning_rate=1e-3, temperature_learning_rate=1e-3, temperature=0.2)
    members = Members(
        jax.random.split(jax.random.key(0), shape),
        table.Slice(nothing, nothing),
        jax.tree.map(lambda x: jnp.full(shape, x, jnp.float32), hyper),
    )
    loop = Loop(environments=2, update_to_data=1.0, capacity=6_000, warmup_steps=400, random_steps=400)
    config, one = sac.Config(batch_size=64, width=64), jax.devices()[:1]
    run = FunctionalRun(Pendulum(), SAC, config, loop, members=members, frozen=None, devices=one)
    first = run.run(200)
    run.run(2_400)
    last = run.run(400)
    assert first.returns[0, 0] < -800.0
    assert last.returns[0, 0] > -500.0
