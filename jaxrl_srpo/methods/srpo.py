"""Score Regularized Policy Optimization (arXiv 2310.07297): a deterministic actor between a critic and a score.

The gradient that reaches the action a = pi(s) is (eq. 14 and 15, with the released code's place for beta)

    regularization * omega(t) (eps(a_t | s, t) - eps) - beta * grad_a Q(s, a),   a_t = alpha_t a + sigma_t eps,

averaged over t ~ U(0.02, 0.98) and eps ~ N(0, I). It takes one forward pass of the frozen score network and never a
backward pass through it. `beta` multiplies the Q gradient: larger is greedier, and the paper's 1/beta is
`regularization` at `beta` 1.
"""

from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import awac, behavior, iql, presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import borrowed, setting
from jaxrl_srpo.nn import diffusion, networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy
from jaxrl_srpo.types import Array, Batch, Critic, Metrics, Params, ScoreModel, Spec

Weighting = Literal["sigma2", "one", "alpha_over_sigma"]
QGradient = Literal["raw", "sample", "batch"]
PolicyStart = Literal["random", "iql"]


@struct.dataclass
class Settings:
    """Settings of the SRPO actor; the defaults are the published ones.

    weighting: omega(t): "sigma2" is sigma_t^2 ("VDS" in the released code), "one" is 1 ("stable"), "alpha_over_sigma"
      is alpha_t / sigma_t ("score").
    minus_noise: subtracts eps from the noise prediction; same expectation, less variance. Advised by the paper, off in
      the released code.
    q_gradient: "raw" leaves grad_a Q alone; "sample" divides it by its root mean square over the action dimensions of
      each sample ("regq" of the released code, used in mazes); "batch" by its root mean square over the batch.
    """

    prefix: ClassVar[str] = "policy"
    title: ClassVar[str] = "SRPO"

    steps: int = setting(1_000_000, "updates of the policy stage", minimum=1, scaled=True, leaf=True)
    batch_size: int = setting(256, "batch size of the policy stage", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of the SRPO actor", swept=True)
    beta: float = setting(0.05, "temperature beta: larger is greedier", flag="beta", swept=True)
    regularization: float = setting(
        1.0, "weight of the score's part of the gradient", flag="regularization", swept=True, added=True
    )
    time_min: float = setting(
        0.02, "smallest diffusion time of the regularizer", flag="time_min", swept=True, maximum=1.0
    )
    time_max: float = setting(
        0.98, "largest diffusion time of the regularizer", flag="time_max", swept=True, maximum=1.0
    )
    weighting: Weighting = setting("sigma2", "weight omega(t)", flag="weighting", choices=get_args(Weighting))
    minus_noise: bool = setting(False, "subtract the noise from its prediction (less variance)", flag="minus_noise")
    q_gradient: QGradient = setting(
        "raw", "normalization of the Q gradient", flag="q_gradient", choices=get_args(QGradient)
    )
    start: PolicyStart = setting("random", "where the SRPO actor starts", choices=get_args(PolicyStart))
    weight_average: float = setting(0.0, "decay of an average of the SRPO actor; 0: none", below=1.0)
    own_layers: int = setting(
        0, "hidden layers of the SRPO actor; 0: as the IQL actor", flag="policy_layers", maximum=1000, added=True
    )
    evaluation_interval: int = setting(
        20_000, "updates between evaluations of the SRPO actor", minimum=1, scaled=True, protocol=True
    )
    width: int = borrowed(iql.Settings, "width")
    iql_layers: int = borrowed(iql.Settings, "actor_layers")

    @property
    def layers(self) -> int:
        """Hidden layers of the actor; 2 in locomotion, 4 in mazes."""
        return self.own_layers or self.iql_layers

    def check(self) -> None:
        """Refuses an empty interval of times, and a start from an actor of another depth.

        Raises:
          UserError: naming the settings.
        """
        if self.start == "iql" and self.layers != self.iql_layers:
            raise UserError(
                f"--policy_layers={self.own_layers}: --policy_start=iql needs the IQL actor's "
                f"--actor_layers={self.iql_layers}"
            )
        if self.time_min > self.time_max:
            raise UserError(f"--time_min={self.time_min}: must not be above --time_max={self.time_max}")


@struct.dataclass
class Frozen:
    """Results of the earlier stages; `initial_actor` holds the parameters to start from, None for fresh ones."""

    behavior: ScoreModel
    critic: Critic
    initial_actor: Params | None = None


@struct.dataclass
class State:
    """Training state of one member; `average` holds averaged weights, None without an average."""

    actor: Learner
    average: Params | None
    step: Array


def init(key: Array, spec: Spec, settings: Settings, frozen: Frozen) -> State:
    """Fresh state of one member."""
    network = networks.Actor(spec.action_size, settings.width, settings.layers)
    if frozen.initial_actor is None:
        actor = Learner.create(network, key, jnp.zeros((1, spec.observation_size)))
    else:
        actor = Learner.of(frozen.initial_actor, network)
    average = actor.copy_params() if settings.weight_average else None
    return State(actor, average, jnp.zeros((), jnp.int32))


def omega(times: Array, weighting: Weighting) -> Array:
    """The weight of the regularizer at each diffusion time, of the shape of `times`."""
    alpha, sigma = diffusion.marginal(times)
    match weighting:
        case "sigma2":
            return sigma**2
        case "one":
            return jnp.ones_like(times)
        case "alpha_over_sigma":
            return alpha / sigma


def q_action_gradient(critic: Critic, observations: Array, actions: Array, form: QGradient) -> Array:
    """grad_a of the mean of the target Qs, [B, action_size], normalized as `form` says."""
    gradient = jax.grad(lambda a: jnp.sum(jnp.mean(critic.q_values(observations, a), axis=-1)))(actions)
    # The floor only matters where Q is flat, where 0 / 0 would freeze the member.
    match form:
        case "raw":
            return gradient
        case "sample":
            return gradient / jnp.maximum(jnp.sqrt(jnp.mean(gradient**2, axis=-1, keepdims=True)), 1e-12)
        case "batch":
            return gradient / jnp.maximum(jnp.sqrt(jnp.mean(gradient**2)), 1e-12)


def score_gradient(
    behavior: ScoreModel, observations: Array, actions: Array, times: Array, noise: Array, settings: Settings
) -> Array:
    """The regularizer's gradient at the actions, [B, action_size]: omega(t) times the predicted noise."""
    predicted = behavior.noise_prediction(diffusion.diffuse(actions, noise, times), times, observations)
    error = predicted - noise if settings.minus_noise else predicted
    return omega(times, settings.weighting)[:, None] * error


def actor_loss(
    params: Params, actor: Learner, observations: Array, times: Array, noise: Array, settings: Settings, frozen: Frozen
) -> tuple[Array, Metrics]:
    """A loss whose gradient at the actions is that of eq. 14 and 15, at `times` [B] and `noise` [B, action_size]."""
    actions = actor.apply(params, observations)
    fixed = jax.lax.stop_gradient(actions)
    regularizer = score_gradient(frozen.behavior, observations, fixed, times, noise, settings)
    q_gradient = q_action_gradient(frozen.critic, observations, fixed, settings.q_gradient)
    gradient = settings.regularization * regularizer - settings.beta * q_gradient
    loss = jnp.mean(jnp.sum(jax.lax.stop_gradient(gradient) * actions, axis=-1))
    metrics = {
        "regularizer_norm": jnp.mean(jnp.linalg.norm(regularizer, axis=-1)),
        "q_gradient_norm": jnp.mean(jnp.linalg.norm(q_gradient, axis=-1)),
    }
    return loss, metrics


def update(state: State, batch: Batch, key: Array, settings: Settings, frozen: Frozen) -> tuple[State, Metrics]:
    """One step of the actor; of the batch it reads the observations only."""
    key_time, key_noise = jax.random.split(key)
    size, action_size = batch.actions.shape
    times = jax.random.uniform(key_time, (size,), minval=settings.time_min, maxval=settings.time_max)
    noise = jax.random.normal(key_noise, (size, action_size))

    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    inputs = (state.actor, batch.observations, times, noise, settings, frozen)
    (loss, metrics), grads = gradient(state.actor.params, *inputs)
    actor = state.actor.apply_gradients(grads, settings.learning_rate * optimizers.cosine(state.step, settings.steps))
    average = optimizers.moving_average(state.average, actor.params, settings.weight_average)
    return State(actor, average, state.step + 1), {"loss": loss, **metrics}


def policy_of(state: State) -> DeterministicPolicy:
    """The result of the stage: averaged weights if there are any."""
    params = state.actor.params if state.average is None else state.average
    return DeterministicPolicy(params, state.actor.network)


def _frozen(results: dict[str, Any], settings: Settings) -> Frozen:
    critic: iql.Trained = results["critic"]
    start = critic.policy.params if settings.start == "iql" else None
    return Frozen(results["behavior"], critic.critic, start)


STAGE = Stage(
    name="policy",
    algorithm="srpo",
    label="SRPO",
    title="policy",
    settings=Settings,
    init=init,
    update=update,
    result=policy_of,
    needs=(behavior.STAGE, iql.STAGE),
    frozen=_frozen,
    learns_values=False,
    cloning=behavior.STAGE,
    stream=2,
    version=2,
    metrics={
        "loss": "inner product of the actions with the gradient that they follow; its value means nothing",
        "regularizer_norm": "mean norm of the score's part of the gradient, before its weight",
        "q_gradient_norm": "mean norm of the critic's part of the gradient, before beta",
    },
)


@struct.dataclass
class Online(awac.Online):
    """Settings of AWAC that goes on from the SRPO actor and its critic, with their sizes."""

    srpo_width: int = borrowed(iql.Settings, "width")
    iql_layers: int = borrowed(iql.Settings, "actor_layers")
    own_layers: int = borrowed(Settings, "own_layers")
    value_layers: int = borrowed(iql.Settings, "layers")
    value_layer_norm: bool = borrowed(iql.Settings, "layer_norm")


def _sizes_of_srpo(settings: Online) -> Online:
    return settings.replace(  # type: ignore[attr-defined]
        batch_size=settings.online_batch_size,
        actor_width=settings.srpo_width,
        actor_layers=settings.own_layers or settings.iql_layers,
        critic_width=settings.srpo_width,
        critic_layers=settings.value_layers,
        critic_layer_norm=settings.value_layer_norm,
        mean="tanh",
    )


ONLINE = Stage(
    name="srpo_online",
    algorithm="srpo_online",
    label="SRPO, online",
    settings=Online,
    init=awac.init_from,
    update=awac.update,
    policy=awac.policy_of,
    needs=(iql.STAGE, STAGE),
    frozen=lambda results: awac.Start(results["policy"].params, results["critic"].critic.params),
    adapt=_sizes_of_srpo,
    explore=awac.explore,
    follows=STAGE,
    stream=6,
    version=2,
    metrics=awac.METRICS,
)

# Section 5 of the released code's configuration: beta per dataset, the larger the greedier.
PAPER_BETA = {
    "antmaze-umaze-v2": 0.02,
    "antmaze-umaze-diverse-v2": 0.04,
    "antmaze-medium-play-v2": 0.08,
    "antmaze-medium-diverse-v2": 0.05,
    "antmaze-large-play-v2": 0.06,
    "antmaze-large-diverse-v2": 0.05,
    "hopper-medium-expert-v2": 0.01,
    "hopper-medium-v2": 0.05,
    "hopper-medium-replay-v2": 0.2,
    "walker2d-medium-expert-v2": 0.1,
    "walker2d-medium-v2": 0.05,
    "walker2d-medium-replay-v2": 0.5,
    "halfcheetah-medium-expert-v2": 0.01,
    "halfcheetah-medium-v2": 0.2,
    "halfcheetah-medium-replay-v2": 0.2,
}

# The recipe for small budgets; docs/quick.md gives the measurement behind each value.
_QUICK = {
    "policy_steps": 5_000,
    "minus_noise": True,
    "q_gradient": "batch",
    "policy_start": "iql",
    "beta": 0.01,
    "policy_evaluation_interval": 1_000,
}
_QUICK_MAZE = {"policy_steps": 3_000}


def _quick(dataset: str, family: str) -> dict[str, Any]:
    own = behavior.QUICK | awac.QUICK | _QUICK
    own |= behavior.QUICK_MAZE | _QUICK_MAZE if presets.is_maze(family) else {}
    return {**iql.METHOD.presets["quick"].values(dataset, family), **own}


def _paper(dataset: str, family: str) -> dict[str, Any]:
    values: dict[str, Any] = {"reward_transform": default_transform(family)}
    # The released code's IQL actor always has 2 hidden layers; SRPO's has 4 in mazes.
    values |= iql.MAZE | {"q_gradient": "sample", "policy_layers": 4} if presets.is_maze(family) else {}
    return values | ({"beta": PAPER_BETA[dataset]} if dataset in PAPER_BETA else {})


def _paper_note(dataset: str, family: str) -> str:
    if dataset in PAPER_BETA:
        return ""
    return f"{dataset}: the paper has no beta for it; --beta chooses one, 0.05 otherwise"


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    own = {"behavior_steps": 1_000_000, "behavior_batch_size": 256, "policy_evaluation_interval": 100_000}
    # Rewards of -1 and 0, as those of mazes are learned with.
    return {**iql.METHOD.presets["ogbench"].values(dataset, family), **own, "q_gradient": "sample"}


def _ogbench_note(dataset: str, family: str) -> str:
    return f"{dataset}: what beta was chosen for it is not published; --beta takes one or several, 0.05 otherwise"


METHOD = Method(
    name="srpo",
    title="SRPO",
    source="arXiv 2310.07297 and thu-ml/SRPO, commit b3b916a",
    stages=(behavior.STAGE, iql.STAGE, STAGE),
    online=ONLINE,
    presets={
        "quick": Preset("small budgets for CPUs, docs/quick.md", _quick),
        "paper": Preset("arXiv 2310.07297 and thu-ml/SRPO, commit b3b916a", _paper, _paper_note),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; SRPO as in mazes", _ogbench, _ogbench_note),
    },
)
