"""Every number and switch of a run in one flat record."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import awac, behavior, iql, sac, srpo
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.precision import Precision

StageName = Literal[
    "behavior",
    "critic",
    "policy",
    "cloning",
    "awac",
    "sac_offline",
    "srpo_online",
    "iql_online",
    "awac_online",
    "sac_online",
    "sac",
]


def _field(default: Any, stage: str, help: str, swept: bool = False, choices: tuple[str, ...] = ()) -> Any:
    metadata = {"stage": stage, "help": help, "swept": swept, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one member; the defaults are those of the published locomotion runs.

    A field's metadata says which stage it belongs to (a stage is trained again only if one of its own fields or an
    earlier stage changes; "data" belongs to all, "return" to those that learn values), and whether a sweep may vary it
    inside one compiled program.
    """

    reward_transform: str = _field("none", "return", "reward transform, by dataset family unless given")
    discount: float = _field(0.99, "return", "discount per step", swept=True)
    target_rate: float = _field(0.005, "return", "Polyak rate of the target Q", swept=True)

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

    offline_steps: int = _field(50_000, "cloning", "updates of AWAC and of its cloning baseline on the dataset")
    awac_batch_size: int = _field(128, "cloning", "batch size of AWAC on the dataset")
    awac_actor_width: int = _field(256, "cloning", "width of the AWAC actor")
    awac_actor_layers: int = _field(4, "cloning", "hidden layers of the AWAC actor")
    awac_actor_learning_rate: float = _field(3e-4, "cloning", "Adam learning rate of the AWAC actor", swept=True)
    awac_weight_decay: float = _field(1e-4, "cloning", "weight decay of the AWAC actor", swept=True)
    awac_decay: str = _field("l2", "cloning", "form of that decay", choices=get_args(awac.Decay))
    awac_mean: str = _field("tanh", "cloning", "mean of the AWAC actor", choices=get_args(networks.Mean))
    awac_log_std: str = _field("sigmoid", "cloning", "its log deviation", choices=get_args(networks.LogStd))
    awac_small_outputs: bool = _field(True, "cloning", "start AWAC's output layers near 0")

    awac_lambda: float = _field(2.0, "awac", "temperature lambda of AWAC: smaller is greedier", swept=True)
    awac_advantage_clip: float = _field(0.0, "awac", "largest advantage in AWAC's weights; 0: any", swept=True)
    awac_reward_scale: float = _field(1.0, "awac", "factor of rewards in AWAC, after the transform", swept=True)
    awac_learning_rate: float = _field(3e-4, "awac", "Adam learning rate of AWAC's critics", swept=True)
    awac_critic_width: int = _field(256, "awac", "width of AWAC's critics")
    awac_critic_layers: int = _field(2, "awac", "hidden layers of AWAC's critics")
    awac_weighting: str = _field("softmax", "awac", "form of AWAC's weights", choices=get_args(awac.Weighting))
    awac_baseline: str = _field("sample", "awac", "action of V in the advantage", choices=get_args(awac.Baseline))
    awac_negative_q: bool = _field(False, "awac", "keep AWAC's Q at or below 0, for rewards of -1 and 0")
    awac_bootstrap_terminals: bool = _field(False, "awac", "bootstrap through terminations in AWAC")

    sac_batch_size: int = _field(256, "sac_offline", "batch size of SAC on the dataset")
    sac_width: int = _field(256, "sac_offline", "width of SAC's networks")
    sac_layers: int = _field(2, "sac_offline", "hidden layers of SAC's networks")
    sac_learning_rate: float = _field(3e-4, "sac_offline", "Adam learning rate of SAC", swept=True)
    sac_random_steps: int = _field(1_000, "sac", "environment steps before SAC from scratch acts and learns")

    online_steps: int = _field(0, "online", "environment steps of learning online afterwards; 0: none")
    online_batch_size: int = _field(1024, "online", "batch size online")
    online_warmup_steps: int = _field(1_000, "online", "environment steps before the first update online")
    update_to_data: float = _field(1.0, "online", "updates per environment step")
    exploration_noise: float = _field(0.1, "online", "deviation of the noise on IQL's actions online")

    episodes: int = _field(20, "evaluation", "episodes of an evaluation")
    critic_evaluation_interval: int = _field(50_000, "evaluation", "updates between evaluations of the IQL actor")
    policy_evaluation_interval: int = _field(20_000, "evaluation", "updates between evaluations of the SRPO actor")
    offline_evaluation_interval: int = _field(5_000, "evaluation", "updates between evaluations of AWAC offline")
    online_evaluation_interval: int = _field(5_000, "evaluation", "environment steps between evaluations online")
    sampler_steps: int = _field(15, "evaluation", "solver steps of the behaviour-cloning baseline")
    log_interval: int = _field(10_000, "evaluation", "updates between rows of metrics.csv, the compiled chunk")


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
SWEPT = tuple(name for name, field in FIELDS.items() if field.metadata["swept"])


def scale_budget(settings: Settings, budget: float) -> Settings:
    """`settings` with the updates of every stage, and those between evaluations and log rows, times `budget`.

    Raises:
      UserError: for a budget that is not a positive number.
    """
    if not 0 < budget < float("inf"):
        raise UserError(f"--budget={budget}: must be a positive number, for instance 0.1")
    names = [name for name in FIELDS if name.endswith(("_steps", "_interval")) and name != "sampler_steps"]
    names = [name for name in names if getattr(settings, name) > 0]
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
    zero_allowed = ("online_steps", "online_warmup_steps")
    positive = (
        name not in zero_allowed
        and name.endswith(("_steps", "_size", "_interval", "_layers", "_width", "_hidden", "_blocks"))
    ) or (name == "episodes")
    if positive and value < 1:
        raise UserError(f"--{name}={value}: must be at least 1")
    if name == "awac_lambda" and value == 0:
        raise UserError(f"--{name}={value}: must be above 0")
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


def awac_config(settings: Settings) -> awac.Config:
    """Static configuration of AWAC and of its cloning baseline."""
    return awac.Config(
        batch_size=settings.awac_batch_size,
        actor_width=settings.awac_actor_width,
        actor_layers=settings.awac_actor_layers,
        critic_width=settings.awac_critic_width,
        critic_layers=settings.awac_critic_layers,
        mean=settings.awac_mean,  # type: ignore[arg-type]
        log_std=settings.awac_log_std,  # type: ignore[arg-type]
        weighting=settings.awac_weighting,  # type: ignore[arg-type]
        baseline=settings.awac_baseline,  # type: ignore[arg-type]
        decay=settings.awac_decay,  # type: ignore[arg-type]
        negative_q=settings.awac_negative_q,
        bootstrap_terminals=settings.awac_bootstrap_terminals,
        small_outputs=settings.awac_small_outputs,
    )


def cloning_config(settings: Settings) -> awac.Config:
    """Static configuration of the cloning baseline: AWAC's, for what it does not read is left at its default."""
    chosen = awac_config(settings)
    actor = ("batch_size", "actor_width", "actor_layers", "mean", "log_std", "decay", "small_outputs")
    return awac.Config(**{name: getattr(chosen, name) for name in actor})


def awac_hyper(settings: Settings) -> awac.Hyper:
    """Swept numbers of AWAC."""
    return awac.Hyper(
        lambda_=settings.awac_lambda,
        advantage_clip=settings.awac_advantage_clip or float("inf"),
        learning_rate=settings.awac_learning_rate,
        actor_learning_rate=settings.awac_actor_learning_rate,
        weight_decay=settings.awac_weight_decay,
        discount=settings.discount,
        target_rate=settings.target_rate,
        reward_scale=settings.awac_reward_scale,
    )


def srpo_online_config(settings: Settings) -> awac.Config:
    """AWAC's configuration with the sizes of the SRPO actor and of its critic."""
    return awac_config(settings)._replace(
        batch_size=settings.online_batch_size,
        actor_width=settings.critic_width,
        actor_layers=settings.actor_layers,
        critic_width=settings.critic_width,
        critic_layers=2,
        mean="tanh",
    )


def sac_config(settings: Settings) -> sac.Config:
    """Static configuration of SAC on a dataset."""
    return sac.Config(settings.sac_batch_size, settings.sac_width, settings.sac_layers)


def sac_hyper(settings: Settings) -> sac.Hyper:
    """Swept numbers of SAC."""
    rate = settings.sac_learning_rate
    return sac.Hyper(rate, rate, rate, discount=settings.discount, target_rate=settings.target_rate)
