"""The autoencoder against a plain NumPy computation, and on behaviors that are known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import vae
from jaxrl_srpo.methods.settings import with_arrays
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Keyed
from jaxrl_srpo.types import Array, Batch, Spec
from tests import reference
from tests.methods.updates import batch_of, reference_learner, to_numpy, warm

SPEC = Spec(4, 2)
SETTINGS: Any = with_arrays(vae.Settings(batch_size=16, width=16))


def test_two_updates_agree_with_plain_numpy() -> None:
    state = vae.init(jax.random.key(0), SPEC, SETTINGS)
    state = dataclasses.replace(state, encoder=warm(state.encoder), decoder=warm(state.decoder))
    parts = {name: reference_learner(getattr(state, name)) for name in ("encoder", "decoder")}
    learner = reference.Learner(
        {name: part.params for name, part in parts.items()},
        reference.Moments(
            {name: part.moments.first for name, part in parts.items()},
            {name: part.moments.second for name, part in parts.items()},
            parts["encoder"].moments.steps,
        ),
    )
    for number in range(2):
        batch, key = batch_of(number, SPEC, 16), jax.random.key(10 + number)
        noise = np.asarray(jax.random.normal(key, (16, 4)), np.float64)
        state, metrics = jax.jit(vae.update)(state, batch, key, SETTINGS)
        b = to_numpy(batch)

        def loss_of(params: Any, b: Any = b, noise: np.ndarray = noise) -> reference.Node:
            encoded = reference.mlp(params["encoder"], reference.concatenate([b.observations, b.actions]))
            total: Any = reference.Node(0.0)
            codes = []
            for i in range(4):
                mean, log_std = encoded.column(i), reference.clip(encoded.column(4 + i), -4.0, 15.0)
                variance = reference.exp(log_std * 2.0)
                # KL of a Gaussian to N(0, 1), per dimension.
                total = total + (mean * mean + variance - log_std * 2.0 - 1.0).mean() * (0.5 / 4)
                code = mean + reference.exp(log_std) * noise[:, i]
                codes.append(reference.Node(np.eye(4)[i][None]) * as_column(code))
            code = codes[0] + codes[1] + codes[2] + codes[3]
            raw = reference.mlp(params["decoder"], reference.concatenate([b.observations, code]))
            error = reference.tanh(raw) - b.actions
            return (error * error).mean() + total * 0.5

        loss, gradient = reference.value_and_grad(loss_of, learner.params)
        learner = reference.adam(learner, gradient, 1e-3)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
        ours = {"encoder": state.encoder.params, "decoder": state.decoder.params}
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
        jax.tree.map(close, to_numpy(ours), learner.params)


def as_column(x: reference.Node) -> reference.Node:
    """[B] -> [B, 1]."""
    return reference.Node(x.value[:, None], (x,), lambda g: (g[:, 0],))


def linear(kernel: list[list[float]], bias: list[float]) -> Learner:
    """A network that is one affine map, of which a decoder's or an encoder's answers are known."""
    params = {"Dense_0": {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}
    return Learner.of(params, networks.MLP(len(bias), layers=0))


def test_codes_are_clipped_where_actions_are_drawn() -> None:
    """Of one observation and two codes this decoder hands on the first code."""
    network = linear([[0.0], [1.0], [0.0]], [0.0])
    decoder = vae.Decoder(network.params, network.network)
    raw = np.asarray(decoder.raw_actions(jnp.zeros((4000, 1)), Keyed(jax.random.key(0))))
    assert np.abs(raw).max() == 0.5
    # Of N(0, 1) this share is beyond one half.
    assert np.mean(np.abs(raw) == 0.5) == pytest.approx(0.617, abs=0.03)
    actions = decoder.act(jnp.zeros((4000, 1)), jax.random.key(0))
    np.testing.assert_allclose(actions, np.tanh(raw), rtol=1e-6)


def test_codes_are_not_clipped_in_training() -> None:
    """Codes of mean 2 and nearly no deviation: the decoder gives tanh 2, the divergence is known."""
    encoder = linear([[0.0] * 4, [0.0] * 4], [2.0, 2.0, -9.0, -9.0])
    state = vae.State(encoder, linear([[0.0], [1.0], [0.0]], [0.0]))
    zeros = jnp.zeros((3, 1))
    batch = Batch(zeros, zeros, jnp.zeros(3), zeros, jnp.zeros(3))
    params = (state.encoder.params, state.decoder.params)
    loss, parts = vae.loss_of(params, state, batch, jnp.zeros((3, 2)), 0.25)
    assert float(parts["reconstruction_loss"]) == pytest.approx(np.tanh(2.0) ** 2, rel=1e-6)
    # The log deviation is not below -4.
    assert float(parts["divergence"]) == pytest.approx(0.5 * (4.0 + np.exp(-8.0) + 8.0 - 1.0), rel=1e-6)
    assert float(loss) == pytest.approx(float(parts["reconstruction_loss"] + 0.25 * parts["divergence"]), rel=1e-6)


def test_it_clones_what_depends_on_the_state() -> None:
    """In state 0 the data's actions are about (-0.5, 0.2), in state 1 about (0.4, 0.4)."""
    states = jnp.tile(jnp.eye(2), (64, 1))
    centers = jnp.asarray([[-0.5, 0.2], [0.4, 0.4]])
    actions = states @ centers + 0.1 * jax.random.normal(jax.random.key(0), (128, 2))
    batch = Batch(states, actions, jnp.zeros(128), states, jnp.zeros(128))
    settings = with_arrays(vae.Settings(width=32, learning_rate=3e-3))

    @jax.jit
    def train(state: vae.State) -> vae.State:
        def step(i: Array, state: vae.State) -> vae.State:
            return vae.update(state, batch, jax.random.fold_in(jax.random.key(1), i), settings)[0]

        return jax.lax.fori_loop(0, 500, step, state)

    decoder = vae.decoder_of(train(vae.init(jax.random.key(2), Spec(2, 2), settings)))
    for i in range(2):
        drawn = decoder.act(jnp.tile(jnp.eye(2)[i], (500, 1)), jax.random.key(3))
        np.testing.assert_allclose(jnp.mean(drawn, axis=0), centers[i], atol=0.05)


def test_defaults_are_those_of_bcq() -> None:
    settings = vae.Settings()
    assert (settings.width, settings.layers, settings.batch_size) == (750, 2, 100)
    assert (settings.learning_rate, settings.kl_weight) == (1e-3, 0.5)
    state = jax.eval_shape(lambda key: vae.init(key, Spec(17, 6), settings), jax.random.key(0))
    assert state.encoder.params["Dense_2"]["Dense_0"]["kernel"].shape == (750, 24)
    assert state.decoder.params["Dense_0"]["Dense_0"]["kernel"].shape == (17 + 12, 750)
