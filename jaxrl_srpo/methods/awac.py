"""Advantage Weighted Actor-Critic (arXiv 2006.09359): offline learning that goes on online without a change.

Q(s,a) <- r + discount * min_i Qtarget_i(s', a'),  a' ~ pi(. | s')       (TD(0), no entropy term)
A(s,a) =  min_i Q_i(s,a) - min_i Q_i(s,a~),        a~ ~ pi(. | s) or its mean
pi     <- weighted maximum likelihood on the buffer's actions, weight softmax(A / lambda) over the batch times its size,
          or exp(A / lambda) up to 100

As in the official code (rail-berkeley/rlkit) both gradients are taken before either step, and the target follows every
update. At lambda = inf all weights are 1 and the actor is behavior cloning by plain likelihood. A dataset's action is
a point of an unsquashed Gaussian, so actions at the bounds have finite densities; sampled actions are clipped to
[-1, 1]. Unlike the official code, targets start as copies of the critics, and the Q loss is the mean over both heads
where that code sums them: half the loss, the same step of Adam.
"""

from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import OfflineSettings, OnlineSettings, ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import GaussianPolicy
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

Weighting = Literal["softmax", "exp"]
Baseline = Literal["sample", "mean"]
Decay = Literal["l2", "decoupled"]

MAX_WEIGHT = 100.0


@struct.dataclass
class Cloning(OfflineSettings):
    """Settings of AWAC's actor; the defaults are those of the official MuJoCo example.

    decay: of the actor's weights, "l2" in the gradient before Adam (official) or "decoupled" as in AdamW.
    mean: "tanh" keeps the Gaussian's mean in (-1, 1), "linear" does not (CORL).
    log_std: a parameter per action dimension, "sigmoid" within (-6, 0) from -3 or "clip" to [-20, 2] from 0 (CORL).
    small_outputs: starts the output layers within 0.001 (actor) and 0.003 (Q), as the official code does.
    """

    prefix: ClassVar[str] = "awac"
    title: ClassVar[str] = "AWAC"

    batch_size: int = setting(128, "batch size of AWAC on the dataset", minimum=1)
    actor_width: int = setting(256, "width of the AWAC actor", minimum=1)
    actor_layers: int = setting(4, "hidden layers of the AWAC actor", minimum=1, maximum=1000)
    actor_learning_rate: float = setting(3e-4, "Adam learning rate of the AWAC actor", swept=True)
    weight_decay: float = setting(1e-4, "weight decay of the AWAC actor", swept=True)
    decay: Decay = setting("l2", "form of that decay", choices=get_args(Decay))
    mean: networks.Mean = setting("tanh", "mean of the AWAC actor", choices=get_args(networks.Mean))
    log_std: networks.LogStd = setting("sigmoid", "its log deviation", choices=get_args(networks.LogStd))
    small_outputs: bool = setting(True, "start AWAC's output layers near 0")
    initialization: networks.Initialization = setting(
        "pytorch", "how AWAC's hidden layers start", choices=get_args(networks.Initialization), added=True
    )


@struct.dataclass
class Settings(Cloning, ValueSettings):
    """Settings of AWAC; the defaults are those of the official MuJoCo example.

    advantage_clip: largest advantage in the weights; 0 allows any.
    weighting: "softmax" over the batch times B, or "exp" up to `MAX_WEIGHT` (CORL).
    baseline: V(s) is min Q at one action drawn from the policy ("sample") or at its mean ("mean", official hand).
    negative_q: keeps Q at or below 0, for rewards of -1 and 0 (official hand).
    bootstrap_terminals: bootstraps through terminations too (official hand).
    """

    prefix: ClassVar[str] = "awac"
    title: ClassVar[str] = "AWAC"

    lambda_: float = setting(
        2.0, "temperature lambda of AWAC: smaller is greedier", flag="awac_lambda", swept=True, above=0.0
    )
    advantage_clip: float = setting(0.0, "largest advantage in AWAC's weights; 0: any", swept=True)
    reward_scale: float = setting(1.0, "factor of rewards in AWAC, after the transform", swept=True)
    learning_rate: float = setting(3e-4, "Adam learning rate of AWAC's critics", swept=True)
    critic_width: int = setting(256, "width of AWAC's critics", minimum=1)
    critic_layers: int = setting(2, "hidden layers of AWAC's critics", minimum=1, maximum=1000)
    critic_layer_norm: bool = setting(False, "LayerNorm after each hidden layer of AWAC's critics", added=True)
    weighting: Weighting = setting("softmax", "form of AWAC's weights", choices=get_args(Weighting))
    baseline: Baseline = setting("sample", "action of V in the advantage", choices=get_args(Baseline))
    negative_q: bool = setting(False, "keep AWAC's Q at or below 0, for rewards of -1 and 0")
    bootstrap_terminals: bool = setting(False, "bootstrap through terminations in AWAC")
    clip_samples: bool = setting(True, "clip the actions that AWAC's critics are asked about to [-1, 1]", added=True)


@struct.dataclass
class State:
    """Training state of one member."""

    q: Learner
    actor: Learner
    target_q: Params
    step: Array


@struct.dataclass
class Start:
    """Parameters of a `networks.Actor` and of a `networks.TwinQ`, such as those of SRPO, to go on from."""

    actor: Params
    q: Params


def actor_network(spec: Spec, settings: Cloning) -> networks.GaussianActor:
    """The actor's network."""
    bound = 1e-3 if settings.small_outputs else None
    sizes = (spec.action_size, settings.actor_width, settings.actor_layers)
    return networks.GaussianActor(*sizes, settings.mean, settings.log_std, bound, settings.initialization)


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    bound = 3e-3 if settings.small_outputs else None
    sizes = (settings.critic_width, settings.critic_layers)
    network = networks.TwinQ(*sizes, bound, settings.initialization, settings.critic_layer_norm)
    q = Learner.create(network, key_q, observations, actions)
    actor = Learner.create(actor_network(spec, settings), key_actor, observations)
    return State(q, actor, q.copy_params(), jnp.zeros((), jnp.int32))


def init_from(key: Array, spec: Spec, settings: Settings, frozen: Start) -> State:
    """A state with the mean of another method's actor and with its critic; deviation and optimizers are fresh."""
    state = init(key, spec, settings)
    q = Learner.of(frozen.q, state.q.network)
    actor = Learner.of(state.actor.params | frozen.actor, state.actor.network)
    return State(q, actor, q.copy_params(), state.step)


def continue_from(frozen: State) -> State:
    """Goes on from the whole state of an earlier stage, moments of Adam included."""
    return frozen


def policy_of(result: State) -> GaussianPolicy:
    """The policy of a state; it acts by its mean."""
    return GaussianPolicy(result.actor.params, result.actor.network)


def q_values(q: Learner, params: Params, observations: Array, actions: Array, settings: Settings) -> Array:
    """[B, 2] action values."""
    values = q.apply(params, observations, actions)
    return jnp.minimum(values, 0.0) if settings.negative_q else values


def q_targets(state: State, batch: Batch, key: Array, settings: Settings) -> Array:
    """What both Q regress to, [B]: the smaller target Q at an action drawn from the policy at the next state."""
    next_actions = policy_of(state).distribution(batch.next_observations).sample(key, settings.clip_samples)
    next_q = q_values(state.q, state.target_q, batch.next_observations, next_actions, settings)
    discounts = jnp.ones_like(batch.discounts) if settings.bootstrap_terminals else batch.discounts
    return settings.reward_scale * batch.rewards + settings.discount * discounts * jnp.min(next_q, axis=-1)


def values(state: State, observations: Array, key: Array, settings: Settings) -> Array:
    """V(s), [B]: the smaller Q at the policy's mean or at one action drawn from it."""
    policy = policy_of(state)
    at_mean = settings.baseline == "mean"
    distribution = policy.distribution(observations)
    actions = policy.act(observations) if at_mean else distribution.sample(key, settings.clip_samples)
    return jnp.min(q_values(state.q, state.q.params, observations, actions, settings), axis=-1)


def likelihood_weights(advantages: Array, settings: Settings) -> Array:
    """Weights of the likelihood, [B] for advantages [B]; the mean of the softmax form is 1."""
    clip = jnp.where(settings.advantage_clip > 0.0, settings.advantage_clip, jnp.inf)
    exponents = jnp.minimum(advantages, clip) / settings.lambda_
    if settings.weighting == "softmax":
        return jax.nn.softmax(exponents) * exponents.shape[0]
    return jnp.minimum(jnp.exp(exponents), MAX_WEIGHT)


def effective_sample_size(weights: Array) -> Array:
    """(sum w)^2 / (B sum w^2): the share of the batch, 1/B to 1, that the weights [B] leave in effect."""
    return jnp.sum(weights) ** 2 / (weights.shape[0] * jnp.sum(weights**2))


def q_loss(params: Params, q: Learner, batch: Batch, targets: Array, settings: Settings) -> tuple[Array, Array]:
    """Squared TD error, mean over both Q; also Q [B, 2]."""
    values = q_values(q, params, batch.observations, batch.actions, settings)
    return jnp.mean((values - targets[:, None]) ** 2), values


def actor_loss(params: Params, actor: Learner, batch: Batch, weights: Array | float = 1.0) -> Array:
    """Negative log-likelihood of the batch's actions, weighted by `weights` [B]."""
    log_probs = GaussianPolicy(params, actor.network).distribution(batch.observations).log_prob(batch.actions)
    return -jnp.mean(weights * log_probs)


def update_actor(actor: Learner, grads: Params, settings: Cloning) -> Learner:
    """Adam with either form of weight decay, on all parameters as PyTorch's optimizers do."""
    if settings.decay == "decoupled":
        return actor.apply_gradients(grads, settings.actor_learning_rate, settings.weight_decay)
    grads = jax.tree.map(lambda g, p: g + settings.weight_decay * p, grads, actor.params)
    return actor.apply_gradients(grads, settings.actor_learning_rate)


def update(state: State, batch: Batch, key: Array, settings: Settings) -> tuple[State, Metrics]:
    """One step of both Q, of the actor and of the target."""
    key_next, key_value = jax.random.split(key)
    targets = q_targets(state, batch, key_next, settings)
    (loss_q, q), q_grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params, state.q, batch, targets, settings)
    v = values(state, batch.observations, key_value, settings)
    advantages = jnp.min(q, axis=-1) - v
    weights = likelihood_weights(advantages, settings)
    loss_actor, actor_grads = jax.value_and_grad(actor_loss)(state.actor.params, state.actor, batch, weights)

    new_q = state.q.apply_gradients(q_grads, settings.learning_rate)
    target_q = optimizers.polyak(state.target_q, new_q.params, settings.target_rate)
    actor = update_actor(state.actor, actor_grads, settings)
    metrics = {
        "loss": loss_q + loss_actor,
        "q_loss": loss_q,
        "actor_loss": loss_actor,
        "value": jnp.mean(v),
        "q": jnp.mean(q),
        "advantage": jnp.mean(advantages),
        "advantage_std": jnp.std(advantages),
        "effective_sample_size": effective_sample_size(weights),
        "max_weight": jnp.max(weights),
        "policy_std": jnp.mean(jnp.exp(networks.bounded_log_std(state.actor.params["log_std"], settings.log_std))),
    }
    return State(new_q, actor, target_q, state.step + 1), metrics


@struct.dataclass
class CloningState:
    """Training state of the cloning baseline."""

    actor: Learner


def init_cloning(key: Array, spec: Spec, settings: Cloning) -> CloningState:
    """The actor that `init` starts with."""
    _, key_actor = jax.random.split(key)
    observations = jnp.zeros((1, spec.observation_size))
    return CloningState(Learner.create(actor_network(spec, settings), key_actor, observations))


def clone(state: CloningState, batch: Batch, settings: Cloning) -> tuple[CloningState, Metrics]:
    """One step of the actor alone with all weights 1: behavior cloning by AWAC's own actor, the baseline."""
    loss, grads = jax.value_and_grad(actor_loss)(state.actor.params, state.actor, batch)
    return CloningState(update_actor(state.actor, grads, settings)), {"loss": loss, "actor_loss": loss}


def explore(state: State, observations: Array, key: Array) -> Array:
    """Actions [B, action_size] in [-1, 1] drawn from the policy."""
    return policy_of(state).distribution(observations).sample(key)


METRICS = {
    "loss": "sum of the losses",
    "q_loss": "squared TD error, mean over both Q",
    "actor_loss": "weighted negative log-likelihood of the batch's actions",
    "value": "mean V over the batch",
    "q": "mean of both Q over the batch",
    "advantage": "mean advantage of the batch's actions",
    "advantage_std": "standard deviation of their advantages",
    "effective_sample_size": "share of the batch, 1/B to 1, that the weights leave in effect",
    "max_weight": "largest weight in the batch",
    "policy_std": "mean standard deviation of the policy",
}

CLONING = Stage(
    name="cloning",
    algorithm="cloning",
    label="cloning (Gaussian)",
    title="cloning",
    settings=Cloning,
    init=init_cloning,
    update=clone,
    result=policy_of,
    learns_values=False,
    stream=3,
    version=2,
    metrics={"loss": "negative log-likelihood of the batch's actions", "actor_loss": "the same"},
)

STAGE = Stage(
    name="awac",
    algorithm="awac",
    label="AWAC",
    settings=Settings,
    init=init,
    update=update,
    policy=policy_of,
    cloning=CLONING,
    stream=4,
    version=2,
    metrics=METRICS,
)


@struct.dataclass
class Online(Settings, OnlineSettings):
    """Settings of AWAC that goes on online."""


ONLINE = Stage(
    name="awac_online",
    algorithm="awac_online",
    label="AWAC, online",
    settings=Online,
    init=continue_from,
    update=update,
    policy=policy_of,
    needs=(STAGE,),
    frozen=lambda results: results["awac"],
    adapt=lambda settings: settings.replace(batch_size=settings.online_batch_size),
    explore=explore,
    follows=STAGE,
    stream=8,
    version=2,
    metrics=METRICS,
)

# The recipe for small budgets.
QUICK = {"awac_batch_size": 256, "awac_actor_layers": 2, "awac_lambda": 1.0}

# `examples/awac` of rlkit, whose MuJoCo example is the default of every setting. The batch of 128 is what rlkit trains
# on offline; its example's 1024 is that of the online phase.
_OFFICIAL = {"awac_initialization": "rlkit", "awac_clip_samples": False}
_HAND = _OFFICIAL | {
    "offline_steps": 25_000,
    "awac_actor_layers": 2,
    "awac_lambda": 0.5,
    "awac_advantage_clip": 0.5,
    "awac_baseline": "mean",
    "awac_negative_q": True,
    "awac_bootstrap_terminals": True,
}
# `configs/offline/awac` of CORL.
_CORL = {
    "normalize_observations": True,
    "offline_steps": 1_000_000,
    "awac_batch_size": 256,
    "awac_actor_layers": 3,
    "awac_critic_layers": 3,
    "awac_lambda": 0.3333,
    "awac_mean": "linear",
    "awac_log_std": "clip",
    "awac_weighting": "exp",
    "awac_weight_decay": 0.0,
    "awac_small_outputs": False,
    "online_batch_size": 256,
    "online_warmup_steps": 0,
}


def _raw_rewards(family: str) -> dict[str, Any]:
    """AWAC's code takes rewards as they are, except the 0 and 1 of mazes."""
    return {"reward_transform": default_transform(family) if presets.is_maze(family) else "none"}


def _quick(dataset: str, family: str) -> dict[str, Any]:
    return presets.quick(family) | QUICK | {"reward_transform": default_transform(family)}


def _corl(dataset: str, family: str) -> dict[str, Any]:
    return _CORL | ({} if family == "locomotion" else {"awac_lambda": 0.1}) | _raw_rewards(family)


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    own: dict[str, Any] = {f"awac_{network}_width": 512 for network in ("actor", "critic")}
    own |= {f"awac_{network}_layers": 4 for network in ("actor", "critic")} | {"awac_critic_layer_norm": True}
    own |= {"awac_lambda": 1.0 / presets.ogbench_temperature(dataset), "offline_evaluation_interval": 100_000}
    return _CORL | presets.ogbench(dataset) | own


METHOD = Method(
    name="awac",
    title="AWAC",
    source="arXiv 2006.09359 and rail-berkeley/rlkit, commit ac45a9d",
    stages=(CLONING, STAGE),
    online=ONLINE,
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "official-mujoco": Preset(
            "examples/awac/mujoco of rail-berkeley/rlkit, commit ac45a9d",
            lambda dataset, family: _OFFICIAL | _raw_rewards(family),
        ),
        "official-hand": Preset(
            "examples/awac/hand of rail-berkeley/rlkit, commit ac45a9d",
            lambda dataset, family: _HAND | _raw_rewards(family),
        ),
        "corl": Preset("configs/offline/awac of corl-team/CORL, commit eeeeef2", _corl),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; AWAC as in corl", _ogbench),
    },
)
