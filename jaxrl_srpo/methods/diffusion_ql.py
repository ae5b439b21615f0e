"""Diffusion-QL (arXiv 2208.06193), and EDP (arXiv 2305.20081), which makes it cheap.

The policy pi(a | s) is a diffusion model, an actor eps(a_t | s, t) that is run from noise to an action a^0:

Q(s,a) <- r + discount * min_i Qtarget_i(s', a'), a' ~ average of the policy
pi     <- minimizes |eps(a_t | s, t) - eps|^2 - eta Q_i(s, a^0) / mean |Q_j(s, a^0)|, i != j by turns
acts    : of candidates a ~ pi one with probability softmax(min_i Qtarget_i(s, a))

Diffusion-QL draws a^0 in five steps, through all of which the gradient of Q flows. EDP needs one evaluation of the
actor for both terms: a^0 = (a_t - sigma_t eps(a_t | s, t)) / alpha_t is what the actor sees behind the noise, and its
hundreds of steps are run by a solver, for a' and for acting only.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import presets, td3_bc
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers, policies, samplers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Keyed, Noise
from jaxrl_srpo.nn.policies import QFunction
from jaxrl_srpo.nn.schedules import Discrete, DiscreteKind
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

BACKUP_CANDIDATES = 10
"""Actions of the next observation among which `max_q_backup` takes the best."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """From noise to actions.

    Attributes:
      schedule: of the noise.
      solver_steps: evaluations of DPM-Solver of third order; 0 for ancestral sampling in all steps of the schedule.
    """

    schedule: Discrete
    solver_steps: int = 0


@struct.dataclass
class Settings(ValueSettings):
    """Settings of Diffusion-QL; the defaults are those of the released code that all its datasets share."""

    prefix: ClassVar[str] = "dql"
    title: ClassVar[str] = "Diffusion-QL"
    one_step: ClassVar[bool] = False

    steps: int = setting(2_000_000, "updates of Diffusion-QL", minimum=1, scaled=True, leaf=True)
    batch_size: int = setting(256, "batch size of Diffusion-QL", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of its critics", swept=True)
    actor_learning_rate: float = setting(3e-4, "Adam learning rate of its actor", swept=True)
    cosine: bool = setting(False, "let both rates fall as a cosine to 0")
    gradient_norm: float = setting(0.0, "largest norm of a gradient; 0: any", swept=True)
    eta: float = setting(1.0, "weight of Q against cloning: larger is greedier", swept=True)
    max_q_backup: bool = setting(False, "bootstrap from the best of ten next actions")
    diffusion_steps: int = setting(5, "steps from noise to an action", minimum=1)
    average_decay: float = setting(0.995, "decay of the average of the actor", below=1.0)
    average_interval: int = setting(5, "updates between steps of that average", minimum=1)
    average_start: int = setting(1_000, "updates before its first step")
    width: int = setting(256, "width of its networks", minimum=1)
    layers: int = setting(3, "hidden layers of its networks", minimum=1, maximum=1000)
    layer_norm: bool = setting(False, "LayerNorm after each hidden layer of its critics")
    candidates: int = setting(50, "actions that it chooses from when it acts", minimum=1, protocol=True)
    choice_weight: float = setting(1.0, "inverse temperature of the softmax over their Q", protocol=True)
    start_scale: float = setting(1.0, "scale of the noise that they start from", protocol=True)
    act_by_average: bool = setting(False, "draw them from the average of the actor", protocol=True)
    evaluation_interval: int = setting(
        50_000, "updates between evaluations of Diffusion-QL", minimum=1, scaled=True, protocol=True
    )

    @property
    def chain(self) -> Chain:
        """All steps of the schedule, one after another."""
        return Chain(Discrete("vp", self.diffusion_steps))


@struct.dataclass
class EdpSettings(Settings):
    """Settings of EDP where they are not Diffusion-QL's; the defaults are those of the released code."""

    prefix: ClassVar[str] = "edp"
    title: ClassVar[str] = "EDP"
    one_step: ClassVar[bool] = True

    eta: float = setting(2.0, "weight of Q against cloning: larger is greedier", swept=True)
    diffusion_steps: int = setting(1_000, "steps from noise to an action", minimum=1)
    schedule: DiscreteKind = setting("linear", "schedule of the noise", choices=get_args(DiscreteKind))
    solver_steps: int = setting(15, "evaluations of DPM-Solver for an action, best not 3k + 2; 0: all steps by DDPM")

    @property
    def chain(self) -> Chain:
        """A solver's few steps."""
        return Chain(Discrete(self.schedule, self.diffusion_steps), self.solver_steps)


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    actor: Learner
    target_q: Params
    average: Params
    step: Array


@struct.dataclass
class Model:
    """An actor with some parameters, satisfying `types.ScoreModel` at times 1 ... T."""

    params: Params
    network: networks.NoiseMLP = struct.field(pytree_node=False)

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """eps(a_t | s, t) [B, action_size]."""
        return networks.forward(self.network, self.params, noisy_actions, times - 1.0, observations)


@struct.dataclass
class Trained:
    """What is kept of a finished stage."""

    actor: Model
    average: Params
    critic: QFunction


def draw(model: Model, observations: Array, noise: Noise, action_size: int, chain: Chain, scale: float = 1.0) -> Array:
    """Actions [B, action_size] in [-1, 1], one for each observation, from noise times `scale`; gradients flow."""
    noise_start, noise_steps = noise.split()
    start = scale * noise_start.normal((observations.shape[0], action_size))
    schedule, predicted = chain.schedule, samplers.noise_of(model, observations)
    if chain.solver_steps:
        inside = samplers.clipped(predicted, schedule)
        actions = samplers.dpm_solver(schedule, inside, start, chain.solver_steps, order=3, prediction="noise")
    else:
        data = samplers.data_of(predicted, schedule, clip=True)
        actions = samplers.ddpm(schedule, data, start, noise_steps, schedule.times())
    return jnp.clip(actions, -1.0, 1.0)


@struct.dataclass
class SoftmaxPolicy(Drawing):
    """Of several actions of the actor one, the likelier the better the critic finds it.

    Attributes:
      actor: what draws them.
      critic: what judges them, by the smaller of its values.
      action_size: width of one action.
      chain: from noise to actions.
      candidates: how many there are for each observation.
      weight: inverse temperature of the softmax.
      scale: of the noise that they start from.
    """

    actor: Model
    critic: QFunction
    action_size: int = struct.field(pytree_node=False)
    chain: Chain = struct.field(pytree_node=False)
    candidates: int = struct.field(pytree_node=False)
    weight: float = struct.field(pytree_node=False, default=1.0)
    scale: float = struct.field(pytree_node=False, default=1.0)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        noise_draw, noise_choice = noise.split()
        repeated = policies.repeated(observations, self.candidates)
        actions = draw(self.actor, repeated, noise_draw, self.action_size, self.chain, self.scale)
        values = jnp.min(self.critic.q_values(repeated, actions), axis=-1).reshape(-1, self.candidates)
        # The largest of logits with Gumbel noise is a draw by their softmax.
        chosen = jnp.argmax(noise_choice.gumbel(values.shape) + self.weight * values, axis=-1)
        return policies.take_candidates(actions, chosen)


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    twin_q = networks.TwinQ(settings.width, settings.layers, layer_norm=settings.layer_norm, activation=networks.mish)
    q = Learner.create(twin_q, key_q, observations, actions)
    actor = Learner.create(
        networks.NoiseMLP(settings.width, settings.layers), key_actor, actions, jnp.zeros((1,)), observations
    )
    return State(q, actor, q.copy_params(), actor.copy_params(), jnp.zeros((), jnp.int32))


def q_targets(state: State, batch: Batch, key: Array, settings: Settings) -> Array:
    """What both Q regress to, [B], at actions of the averaged actor; with `max_q_backup` each Q takes its best one."""
    count = BACKUP_CANDIDATES if settings.max_q_backup else 1
    observations = policies.repeated(batch.next_observations, count)
    average = Model(state.average, state.actor.network)
    actions = draw(average, observations, Keyed(key), batch.actions.shape[-1], settings.chain)
    values = state.q.apply(state.target_q, observations, actions).reshape(-1, count, 2)
    next_q = jnp.min(jnp.max(values, axis=1), axis=-1)
    return batch.rewards + settings.discount * batch.discounts * next_q


def policy_actions(
    model: Model, noisy_actions: Array, predicted: Array, times: Array, batch: Batch, key: Array, settings: Settings
) -> Array:
    """a^0 [B, action_size] that Q judges: drawn in all steps, or what EDP's actor sees behind its noise."""
    if not settings.one_step:
        return draw(model, batch.observations, Keyed(key), batch.actions.shape[-1], settings.chain)
    alpha, sigma = (x[:, None] for x in settings.chain.schedule.marginal(times))
    return jnp.clip((noisy_actions - sigma * predicted) / alpha, -1.0, 1.0)


def guidance_loss(q_values: Array, first: Array, second: Array) -> Array:
    """-mean Q_i / mean |Q_j| of values [B, 2]; the denominator is a constant."""
    sizes = jax.lax.stop_gradient(jnp.mean(jnp.abs(q_values), axis=0))
    return -jnp.mean(q_values, axis=0)[first] / sizes[second]


def actor_loss(
    params: Params, actor: Learner, q: Learner, batch: Batch, key: Array, settings: Settings
) -> tuple[Array, Metrics]:
    """Denoising error, mean over dimensions, plus eta times the guidance by a Q that is drawn."""
    key_time, key_noise, key_chain, key_coin = jax.random.split(key, 4)
    schedule = settings.chain.schedule
    times = jax.random.randint(key_time, batch.rewards.shape, 1, schedule.steps + 1).astype(jnp.float32)
    noise = jax.random.normal(key_noise, batch.actions.shape)
    noisy_actions = schedule.diffuse(batch.actions, noise, times)
    model = Model(params, actor.network)
    predicted = model.noise_prediction(noisy_actions, times, batch.observations)
    cloning = jnp.mean((predicted - noise) ** 2)

    actions = policy_actions(model, noisy_actions, predicted, times, batch, key_chain, settings)
    first = jax.random.bernoulli(key_coin).astype(jnp.int32)
    # EDP's code divides a Q by its own size, Diffusion-QL's by the other's.
    second = first if settings.one_step else 1 - first
    guidance = guidance_loss(q(batch.observations, actions), first, second)
    return cloning + settings.eta * guidance, {"cloning_loss": cloning, "guidance_loss": guidance}


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, of the actor and of the target; the actor's average follows now and then."""
    key_target, key_actor = jax.random.split(key)
    schedule = optimizers.cosine(state.step, settings.steps) if settings.cosine else 1.0
    targets = q_targets(state, batch, key_target, settings)
    (loss_q, q_values), grads = jax.value_and_grad(td3_bc.q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    grads = optimizers.clip_norm(grads, settings.gradient_norm)
    q = state.q.apply_gradients(grads, settings.learning_rate * schedule)

    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    (loss_actor, losses), grads = gradient(state.actor.params, state.actor, q, batch, key_actor, settings)
    grads = optimizers.clip_norm(grads, settings.gradient_norm)
    actor = state.actor.apply_gradients(grads, settings.actor_learning_rate * schedule)

    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    moves = (state.step >= settings.average_start) & (state.step % settings.average_interval == 0)
    average = optimizers.polyak(state.average, actor.params, jnp.where(moves, 1.0 - settings.average_decay, 0.0))
    metrics = {"loss": loss_q + loss_actor, "q_loss": loss_q, **losses, "q": jnp.mean(q_values)}
    return State(q, actor, target_q, average, state.step + 1), metrics


def result_of(state: State) -> Trained:
    """What is kept of a state."""
    actor = Model(state.actor.params, state.actor.network)
    return Trained(actor, state.average, QFunction(state.target_q, state.q.network))


def policy_of(result: Trained, settings: Settings, spec: Spec) -> SoftmaxPolicy:
    """The actor, or its average, and the target critic that chooses among its actions."""
    actor = Model(result.average, result.actor.network) if settings.act_by_average else result.actor
    how = (settings.candidates, settings.choice_weight, settings.start_scale)
    return SoftmaxPolicy(actor, result.critic, spec.action_size, settings.chain, *how)


METRICS = {
    "loss": "sum of the losses",
    "q_loss": "squared TD error, summed over both Q",
    "cloning_loss": "denoising error of the actor, mean over action dimensions",
    "guidance_loss": "-mean Q over its mean size at the actor's actions, before eta",
    "q": "mean of both Q over the batch",
}

STAGE = Stage(
    name="diffusion_ql",
    algorithm="diffusion_ql",
    label="Diffusion-QL",
    settings=Settings,
    init=init,
    update=update,
    result=result_of,
    policy=policy_of,
    metrics=METRICS,
)
STAGE_EDP = dataclasses.replace(STAGE, name="edp", algorithm="edp", label="EDP", settings=EdpSettings, stream=-1)


class Published(NamedTuple):
    """A row of the released code's table: eta, the largest norm of a gradient, thousands of updates and the rest."""

    eta: float
    gradient_norm: float
    epochs: int = 2_000
    max_q_backup: bool = False
    actor_learning_rate: float = 3e-4


# By dataset without its version: mazes were v0, the others v2, v1 (pen) and v0 (kitchen).
PAPER = {
    "halfcheetah-medium": Published(1.0, 9.0),
    "hopper-medium": Published(1.0, 9.0),
    "walker2d-medium": Published(1.0, 1.0),
    "halfcheetah-medium-replay": Published(1.0, 2.0),
    "hopper-medium-replay": Published(1.0, 4.0),
    "walker2d-medium-replay": Published(1.0, 4.0),
    "halfcheetah-medium-expert": Published(1.0, 7.0),
    "hopper-medium-expert": Published(1.0, 5.0),
    "walker2d-medium-expert": Published(1.0, 5.0),
    "antmaze-umaze": Published(0.5, 2.0, 1_000),
    "antmaze-umaze-diverse": Published(2.0, 3.0, 1_000, True),
    "antmaze-medium-play": Published(2.0, 2.0, 1_000, True, 1e-3),
    "antmaze-medium-diverse": Published(3.0, 1.0, 1_000, True),
    "antmaze-large-play": Published(4.5, 10.0, 1_000, True),
    "antmaze-large-diverse": Published(3.5, 7.0, 1_000, True),
    "pen-human": Published(0.15, 7.0, 1_000, False, 3e-5),
    "pen-cloned": Published(0.1, 8.0, 1_000, False, 3e-5),
    "kitchen-complete": Published(0.005, 9.0, 250),
    "kitchen-partial": Published(0.005, 10.0, 1_000),
    "kitchen-mixed": Published(0.005, 10.0, 1_000),
}
_TRANSFORMS = {"antmaze": "cql-antmaze", "adroit": "standardize"}
# CleanDiffuser's weights of the softmax, by the start of the dataset's name: the first that fits.
_WEIGHTS = {
    "halfcheetah": 50.0,
    "hopper-medium-expert": 8.0,
    "hopper": 100.0,
    "walker2d": 300.0,
    "antmaze-medium-play": 10.0,
    "antmaze-medium-diverse": 5.0,
    "antmaze-large-play": 5.0,
    "antmaze-large-diverse": 10.0,
    "kitchen": 3.0,
}
# Larger rates that fall, and few candidates, which a young critic judges: docs/diffusion_ql.md has what each gave.
_QUICK = {
    "dql_steps": 20_000,
    "dql_evaluation_interval": 5_000,
    "dql_learning_rate": 1e-3,
    "dql_actor_learning_rate": 1e-3,
    "dql_cosine": True,
    "dql_candidates": 4,
    "dql_gradient_norm": 5.0,
}
_QUICK_EDP = {"edp_eta": 1.0, "edp_diffusion_steps": 100, "edp_solver_steps": 12}


def _published(dataset: str) -> Published | None:
    name, _, version = dataset.rpartition("-")
    return PAPER.get(name if version.startswith("v") else dataset)


def _of_table(dataset: str) -> dict[str, Any]:
    row = _published(dataset)
    if row is None:
        return {}
    return {
        "dql_eta": row.eta,
        "dql_gradient_norm": row.gradient_norm,
        "dql_steps": 1_000 * row.epochs,
        "dql_max_q_backup": row.max_q_backup,
        "dql_actor_learning_rate": row.actor_learning_rate,
    }


def _note(dataset: str, family: str) -> str:
    if _published(dataset) is not None:
        return ""
    return f"{dataset}: the paper has no eta for it; --dql_eta chooses one, 1 otherwise"


def _quick(dataset: str, family: str) -> dict[str, Any]:
    return presets.quick(family) | _QUICK | {"reward_transform": default_transform(family)}


def _quick_edp(dataset: str, family: str) -> dict[str, Any]:
    return _quick(dataset, family) | _QUICK_EDP


def _paper(dataset: str, family: str) -> dict[str, Any]:
    rewards = {"reward_transform": _TRANSFORMS.get(family, "none")}
    return _of_table(dataset) | rewards | {"episodes": 10 if "-v2" in dataset else 100}


def _paper_edp(dataset: str, family: str) -> dict[str, Any]:
    # Of the table its code reads the norm alone.
    norm = {name: value for name, value in _of_table(dataset).items() if name == "dql_gradient_norm"}
    rewards = {"reward_transform": "cql-antmaze" if family == "antmaze" else "none"}
    return norm | rewards | {"dql_evaluation_interval": 10_000, "episodes": 10}


def _cleandiffuser(dataset: str, family: str) -> dict[str, Any]:
    weight = next((value for start, value in _WEIGHTS.items() if dataset.startswith(start)), 1.0)
    row = _published(dataset)
    own = {
        "dql_cosine": True,
        "dql_choice_weight": weight,
        "dql_start_scale": 0.5,
        "dql_act_by_average": True,
        "reward_transform": default_transform(family),
    }
    return own | ({"dql_eta": row.eta} if row else {})


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    return presets.ogbench(dataset) | {
        "dql_steps": 1_000_000,
        "dql_width": 512,
        "dql_layers": 4,
        "dql_layer_norm": True,
        "dql_evaluation_interval": 100_000,
    }


def _ogbench_note(dataset: str, family: str) -> str:
    return f"{dataset}: what eta was chosen for it is not published; --dql_eta or --edp_eta takes one or several"


METHOD = Method(
    name="diffusion_ql",
    title="Diffusion-QL",
    source="arXiv 2208.06193 and Zhendong-Wang/Diffusion-Policies-for-Offline-RL",
    stages=(STAGE,),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "paper": Preset("the released code, commit d871f5c", _paper, _note),
        "cleandiffuser": Preset(
            "configs/dql of CleanDiffuserTeam/CleanDiffuser, commit 05f17fc", _cleandiffuser, _note
        ),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}, Mish in place of it; no eta is known", _ogbench, _ogbench_note),
    },
)
METHOD_EDP = Method(
    name="edp",
    title="EDP",
    source="arXiv 2305.20081 and sail-sg/edp",
    stages=(STAGE_EDP,),
    presets={
        "quick": Preset("small budgets for CPUs", _quick_edp),
        "paper": Preset("sail-sg/edp, by DPM-Solver as its readme has it", _paper_edp),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}, Mish in place of it; no eta is known", _ogbench, _ogbench_note),
    },
)
