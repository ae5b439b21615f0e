"""Behavior cloning by diffusion: the score network eps(a_t | s, t) that regularizes SRPO (arXiv 2310.07297, sec. 2.2).

loss = E |eps(a_t | s, t) - eps|^2 summed over action dimensions, with t ~ U(0.001, 1) and eps ~ N(0, I).
"""

from typing import ClassVar, Literal, cast

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import diffusion, networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

Sampler = Literal["dpm_solver", "ddpm"]


@struct.dataclass
class Settings:
    """Settings of the diffusion model; the defaults are the published ones."""

    prefix: ClassVar[str] = "behavior"
    title: ClassVar[str] = "Behavior model"

    steps: int = setting(2_000_000, "updates of the behavior stage", minimum=1, scaled=True, leaf=True)
    batch_size: int = setting(2048, "batch size of the behavior stage", minimum=1)
    learning_rate: float = setting(3e-4, "AdamW learning rate of the score network", swept=True)
    weight_decay: float = setting(0.01, "AdamW weight decay of the score network", swept=True)
    cosine: bool = setting(False, "let that learning rate fall as a cosine to 0")
    weight_average: float = setting(0.0, "decay of an average of the score network; 0: none", below=1.0)
    width: int = setting(256, "width of the score network", flag="score_width", minimum=1)
    hidden: int = setting(1024, "hidden width of its residual blocks", flag="score_hidden", minimum=1)
    blocks: int = setting(3, "number of its residual blocks", flag="score_blocks", minimum=1, maximum=1000)
    dropout_rate: float = setting(0.1, "dropout rate in its residual blocks", flag="score_dropout", below=1.0)
    seeds: int = setting(
        0, "behavior models of a dataset that its seeds share, by turns; 0: each seed has its own", protocol=True
    )
    sampler_steps: int = setting(
        15, "solver steps of the behavior-cloning baseline", flag="sampler_steps", minimum=1, protocol=True
    )


# The recipe for small budgets; docs/quick.md gives the measurement behind each value.
QUICK = {
    "behavior_steps": 10_000,
    "behavior_batch_size": 256,
    "behavior_learning_rate": 1e-3,
    "behavior_cosine": True,
    "score_hidden": 512,
    "score_blocks": 2,
}
QUICK_MAZE = {"behavior_steps": 5_000}
# The training of QGPO's released code; SfBC's has 586,000 updates, else the same.
CEP = {
    "behavior_steps": 600_000,
    "behavior_batch_size": 4096,
    "behavior_learning_rate": 1e-4,
    "behavior_weight_decay": 0.0,
    "score_dropout": 0.0,
}


@struct.dataclass
class Model:
    """The trained behavior distribution mu(a | s), satisfying `types.ScoreModel`.

    Attributes:
      params: trained weights of the score network.
      constants: its fixed Fourier frequencies.
      network: the score network.
    """

    params: Params
    constants: Params
    network: networks.ScoreNetwork = struct.field(pytree_node=False)

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """eps(a_t | s, t) [B, action_size] without dropout."""
        variables = {"params": self.params, "constants": self.constants}
        return cast(Array, self.network.apply(variables, noisy_actions, times, observations))


@struct.dataclass
class DiffusionPolicy(Drawing):
    """Behavior cloning: actions sampled from the diffusion model, the baseline of SRPO.

    Attributes:
      model: what is sampled from.
      action_size: width of one action.
      steps: of the sampler.
      sampler: the solver of the ODE or ancestral sampling.
    """

    model: Model
    action_size: int = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)
    sampler: Sampler = struct.field(pytree_node=False, default="dpm_solver")

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        sample = diffusion.sample if self.sampler == "dpm_solver" else diffusion.sample_ddpm
        return sample(self.model, noise, observations, self.action_size, self.steps)


@struct.dataclass
class State:
    """Training state of one member; `average` holds averaged weights, None without an average."""

    score: Learner
    average: Params | None
    constants: Params
    step: Array


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    network = networks.ScoreNetwork(settings.width, settings.hidden, settings.blocks, settings.dropout_rate)
    inputs = (jnp.zeros((1, spec.action_size)), jnp.zeros((1,)), jnp.zeros((1, spec.observation_size)))
    variables = network.init(key, *inputs)
    score = Learner.of(variables["params"], network)
    average = score.copy_params() if settings.weight_average else None
    return State(score, average, variables["constants"], jnp.zeros((), jnp.int32))


def score_loss(params: Params, state: State, batch: Batch, times: Array, noise: Array, key_dropout: Array) -> Array:
    """Denoising score matching at `times` [B] with `noise` [B, action_size]."""
    noisy_actions = diffusion.diffuse(batch.actions, noise, times)
    variables, rngs = {"params": params, "constants": state.constants}, {"dropout": key_dropout}
    predicted = state.score.network.apply(variables, noisy_actions, times, batch.observations, train=True, rngs=rngs)
    return jnp.mean(jnp.sum((predicted - noise) ** 2, axis=-1))


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of denoising score matching."""
    key_time, key_noise, key_dropout = jax.random.split(key, 3)
    times = jax.random.uniform(key_time, batch.rewards.shape, minval=diffusion.TIME_MIN, maxval=1.0)
    noise = jax.random.normal(key_noise, batch.actions.shape)
    loss, grads = jax.value_and_grad(score_loss)(state.score.params, state, batch, times, noise, key_dropout)

    schedule = optimizers.cosine(state.step, settings.steps) if settings.cosine else 1.0
    score = state.score.apply_gradients(grads, settings.learning_rate * schedule, settings.weight_decay)
    average = optimizers.moving_average(state.average, score.params, settings.weight_average)
    return State(score, average, state.constants, state.step + 1), {"loss": loss}


def model_of(state: State) -> Model:
    """The result of the stage: averaged weights if there are any."""
    params = state.score.params if state.average is None else state.average
    return Model(params, state.constants, state.score.network)


def policy_of(result: Model, settings: Settings, spec: Spec) -> DiffusionPolicy:
    """Behavior cloning by sampling."""
    return DiffusionPolicy(result, spec.action_size, settings.sampler_steps)


STAGE = Stage(
    name="behavior",
    algorithm="bc",
    label="behavior cloning",
    title="behavior",
    settings=Settings,
    init=init,
    update=update,
    result=model_of,
    policy=policy_of,
    learns_values=False,
    stream=0,
    version=2,
    metrics={"loss": "denoising error, summed over action dimensions"},
)
