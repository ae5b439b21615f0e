"""Named sets of settings: small budgets for CPUs, and the protocols of published code."""

from typing import Any

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.settings import Settings

PRESETS = ("quick", "paper", "official-mujoco", "official-hand", "corl")
"""`quick`: small budgets; `paper`: SRPO as published; the others: AWAC as in rail-berkeley/rlkit and corl-team/CORL."""

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
    "offline_steps": 20_000,
    "awac_batch_size": 256,
    "awac_actor_layers": 2,
    "awac_lambda": 1.0,
    "offline_evaluation_interval": 2_500,
    "online_batch_size": 256,
    "online_warmup_steps": 0,
    "online_evaluation_interval": 1_000,
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


# AWAC: `examples/awac` of rlkit, whose MuJoCo example is the default of every setting, and `configs/offline/awac` of
# CORL. The batch of 128 is what rlkit trains on offline; its example's 1024 is that of the online phase.
_AWAC: dict[str, dict[str, Any]] = {
    "official-mujoco": {},
    "official-hand": {
        "offline_steps": 25_000,
        "awac_actor_layers": 2,
        "awac_lambda": 0.5,
        "awac_advantage_clip": 0.5,
        "awac_baseline": "mean",
        "awac_negative_q": True,
        "awac_bootstrap_terminals": True,
    },
    "corl": {
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
    },
}


def preset(name: str, dataset_name: str, family: str) -> Settings:
    """The settings that a preset gives a dataset; `paper` is the published protocol of SRPO, dataset by dataset.

    Raises:
      UserError: for an unknown preset.
    """
    from jaxrl_srpo.data.rewards import default_transform

    if name not in PRESETS:
        raise UserError(f"--preset={name}: unknown; choose one of {', '.join(PRESETS)}")
    maze = family in ("antmaze", "pointmaze")
    values: dict[str, Any] = {"reward_transform": default_transform(family)}
    values |= _MAZE if maze else {}
    if name in _AWAC:
        values |= _AWAC[name]
        # AWAC's code takes rewards as they are, except the 0 and 1 of mazes.
        values["reward_transform"] = values["reward_transform"] if maze else "none"
        if name == "corl" and family != "locomotion":
            values["awac_lambda"] = 0.1
    elif name == "quick":
        values |= _QUICK | (_QUICK_MAZE if maze else {})
    elif dataset_name in PAPER_BETA:
        values["beta"] = PAPER_BETA[dataset_name]
    return Settings(**values)
