"""SfBC (arXiv 2209.14548): actions of the behavior model, chosen by a critic that plans inside the data.

The critic regresses Q(s_n, a_n) to returns R_n in rounds. In the first they are those of the data, later

v(s_n) = sum_j softmax_j(alpha Q(s_n, a_j)) Q(s_n, a_j)      over support actions a_j of the behavior model
R_n    = max(r_n + discount R_{n+1}, v(s_n))                 backwards along each episode, R = 0 after its end

so that a return goes on along the data only while nothing better is known. As in the released code R is standardized
for the regression, alpha is the inverse temperature of standardized Q, the critic starts each round from its first
weights, and an action is the mean of a few out of 32 candidates, drawn by exp(100 Q).
"""

import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import behavior, presets, support
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import ValueSettings, borrowed, setting
from jaxrl_srpo.methods.support import Frozen, Sampler, Solver
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.noise import Drawing, Noise
from jaxrl_srpo.types import Array, Batch, Metrics, Params, ScoreModel, Spec

# States whose values are computed at a time.
_BLOCK = 4096
# Below every value, and finite: 0 times infinity is not a number.
_LOWEST = -1e30
_SMALLEST_DEVIATION = 0.1
# A candidate counts at most exp(40) times as much as the last that would be taken without chance.
_LARGEST_LEAD = 40.0


@struct.dataclass
class Settings:
    """Settings of SfBC; the defaults are those of the released code for locomotion."""

    prefix: ClassVar[str] = "sfbc"
    title: ClassVar[str] = "SfBC"

    steps: int = setting(48_800, "updates of SfBC's critic, all rounds", minimum=1, scaled=True)
    rounds: int = setting(2, "rounds of value iteration; 1: the returns of the data", minimum=1)
    batch_size: int = setting(4096, "batch size of SfBC's critic", minimum=1)
    learning_rate: float = setting(1e-3, "Adam learning rate of SfBC's critic", swept=True)
    alpha: float = setting(20.0, "inverse temperature of the values of states", swept=True)
    discount: float = borrowed(ValueSettings, "discount")
    width: int = setting(256, "width of SfBC's critic", minimum=1)
    layers: int = setting(2, "hidden layers of SfBC's critic", minimum=1, maximum=1000)
    candidates: int = setting(32, "actions that SfBC's policy chooses from", minimum=1, protocol=True)
    selection: float = setting(100.0, "inverse temperature of that choice", protocol=True)
    averaged: int = setting(4, "chosen actions whose mean is taken", minimum=1, protocol=True)
    sampler_steps: int = setting(15, "solver steps of SfBC's policy", minimum=1, protocol=True)
    solver: Solver = borrowed(support.Settings, "solver")
    evaluation_interval: int = setting(
        6_100, "updates between evaluations of SfBC", minimum=1, scaled=True, protocol=True
    )

    def check(self) -> None:
        """Refuses to choose more actions than there are.

        Raises:
          UserError: naming the settings.
        """
        if self.averaged > self.candidates:
            raise UserError(f"--sfbc_averaged={self.averaged}: must not be above --sfbc_candidates={self.candidates}")

    @property
    def round_steps(self) -> int:
        """Updates of a round; the last may have fewer."""
        return -(-self.steps // self.rounds)


@struct.dataclass
class State:
    """Training state of one member.

    Attributes:
      q: the critic.
      first: the weights that it begins every round with.
      targets: [N] standardized returns of all transitions, in this round.
      mean: of the returns.
      deviation: of the returns.
      behavior: what draws the candidates.
    """

    q: Learner
    first: Params
    targets: Array
    mean: Array
    deviation: Array
    behavior: ScoreModel


def init(key: Array, spec: Spec, settings: Settings, frozen: Frozen) -> State:
    """Fresh state of one member."""
    network = networks.MLP(1, settings.width, settings.layers, nn.silu)
    q = Learner.create(network, key, jnp.zeros((1, spec.observation_size + spec.action_size)))
    targets = jnp.zeros(spec.transitions)
    return State(q, q.copy_params(), targets, jnp.zeros(()), jnp.ones(()), frozen.behavior)


def q_of(network: nn.Module, params: Params, observations: Array, actions: Array) -> Array:
    """Standardized Q [...] of observations [..., observation_size] and actions [..., action_size]."""
    return networks.forward(network, params, jnp.concatenate([observations, actions], axis=-1))[..., 0]


def planned_returns(rewards: Array, discounts: Array, values: Array) -> Array:
    """R_n = max(r_n + discount_n R_{n+1}, v_n) of a whole dataset, [N] each; `discounts` are 0 at ends of episodes.

    Each step is a function R -> max(r + discount R, v), and so are two steps after one another; all of them are
    composed side by side.
    """

    def compose(later: tuple[Array, ...], earlier: tuple[Array, ...]) -> tuple[Array, ...]:
        reward, discount, value = earlier
        later_reward, later_discount, later_value = later
        on = reward + discount * later_reward
        return on, discount * later_discount, jnp.maximum(reward + discount * later_value, value)

    reward, _, value = jax.lax.associative_scan(compose, (rewards, discounts, values), reverse=True)
    return jnp.maximum(reward, value)


def state_values(state: State, settings: Settings, frozen: Frozen, data: Transitions, index: Array) -> Array:
    """Softly the best return [B] that the critic knows of the states of the transitions `index` [B]."""
    observations, actions = data.take(index).observations, frozen.support.of_states(index)
    q_values = q_of(state.q.network, state.q.params, support.beside(observations, actions), actions)
    return state.mean + state.deviation * support.soft_value(q_values, settings.alpha)


def begin_round(state: State, settings: Settings, frozen: Frozen, data: Transitions, step: Array) -> State:
    """New targets for all transitions by the critic as it is, which then starts afresh; at first those of the data."""
    size = len(state.targets)

    def of_block(index: Array) -> tuple[Array, Array, Array]:
        transitions = data.take(index)
        assert transitions.steps_left is not None
        values = jax.lax.cond(
            step == 0,
            lambda: jnp.full(index.shape, _LOWEST),
            lambda: state_values(state, settings, frozen, data, index),
        )
        return transitions.rewards, jnp.where(transitions.steps_left > 0.0, settings.discount, 0.0), values

    blocks = jnp.arange(-(-size // _BLOCK) * _BLOCK).reshape(-1, _BLOCK)
    columns = jax.tree.map(lambda x: x.reshape(-1)[:size], jax.lax.map(of_block, blocks))
    returns = planned_returns(*columns)
    mean, deviation = jnp.mean(returns), jnp.maximum(jnp.std(returns), _SMALLEST_DEVIATION)
    q = Learner.of(state.first, state.q.network)
    return State(q, state.first, (returns - mean) / deviation, mean, deviation, state.behavior)


def q_loss(params: Params, q: Learner, batch: Batch, targets: Array) -> tuple[Array, Array]:
    """Squared error to standardized returns `targets` [B]; also Q [B]."""
    q_values = q_of(q.network, params, batch.observations, batch.actions)
    return jnp.mean((q_values - targets) ** 2), q_values


def update(
    state: State, batch: Batch, settings: Settings, frozen: Frozen, data: Transitions, step: Array
) -> tuple[State, Metrics]:
    """One step of the critic, before which a new round may begin. Nothing here is random."""
    assert batch.index is not None
    begin = functools.partial(begin_round, state, settings, frozen, data, step)
    state = jax.lax.cond(step % settings.round_steps == 0, begin, lambda: state)
    targets = state.targets[batch.index]
    (loss, q_values), grads = jax.value_and_grad(q_loss, has_aux=True)(state.q.params, state.q, batch, targets)
    metrics = {
        "loss": loss,
        "q": jnp.mean(state.mean + state.deviation * q_values),
        "return_mean": state.mean,
        "return_deviation": state.deviation,
    }
    return state.replace(q=state.q.apply_gradients(grads, settings.learning_rate)), metrics  # type: ignore[attr-defined]


class Choice(NamedTuple):
    """How a policy chooses among its candidates; see `Settings`."""

    candidates: int
    selection: float
    averaged: int


@struct.dataclass
class Trained:
    """The result of the stage: the behavior model and the critic.

    Attributes:
      behavior: draws candidates.
      params: of the critic.
      network: the critic.
    """

    behavior: ScoreModel
    params: Params
    network: networks.MLP = struct.field(pytree_node=False)


@struct.dataclass
class Policy(Drawing):
    """The mean of a few candidates of the behavior model, drawn by their values.

    Attributes:
      trained: behavior model and critic.
      sampler: draws the candidates.
      choice: how some of them are taken.
    """

    trained: Trained
    sampler: Sampler = struct.field(pytree_node=False)
    choice: Choice = struct.field(pytree_node=False)

    def act_with(self, observations: Array, noise: Noise) -> Array:
        """[B, observation_size] -> [B, action_size] in [-1, 1]."""
        noise_candidates, noise_choice = noise.split()
        choice, trained = self.choice, self.trained
        actions = self.sampler.draw(trained.behavior, noise_candidates, observations, choice.candidates)
        q_values = q_of(trained.network, trained.params, support.beside(observations, actions), actions)
        chosen = choose(noise_choice, choice.selection * q_values, choice.averaged)
        return jnp.mean(jnp.take_along_axis(actions, chosen[..., None], axis=1), axis=1)


def choose(noise: Noise, logits: Array, count: int) -> Array:
    """Numbers [B, count] of candidates drawn by exp of `logits` [B, M], none twice.

    Logits are capped at 40 above the `count`-th largest, as in the released code.
    """
    last = jax.lax.top_k(logits, count)[0][:, -1:]
    capped = jnp.minimum(logits, last + _LARGEST_LEAD)
    # The largest of logits with Gumbel noise are draws without replacement.
    return jax.lax.top_k(capped + noise.gumbel(logits.shape), count)[1]


def trained(state: State) -> Trained:
    """The result of the stage."""
    return Trained(state.behavior, state.q.params, state.q.network)


def policy_of(result: Trained, settings: Settings, spec: Spec) -> Policy:
    """Acting by choosing."""
    sampler = Sampler(spec.action_size, settings.sampler_steps, settings.solver)
    return Policy(result, sampler, Choice(settings.candidates, settings.selection, settings.averaged))


STAGE = Stage(
    name="sfbc",
    algorithm="sfbc",
    label="SfBC",
    settings=Settings,
    init=init,
    update=update,
    result=trained,
    policy=policy_of,
    needs=(behavior.STAGE, support.STAGE),
    frozen=support.frozen,
    cloning=behavior.STAGE,
    columns=("steps_left",),
    per_transition=True,
    metrics={
        "loss": "squared error to the standardized returns of the round",
        "q": "mean Q over the batch, as a return",
        "return_mean": "mean return that the round regresses to",
        "return_deviation": "their standard deviation, at least 0.1",
    },
)


def _quick(dataset: str, family: str) -> dict[str, Any]:
    own: dict[str, Any] = behavior.QUICK | support.QUICK | (behavior.QUICK_MAZE if presets.is_maze(family) else {})
    own |= {"sfbc_steps": 10_000, "sfbc_batch_size": 256, "sfbc_evaluation_interval": 2_500, "sfbc_sampler_steps": 10}
    return presets.quick(family) | own | {"reward_transform": default_transform(family)} | _averaged(family)


def _released(dataset: str, family: str) -> dict[str, Any]:
    # The released code's epochs are twice as long, and its critic is larger in the largest mazes.
    maze = {"sfbc_steps": 97_600, "sfbc_evaluation_interval": 12_200} if family == "antmaze" else {}
    large = {"sfbc_layers": 3} if dataset.startswith("antmaze-large") else {}
    own = {"support_solver": "singlestep3", "reward_transform": "none", "episodes": 10}
    return behavior.CEP | maze | large | own | _averaged(family)


def _ogbench(dataset: str, family: str) -> dict[str, Any]:
    own = {"sfbc_width": 512, "sfbc_layers": 4, "sfbc_evaluation_interval": 12_200}
    budgets = {"behavior_steps": 1_000_000, "behavior_batch_size": 256}
    return presets.ogbench(dataset) | own | budgets | _averaged(family)


def _averaged(family: str) -> dict[str, Any]:
    """The mean of four actions in locomotion, one elsewhere."""
    return {"sfbc_averaged": 4 if family == "locomotion" else 1}


METHOD = Method(
    name="sfbc",
    title="SfBC",
    source="arXiv 2209.14548 and ChenDRAG/SfBC, commit d384e9f",
    stages=(behavior.STAGE, support.STAGE, STAGE),
    presets={
        "quick": Preset("small budgets for CPUs", _quick),
        "released": Preset("ChenDRAG/SfBC, commit d384e9f", _released),
        "ogbench": Preset(f"{presets.OGBENCH_SOURCE}; no LayerNorm; value iteration of the released code", _ogbench),
    },
)
