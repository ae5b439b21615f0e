"""Diffuser (arXiv 2205.09991): plans are sampled by a diffusion model of windows, guided by a value of noisy windows.

A window x is H steps [a | s]; x_t = alpha_t x + sigma_t eps at t = 1 ... T of a cosine schedule, but its first state is
never noised.
model    f(x_t, t) regresses to x, squared error, more weight on the first action         (eq. 2, predicting x)
value    V(x_t, t) regresses to the discounted return from the window's first step to the end of the episode
planning x_{t-1} ~ posterior of f at x_t + scale var_t grad V(x_t, t)                      (algorithm 1)
         of several plans the one of the highest V is taken, and its first action; then it plans anew.

It follows the released code where the paper says less.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.data.windows import starts_of, windows_of
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import optimizers, temporal
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.planning import Cloning, Network, Planner, evaluate, impose
from jaxrl_srpo.nn.schedules import Discrete
from jaxrl_srpo.types import Array, Batch, Metrics, Params, Spec


@struct.dataclass
class Settings:
    """What the model and the value have in common; the defaults are those of Hopper and Walker2d."""

    prefix: ClassVar[str] = "diffuser"
    title: ClassVar[str] = "Diffuser"

    horizon: int = setting(32, "steps of Diffuser's windows", minimum=2)
    diffusion_steps: int = setting(20, "diffusion steps between data and noise", minimum=1)
    width: int = setting(32, "width of Diffuser's networks, a multiple of 8", minimum=16)
    multipliers: str = setting("1-2-4-8", "widths of their levels in that unit, '-' between them")
    average_decay: float = setting(0.995, "decay of the averages of their weights", maximum=1.0)
    average_interval: int = setting(10, "updates between steps of these averages", minimum=1)
    average_start: int = setting(2_000, "update before which they are copies")

    @property
    def schedule(self) -> Discrete:
        """The noise at times 1 to `diffusion_steps`."""
        return Discrete(kind="cosine", steps=self.diffusion_steps)

    @property
    def levels(self) -> tuple[int, ...]:
        """The multipliers as numbers."""
        return tuple(map(int, self.multipliers.split("-")))

    def check(self) -> None:
        """Refuses widths that GroupNorm cannot divide.

        Raises:
          UserError: naming the settings.
        """
        if not all(word.isdecimal() and int(word) for word in self.multipliers.split("-")):
            raise UserError(f"--diffuser_multipliers={self.multipliers}: give whole numbers, for instance 1-2-4-8")
        # The last two levels of the value have a half and a quarter of the innermost width.
        widths = [*(self.width * level for level in self.levels), self.width * self.levels[-1] / 4]
        if any(width % temporal.GROUPS for width in widths):
            raise UserError(
                f"--diffuser_width={self.width}: with --diffuser_multipliers={self.multipliers} its levels, and a "
                f"quarter of the last one, are no multiples of {temporal.GROUPS}"
            )


@struct.dataclass
class ModelSettings(Settings):
    """Settings of the diffusion model."""

    prefix: ClassVar[str] = "diffuser"

    steps: int = setting(1_000_000, "updates of Diffuser's model", minimum=1, scaled=True)
    batch_size: int = setting(64, "batch size of Diffuser's model", minimum=1)
    learning_rate: float = setting(2e-4, "Adam learning rate of Diffuser's model", swept=True)
    attention: bool = setting(False, "linear attention in Diffuser's model")
    action_weight: float = setting(10.0, "weight of the first action in the model's loss", swept=True)


@struct.dataclass
class ReturnSettings:
    """Settings of the returns that the value learns."""

    prefix: ClassVar[str] = "diffuser"
    title: ClassVar[str] = "Diffuser"
    batch_size: ClassVar[int] = 1
    steps: ClassVar[int] = 1
    seeds: ClassVar[int] = 1

    discount: float = setting(0.997, "discount per step of Diffuser's returns", swept=True, maximum=1.0)
    termination_penalty: float = setting(100.0, "what Diffuser's returns lose where an episode terminates", swept=True)
    normalize_returns: bool = setting(False, "Diffuser's returns to mean 0 and deviation 1, per dataset")


@struct.dataclass
class ValueSettings(Settings):
    """Settings of the value, and of planning."""

    prefix: ClassVar[str] = "diffuser_value"

    steps: int = setting(200_000, "updates of Diffuser's value", minimum=1, scaled=True)
    batch_size: int = setting(64, "batch size of Diffuser's value", minimum=1)
    learning_rate: float = setting(2e-4, "Adam learning rate of Diffuser's value", swept=True)
    evaluation_interval: int = setting(
        200_000, "updates of its value between evaluations of Diffuser", minimum=1, scaled=True, protocol=True
    )
    plans: int = setting(64, "plans of which the best is taken", flag="diffuser_plans", minimum=1, protocol=True)
    scale: float = setting(0.1, "scale of the value's gradient", flag="diffuser_scale", protocol=True)
    guide_steps: int = setting(2, "ascents per diffusion step", flag="diffuser_guide_steps", protocol=True)
    stop_guide: int = setting(
        2, "last diffusion steps without ascents", flag="diffuser_stop_guide", minimum=1, protocol=True
    )


@struct.dataclass
class State:
    """Training state of one member.

    Attributes:
      learner: of the network.
      average: of its parameters.
      model: the finished diffusion model, which the stage of the value hands on; None in its own stage.
      step: updates so far.
    """

    learner: Learner
    average: Params
    model: Network | None
    step: Array

    @property
    def network(self) -> Network:
        """The network with its averaged weights."""
        return Network(self.average, self.learner.network)


def diffuse(windows: Array, noise: Array, times: Array, states: Array, schedule: Discrete) -> Array:
    """x_t of windows and `noise` [B, H, width] at `times` [B], the first states known."""
    alpha, sigma = schedule.marginal(times)
    return impose(alpha[:, None, None] * windows + sigma[:, None, None] * noise, states)


def draw(key: Array, windows: Array, settings: Settings) -> tuple[Array, Array]:
    """Noise of the shape of windows, and times [B] from 1 to T."""
    key_noise, key_time = jax.random.split(key)
    times = jax.random.randint(key_time, windows.shape[:1], 1, settings.diffusion_steps + 1)
    return jax.random.normal(key_noise, windows.shape), times.astype(jnp.float32)


def model_loss(
    params: Params, learner: Learner, windows: Array, noise: Array, times: Array, states: Array, settings: ModelSettings
) -> tuple[Array, Array]:
    """Squared error of the windows that the model sees behind the noise; also that of the first action."""
    noisy = diffuse(windows, noise, times, states, settings.schedule)
    found = impose(evaluate(learner.network, params, noisy, times), states)
    errors = (found - windows) ** 2
    first = errors[:, 0, : windows.shape[-1] - states.shape[-1]]
    return jnp.mean(errors) + (settings.action_weight - 1.0) * jnp.sum(first) / errors.size, jnp.mean(first)


def value_loss(
    params: Params,
    learner: Learner,
    windows: Array,
    noise: Array,
    times: Array,
    states: Array,
    returns: Array,
    settings: ValueSettings,
) -> tuple[Array, Array]:
    """Squared error to `returns` [B]; also V [B]."""
    noisy = diffuse(windows, noise, times, states, settings.schedule)
    values = evaluate(learner.network, params, noisy, times)
    return jnp.mean((values - returns) ** 2), values


def averaging_rate(step: Array, settings: Settings) -> Array:
    """By how much the averages move towards the weights after update `step`."""
    rate = jnp.where(step < settings.average_start, 1.0, 1.0 - settings.average_decay)
    return jnp.where(step % settings.average_interval == 0, rate, 0.0)


def follow(state: State, grads: Params, settings: ModelSettings | ValueSettings) -> State:
    """One step of the network and, when it is due, of the average."""
    learner = state.learner.apply_gradients(grads, settings.learning_rate)
    average = optimizers.polyak(state.average, learner.params, averaging_rate(state.step, settings))
    return State(learner, average, state.model, state.step + 1)


def init_model(key: Array, spec: Spec, settings: ModelSettings) -> State:
    """Fresh state of one member's model."""
    network = temporal.TemporalUNet(settings.width, settings.levels, settings.attention)
    return _fresh(network, key, spec, settings.horizon)


def _fresh(network: nn.Module, key: Array, spec: Spec, horizon: int, model: Network | None = None) -> State:
    windows = jnp.zeros((1, horizon, spec.action_size + spec.observation_size))
    learner = Learner.create(network, key, windows, jnp.zeros((1,)))
    return State(learner, learner.copy_params(), model, jnp.zeros((), jnp.int32))


def update_model(
    state: State, batch: Batch, key: Array, settings: ModelSettings, data: Transitions
) -> tuple[State, Metrics]:
    """One step of the diffusion model."""
    windows = windows_of(starts_of(batch, data, settings.horizon), data, settings.horizon)
    states = windows[:, 0, batch.actions.shape[-1] :]
    noise, times = draw(key, windows, settings)
    gradient = jax.value_and_grad(model_loss, has_aux=True)
    (loss, first), grads = gradient(state.learner.params, state.learner, windows, noise, times, states, settings)
    return follow(state, grads, settings), {"loss": loss, "first_action_error": first}


def cloning_of(result: Network, settings: Settings, spec: Spec) -> Cloning:
    """What plans without a value."""
    return Cloning(result, settings.horizon, spec.action_size, settings.schedule)


MODEL = Stage(
    name="diffuser_model",
    algorithm="diffuser_cloning",
    label="Diffuser without guidance",
    settings=ModelSettings,
    init=init_model,
    update=update_model,
    result=lambda state: state.network,
    policy=cloning_of,
    learns_values=False,
    columns=("steps_left",),
    metrics={
        "loss": "squared error of the window behind the noise, its first action weighted",
        "first_action_error": "squared error of the first action",
    },
)


def init_returns(spec: Spec) -> Array:
    """No returns yet, [transitions]."""
    return jnp.zeros(spec.transitions)


def update_returns(state: Array, settings: ReturnSettings, data: Transitions) -> tuple[Array, Metrics]:
    """The discounted return from each transition to the end of its episode, all at once."""
    rows = data.take(jnp.arange(len(state)))
    assert rows.steps_left is not None
    rewards = rows.rewards - settings.termination_penalty * (1.0 - rows.discounts)
    # Each row is the function following -> rewards + factors * following, and these are composed from the end on.
    factors = jnp.where(rows.steps_left > 0.0, settings.discount, 0.0)

    def compose(later: tuple[Array, Array], own: tuple[Array, Array]) -> tuple[Array, Array]:
        return own[0] * later[0], own[1] + own[0] * later[1]

    returns = jax.lax.associative_scan(compose, (factors, rewards), reverse=True)[1]
    mean, std = jnp.mean(returns), jnp.std(returns)
    metrics = {"loss": std, "return": mean, "return_std": std}
    return (returns - mean) / (std + 1e-6) if settings.normalize_returns else returns, metrics


RETURNS = Stage(
    name="diffuser_returns",
    algorithm="diffuser_returns",
    label="Diffuser's returns",
    settings=ReturnSettings,
    init=init_returns,
    update=update_returns,
    policy=None,
    columns=("steps_left",),
    per_transition=True,
    metrics={
        "loss": "the deviation of the returns; nothing is learned here",
        "return": "mean discounted return to the end of the episode",
        "return_std": "their deviation",
    },
)


@struct.dataclass
class Frozen:
    """Results of the earlier stages: the model, and the return from each transition on [transitions]."""

    model: Network
    returns: Array


def init_value(key: Array, spec: Spec, settings: ValueSettings, frozen: Frozen) -> State:
    """Fresh state of one member's value."""
    network = temporal.WindowValue(settings.width, settings.levels)
    return _fresh(network, key, spec, settings.horizon, frozen.model)


def update_value(
    state: State, batch: Batch, key: Array, settings: ValueSettings, frozen: Frozen, data: Transitions
) -> tuple[State, Metrics]:
    """One step of the value."""
    starts = starts_of(batch, data, settings.horizon)
    windows = windows_of(starts, data, settings.horizon)
    states = windows[:, 0, batch.actions.shape[-1] :]
    noise, times = draw(key, windows, settings)
    gradient = jax.value_and_grad(value_loss, has_aux=True)
    inputs = (state.learner, windows, noise, times, states, frozen.returns[starts], settings)
    (loss, values), grads = gradient(state.learner.params, *inputs)
    return follow(state, grads, settings), {"loss": loss, "value": jnp.mean(values)}


@struct.dataclass
class Trained:
    """What is kept of a finished run: the diffusion model and the value."""

    model: Network
    value: Network


def planner_of(result: Trained, settings: ValueSettings, spec: Spec) -> Planner:
    """What plans."""
    prior = cloning_of(result.model, settings, spec)
    return Planner(prior, result.value, settings.plans, settings.scale, settings.guide_steps, settings.stop_guide)


STAGE = Stage(
    name="diffuser",
    algorithm="diffuser",
    label="Diffuser",
    settings=ValueSettings,
    init=init_value,
    update=update_value,
    result=lambda state: Trained(state.model, state.network),
    policy=planner_of,
    needs=(MODEL, RETURNS),
    frozen=lambda results: Frozen(results["diffuser_model"], results["diffuser_returns"]),
    cloning=MODEL,
    columns=("steps_left",),
    metrics={"loss": "squared error of the value of noisy windows", "value": "its mean over the batch"},
)

# docs/diffuser.md gives the measurement behind the scale.
_QUICK = {
    "diffuser_steps": 10_000,
    "diffuser_learning_rate": 1e-3,
    "diffuser_horizon": 4,
    "diffuser_diffusion_steps": 10,
    "diffuser_multipliers": "1-2",
    "diffuser_average_interval": 1,
    "diffuser_average_start": 500,
    "diffuser_normalize_returns": True,
    "diffuser_value_steps": 5_000,
    "diffuser_value_learning_rate": 1e-3,
    "diffuser_value_evaluation_interval": 5_000,
    "diffuser_plans": 8,
    "diffuser_scale": 0.1,
    "diffuser_guide_steps": 1,
    "diffuser_stop_guide": 1,
}

# config/locomotion.py of the released code, beside the defaults.
_HALFCHEETAH = {
    "diffuser_horizon": 4,
    "diffuser_multipliers": "1-4-8",
    "diffuser_attention": True,
    "diffuser_scale": 0.001,
    "diffuser_stop_guide": 4,
}
_HOPPER_MEDIUM_EXPERT = {"diffuser_scale": 0.0001, "diffuser_stop_guide": 4}


def _quick(dataset: str, family: str) -> dict[str, Any]:
    maze = {"diffuser_termination_penalty": 0.0} if presets.is_maze(family) else {}
    return presets.quick(family) | _QUICK | maze | {"reward_transform": default_transform(family)}


def _paper(dataset: str, family: str) -> dict[str, Any]:
    values: dict[str, Any] = {"normalize_observations": True, "reward_transform": "none", "episodes": 150}
    # In mazes episodes terminate where they succeed.
    values |= {"diffuser_termination_penalty": 0.0} if presets.is_maze(family) else {}
    values |= _HALFCHEETAH if dataset.startswith("halfcheetah") else {}
    return values | (_HOPPER_MEDIUM_EXPERT if dataset == "hopper-medium-expert-v2" else {})


def _paper_note(dataset: str, family: str) -> str:
    if family == "locomotion":
        return ""
    return f"{dataset}: the released configurations are of locomotion; --diffuser_scale is that of Hopper"


METHOD = Method(
    name="diffuser",
    title="Diffuser",
    source="arXiv 2205.09991 and jannerm/diffuser",
    stages=(MODEL, RETURNS, STAGE),
    presets={
        "quick": Preset("small budgets, networks and plans for CPUs", _quick),
        "paper": Preset("config/locomotion.py of jannerm/diffuser, discount 0.997", _paper, _paper_note),
    },
)
