"""SAC on problems whose answers are known, and on Pendulum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxrl_srpo.envs.pendulum import Pendulum
from jaxrl_srpo.methods import sac
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import make_members
from jaxrl_srpo.population.online import FunctionalRun
from jaxrl_srpo.types import Batch, Spec

SPEC = Spec(1, 1)
SETTINGS = sac.Settings(batch_size=64, width=32, learning_rate=3e-3, temperature=0.1, learn_temperature=False)


def learn(batch: Batch, given: sac.Settings, steps: int) -> sac.State:
    """A state trained on one batch."""
    settings = with_arrays(given)

    @jax.jit
    def run(state: sac.State) -> sac.State:
        def body(i: Any, state: sac.State) -> sac.State:
            return sac.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings)[0]

        return jax.lax.fori_loop(0, steps, body, state)

    return run(sac.init(jax.random.key(0), SPEC, settings))


def one_step(rewards: Any, discounts: float = 0.0) -> Batch:
    actions = jnp.linspace(-0.99, 0.99, 64)[:, None]
    zeros = jnp.zeros((64, 1))
    return Batch(zeros, actions, rewards(actions[:, 0]), zeros, jnp.full((64,), discounts))


def q_values(state: sac.State, batch: Batch) -> np.ndarray:
    return np.asarray(state.q(batch.observations, batch.actions))


def test_terminal_transitions_are_worth_their_reward() -> None:
    batch = one_step(lambda a: 1.0 - a**2)
    values = q_values(learn(batch, SETTINGS, 800), batch)
    np.testing.assert_allclose(values, np.repeat(np.asarray(batch.rewards)[:, None], 2, axis=1), atol=0.06)


def test_a_bandits_policy_has_the_density_that_maximizes_reward_and_entropy() -> None:
    """The optimum is proportional to exp(r / alpha); for r = -(a - 0.3)^2 and alpha = 0.1 its mean is known."""
    batch = one_step(lambda a: -((a - 0.3) ** 2))
    state = learn(batch, SETTINGS, 1500)
    samples = sac.policy_of(state).distribution(jnp.zeros((4000, 1))).sample(jax.random.key(2))[0]

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
    changes: Any = SETTINGS
    for target, rises in ((5.0, True), (-5.0, False)):
        settings = changes.replace(learning_rate=1e-2, learn_temperature=True, target_entropy=target)
        state = learn(batch, settings, 20)
        assert bool(state.log_temperature.params > np.log(0.1)) is rises


def test_a_temperature_that_does_not_learn_stays_to_the_bit() -> None:
    state = learn(one_step(lambda a: a), SETTINGS, 3)
    assert state.log_temperature.params == jnp.log(jnp.float32(0.1))
    assert state.log_temperature.opt_state.count == 0


def test_it_learns_to_swing_up_a_pendulum() -> None:
    """Random actions return about -1200, a swing-up -150."""
    settings = sac.Settings(batch_size=64, width=64, learning_rate=1e-3, temperature=0.2)
    members = make_members([jax.random.key(0)], [settings])
    loop = Loop(environments=2, update_to_data=1.0, capacity=6_000, warmup_steps=400, random_steps=400)
    run = FunctionalRun(Pendulum(), sac.AGENT, loop, members=members, frozen=None, devices=jax.devices()[:1])
    first = run.run(200)
    run.run(2_400)
    last = run.run(400)
    assert first.returns[0, 0] < -800.0
    assert last.returns[0, 0] > -500.0
