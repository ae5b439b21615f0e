"""IDQL (arXiv 2304.10573): of actions cloned by diffusion, the one that IQL's critic likes best.

a = argmax_i min_k Qtarget_k(s, a_i) over candidates a_1 ... a_N ~ mu(. | s)

Critic and cloning know nothing of each other, so the method trains nothing: it combines two finished stages. `idql`
takes SRPO's behavior model and critic, and costs nothing beside SRPO. `idql_ddpm` clones as the published code does:

loss = E |eps(a_t | s, t) - eps|^2 summed over action dimensions, with t uniform in 1 ... 5, schedule "vp"
"""

from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import behavior, iql, presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import networks, optimizers, samplers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.nn.policies import BestOf, QFunction
from jaxrl_srpo.nn.schedules import Discrete
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Choice:
    """How IDQL chooses; it does not change what is learned."""

    prefix: ClassVar[str] = "idql"
    title: ClassVar[str] = "IDQL"

    candidates: int = setting(64, "actions that IDQL chooses from", minimum=1, protocol=True)


@struct.dataclass
class Settings(Choice):
    """How IDQL draws from SRPO's behavior model and chooses."""

    prefix: ClassVar[str] = "idql"
    title: ClassVar[str] = "IDQL"

    sampler: behavior.Sampler = setting(
        "dpm_solver", "how its candidates are drawn", choices=get_args(behavior.Sampler), protocol=True
    )
    sampler_steps: int = setting(15, "network evaluations for a candidate", minimum=1, protocol=True)


@struct.dataclass
class Combined:
    """The result: two earlier ones."""

    behavior: Any
    critic: QFunction


def init(frozen: Combined) -> Combined:
    """All that there is to do."""
    return frozen


def policy_of(result: Combined, settings: Settings, spec: Spec) -> BestOf:
    """The best of actions drawn from SRPO's behavior model."""
    cloning = behavior.DiffusionPolicy(
        result.behavior, spec.action_size, settings.sampler_steps, sampler=settings.sampler
    )
    return BestOf(cloning, result.critic, settings.candidates, smaller=True)


STAGE = Stage(
    name="idql",
    algorithm="idql",
    label="IDQL",
    settings=Settings,
    init=init,
    policy=policy_of,
    needs=(behavior.STAGE, iql.STAGE),
    frozen=lambda results: Combined(results["behavior"], results["critic"].critic),
    learns_values=False,
    cloning=behavior.STAGE,
)


@struct.dataclass
class DdpmSettings:
    """Settings of the diffusion model in few steps; the defaults are those of the paper's code."""

    prefix: ClassVar[str] = "ddpm"
    title: ClassVar[str] = "IDQL's behavior model"

    steps: int = setting(1_500_000, "updates of the DDPM stage", minimum=1, scaled=True, leaf=True)
    batch_size: int = setting(2048, "batch size of the DDPM stage", minimum=1)
    learning_rate: float = setting(3e-4, "AdamW learning rate of its network, which falls as a cosine to 0", swept=True)
    weight_decay: float = setting(1e-4, "AdamW weight decay of its network", swept=True)
    weight_average: float = setting(0.999, "decay of the average of its network, which acts", below=1.0)
    diffusion_steps: int = setting(5, "steps from noise to an action", minimum=1)
    width: int = setting(256, "width of its network", minimum=1)
    hidden: int = setting(1024, "hidden width of its residual blocks", minimum=1)
    blocks: int = setting(3, "number of its residual blocks", minimum=1, maximum=1000)
    dropout_rate: float = setting(0.1, "dropout rate in its residual blocks", below=1.0)


@struct.dataclass
class DdpmState:
    """Training state of one member."""

    score: Learner
    average: Params
    step: Array
    schedule: Discrete = struct.field(pytree_node=False)


@struct.dataclass
class DdpmModel:
    """The trained behavior distribution, satisfying `types.ScoreModel` at times 1 ... T.

    Attributes:
      params: weights of the network.
      network: the score network; it counts steps from 0.
      schedule: of the noise.
    """

    params: Params
    network: networks.ScoreNetwork = struct.field(pytree_node=False)
    schedule: Discrete = struct.field(pytree_node=False)

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """eps(a_t | s, t) [B, action_size] without dropout."""
        return networks.forward(self.network, self.params, noisy_actions, times - 1.0, observations)


@struct.dataclass
class DdpmPolicy(Drawing):
    """Cloning in few steps: ancestral sampling with variance beta, kept in [-1, 1] after every step."""

    model: DdpmModel
    action_size: int = struct.field(pytree_node=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        noise_start, noise_steps = noise.split()
        schedule = self.model.schedule
        start = noise_start.normal((observations.shape[0], self.action_size))
        data = samplers.data_of(samplers.noise_of(self.model, observations), schedule)
        return samplers.ddpm(schedule, data, start, noise_steps, schedule.times(), variance="beta", clip=True)


def init_ddpm(key: Array, spec: Spec, settings: DdpmSettings) -> DdpmState:
    """Fresh state of one member."""
    sizes = (settings.width, settings.hidden, settings.blocks, settings.dropout_rate)
    network = networks.ScoreNetwork(*sizes, learned_frequencies=True)
    inputs = (jnp.zeros((1, spec.action_size)), jnp.zeros((1,)), jnp.zeros((1, spec.observation_size)))
    score = Learner.create(network, key, *inputs)
    schedule = Discrete("vp", settings.diffusion_steps)
    return DdpmState(score, score.copy_params(), jnp.zeros((), jnp.int32), schedule)


def ddpm_loss(params: Params, state: DdpmState, batch: Batch, times: Array, noise: Array, key_dropout: Array) -> Array:
    """Denoising error at `times` [B] in 1 ... T with `noise` [B, action_size]."""
    noisy_actions = state.schedule.diffuse(batch.actions, noise, times)
    inputs = (noisy_actions, times - 1.0, batch.observations)
    predicted = state.score.network.apply({"params": params}, *inputs, train=True, rngs={"dropout": key_dropout})
    return jnp.mean(jnp.sum((predicted - noise) ** 2, axis=-1))


def update_ddpm(state: DdpmState, batch: Batch, key: Array, settings: DdpmSettings) -> tuple[DdpmState, Metrics]:
    """One step of denoising; the average follows."""
    key_time, key_noise, key_dropout = jax.random.split(key, 3)
    times = jax.random.randint(key_time, batch.rewards.shape, 1, state.schedule.steps + 1).astype(jnp.float32)
    noise = jax.random.normal(key_noise, batch.actions.shape)
    loss, grads = jax.value_and_grad(ddpm_loss)(state.score.params, state, batch, times, noise, key_dropout)

    rate = settings.learning_rate * optimizers.cosine(state.step, settings.steps)
    score = state.score.apply_gradients(grads, rate, settings.weight_decay)
    average = optimizers.polyak(state.average, score.params, 1.0 - settings.weight_average)
    return DdpmState(score, average, state.step + 1, state.schedule), {"loss": loss}


DDPM = Stage(
    name="ddpm",
    algorithm="ddpm",
    label="DDPM cloning",
    settings=DdpmSettings,
    init=init_ddpm,
    update=update_ddpm,
    result=lambda state: DdpmModel(state.average, state.score.network, state.schedule),
    policy=lambda result, spec: DdpmPolicy(result, spec.action_size),
    learns_values=False,
    metrics={"loss": "denoising error, summed over action dimensions"},
)


def policy_with_ddpm(result: Combined, settings: Choice, spec: Spec) -> BestOf:
    """The best of actions drawn in few steps."""
    cloning = DdpmPolicy(result.behavior, spec.action_size)
    return BestOf(cloning, result.critic, settings.candidates, smaller=True)


STAGE_DDPM = Stage(
    name="idql_ddpm",
    algorithm="idql_ddpm",
    label="IDQL, DDPM",
    settings=Choice,
    init=init,
    policy=policy_with_ddpm,
    needs=(DDPM, iql.STAGE),
    frozen=lambda results: Combined(results["ddpm"], results["critic"].critic),
    learns_values=False,
    cloning=DDPM,
)

# Of 16 to 256 candidates the paper's table has the best for each domain; few are enough for a small budget.
_QUICK = {"idql_candidates": 16, "idql_sampler_steps": 10}
_QUICK_DDPM = {
    "ddpm_steps": 20_000,
    "ddpm_batch_size": 256,
    "ddpm_learning_rate": 1e-3,
    "ddpm_weight_average": 0.99,
    "ddpm_hidden": 512,
    "ddpm_blocks": 2,
}
_PAPER = {"episodes": 50}
# 6b071e7 draws 2048 transitions, of which the actor's second half-batch is empty: 1.5e6 of its 3e6 steps learn.
_PAPER_CRITIC = {"critic_steps": 1_500_000, "critic_batch_size": 256}
_RELEASED = {"ddpm_steps": 3_000_000, "ddpm_batch_size": 512, "critic_steps": 3_000_000, "critic_batch_size": 512}
# IDQL with flows in arXiv 2502.02538.
_OGBENCH = {"idql_candidates": 32}


def _quick(dataset: str, family: str) -> dict[str, Any]:
    own = behavior.QUICK | (behavior.QUICK_MAZE if presets.is_maze(family) else {}) | _QUICK
    return {**iql.METHOD.presets["quick"].values(dataset, family), **own}


def _quick_ddpm(dataset: str, family: str) -> dict[str, Any]:
    return {**iql.METHOD.presets["quick"].values(dataset, family), **_QUICK, **_QUICK_DDPM}


def _expectile(family: str) -> dict[str, Any]:
    own = {"expectile": 0.9} if presets.is_maze(family) else {}
    return {"reward_transform": default_transform(family)} | own


def _paper(dataset: str, family: str) -> dict[str, Any]:
    return _expectile(family) | _PAPER | _PAPER_CRITIC


def _released(dataset: str, family: str) -> dict[str, Any]:
    return _expectile(family) | _PAPER | _RELEASED


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    own = {"behavior_steps": 1_000_000, "behavior_batch_size": 256, "ddpm_steps": 1_000_000, "ddpm_batch_size": 256}
    return {**iql.METHOD.presets["ogbench"].values(dataset, family), **own, **_OGBENCH}


METHOD = Method(
    name="idql",
    title="IDQL",
    source="arXiv 2304.10573 with the behavior model of SRPO",
    stages=(behavior.STAGE, iql.STAGE, STAGE),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "paper": Preset("critic of arXiv 2304.10573, behavior model of arXiv 2310.07297", _paper),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; 32 candidates as its IFQL", _ogbench),
    },
)
METHOD_DDPM = Method(
    name="idql_ddpm",
    title="IDQL, DDPM",
    source="arXiv 2304.10573 and philippe-eecs/IDQL",
    stages=(DDPM, iql.STAGE, STAGE_DDPM),
    presets={
        "quick": Preset("small budgets for CPUs", _quick_ddpm),
        "paper": Preset("arXiv 2304.10573 and philippe-eecs/IDQL, commit 6b071e7", _paper),
        "released": Preset("philippe-eecs/IDQL, commit 7582571; no LayerNorm in V", _released),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; 32 candidates as its IFQL", _ogbench),
    },
)
