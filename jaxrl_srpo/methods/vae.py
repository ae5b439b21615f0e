"""Behavior cloning by a variational autoencoder, from which BCQ (arXiv 1812.02900) and BEAR (arXiv 1906.00949) draw.

encoder  z ~ N(mean(s, a), std(s, a)^2)
decoder  a = tanh(f(s, z))
loss     |decoder(s, z) - a|^2 + 1/2 KL(N(mean, std^2) || N(0, I)), means over batch and dimensions

Actions are drawn with z ~ N(0, I) clipped to [-0.5, 0.5], which keeps them near the center of what was learned; z is
not clipped in training.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

LATENT_CLIP = 0.5
MIN_LOG_STD, MAX_LOG_STD = -4.0, 15.0


@struct.dataclass
class Settings:
    """Settings of the autoencoder; the defaults are those of BCQ's released code."""

    prefix: ClassVar[str] = "vae"
    title: ClassVar[str] = "Autoencoder of BCQ and BEAR"

    steps: int = setting(1_000_000, "updates of the autoencoder", minimum=1, scaled=True)
    batch_size: int = setting(100, "batch size of the autoencoder", minimum=1)
    learning_rate: float = setting(1e-3, "Adam learning rate of the autoencoder", swept=True)
    kl_weight: float = setting(0.5, "weight of the divergence of its codes from N(0, I)", swept=True)
    width: int = setting(750, "width of its encoder and decoder", minimum=1)
    layers: int = setting(2, "hidden layers of its encoder and decoder", minimum=1, maximum=1000)


# The recipe for small budgets.
QUICK = {"vae_steps": 5_000, "vae_batch_size": 256, "vae_width": 256}
OGBENCH = {"vae_batch_size": 256, "vae_learning_rate": 3e-4}


@struct.dataclass
class Decoder(Drawing):
    """The behavior that the autoencoder learned.

    Attributes:
      params: of the decoder.
      network: makes actions before tanh of observations and codes.
    """

    params: Params
    network: networks.MLP = struct.field(pytree_node=False)

    def raw_actions(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> actions [B, action_size] before tanh, of clipped codes."""
        codes = noise.normal((observations.shape[0], code_size(self.network.output_size)))
        clipped = jnp.clip(codes, -LATENT_CLIP, LATENT_CLIP)
        return networks.forward(self.network, self.params, observations, clipped)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]: cloning by sampling."""
        return jnp.tanh(self.raw_actions(observations, noise))


@struct.dataclass
class State:
    """Training state of one member."""

    encoder: Learner
    decoder: Learner


def code_size(action_size: int) -> int:
    """Width of a code z."""
    return 2 * action_size


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_encoder, key_decoder = jax.random.split(key)
    codes = code_size(spec.action_size)
    observations, actions, code = (jnp.zeros((1, size)) for size in (spec.observation_size, spec.action_size, codes))
    encoder = networks.MLP(2 * codes, settings.width, settings.layers)
    decoder = networks.MLP(spec.action_size, settings.width, settings.layers)
    return State(
        Learner.create(encoder, key_encoder, observations, actions),
        Learner.create(decoder, key_decoder, observations, code),
    )


def loss_of(
    params: tuple[Params, Params], state: State, batch: Batch, noise: Array, kl_weight: Array | float
) -> tuple[Array, Metrics]:
    """The loss above with z = mean + std `noise` [B, code size]."""
    encoder, decoder = params
    encoded = state.encoder.apply(encoder, batch.observations, batch.actions)
    mean, free = jnp.split(encoded, 2, axis=-1)
    log_std = jnp.clip(free, MIN_LOG_STD, MAX_LOG_STD)
    std = jnp.exp(log_std)
    actions = jnp.tanh(state.decoder.apply(decoder, batch.observations, mean + std * noise))
    reconstruction = jnp.mean((actions - batch.actions) ** 2)
    divergence = -0.5 * jnp.mean(1.0 + 2.0 * log_std - mean**2 - std**2)
    parts = {"reconstruction_loss": reconstruction, "divergence": divergence}
    return reconstruction + kl_weight * divergence, parts


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of encoder and decoder."""
    noise = jax.random.normal(key, (batch.actions.shape[0], code_size(batch.actions.shape[1])))
    params = (state.encoder.params, state.decoder.params)
    gradient = jax.value_and_grad(loss_of, has_aux=True)
    (loss, parts), (grads_encoder, grads_decoder) = gradient(params, state, batch, noise, settings.kl_weight)
    encoder = state.encoder.apply_gradients(grads_encoder, settings.learning_rate)
    decoder = state.decoder.apply_gradients(grads_decoder, settings.learning_rate)
    return State(encoder, decoder), {"loss": loss, **parts}


def decoder_of(state: State) -> Decoder:
    """What is kept of a finished stage."""
    return Decoder(state.decoder.params, state.decoder.network)


STAGE = Stage(
    name="vae",
    algorithm="vae",
    label="cloning by an autoencoder",
    title="autoencoder",
    settings=Settings,
    init=init,
    update=update,
    result=decoder_of,
    learns_values=False,
    metrics={
        "loss": "reconstruction_loss plus the weighted divergence",
        "reconstruction_loss": "squared distance to the dataset's actions, mean over action dimensions",
        "divergence": "divergence of the codes from N(0, I), mean over their dimensions",
    },
)
