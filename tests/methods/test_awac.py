"""AWAC where re-implementations go wrong, against NumPy and against problems solved in closed form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxrl_srpo.data import table
from jaxrl_srpo.methods import awac
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.population.offline import Members, Population
from jaxrl_srpo.types import Batch, Spec

SPEC = Spec(3, 2)
CONFIG = awac.Config(batch_size=16, actor_width=16, actor_layers=2, critic_width=16, small_outputs=False)
CORL = CONFIG._replace(mean="linear", log_std="clip", weighting="exp")
HYPER = awac.Hyper(weight_decay=0.0)
KEY = jax.random.key(7)
UPDATE = jax.jit(awac.update)
INIT = jax.jit(awac.init, static_argnames=("spec", "config"))


@pytest.fixture(scope="module")
def batch():
    keys = jax.random.split(jax.random.key(3), 5)
    return Batch(
        observations=jax.random.normal(keys[0], (16, 3)),
        actions=jax.random.uniform(keys[1], (16, 2), minval=-1.0, maxval=1.0),
        rewards=jax.random.normal(keys[2], (16,)),
        next_observations=jax.random.normal(keys[3], (16, 3)),
        discounts=jnp.tile(jnp.asarray([1.0, 0.0]), 8),
    )


def fresh(config=CONFIG, hyper=HYPER):
    """A state whose targets differ from its critics."""
    state = INIT(jax.random.key(0), SPEC, config, hyper)
    return state.replace(target_q=INIT(jax.random.key(1), SPEC, config, hyper).q.params)


def numpy_mlp(params, x):
    layers = [params[f"Dense_{i}"]["Dense_0"] for i in range(len(params))]
    for layer in layers[:-1]:
        x = np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0.0)
    return x @ np.asarray(layers[-1]["kernel"]) + np.asarray(layers[-1]["bias"])


def numpy_min_q(params, observations, actions):
    x = np.concatenate([observations, actions], axis=1)
    return np.minimum(*(numpy_mlp(params[f"MLP_{i}"], x)[:, 0] for i in range(2)))


def numpy_gaussian(params, config, observations):
    mean, free = numpy_mlp(params["MLP_0"], observations), np.asarray(params["log_std"])
    if config.mean == "tanh":
        mean = np.tanh(mean)
    return mean, -6.0 + 6.0 / (1.0 + np.exp(-free)) if config.log_std == "sigmoid" else np.clip(free, -20.0, 2.0)


def gradient(before, after):
    """What one step of a learner saw as its gradient: Adam's first moment is a tenth of it."""
    del before
    return jax.tree.map(lambda m: m / 0.1, after.opt_state.mu)


def assert_close(ours, theirs, **tolerances):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerances), ours, theirs)


class TestWeights:
    ADVANTAGES = jnp.asarray([-3.0, 0.1, 0.0, 2.5, 1.0])

    def test_softmax_sums_to_the_batch_size_and_ignores_a_shift(self):
        hyper = awac.Hyper(lambda_=0.7)
        weights = awac.weights(self.ADVANTAGES, "softmax", hyper)
        exp = np.exp(np.asarray(self.ADVANTAGES) / 0.7)
        np.testing.assert_allclose(weights, exp / exp.mean(), rtol=1e-5)
        np.testing.assert_allclose(jnp.sum(weights), 5.0, rtol=1e-6)
        np.testing.assert_allclose(awac.weights(self.ADVANTAGES + 9.0, "softmax", hyper), weights, rtol=1e-5)

    def test_exp_is_clipped_and_does_not_ignore_a_shift(self):
        hyper = awac.Hyper(lambda_=0.5)
        weights = awac.weights(self.ADVANTAGES, "exp", hyper)
        np.testing.assert_allclose(weights, np.minimum(np.exp(np.asarray(self.ADVANTAGES) * 2.0), 100.0), rtol=1e-5)
        assert float(weights[3]) == 100.0
        assert not np.allclose(awac.weights(self.ADVANTAGES - 1.0, "exp", hyper), weights)

    def test_the_advantage_clip_bounds_the_exponent(self):
        hyper = awac.Hyper(lambda_=0.5, advantage_clip=0.5)
        np.testing.assert_allclose(jnp.max(awac.weights(self.ADVANTAGES, "exp", hyper)), np.e, rtol=1e-6)
        clipped = awac.weights(jnp.minimum(self.ADVANTAGES, 0.5), "softmax", awac.Hyper(lambda_=0.5))
        np.testing.assert_allclose(awac.weights(self.ADVANTAGES, "softmax", hyper), clipped, rtol=1e-6)

    @pytest.mark.parametrize("weighting", ["softmax", "exp"])
    def test_infinite_lambda_weighs_all_alike(self, weighting):
        weights = awac.weights(self.ADVANTAGES, weighting, awac.Hyper(lambda_=float("inf")))
        np.testing.assert_array_equal(weights, np.ones(5))

    def test_effective_sample_size(self):
        np.testing.assert_allclose(awac.effective_sample_size(jnp.ones(8)), 1.0)
        np.testing.assert_allclose(awac.effective_sample_size(jnp.eye(8)[0]), 1.0 / 8.0)
        np.testing.assert_allclose(awac.effective_sample_size(jnp.asarray([3.0, 1.0])), 16.0 / 20.0)


class TestDensity:
    def test_it_is_that_of_an_unsquashed_gaussian_at_the_bounds_too(self):
        mean, deviation = jnp.asarray([[0.2, -0.9], [0.0, 0.5]]), jnp.asarray([0.3, 0.05])
        actions = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
        ours = awac.Gaussian(mean, jnp.log(deviation)).log_prob(actions)
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, stats.norm(mean, deviation).logpdf(actions).sum(axis=1), rtol=1e-5)

    @pytest.mark.parametrize(("config", "deviation"), [(CONFIG, np.exp(-3.0)), (CORL, 1.0)])
    def test_the_initial_deviation(self, config, deviation):
        _, log_std = fresh(config).policy.distribution(jnp.zeros((1, 3)))
        np.testing.assert_allclose(jnp.exp(log_std), [deviation] * 2, rtol=1e-6)

    def test_deviations_are_bounded(self):
        free = jnp.asarray([-1e9, 0.0, 1e9])
        np.testing.assert_allclose(networks.bounded_log_std(free, "sigmoid"), [-6.0, -3.0, 0.0])
        np.testing.assert_allclose(networks.bounded_log_std(free, "clip"), [-20.0, 0.0, 2.0])

    def test_samples_stay_in_bounds(self, batch):
        state = fresh(CORL)
        actions = awac.explore(state, jnp.zeros(0), batch.observations, KEY)
        assert float(jnp.max(jnp.abs(actions))) == 1.0
        assert float(jnp.max(jnp.abs(state.policy.act(100.0 * batch.observations)))) == 1.0


class TestTargets:
    @pytest.mark.parametrize("config", [CONFIG, CORL])
    def test_they_use_an_action_of_the_next_state_and_the_smaller_target_q(self, batch, config):
        state, hyper = fresh(config), dataclasses.replace(HYPER, reward_scale=0.5)
        mean, log_std = numpy_gaussian(state.actor.params, config, np.asarray(batch.next_observations))
        noise = np.asarray(jax.random.normal(KEY, (16, 2)))
        actions = np.clip(mean + np.exp(log_std) * noise, -1.0, 1.0)
        q = numpy_min_q(state.target_q, np.asarray(batch.next_observations), actions)
        expected = 0.5 * np.asarray(batch.rewards) + 0.99 * np.asarray(batch.discounts) * q
        np.testing.assert_allclose(awac.targets(state, batch, KEY, hyper), expected, atol=1e-5)
        elsewhere = batch.replace(observations=batch.observations + 1.0, actions=-batch.actions)
        np.testing.assert_array_equal(
            awac.targets(state, elsewhere, KEY, hyper), awac.targets(state, batch, KEY, hyper)
        )

    def test_terminations_end_the_return_and_time_outs_do_not(self):
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
        y = awac.targets(fresh(), batch, KEY, HYPER)
        assert float(y[1]) == 1.0
        assert not np.any(np.asarray(y)[[0, 2, 3]] == 1.0)
        through = awac.targets(fresh(CONFIG._replace(bootstrap_terminals=True)), batch, KEY, HYPER)
        assert not np.any(np.asarray(through) == 1.0)

    def test_q_can_be_kept_from_rising_above_zero(self, batch):
        config = CONFIG._replace(negative_q=True)
        q = awac.q_values(config, fresh().q.params, batch.observations, batch.actions)
        free = awac.q_values(CONFIG, fresh().q.params, batch.observations, batch.actions)
        assert float(jnp.max(free)) > 0.0
        np.testing.assert_array_equal(q, np.minimum(free, 0.0))

    def test_one_moves_per_update_inside_a_compiled_chunk(self, batch):
        rows = np.concatenate([batch.observations, batch.actions, np.zeros((16, 1)), batch.observations], axis=1)
        rows = np.concatenate([rows, np.ones((16, 1))], axis=1, dtype=np.float32)
        hyper = awac.Hyper(learning_rate=0.0, actor_learning_rate=0.0, weight_decay=0.0, target_rate=0.1)
        population = Population(awac.init, awac.update, SPEC, CONFIG, (1, 1), devices=jax.devices()[:1])
        lifted = jax.tree.map(lambda x: jnp.full((1, 1), x, jnp.float32), hyper)
        where = table.Slice(jnp.zeros((1, 1), jnp.int32), jnp.full((1, 1), 16, jnp.int32))
        members = population.place(Members(jax.random.key(0)[None, None], where, lifted))
        frozen = population.place_frozen(jnp.zeros(1))
        carry = population.init(members, frozen)
        q = jax.tree.map(np.array, carry.state.q.params)
        state = carry.state.replace(target_q=jax.tree.map(jnp.zeros_like, carry.state.target_q))
        carry = dataclasses.replace(carry, state=state)
        carry, _ = population.chunk(carry, members, frozen, population.place_table(rows), 0, 8)
        expected = jax.tree.map(lambda x: x * (1.0 - 0.9**8), q)
        assert_close(carry.state.target_q, expected, rtol=1e-4, atol=1e-7)

    def test_fresh_ones_are_copies(self):
        state = INIT(jax.random.key(3), SPEC, CONFIG, HYPER)
        jax.tree.map(np.testing.assert_array_equal, state.target_q, state.q.params)


class TestUpdate:
    @pytest.mark.parametrize("config", [CONFIG._replace(baseline="mean"), CORL], ids=["official", "corl"])
    def test_one_update_is_that_of_numpy(self, batch, config):
        state, hyper = fresh(config), dataclasses.replace(HYPER, lambda_=0.4)
        _, metrics = UPDATE(state, batch, KEY, hyper)
        observations, actions = np.asarray(batch.observations), np.asarray(batch.actions)
        mean, log_std = numpy_gaussian(state.actor.params, config, observations)
        key_next, key_value = jax.random.split(KEY)
        noise = 0.0 if config.baseline == "mean" else np.asarray(jax.random.normal(key_value, (16, 2)))
        v = numpy_min_q(state.q.params, observations, np.clip(mean + np.exp(log_std) * noise, -1.0, 1.0))
        advantages = numpy_min_q(state.q.params, observations, actions) - v
        weights = np.exp(advantages / 0.4)
        weights = weights / weights.mean() if config.weighting == "softmax" else np.minimum(weights, 100.0)
        log_prob = stats.norm(mean, np.exp(log_std)).logpdf(actions).sum(axis=1)
        y = np.asarray(awac.targets(state, batch, key_next, hyper))
        q = np.asarray(awac.q_values(config, state.q.params, batch.observations, batch.actions))
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

    def test_no_gradient_flows_through_the_weights(self, batch):
        # The baseline is Q at the policy's mean, so a gradient through the weights would reach actor and critic.
        config = CONFIG._replace(baseline="mean")
        state, hyper = fresh(config), dataclasses.replace(HYPER, lambda_=0.4)
        after, _ = UPDATE(state, batch, KEY, hyper)
        q = jnp.min(awac.q_values(config, state.q.params, batch.observations, batch.actions), axis=-1)
        advantages = q - awac.values(state, batch.observations, KEY)
        constant = jnp.asarray(np.asarray(awac.weights(advantages, "softmax", hyper)))

        def actor_loss(params):
            gaussian = awac.Policy(params, 2, config).distribution(batch.observations)
            return -jnp.mean(constant * gaussian.log_prob(batch.actions))

        y = awac.targets(state, batch, jax.random.split(KEY)[0], hyper)

        def q_loss(params):
            q = awac.q_values(config, params, batch.observations, batch.actions)
            return jnp.mean((q - y[:, None]) ** 2)

        assert_close(gradient(state, after.actor), jax.grad(actor_loss)(state.actor.params), rtol=1e-4, atol=1e-5)
        assert_close(gradient(state, after.q), jax.grad(q_loss)(state.q.params), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("lambda_", [1e6, float("inf")])
    @pytest.mark.parametrize("config", [CONFIG, CORL], ids=["softmax", "exp"])
    def test_a_large_lambda_gives_the_gradient_of_cloning(self, batch, config, lambda_):
        state = fresh(config)
        after, _ = UPDATE(state, batch, KEY, dataclasses.replace(HYPER, lambda_=lambda_))

        def cloning(params):
            return -jnp.mean(awac.Policy(params, 2, config).distribution(batch.observations).log_prob(batch.actions))

        assert_close(gradient(state, after.actor), jax.grad(cloning)(state.actor.params), rtol=1e-4, atol=1e-4)

    def test_both_forms_of_weight_decay(self, batch):
        hyper = dataclasses.replace(HYPER, weight_decay=0.01, actor_learning_rate=0.1)
        state = fresh()
        plain, _ = UPDATE(state, batch, KEY, dataclasses.replace(hyper, weight_decay=0.0))
        l2, _ = UPDATE(state, batch, KEY, hyper)
        expected = jax.tree.map(lambda g, p: g + 0.01 * p, gradient(state, plain.actor), state.actor.params)
        assert_close(gradient(state, l2.actor), expected, rtol=1e-4, atol=1e-6)
        decoupled, _ = UPDATE(fresh(CONFIG._replace(decay="decoupled")), batch, KEY, hyper)
        expected = jax.tree.map(lambda new, p: new - 0.1 * 0.01 * p, plain.actor.params, state.actor.params)
        assert_close(decoupled.actor.params, expected, rtol=1e-5, atol=1e-6)
        # The critics are not decayed.
        jax.tree.map(np.testing.assert_array_equal, l2.q.params, plain.q.params)


def test_it_goes_on_from_the_actor_and_the_critic_of_another_method(batch):
    actor = networks.Actor(2, 16, 2).init(KEY, batch.observations)["params"]
    q = networks.TwinQ(16).init(KEY, batch.observations, batch.actions)["params"]
    state = awac.init_from(KEY, SPEC, CONFIG, HYPER, awac.Start(actor, q))
    expected = networks.forward(networks.Actor(2, 16, 2), actor, batch.observations)
    np.testing.assert_array_equal(state.policy.act(batch.observations), expected)
    jax.tree.map(np.testing.assert_array_equal, (state.q.params, state.target_q), (q, q))
    deviation = jnp.exp(state.policy.distribution(batch.observations).log_std)
    np.testing.assert_allclose(deviation, np.exp(-3.0), rtol=1e-6)
    after, metrics = UPDATE(state, batch, KEY, HYPER)
    assert np.isfinite(float(metrics["loss"]))
    assert int(after.step) == 1


def test_cloning_is_awac_without_its_weights(batch):
    state = fresh()
    cloned, _ = jax.jit(awac.clone)(state, batch, KEY, HYPER)
    weighed, _ = UPDATE(state, batch, KEY, dataclasses.replace(HYPER, lambda_=float("inf")))
    assert_close(cloned.actor.params, weighed.actor.params, rtol=1e-5, atol=1e-7)
    jax.tree.map(np.testing.assert_array_equal, (cloned.q, cloned.target_q), (state.q, state.target_q))


@functools.partial(jax.jit, static_argnames=("config", "steps"))
def train(batch, config, hyper, steps):
    """`steps` updates on the same batch, which is the whole problem; the rates fall so that values settle."""

    def update(count, state):
        rate = hyper.learning_rate * optimizers.cosine(count, steps)
        faded = dataclasses.replace(hyper, learning_rate=rate, actor_learning_rate=rate)
        return awac.update(state, batch, jax.random.fold_in(KEY, count), faded)[0]

    spec = Spec(batch.observations.shape[1], batch.actions.shape[1])
    return jax.lax.fori_loop(0, steps, update, awac.init(jax.random.key(0), spec, config, hyper))


@pytest.mark.parametrize("config", [CONFIG, CORL], ids=["official", "corl"])
def test_two_states_with_opposite_preferences_reach_the_closed_form(config):
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
    hyper = awac.Hyper(lambda_=lambda_, learning_rate=5e-3, weight_decay=0.0, discount=0.9, target_rate=0.05)
    state = train(batch, config, hyper, 5000)
    tilted = np.exp(np.asarray(actions) / lambda_)
    tilted /= tilted.sum()
    mean = np.sum(tilted * actions)
    deviation = np.sqrt(np.sum(tilted * (actions - mean) ** 2))
    gaussian = state.policy.distribution(jnp.eye(2))
    np.testing.assert_allclose(gaussian.mean, [[-mean], [mean]], atol=0.04)
    np.testing.assert_allclose(jnp.exp(gaussian.log_std), [deviation], atol=0.03)

    # Drawn at state 0 instead of state 1, the target action would have the other sign.
    density = stats.norm(mean, deviation).pdf
    clipped = integrate.quad(lambda a: np.clip(a, -1.0, 1.0) * density(a), -3.0, 3.0)[0]
    q = awac.q_values(config, state.target_q, jnp.eye(2), jnp.zeros((2, 1)))
    np.testing.assert_allclose(q, [[0.9 * clipped] * 2, [0.0] * 2], atol=0.06)


def test_a_table_of_probabilities_reaches_the_closed_form():
    """Weighted likelihood of a softmax policy over 5 arms: pi is proportional to behaviour times exp(Q / lambda)."""
    behavior = np.asarray([0.4, 0.1, 0.2, 0.2, 0.1])
    q = jnp.asarray([0.0, 1.0, 0.5, -1.0, 0.3])
    arms = jnp.asarray(np.repeat(np.arange(5), (behavior * 100).astype(int)))
    weights = awac.weights(q[arms] - jnp.mean(q), "softmax", awac.Hyper(lambda_=0.5))
    loss = jax.grad(lambda logits: -jnp.mean(weights * jax.nn.log_softmax(logits)[arms]))
    logits = jax.lax.fori_loop(0, 2000, lambda _, x: x - loss(x), jnp.zeros(5))
    expected = behavior * np.exp(np.asarray(q) / 0.5)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected / expected.sum(), atol=1e-3)
