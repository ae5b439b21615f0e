"""Policies: densities against formulas, bounds, and one signature of `act`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl_srpo.nn import networks, policies
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.nn.policies import (
    BestOf,
    DeterministicPolicy,
    Gaussian,
    GaussianPolicy,
    QFunction,
    TanhGaussian,
    TanhGaussianPolicy,
)
from jaxrl_srpo.types import Array

OBSERVATIONS = jax.random.normal(jax.random.key(0), (5, 3))


def of(kind: Any, network: Any, *inputs: Array) -> Any:
    return kind(network.init(jax.random.key(1), *(inputs or (OBSERVATIONS,)))["params"], network)


POLICIES = {
    "deterministic": of(DeterministicPolicy, networks.Actor(2, 8)),
    "gaussian": of(GaussianPolicy, networks.GaussianActor(2, 8, 2, "linear", "clip")),
    "tanh gaussian": of(TanhGaussianPolicy, networks.MLP(4, 8)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_all_act_alike_with_and_without_a_key(name: str) -> None:
    policy = POLICIES[name]
    actions = policies.act(policy, OBSERVATIONS)
    assert actions.shape == (5, 2)
    np.testing.assert_array_equal(policies.act(policy, OBSERVATIONS, jax.random.key(3)), actions)
    assert float(jnp.max(jnp.abs(policies.act(policy, 100.0 * OBSERVATIONS)))) <= 1.0


def test_the_gaussian_is_unsquashed_at_the_bounds_too() -> None:
    mean, deviation = jnp.asarray([[0.2, -0.9], [0.0, 0.5]]), jnp.asarray([0.3, 0.05])
    actions = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
    ours = Gaussian(mean, jnp.log(deviation)).log_prob(actions)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, stats.norm(mean, deviation).logpdf(actions).sum(axis=1), rtol=1e-5)


def test_the_gaussians_samples_have_its_moments_and_stay_in_bounds() -> None:
    mean, log_std = jnp.full((20000, 1), 0.1), jnp.log(jnp.asarray([0.2]))
    samples = Gaussian(mean, log_std).sample(jax.random.key(0))
    np.testing.assert_allclose([samples.mean(), samples.std()], [0.1, 0.2], atol=0.01)
    wide = Gaussian(mean, log_std + 3.0).sample(jax.random.key(0))
    assert float(jnp.max(jnp.abs(wide))) == 1.0
    free = Gaussian(mean, log_std + 3.0).sample(jax.random.key(0), clip=False)
    assert float(jnp.max(jnp.abs(free))) > 1.0
    np.testing.assert_array_equal(jnp.clip(free, -1.0, 1.0), wide)


def test_densities_of_the_squashed_gaussian_integrate_to_one_and_are_finite_at_the_bounds() -> None:
    distribution = TanhGaussian(jnp.full((1, 1), 0.4), jnp.full((1, 1), -0.5))
    points = jnp.linspace(-0.9999, 0.9999, 4001)
    values = jnp.exp(jax.vmap(lambda a: distribution.log_prob(a.reshape(1, 1))[0])(points))
    assert np.trapezoid(np.asarray(values), np.asarray(points)) == pytest.approx(1.0, abs=2e-3)
    assert all(np.isfinite(distribution.log_prob(jnp.full((1, 1), a))) for a in (-1.0, 1.0))
    actions, log_probs = distribution.sample(jax.random.key(0))
    np.testing.assert_allclose(log_probs, distribution.log_prob(actions), rtol=1e-4)
    np.testing.assert_allclose(distribution.mode(), np.tanh([[0.4]]), rtol=1e-6)


def test_a_q_function_gives_what_its_network_gives() -> None:
    actions = jnp.tanh(OBSERVATIONS[:, :2])
    critic = of(QFunction, networks.TwinQ(8), OBSERVATIONS, actions)
    values = critic.q_values(OBSERVATIONS, actions)
    assert values.shape == (5, 2)
    np.testing.assert_array_equal(values, critic.network.apply({"params": critic.params}, OBSERVATIONS, actions))


def test_of_every_few_candidates_the_best_is_taken() -> None:
    observations = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(policies.repeated(observations, 2), [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]])
    actions, values = jnp.arange(12.0).reshape(6, 2), jnp.asarray([0.0, 5.0, 1.0, -2.0, -3.0, -1.0])
    np.testing.assert_array_equal(policies.best(actions, values, 3), [[2.0, 3.0], [10.0, 11.0]])


class Uniform(Drawing):
    def act_with(self, observations: Array, noise: Noise) -> Array:
        return 2.0 * jax.scipy.stats.norm.cdf(noise.normal((observations.shape[0], 2))) - 1.0


@pytest.mark.parametrize("smaller", [False, True])
def test_the_best_of_several_is_by_the_first_or_by_the_smaller_q(smaller: bool) -> None:
    network = networks.TwinQ(8)
    critic = QFunction(network.init(jax.random.key(1), OBSERVATIONS, jnp.zeros((5, 2)))["params"], network)
    found = BestOf(Uniform(), critic, 16, smaller).act(OBSERVATIONS, jax.random.key(2))
    states = jnp.repeat(OBSERVATIONS, 16, axis=0)
    candidates = Uniform().act(states, jax.random.key(2))
    values = np.asarray(critic.q_values(states, candidates))
    ranked = (values.min(axis=1) if smaller else values[:, 0]).reshape(5, 16).argmax(axis=1)
    np.testing.assert_array_equal(found, candidates.reshape(5, 16, 2)[np.arange(5), ranked])


def test_the_chosen_candidate_of_each_observation_is_taken() -> None:
    candidates = jnp.arange(12.0).reshape(6, 2)
    taken = policies.take_candidates(candidates, jnp.asarray([2, 0]))
    np.testing.assert_array_equal(taken, [[4.0, 5.0], [6.0, 7.0]])
