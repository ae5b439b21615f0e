"""AWAC where re-implementations go wrong, against NumPy and against problems solved in closed form."""

import functools
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxrl_srpo.data import table
from jaxrl_srpo.methods import awac
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.policies import GaussianPolicy
from jaxrl_srpo.population.member import make_members
from jaxrl_srpo.population.offline import OfflinePopulation
from jaxrl_srpo.types import Array, Batch, Params, Spec

SPEC = Spec(3, 2)
OFFICIAL: Any = with_arrays(
    awac.Settings(batch_size=16, actor_width=16, actor_layers=2, critic_width=16, small_outputs=False, weight_decay=0.0)
)
CORL: Any = OFFICIAL.replace(mean="linear", log_std="clip", weighting="exp")
KEY = jax.random.key(7)
UPDATE = jax.jit(awac.update)
INIT = jax.jit(awac.init, static_argnames="spec")


@pytest.fixture(scope="module")
def batch() -> Batch:
    keys = jax.random.split(jax.random.key(3), 5)
    return Batch(
        observations=jax.random.normal(keys[0], (16, 3)),
        actions=jax.random.uniform(keys[1], (16, 2), minval=-1.0, maxval=1.0),
        rewards=jax.random.normal(keys[2], (16,)),
        next_observations=jax.random.normal(keys[3], (16, 3)),
        discounts=jnp.tile(jnp.asarray([1.0, 0.0]), 8),
    )


def fresh(settings: awac.Settings = OFFICIAL) -> Any:
    """A state whose targets differ from its critics."""
    state: Any = INIT(jax.random.key(0), SPEC, settings)
    return state.replace(target_q=INIT(jax.random.key(1), SPEC, settings).q.params)


def numpy_mlp(params: Params, x: np.ndarray) -> np.ndarray:
    layers = [params[f"Dense_{i}"]["Dense_0"] for i in range(len(params))]
    for layer in layers[:-1]:
        x = np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0.0)
    return x @ np.asarray(layers[-1]["kernel"]) + np.asarray(layers[-1]["bias"])


def numpy_min_q(params: Params, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    x = np.concatenate([observations, actions], axis=1)
    return np.minimum(*(numpy_mlp(head, x)[:, 0] for head in networks.split_heads(params).values()))


def numpy_gaussian(params: Params, settings: awac.Settings, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, free = numpy_mlp(params["MLP_0"], observations), np.asarray(params["log_std"])
    if settings.mean == "tanh":
        mean = np.tanh(mean)
    return mean, -6.0 + 6.0 / (1.0 + np.exp(-free)) if settings.log_std == "sigmoid" else np.clip(free, -20.0, 2.0)


def q_values(state: Any, batch: Batch, settings: awac.Settings, params: Params | None = None) -> Array:
    own = state.q.params if params is None else params
    return awac.q_values(state.q, own, batch.observations, batch.actions, settings)


def gradient(after: Any) -> Any:
    """What the first step of a learner saw as its gradient: Adam's first moment is a tenth of it."""
    return jax.tree.map(lambda m: m / 0.1, after.opt_state.mu)


def assert_close(ours: Any, theirs: Any, **tolerances: float) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerances), ours, theirs)


def log_prob(state: Any, params: Params, batch: Batch) -> Array:
    return GaussianPolicy(params, state.actor.network).distribution(batch.observations).log_prob(batch.actions)


class TestWeights:
    ADVANTAGES = jnp.asarray([-3.0, 0.1, 0.0, 2.5, 1.0])

    def test_softmax_sums_to_the_batch_size_and_ignores_a_shift(self) -> None:
        settings = awac.Settings(lambda_=0.7)
        weights = awac.likelihood_weights(self.ADVANTAGES, settings)
        exp = np.exp(np.asarray(self.ADVANTAGES) / 0.7)
        np.testing.assert_allclose(weights, exp / exp.mean(), rtol=1e-5)
        np.testing.assert_allclose(jnp.sum(weights), 5.0, rtol=1e-6)
        np.testing.assert_allclose(awac.likelihood_weights(self.ADVANTAGES + 9.0, settings), weights, rtol=1e-5)

    def test_exp_is_clipped_and_does_not_ignore_a_shift(self) -> None:
        settings = awac.Settings(lambda_=0.5, weighting="exp")
        weights = awac.likelihood_weights(self.ADVANTAGES, settings)
        np.testing.assert_allclose(weights, np.minimum(np.exp(np.asarray(self.ADVANTAGES) * 2.0), 100.0), rtol=1e-5)
        assert float(weights[3]) == 100.0
        assert not np.allclose(awac.likelihood_weights(self.ADVANTAGES - 1.0, settings), weights)

    def test_the_advantage_clip_bounds_the_exponent(self) -> None:
        exp, softmax = (
            awac.Settings(lambda_=0.5, advantage_clip=0.5, weighting=form) for form in get_args(awac.Weighting)[::-1]
        )
        np.testing.assert_allclose(jnp.max(awac.likelihood_weights(self.ADVANTAGES, exp)), np.e, rtol=1e-6)
        clipped = awac.likelihood_weights(jnp.minimum(self.ADVANTAGES, 0.5), awac.Settings(lambda_=0.5))
        np.testing.assert_allclose(awac.likelihood_weights(self.ADVANTAGES, softmax), clipped, rtol=1e-6)

    @pytest.mark.parametrize("weighting", get_args(awac.Weighting))
    def test_infinite_lambda_weighs_all_alike(self, weighting: awac.Weighting) -> None:
        settings = awac.Settings(lambda_=float("inf"), weighting=weighting)
        np.testing.assert_array_equal(awac.likelihood_weights(self.ADVANTAGES, settings), np.ones(5))

    def test_effective_sample_size(self) -> None:
        np.testing.assert_allclose(awac.effective_sample_size(jnp.ones(8)), 1.0)
        np.testing.assert_allclose(awac.effective_sample_size(jnp.eye(8)[0]), 1.0 / 8.0)
        np.testing.assert_allclose(awac.effective_sample_size(jnp.asarray([3.0, 1.0])), 16.0 / 20.0)


class TestPolicy:
    @pytest.mark.parametrize(("settings", "deviation"), [(OFFICIAL, np.exp(-3.0)), (CORL, 1.0)])
    def test_the_initial_deviation(self, settings: awac.Settings, deviation: float) -> None:
        _, log_std = awac.policy_of(fresh(settings)).distribution(jnp.zeros((1, 3)))
        np.testing.assert_allclose(jnp.exp(log_std), [deviation] * 2, rtol=1e-6)

    def test_samples_stay_in_bounds(self, batch: Batch) -> None:
        state = fresh(CORL)
        actions = awac.explore(state, batch.observations, KEY)
        assert float(jnp.max(jnp.abs(actions))) == 1.0
        assert float(jnp.max(jnp.abs(awac.policy_of(state).act(100.0 * batch.observations)))) == 1.0


class TestTargets:
    @pytest.mark.parametrize("settings", [OFFICIAL, CORL], ids=["official", "corl"])
    def test_they_use_an_action_of_the_next_state_and_the_smaller_target_q(self, batch: Any, settings: Any) -> None:
        state, settings = fresh(settings), settings.replace(reward_scale=0.5)
        mean, log_std = numpy_gaussian(state.actor.params, settings, np.asarray(batch.next_observations))
        noise = np.asarray(jax.random.normal(KEY, (16, 2)))
        actions = np.clip(mean + np.exp(log_std) * noise, -1.0, 1.0)
        q = numpy_min_q(state.target_q, np.asarray(batch.next_observations), actions)
        expected = 0.5 * np.asarray(batch.rewards) + 0.99 * np.asarray(batch.discounts) * q
        targets = awac.q_targets(state, batch, KEY, settings)
        np.testing.assert_allclose(targets, expected, atol=1e-5)
        elsewhere = batch.replace(observations=batch.observations + 1.0, actions=-batch.actions)
        np.testing.assert_array_equal(awac.q_targets(state, elsewhere, KEY, settings), targets)

    def test_terminations_end_the_return_and_time_outs_do_not(self) -> None:
        observations = np.arange(12, dtype=np.float32).reshape(4, 3) / 6.0
        columns = (
            observations,
            np.zeros((4, 2), np.float32),
            np.ones((4, 1), np.float32),
            observations,
            np.asarray([[1.0], [0.0], [1.0], [1.0]], np.float32),
        )
        # The second step ended by a termination, the fourth by a time limit, which leaves its discount at 1.
        batch = table.unpack(jnp.concatenate([jnp.asarray(column) for column in columns], axis=1), SPEC)
        y = awac.q_targets(fresh(), batch, KEY, OFFICIAL)
        assert float(y[1]) == 1.0
        assert not np.any(np.asarray(y)[[0, 2, 3]] == 1.0)
        through = awac.q_targets(fresh(), batch, KEY, OFFICIAL.replace(bootstrap_terminals=True))
        assert not np.any(np.asarray(through) == 1.0)

    def test_q_can_be_kept_from_rising_above_zero(self, batch: Batch) -> None:
        state = fresh()
        free = q_values(state, batch, OFFICIAL)
        assert float(jnp.max(free)) > 0.0
        np.testing.assert_array_equal(q_values(state, batch, OFFICIAL.replace(negative_q=True)), np.minimum(free, 0.0))

    def test_one_moves_per_update_inside_a_compiled_chunk(self, batch: Batch) -> None:
        rows = np.concatenate([batch.observations, batch.actions, np.zeros((16, 1)), batch.observations], axis=1)
        rows = np.concatenate([rows, np.ones((16, 1))], axis=1, dtype=np.float32)
        settings = OFFICIAL.replace(learning_rate=0.0, actor_learning_rate=0.0, target_rate=0.1)
        members = make_members([jax.random.key(0)], [settings], [table.Slice(0, 16)])
        one = jax.devices()[:1]
        population = OfflinePopulation(awac.init, awac.update, SPEC, members, jnp.zeros(1), rows, devices=one)
        saved: Any = population.checkpoint()
        q = saved.state.q.params
        state = saved.state.replace(target_q=jax.tree.map(np.zeros_like, q))
        population.restore(saved.replace(state=state))
        population.run(0, 8)
        expected = jax.tree.map(lambda x: x * (1.0 - 0.9**8), q)
        assert_close(population.states.target_q, expected, rtol=1e-4, atol=1e-7)

    def test_fresh_ones_are_copies(self) -> None:
        state = INIT(jax.random.key(3), SPEC, OFFICIAL)
        jax.tree.map(np.testing.assert_array_equal, state.target_q, state.q.params)


class TestUpdate:
    @pytest.mark.parametrize("settings", [OFFICIAL.replace(baseline="mean"), CORL], ids=["official", "corl"])
    def test_one_update_is_that_of_numpy(self, batch: Batch, settings: Any) -> None:
        state, settings = fresh(settings), settings.replace(lambda_=jnp.float32(0.4))
        _, metrics = UPDATE(state, batch, KEY, settings)
        observations, actions = np.asarray(batch.observations), np.asarray(batch.actions)
        mean, log_std = numpy_gaussian(state.actor.params, settings, observations)
        key_next, key_value = jax.random.split(KEY)
        noise = 0.0 if settings.baseline == "mean" else np.asarray(jax.random.normal(key_value, (16, 2)))
        v = numpy_min_q(state.q.params, observations, np.clip(mean + np.exp(log_std) * noise, -1.0, 1.0))
        advantages = numpy_min_q(state.q.params, observations, actions) - v
        weights = np.exp(advantages / 0.4)
        weights = weights / weights.mean() if settings.weighting == "softmax" else np.minimum(weights, 100.0)
        log_prob = stats.norm(mean, np.exp(log_std)).logpdf(actions).sum(axis=1)
        y = np.asarray(awac.q_targets(state, batch, key_next, settings))
        q = np.asarray(q_values(state, batch, settings))
        expected = {
            "actor_loss": -np.mean(weights * log_prob),
            "q_loss": np.mean((q - y[:, None]) ** 2),
            "value": v.mean(),
            "advantage": advantages.mean(),
            "advantage_std": advantages.std(),
            "effective_sample_size": weights.sum() ** 2 / (16 * (weights**2).sum()),
            "max_weight": weights.max(),
        }
        assert_close({name: metrics[name] for name in expected}, expected, rtol=2e-4, atol=1e-5)

    def test_no_gradient_flows_through_the_weights(self, batch: Batch) -> None:
        # The baseline is Q at the policy's mean, so a gradient through the weights would reach actor and critic.
        settings = OFFICIAL.replace(baseline="mean", lambda_=jnp.float32(0.4))
        state = fresh(settings)
        after, _ = UPDATE(state, batch, KEY, settings)
        advantages = jnp.min(q_values(state, batch, settings), axis=-1)
        advantages -= awac.values(state, batch.observations, KEY, settings)
        constant = jnp.asarray(np.asarray(awac.likelihood_weights(advantages, settings)))

        def actor_loss(params: Params) -> Array:
            return -jnp.mean(constant * log_prob(state, params, batch))

        y = awac.q_targets(state, batch, jax.random.split(KEY)[0], settings)

        def q_loss(params: Params) -> Array:
            return jnp.mean((q_values(state, batch, settings, params) - y[:, None]) ** 2)

        assert_close(gradient(after.actor), jax.grad(actor_loss)(state.actor.params), rtol=1e-4, atol=1e-5)
        assert_close(gradient(after.q), jax.grad(q_loss)(state.q.params), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("lambda_", [1e6, float("inf")])
    @pytest.mark.parametrize("settings", [OFFICIAL, CORL], ids=["softmax", "exp"])
    def test_a_large_lambda_gives_the_gradient_of_cloning(self, batch: Batch, settings: Any, lambda_: float) -> None:
        state = fresh(settings)
        after, _ = UPDATE(state, batch, KEY, settings.replace(lambda_=jnp.float32(lambda_)))

        def cloning(params: Params) -> Array:
            return -jnp.mean(log_prob(state, params, batch))

        assert_close(gradient(after.actor), jax.grad(cloning)(state.actor.params), rtol=1e-4, atol=1e-4)

    def test_both_forms_of_weight_decay(self, batch: Batch) -> None:
        settings = OFFICIAL.replace(weight_decay=jnp.float32(0.01), actor_learning_rate=jnp.float32(0.1))
        state = fresh()
        plain, _ = UPDATE(state, batch, KEY, settings.replace(weight_decay=jnp.float32(0.0)))
        l2, _ = UPDATE(state, batch, KEY, settings)
        expected = jax.tree.map(lambda g, p: g + 0.01 * p, gradient(plain.actor), state.actor.params)
        assert_close(gradient(l2.actor), expected, rtol=1e-4, atol=1e-6)
        decoupled, _ = UPDATE(state, batch, KEY, settings.replace(decay="decoupled"))
        expected = jax.tree.map(lambda new, p: new - 0.1 * 0.01 * p, plain.actor.params, state.actor.params)
        assert_close(decoupled.actor.params, expected, rtol=1e-5, atol=1e-6)
        # The critics are not decayed.
        jax.tree.map(np.testing.assert_array_equal, l2.q.params, plain.q.params)


def test_it_goes_on_from_the_actor_and_the_critic_of_another_method(batch: Batch) -> None:
    actor = networks.Actor(2, 16, 2).init(KEY, batch.observations)["params"]
    q = networks.TwinQ(16).init(KEY, batch.observations, batch.actions)["params"]
    state = awac.init_from(KEY, SPEC, OFFICIAL, awac.Start(actor, q))
    expected = networks.forward(networks.Actor(2, 16, 2), actor, batch.observations)
    policy = awac.policy_of(state)
    np.testing.assert_array_equal(policy.act(batch.observations), expected)
    jax.tree.map(np.testing.assert_array_equal, (state.q.params, state.target_q), (q, q))
    np.testing.assert_allclose(jnp.exp(policy.distribution(batch.observations).log_std), np.exp(-3.0), rtol=1e-6)
    after, metrics = UPDATE(state, batch, KEY, OFFICIAL)
    assert np.isfinite(float(metrics["loss"]))
    assert int(after.step) == 1


def test_cloning_is_awac_without_its_weights(batch: Batch) -> None:
    start = jax.jit(awac.init_cloning, static_argnames="spec")(jax.random.key(0), SPEC, OFFICIAL)
    jax.tree.map(np.testing.assert_array_equal, start.actor.params, fresh().actor.params)
    cloned, _ = jax.jit(awac.clone)(start, batch, OFFICIAL)
    weighed, _ = UPDATE(fresh(), batch, KEY, OFFICIAL.replace(lambda_=jnp.float32(np.inf)))
    assert_close(cloned.actor.params, weighed.actor.params, rtol=1e-5, atol=1e-7)


@functools.partial(jax.jit, static_argnames="steps")
def train(batch: Batch, settings: Any, steps: int) -> awac.State:
    """`steps` updates on the same batch, which is the whole problem; the rates fall so that values settle."""

    def update(count: Array, state: awac.State) -> awac.State:
        rate = settings.learning_rate * optimizers.cosine(count, steps)
        faded = settings.replace(learning_rate=rate, actor_learning_rate=rate)
        return awac.update(state, batch, jax.random.fold_in(KEY, count), faded)[0]

    spec = Spec(batch.observations.shape[1], batch.actions.shape[1])
    return jax.lax.fori_loop(0, steps, update, awac.init(jax.random.key(0), spec, settings))


@pytest.mark.parametrize("settings", [OFFICIAL, CORL], ids=["official", "corl"])
def test_two_states_with_opposite_preferences_reach_the_closed_form(settings: Any) -> None:
    """State 0 pays -a and leads to state 1, which pays a and ends; actions are uniform in the data.

    The weighted likelihood's Gaussian has the moments of the data tilted by exp(Q / lambda); V cancels in the softmax.
    """
    lambda_ = 0.2
    actions = (jnp.arange(64.0) + 0.5) / 32.0 - 1.0
    first, second = (jnp.tile(row[None, :], (64, 1)) for row in jnp.eye(2))
    batch = Batch(
        observations=jnp.concatenate([first, second]),
        actions=jnp.concatenate([actions, actions])[:, None],
        rewards=jnp.concatenate([-actions, actions]),
        next_observations=jnp.concatenate([second, second]),
        discounts=jnp.concatenate([jnp.ones(64), jnp.zeros(64)]),
    )
    numbers = {"lambda_": lambda_, "learning_rate": 5e-3, "discount": 0.9, "target_rate": 0.05}
    settings = settings.replace(**{name: jnp.float32(value) for name, value in numbers.items()})
    state = train(batch, settings, 5000)
    tilted = np.exp(np.asarray(actions) / lambda_)
    tilted /= tilted.sum()
    mean = np.sum(tilted * actions)
    deviation = np.sqrt(np.sum(tilted * (actions - mean) ** 2))
    gaussian = awac.policy_of(state).distribution(jnp.eye(2))
    np.testing.assert_allclose(gaussian.mean, [[-mean], [mean]], atol=0.04)
    np.testing.assert_allclose(jnp.exp(gaussian.log_std), [deviation], atol=0.03)

    # Drawn at state 0 instead of state 1, the target action would have the other sign.
    density = stats.norm(mean, deviation).pdf
    clipped = integrate.quad(lambda a: np.clip(a, -1.0, 1.0) * density(a), -3.0, 3.0)[0]
    q = awac.q_values(state.q, state.target_q, jnp.eye(2), jnp.zeros((2, 1)), settings)
    np.testing.assert_allclose(q, [[0.9 * clipped] * 2, [0.0] * 2], atol=0.06)


def test_a_table_of_probabilities_reaches_the_closed_form() -> None:
    """Weighted likelihood of a softmax policy over 5 arms: pi is proportional to behavior times exp(Q / lambda)."""
    behavior = np.asarray([0.4, 0.1, 0.2, 0.2, 0.1])
    q = jnp.asarray([0.0, 1.0, 0.5, -1.0, 0.3])
    arms = jnp.asarray(np.repeat(np.arange(5), (behavior * 100).astype(int)))
    weights = awac.likelihood_weights(q[arms] - jnp.mean(q), awac.Settings(lambda_=0.5))
    loss = jax.grad(lambda logits: -jnp.mean(weights * jax.nn.log_softmax(logits)[arms]))
    logits = jax.lax.fori_loop(0, 2000, lambda _, x: x - loss(x), jnp.zeros(5))
    expected = behavior * np.exp(np.asarray(q) / 0.5)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected / expected.sum(), atol=1e-3)
