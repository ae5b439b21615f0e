"""QGPO (arXiv 2304.12824): a diffusion policy guided by the gradient of an energy that is learned contrastively.

The policy is pi(a | s) = mu(a | s) exp(alpha Q(s, a)) / Z(s). With M actions a_j of mu in each state:

Q(s,a)     <- r + discount * sum_j softmax_j(q_alpha Qtarget(s', a_j)) Qtarget(s', a_j)        (in-support Q-learning)
f(a_t,s,t) <- minimizes -sum_j softmax_j(alpha Qtarget(s, a_j)) log softmax_j(f(a_jt, s, t))    (contrastive energies)
score of pi = score of mu + w grad f,  a_jt = alpha_t a_j + sigma_t eps_j

with Q the smaller of two, and the guidance scale w 1 in theory. As in the released code Q steps first, and stops
halfway while f goes on. w is a number of acting alone: a stage of its own that learns nothing makes a policy of each w.
"""

import functools
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.methods import behavior, iql, presets, support
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, borrowed, setting
from jaxrl_srpo.methods.support import Frozen, Sampler, Solver
from jaxrl_srpo.nn import diffusion, networks, optimizers
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.types import Array, Batch, Metrics, Params, ScoreModel, Spec


@struct.dataclass
class Settings(ValueSettings):
    """Settings of QGPO's critic and its guidance; the defaults are those of the released commands."""

    prefix: ClassVar[str] = "qgpo"
    title: ClassVar[str] = "QGPO"

    steps: int = setting(1_000_000, "updates of QGPO's guidance", minimum=1, scaled=True)
    batch_size: int = setting(256, "batch size of QGPO", minimum=1)
    critic_share: float = setting(0.5, "share of these updates in which the critic learns, too", maximum=1.0)
    learning_rate: float = setting(3e-4, "Adam learning rate of QGPO's critic", swept=True)
    guidance_learning_rate: float = setting(3e-4, "Adam learning rate of QGPO's guidance", swept=True)
    alpha: float = setting(3.0, "inverse temperature of QGPO's policy", swept=True)
    q_alpha: float = setting(1.0, "inverse temperature of the values that QGPO's critic learns from", swept=True)
    width: int = setting(256, "width of QGPO's critic and guidance", minimum=1)
    layers: int = setting(3, "hidden layers of QGPO's critic", minimum=1, maximum=1000)
    guidance_layers: int = setting(4, "hidden layers of QGPO's guidance", minimum=1, maximum=1000)
    sampler_steps: int = setting(15, "solver steps of QGPO's policy", minimum=1, protocol=True)
    solver: Solver = borrowed(support.Settings, "solver")
    evaluation_interval: int = setting(
        40_000, "updates between evaluations of QGPO at guidance scale 1", minimum=1, scaled=True, protocol=True
    )

    @property
    def critic_steps(self) -> int:
        """Updates in which the critic learns."""
        return round(self.critic_share * self.steps)


@struct.dataclass
class Guidance:
    """The energy f, whose gradient leads from mu to the policy.

    Attributes:
      params: its weights.
      constants: its fixed Fourier frequencies.
      network: what they are of.
    """

    params: Params
    constants: Params
    network: networks.Energy = struct.field(pytree_node=False)

    def energy(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """f(a_t, s, t) [B] of actions [B, action_size] at times [B]."""
        variables = {"params": self.params, "constants": self.constants}
        return cast(Array, self.network.apply(variables, noisy_actions, times, observations))


@struct.dataclass
class Guided:
    """The policy as a score model: that of mu, and `scale` times the gradient of the energy.

    Attributes:
      behavior: of mu.
      guidance: the energy.
      scale: w [].
    """

    behavior: ScoreModel
    guidance: Guidance
    scale: Array

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        """[B, action_size] noise predicted in `noisy_actions` [B, action_size] at `times` [B]."""
        gradient = jax.grad(lambda a: jnp.sum(self.guidance.energy(a, times, observations)))(noisy_actions)
        noise = self.behavior.noise_prediction(noisy_actions, times, observations)
        return noise - self.scale * diffusion.marginal(times).sigma[:, None] * gradient


@struct.dataclass
class State:
    """Training state of one member; `behavior` and `scale`, which is 1, are for acting alone."""

    q: Learner
    guidance: Learner
    target_q: Params
    constants: Params
    behavior: ScoreModel
    scale: Array


def init(key: Array, spec: Spec, settings: Settings, frozen: Frozen) -> State:
    """Fresh state of one member."""
    key_q, key_guidance = jax.random.split(key)
    observations, actions = jnp.zeros((1, spec.observation_size)), jnp.zeros((1, spec.action_size))
    q = Learner.create(networks.TwinQ(settings.width, settings.layers), key_q, observations, actions)
    network = networks.Energy(settings.width, settings.guidance_layers)
    variables = network.init(key_guidance, actions, jnp.zeros((1,)), observations)
    guidance = Learner.of(variables["params"], network)
    return State(q, guidance, q.copy_params(), variables["constants"], frozen.behavior, jnp.ones(()))


def min_q(q: Learner, params: Params, observations: Array, actions: Array) -> Array:
    """The smaller Q [B, M] of `actions` [B, M, action_size] in `observations` [B, observation_size]."""
    return jnp.min(q.apply(params, support.beside(observations, actions), actions), axis=-1)


def q_targets(state: State, batch: Batch, settings: Settings, next_actions: Array) -> Array:
    """What both Q regress to, [B]: softly the best of `next_actions` [B, M, action_size]."""
    next_q = min_q(state.q, state.target_q, batch.next_observations, next_actions)
    return batch.rewards + settings.discount * batch.discounts * support.soft_value(next_q, settings.q_alpha)


def guidance_loss(
    params: Params, state: State, observations: Array, noisy_actions: Array, times: Array, weights: Array
) -> Array:
    """Contrastive energy prediction: cross-entropy of softmax(f) [B, M] to `weights` [B, M].

    All of a state's `noisy_actions` [B, M, action_size] are at one of `times` [B].
    """
    guidance = Guidance(params, state.constants, state.guidance.network)
    flat = noisy_actions.reshape(-1, noisy_actions.shape[-1])
    rows = (jnp.repeat(x, weights.shape[1], axis=0) for x in (times, observations))
    energies = guidance.energy(flat, *rows).reshape(weights.shape)
    return -jnp.mean(jnp.sum(weights * jax.nn.log_softmax(energies, axis=-1), axis=-1))


def update_critic(state: State, batch: Batch, settings: Settings, frozen: Frozen) -> tuple[State, Array]:
    """One step of both Q, after which the targets follow; also the loss."""
    assert batch.index is not None
    targets = q_targets(state, batch, settings, frozen.support.of_next_states(batch.index))
    (loss, _), grads = jax.value_and_grad(iql.q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    q = state.q.apply_gradients(grads, settings.learning_rate)
    target_q = optimizers.polyak(state.target_q, q.params, settings.target_rate)
    return state.replace(q=q, target_q=target_q), loss  # type: ignore[attr-defined]


def update(
    state: State, batch: Batch, key: Array, settings: Settings, frozen: Frozen, step: Array
) -> tuple[State, Metrics]:
    """One step of both Q while they learn, then one of the guidance."""
    assert batch.index is not None
    learn = functools.partial(update_critic, state, batch, settings, frozen)
    state, loss_q = jax.lax.cond(step < settings.critic_steps, learn, lambda: (state, jnp.zeros(())))

    actions = frozen.support.of_states(batch.index)
    q_values = min_q(state.q, state.target_q, batch.observations, actions)
    weights = jax.nn.softmax(settings.alpha * q_values, axis=-1)
    key_time, key_noise = jax.random.split(key)
    times = jax.random.uniform(key_time, batch.rewards.shape, minval=diffusion.TIME_MIN, maxval=1.0)
    alpha, sigma = (x[:, None, None] for x in diffusion.marginal(times))
    noisy_actions = alpha * actions + sigma * jax.random.normal(key_noise, actions.shape)

    inputs = (state, batch.observations, noisy_actions, times, weights)
    loss, grads = jax.value_and_grad(guidance_loss)(state.guidance.params, *inputs)
    guidance = state.guidance.apply_gradients(grads, settings.guidance_learning_rate)
    metrics = {
        "loss": loss + loss_q,
        "guidance_loss": loss,
        "q_loss": loss_q,
        "q": jnp.mean(q_values),
        "effective_actions": jnp.mean(1.0 / jnp.sum(weights**2, axis=-1)),
    }
    return state.replace(guidance=guidance), metrics  # type: ignore[attr-defined]


def guided(state: State) -> Guided:
    """The result of the stage: the policy of the theory."""
    guidance = Guidance(state.guidance.params, state.constants, state.guidance.network)
    return Guided(state.behavior, guidance, state.scale)


@struct.dataclass
class Acting:
    """Settings of acting by trained guidance."""

    prefix: ClassVar[str] = "qgpo"
    title: ClassVar[str] = "QGPO"

    guidance_scale: float = setting(1.0, "guidance scale w of QGPO: 0 clones, 1 is the theory's", swept=True)
    sampler_steps: int = borrowed(Settings, "sampler_steps")
    solver: Solver = borrowed(support.Settings, "solver")


@struct.dataclass
class Policy(Drawing):
    """Actions sampled by the guided score."""

    model: Guided
    sampler: Sampler = struct.field(pytree_node=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        return self.sampler.sample(self.model, noise, observations)


def policy_of(result: Guided, settings: Settings | Acting, spec: Spec) -> Policy:
    """What acts."""
    return Policy(result, Sampler(spec.action_size, settings.sampler_steps, settings.solver))


def scaled(settings: Acting, frozen: Guided) -> Guided:
    """The trained policy at another guidance scale."""
    return frozen.replace(scale=jnp.asarray(settings.guidance_scale, jnp.float32))  # type: ignore[attr-defined]


GUIDANCE = Stage(
    name="guidance",
    algorithm="qgpo_unscaled",
    label="QGPO, scale 1",
    title="QGPO",
    settings=Settings,
    init=init,
    update=update,
    result=guided,
    policy=policy_of,
    needs=(behavior.STAGE, support.STAGE),
    frozen=support.frozen,
    cloning=behavior.STAGE,
    metrics={
        "loss": "sum of the losses",
        "guidance_loss": "cross-entropy of the guidance's weights of the support actions to those by Q",
        "q_loss": "squared TD error, mean over both Q; 0 when they no longer learn",
        "q": "mean of the smaller target Q over the support actions",
        "effective_actions": "1 / sum of squared weights: how many of the M support actions count",
    },
)

STAGE = Stage(
    name="qgpo",
    algorithm="qgpo",
    label="QGPO",
    title="QGPO, acting",
    settings=Acting,
    init=scaled,
    policy=policy_of,
    needs=(GUIDANCE,),
    frozen=lambda results: results["guidance"],
    learns_values=False,
    cloning=behavior.STAGE,
)


def _quick(dataset: str, family: str) -> dict[str, Any]:
    own: dict[str, Any] = behavior.QUICK | support.QUICK | (behavior.QUICK_MAZE if presets.is_maze(family) else {})
    own |= {"qgpo_steps": 10_000, "qgpo_evaluation_interval": 2_500, "qgpo_sampler_steps": 10}
    return presets.quick(family) | own | {"reward_transform": default_transform(family)}


def _released(dataset: str, family: str) -> dict[str, Any]:
    own = {"support_actions": 32 if family == "antmaze" else 16, "support_solver": "singlestep2", "episodes": 10}
    return behavior.CEP | own | {"reward_transform": default_transform(family)}


def _released_note(dataset: str, family: str) -> str:
    scales = "1,1.5,2,2.5,3,4" if family == "antmaze" else "0,1,2,3,5,8,10"
    return f"{dataset}: the released code reports the best scale of --qgpo_guidance_scale={scales}; it is 1 otherwise"


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    own = {"qgpo_width": 512, "qgpo_layers": 4, "qgpo_evaluation_interval": 100_000}
    return presets.ogbench(dataset) | own | {"behavior_steps": 1_000_000, "behavior_batch_size": 256}


METHOD = Method(
    name="qgpo",
    title="QGPO",
    source="arXiv 2304.12824 and thu-ml/CEP-energy-guided-diffusion, commit 4cc0622",
    stages=(behavior.STAGE, support.STAGE, GUIDANCE, STAGE),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "released": Preset("thu-ml/CEP-energy-guided-diffusion, commit 4cc0622", _released, _released_note),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; no LayerNorm", _ogbench),
    },
)
