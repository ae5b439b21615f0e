"""BEAR (arXiv 1906.00949): Q-learning whose actor keeps within the support of the behavior.

The behavior is an autoencoder's (`methods.vae`), the actor a squashed Gaussian. How far it is from the behavior is the
maximum mean discrepancy of a few actions of each, u and w, *before* tanh, with a kernel k of width sigma:
MMD(s) = sqrt(mean k(u, u') + mean k(w, w') - 2 mean k(u, w) + 1e-6),  k(x, y) = exp(-D(x, y) / (2 sigma)),
D the sum over dimensions of |x - y| (laplacian) or (x - y)^2 (gaussian).                                  (sec. 5.2)

Q(s,a) <- r + discount * max_j [ lambda min_i Qtarget_i(s', a_j) + (1 - lambda) max_i Qtarget_i(s', a_j) ],  a_j ~ pi
pi     <- minimizes -min_i Q_i(s, w) + e^m (MMD(s) - epsilon), without Q in the first updates             (eq. 1)
m      <- maximizes e^m (MMD(s) - epsilon), within [-5, 10]
acting: argmax_j Q_1(s, a_j) over 100 actions of pi

As in rail-berkeley/d4rl_evaluations every loss is that of the networks before the update.
"""

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import bcq, presets, td3_bc, vae
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, setting
from jaxrl_srpo.nn import networks, optimizers, policies
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Keyed, Noise
from jaxrl_srpo.nn.policies import QFunction
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec

Kernel = Literal["gaussian", "laplacian"]

MAX_MEAN = 9.0
MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0
MIN_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER = -5.0, 10.0


@struct.dataclass
class Settings(ValueSettings):
    """Settings of BEAR; the defaults are those that rail-berkeley/d4rl_evaluations starts it with."""

    prefix: ClassVar[str] = "bear"
    title: ClassVar[str] = "BEAR"

    steps: int = setting(3_000_000, "updates of BEAR", minimum=1, scaled=True)
    batch_size: int = setting(256, "batch size of BEAR", minimum=1)
    learning_rate: float = setting(3e-4, "Adam learning rate of BEAR's critics", swept=True)
    actor_learning_rate: float = setting(1e-4, "Adam learning rate of BEAR's actor", swept=True)
    multiplier_learning_rate: float = setting(1e-3, "Adam learning rate of BEAR's log multiplier", swept=True)
    kernel: str = setting("gaussian", "kernel of BEAR's discrepancy", choices=get_args(Kernel))
    sigma: float = setting(50.0, "width of that kernel", swept=True, above=0.0)
    threshold: float = setting(0.05, "discrepancy epsilon that BEAR allows", swept=True)
    samples: int = setting(4, "actions of actor and behavior that the discrepancy is made of", minimum=1)
    min_weight: float = setting(
        0.75, "weight lambda of the smaller target Q; the larger has the rest", swept=True, maximum=1.0
    )
    cloning_steps: int = setting(40_000, "first updates, without Q in the actor's loss", scaled=True, leaf=True)
    target_candidates: int = setting(10, "actions that BEAR's targets are the best of", minimum=1)
    candidates: int = setting(100, "actions that BEAR chooses from when it acts", minimum=1, protocol=True)
    width: int = setting(256, "width of BEAR's networks", minimum=1)
    layers: int = setting(2, "hidden layers of BEAR's networks", minimum=1, maximum=1000)
    layer_norm: bool = setting(False, "LayerNorm after each hidden layer of BEAR's critics")
    evaluation_interval: int = setting(
        5_000, "updates between evaluations of BEAR", minimum=1, scaled=True, protocol=True
    )


@struct.dataclass
class State:
    """Training state of one member; the multiplier's learner holds m."""

    q: Learner
    actor: Learner
    multiplier: Learner
    target_q: Params
    step: Array


@struct.dataclass
class SquashedGaussian(Drawing):
    """BEAR's actor: a = tanh(u), u ~ N(mean(s), std(s)^2)."""

    params: Params
    network: networks.MLP = struct.field(pytree_node=False)

    def raw_actions(self, observations: Array, noise: Array) -> Array:
        """Actions [B, action_size] before tanh of `noise` [B, action_size]; gradients pass through."""
        mean, log_std = jnp.split(networks.forward(self.network, self.params, observations), 2, axis=-1)
        bounded = jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD)
        return jnp.clip(mean, -MAX_MEAN, MAX_MEAN) + jnp.exp(bounded) * noise

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> actions [B, action_size] in [-1, 1], one each."""
        drawn = noise.normal((observations.shape[0], self.network.output_size // 2))
        return jnp.tanh(self.raw_actions(observations, drawn))


def init(key: Array, spec: Spec, settings: Settings) -> State:
    """Fresh state of one member."""
    key_q, key_actor = jax.random.split(key)
    observations, actions = (jnp.zeros((1, size)) for size in (spec.observation_size, spec.action_size))
    sizes = (settings.width, settings.layers)
    # rlkit's networks.
    twin_q = networks.TwinQ(*sizes, output_bound=3e-3, initialization="rlkit", layer_norm=settings.layer_norm)
    gaussian = networks.MLP(2 * spec.action_size, *sizes, output_bound=1e-3, initialization="rlkit")
    q = Learner.create(twin_q, key_q, observations, actions)
    actor = Learner.create(gaussian, key_actor, observations)
    return State(q, actor, Learner.of(jnp.zeros(())), q.copy_params(), jnp.zeros((), jnp.int32))


def mean_kernel(x: Array, y: Array, kernel: str, sigma: Array | float) -> Array:
    """Mean of k over all pairs of x and y, both [B, n, action_size]: [B]."""
    difference = x[:, :, None] - y[:, None]
    distance = jnp.sum(jnp.abs(difference) if kernel == "laplacian" else difference**2, axis=-1)
    return jnp.mean(jnp.exp(-distance / (2.0 * sigma)), axis=(1, 2))


def discrepancy(x: Array, y: Array, kernel: str, sigma: Array | float) -> Array:
    """MMD [B] of samples x and y, both [B, n, action_size], by the biased estimator."""
    own = mean_kernel(x, x, kernel, sigma) + mean_kernel(y, y, kernel, sigma)
    return jnp.sqrt(own - 2.0 * mean_kernel(x, y, kernel, sigma) + 1e-6)


def q_targets(state: State, batch: Batch, key: Array, settings: Settings) -> Array:
    """What both Q regress to, [B]: the best of several actions of the actor."""
    states = policies.repeated(batch.next_observations, settings.target_candidates)
    actions = actor_of(state).act(states, key)
    q_values = state.q.apply(state.target_q, states, actions)
    best = bcq.best_target(q_values, settings.min_weight, settings.target_candidates)
    return batch.rewards + settings.discount * batch.discounts * best


class Samples(NamedTuple):
    """What the actor's loss compares, of each observation `samples` in a row.

    Attributes:
      observations: [B * samples, observation_size].
      noise: for the actor, [B * samples, action_size].
      behavior: actions of the behavior before tanh, [B * samples, action_size].
    """

    observations: Array
    noise: Array
    behavior: Array


def actor_loss(params: Params, state: State, drawn: Samples, settings: Settings) -> tuple[Array, Array]:
    """-min_i Q_i at the first action of each state plus e^m (MMD - epsilon); also the mean MMD []."""
    raw = SquashedGaussian(params, state.actor.network).raw_actions(drawn.observations, drawn.noise)
    own, behavior = (x.reshape(-1, settings.samples, x.shape[-1]) for x in (raw, drawn.behavior))
    distance = jnp.mean(discrepancy(behavior, own, settings.kernel, settings.sigma))
    q_values = state.q(drawn.observations[:: settings.samples], jnp.tanh(own[:, 0]))
    greedy = (state.step.astype(jnp.float32) >= settings.cloning_steps).astype(jnp.float32)
    constraint = jnp.exp(state.multiplier.params) * (distance - settings.threshold)
    return constraint - greedy * jnp.mean(jnp.min(q_values, axis=-1)), distance


def multiplier_loss(log_multiplier: Array, distance: Array, threshold: Array | float) -> Array:
    """-e^m (MMD - epsilon): the multiplier rises while the actor is too far from the behavior."""
    return -jnp.exp(log_multiplier) * (distance - threshold)


def update(state: State, batch: Batch, key: Array, settings: Settings, frozen: vae.Decoder) -> tuple[State, Metrics]:
    """One step of both Q, of the actor, of the multiplier and of the target Q."""
    key_next, key_behavior, key_noise = jax.random.split(key, 3)
    targets = q_targets(state, batch, key_next, settings)
    (loss_q, q_values), grads = jax.value_and_grad(td3_bc.q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)

    observations = policies.repeated(batch.observations, settings.samples)
    noise = jax.random.normal(key_noise, (observations.shape[0], batch.actions.shape[1]))
    drawn = Samples(observations, noise, frozen.raw_actions(observations, Keyed(key_behavior)))
    gradient = jax.value_and_grad(actor_loss, has_aux=True)
    (loss_actor, distance), grads = gradient(state.actor.params, state, drawn, settings)
    actor = state.actor.apply_gradients(grads, settings.actor_learning_rate)

    grads = jax.grad(multiplier_loss)(state.multiplier.params, distance, settings.threshold)
    multiplier: Any = state.multiplier.apply_gradients(grads, settings.multiplier_learning_rate)
    multiplier = multiplier.replace(params=jnp.clip(multiplier.params, MIN_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER))

    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    metrics = {
        "loss": loss_q + loss_actor,
        "q_loss": loss_q,
        "actor_loss": loss_actor,
        "discrepancy": distance,
        "multiplier": jnp.exp(multiplier.params),
        "q": jnp.mean(q_values),
    }
    return State(q, actor, multiplier, target_q, state.step + 1), metrics


def actor_of(state: State) -> SquashedGaussian:
    """The actor of a state under way."""
    return SquashedGaussian(state.actor.params, state.actor.network)


def result_of(state: State) -> bcq.Trained:
    """What is kept of a finished stage."""
    return bcq.Trained(actor_of(state), QFunction(state.q.params, state.q.network))


STAGE = Stage(
    name="bear",
    algorithm="bear",
    label="BEAR",
    settings=Settings,
    init=init,
    update=update,
    result=result_of,
    policy=bcq.policy_of,
    needs=(vae.STAGE,),
    frozen=lambda results: results["vae"],
    cloning=vae.STAGE,
    metrics={
        "loss": "sum of the losses of critics and actor",
        "q_loss": "squared TD error, summed over both Q",
        "actor_loss": "-min Q, once it counts, plus the weighted excess of the discrepancy",
        "discrepancy": "mean MMD of actor and behavior before tanh",
        "multiplier": "weight e^m of its excess",
        "q": "mean of both Q over the batch",
    },
)

SOURCE = "rail-berkeley/d4rl_evaluations, commit c93b9d2"
# Its author, in aviralkumar2907/BEAR, issue 8.
RECOMMENDED = {
    "hopper": {"bear_kernel": "laplacian", "bear_sigma": 20.0},
    "walker2d": {"bear_kernel": "laplacian", "bear_sigma": 20.0},
    "halfcheetah": {"bear_kernel": "gaussian", "bear_sigma": 20.0},
}


def _recommended_kernel(dataset: str) -> dict[str, Any]:
    return next((values for start, values in RECOMMENDED.items() if dataset.startswith(start)), {})


def _quick(dataset: str, family: str) -> dict[str, Any]:
    budget: dict[str, Any] = {"bear_steps": 10_000, "bear_cloning_steps": 2_000, "bear_evaluation_interval": 2_500}
    budget |= {"bear_actor_learning_rate": 1e-3}
    rewards = {"reward_transform": default_transform(family)}
    return presets.quick(family) | vae.QUICK | budget | _recommended_kernel(dataset) | rewards


def _d4rl(dataset: str, family: str) -> dict[str, Any]:
    behavior = {"vae_steps": 3_000_000, "vae_batch_size": 256, "vae_learning_rate": 3e-4}
    return behavior | {"reward_transform": "none", "episodes": 10}


def _recommended(dataset: str, family: str) -> dict[str, Any]:
    return _d4rl(dataset, family) | _recommended_kernel(dataset)


def _recommended_note(dataset: str, family: str) -> str:
    if _recommended_kernel(dataset):
        return ""
    return f"{dataset}: no kernel is recommended for it; --bear_kernel and --bear_sigma choose one"


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    budget = {"bear_steps": 1_000_000, "bear_evaluation_interval": 100_000}
    sizes = {"bear_width": 512, "bear_layers": 4, "bear_layer_norm": True}
    return presets.ogbench(dataset) | vae.OGBENCH | budget | sizes


METHOD = Method(
    name="bear",
    title="BEAR",
    source=f"arXiv 1906.00949 and {SOURCE}",
    stages=(vae.STAGE, STAGE),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "d4rl": Preset(f"{SOURCE}, its launcher's defaults", _d4rl),
        "recommended": Preset(
            f"{SOURCE}, with the kernels of aviralkumar2907/BEAR, issue 8", _recommended, _recommended_note
        ),
        "ogbench": Preset(presets.OGBENCH_SOURCE, _ogbench),
    },
)
