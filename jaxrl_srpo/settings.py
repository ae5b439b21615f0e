"""Every number and switch of a run in one flat record, and the presets that fill it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxrl_srpo.algorithms import behavior, iql, srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.precision import Precision

StageName = Literal["behavior", "critic", "policy"]
PRESETS = ("quick", "paper")


def _field(default: Any, stage: str, help: str, swept: bool = False, choices: tuple[str, ...] = ()) -> Any:
    metadata = {"stage": stage, "help": help, "swept": swept, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one member; the defaults are those of the published locomotion runs.

    A field's metadata says which stage it belongs to (a stage is trained again only if one of its own fields or an
    earlier stage changes), and whether a sweep may vary it inside one compiled program.
    """

    reward_transform: str = _field("none", "critic", "reward transform, by dataset family unless given")

    normalize_observations: bool = _field(False, "data", "observations to mean 0 and deviation 1, per dataset")
    precision: str = _field("auto", "data", "precision of matrix products", choices=get_args(Precision))
    trajectory_weighting: float = _field(0.0, "data", "inverse temperature of weights on better episodes; 0: none")

    behavior_steps: int = _field(2_000_000, "behavior", "updates of the behaviour stage")
    behavior_batch_size: int = _field(2048, "behavior", "batch size of the behaviour stage")
    behavior_learning_rate: float = _field(3e-4, "behavior", "AdamW learning rate of the score network", swept=True)
    behavior_weight_decay: float = _field(0.01, "behavior", "AdamW weight decay of the score network", swept=True)
    behavior_cosine: bool = _field(False, "behavior", "let that learning rate fall as a cosine to 0")
    behavior_weight_average: float = _field(0.0, "behavior", "decay of an average of the score network; 0: none")
    score_width: int = _field(256, "behavior", "width of the score network")
    score_hidden: int = _field(1024, "behavior", "hidden width of its residual blocks")
    score_blocks: int = _field(3, "behavior", "number of its residual blocks")
    score_dropout: float = _field(0.1, "behavior", "dropout rate in its residual blocks")

    critic_steps: int = _field(1_500_000, "critic", "updates of the critic stage")
    critic_batch_size: int = _field(256, "critic", "batch size of the critic stage")
    critic_learning_rate: float = _field(3e-4, "critic", "Adam learning rate of Q and V", swept=True)
    expectile: float = _field(0.7, "critic", "expectile tau of V", swept=True)
    discount: float = _field(0.99, "critic", "discount per step", swept=True)
    target_rate: float = _field(0.005, "critic", "Polyak rate of the target Q", swept=True)
    awr_temperature: float = _field(3.0, "critic", "inverse temperature of the IQL actor's weights", swept=True)
    iql_actor_learning_rate: float = _field(3e-4, "critic", "Adam learning rate of the IQL actor", swept=True)
    critic_width: int = _field(256, "critic", "width of Q, V and the IQL actor")
    actor_layers: int = _field(2, "critic", "hidden layers of the IQL and SRPO actors")

    policy_steps: int = _field(1_000_000, "policy", "updates of the policy stage")
    policy_batch_size: int = _field(256, "policy", "batch size of the policy stage")
    policy_learning_rate: float = _field(3e-4, "policy", "Adam learning rate of the SRPO actor", swept=True)
    beta: float = _field(0.05, "policy", "temperature beta: larger is greedier", swept=True)
    time_min: float = _field(0.02, "policy", "smallest diffusion time of the regulariser", swept=True)
    time_max: float = _field(0.98, "policy", "largest diffusion time of the regulariser", swept=True)
    weighting: str = _field("sigma2", "policy", "weight omega(t)", choices=get_args(srpo.Weighting))
    minus_noise: bool = _field(False, "policy", "subtract the noise from its prediction (less variance)")
    q_gradient: str = _field("raw", "policy", "normalisation of the Q gradient", choices=get_args(srpo.QGradient))
    policy_start: str = _field("random", "policy", "where the SRPO actor starts", choices=("random", "iql"))
    policy_weight_average: float = _field(0.0, "policy", "decay of an average of the SRPO actor; 0: none")

    episodes: int = _field(20, "evaluation", "episodes of an evaluation")
    critic_evaluation_interval: int = _field(50_000, "evaluation", "updates between evaluations of the IQL actor")
    policy_evaluation_interval: int = _field(20_000, "evaluation", "updates between evaluations of the SRPO actor")
    sampler_steps: int = _field(15, "evaluation", "solver steps of the behaviour-cloning baseline")
    log_interval: int = _field(10_000, "evaluation", "updates between rows of metrics.csv, the compiled chunk")


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
SWEPT = tuple(name for name, field in FIELDS.items() if field.metadata["swept"])

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

_MAZE = {"expectile": 0.9, "awr_temperature": 10.0, "actor_layers": 4, "q_gradient": "sample"}

# The recipe for small budgets; docs/quick.md gives the measurement behind each line.
_QUICK = {
    "normalize_observations": True,
    "behavior_steps": 10_000,
    "behavior_batch_size": 256,
    "behavior_learning_rate": 1e-3,
    "behavior_cosine": True,
    "score_hidden": 512,
    "score_blocks": 2,
    "critic_steps": 20_000,
    "awr_temperature": 0.3,
    "policy_steps": 5_000,
    "minus_noise": True,
    "q_gradient": "batch",
    "policy_start": "iql",
    "beta": 0.01,
    "episodes": 10,
    "critic_evaluation_interval": 10_000,
    "policy_evaluation_interval": 1_000,
    "log_interval": 500,
}

_QUICK_MAZE = {
    "normalize_observations": False,
    "behavior_steps": 5_000,
    "critic_steps": 14_000,
    "iql_actor_learning_rate": 1e-3,
    "policy_steps": 3_000,
    "awr_temperature": 3.0,
    "actor_layers": 2,
    "q_gradient": "batch",
    "episodes": 20,
    "critic_evaluation_interval": 3_500,
}


def preset(name: str, dataset_name: str, family: str) -> Settings:
    """The settings that a preset gives a dataset; `paper` is the published protocol, dataset by dataset.

    Raises:
      UserError: for an unknown preset.
    """
    from jaxrl_srpo.data.rewards import default_transform

    if name not in PRESETS:
        raise UserError(f"--preset={name}: unknown; choose one of {', '.join(PRESETS)}")
    maze = family in ("antmaze", "pointmaze")
    values: dict[str, Any] = {"reward_transform": default_transform(family)}
    values |= _MAZE if maze else {}
    if name == "quick":
        values |= _QUICK | (_QUICK_MAZE if maze else {})
    elif dataset_name in PAPER_BETA:
        values["beta"] = PAPER_BETA[dataset_name]
    return Settings(**values)


def scale_budget(settings: Settings, budget: float) -> Settings:
    """`settings` with the updates of every stage, and those between evaluations and log rows, times `budget`.

    Raises:
      UserError: for a budget that is not a positive number.
    """
    if not 0 < budget < float("inf"):
        raise UserError(f"--budget={budget}: must be a positive number, for instance 0.1")
    names = [name for name in FIELDS if name.endswith(("_steps", "_interval")) and name != "sampler_steps"]
    return dataclasses.replace(settings, **{name: max(1, round(budget * getattr(settings, name))) for name in names})


def override(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """`settings` with some fields replaced.

    Raises:
      UserError: for an unknown field or a value out of its range.
    """
    values = {name: _converted(name, value) for name, value in values.items()}
    for name, value in values.items():
        _check(name, value)
    return dataclasses.replace(settings, **values)


def _converted(name: str, value: Any) -> Any:
    """A number in the type of its setting, so that 1 and 1.0 name the same results; NumPy's numbers too."""
    if name not in FIELDS:
        return value
    kind: Any = type(FIELDS[name].default)
    if kind in (bool, str):
        if not isinstance(value, kind):
            raise UserError(f"--{name}={value}: expects {'true or false' if kind is bool else 'a word'}")
        return value
    try:
        number = kind(value)
    except (OverflowError, TypeError, ValueError):
        number = None
    if number is None or isinstance(value, (bool, str)) or (number != value and value == value):
        raise UserError(f"--{name}={value}: expects a {'whole ' if kind is int else ''}number")
    return number


def _check(name: str, value: Any) -> None:
    if name not in FIELDS:
        raise UserError(f"{name}: no such setting; `jaxrl-srpo train --help` lists them")
    choices = FIELDS[name].metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"--{name}={value}: choose one of {', '.join(choices)}")
    if isinstance(value, (bool, str)):
        return
    if not value >= 0 or value == float("inf"):
        raise UserError(f"--{name}={value}: must be a finite number, not negative")
    positive = name.endswith(("_steps", "_size", "_interval", "_layers", "_width", "_hidden", "_blocks")) or (
        name == "episodes"
    )
    if positive and value < 1:
        raise UserError(f"--{name}={value}: must be at least 1")
    below_one = ("expectile", "score_dropout", "behavior_weight_average", "policy_weight_average")
    if name in below_one and value >= 1:
        raise UserError(f"--{name}={value}: must be below 1")
    if name in ("discount", "target_rate", "time_min", "time_max") and value > 1:
        raise UserError(f"--{name}={value}: must be at most 1")


def behavior_config(settings: Settings) -> behavior.Config:
    """Static configuration of the behaviour stage."""
    return behavior.Config(
        batch_size=settings.behavior_batch_size,
        width=settings.score_width,
        hidden=settings.score_hidden,
        blocks=settings.score_blocks,
        dropout_rate=settings.score_dropout,
        cosine=settings.behavior_cosine,
        weight_average=settings.behavior_weight_average,
    )


def behavior_hyper(settings: Settings) -> behavior.Hyper:
    """Swept numbers of the behaviour stage."""
    return behavior.Hyper(
        settings.behavior_learning_rate, settings.behavior_weight_decay, float(settings.behavior_steps)
    )


def critic_config(settings: Settings) -> iql.Config:
    """Static configuration of the critic stage."""
    return iql.Config(settings.critic_batch_size, settings.critic_width, settings.critic_width, settings.actor_layers)


def critic_hyper(settings: Settings) -> iql.Hyper:
    """Swept numbers of the critic stage."""
    return iql.Hyper(
        learning_rate=settings.critic_learning_rate,
        actor_learning_rate=settings.iql_actor_learning_rate,
        expectile=settings.expectile,
        discount=settings.discount,
        temperature=settings.awr_temperature,
        target_rate=settings.target_rate,
        total_steps=float(settings.critic_steps),
    )


def policy_config(settings: Settings) -> srpo.Config:
    """Static configuration of the policy stage."""
    return srpo.Config(
        batch_size=settings.policy_batch_size,
        width=settings.critic_width,
        layers=settings.actor_layers,
        weighting=settings.weighting,  # type: ignore[arg-type]  # Checked against the choices by `override`.
        minus_noise=settings.minus_noise,
        q_gradient=settings.q_gradient,  # type: ignore[arg-type]
        weight_average=settings.policy_weight_average,
    )


def policy_hyper(settings: Settings) -> srpo.Hyper:
    """Swept numbers of the policy stage."""
    return srpo.Hyper(
        beta=settings.beta,
        learning_rate=settings.policy_learning_rate,
        time_min=settings.time_min,
        time_max=settings.time_max,
        total_steps=float(settings.policy_steps),
    )
