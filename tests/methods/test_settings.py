"""The presets against the published table, and values that are refused."""

from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import awac
from jaxrl_srpo.methods import settings as settings_lib
from jaxrl_srpo.methods.presets import PAPER_BETA, preset
from jaxrl_srpo.methods.settings import FIELDS, SWEPT, Settings, override
from jaxrl_srpo.methods.stages import STAGES

# arXiv 2310.07297 and the released code (thu-ml/SRPO, commit b3b916a).
PUBLISHED = {
    "normalize_observations": False,
    "trajectory_weighting": 0.0,
    "behavior_steps": 2_000_000,
    "behavior_batch_size": 2048,
    "behavior_learning_rate": 3e-4,
    "behavior_weight_decay": 0.01,
    "behavior_cosine": False,
    "behavior_weight_average": 0.0,
    "score_width": 256,
    "score_hidden": 1024,
    "score_blocks": 3,
    "score_dropout": 0.1,
    "critic_steps": 1_500_000,
    "critic_batch_size": 256,
    "critic_learning_rate": 3e-4,
    "iql_actor_learning_rate": 3e-4,
    "discount": 0.99,
    "target_rate": 0.005,
    "critic_width": 256,
    "policy_steps": 1_000_000,
    "policy_batch_size": 256,
    "policy_learning_rate": 3e-4,
    "time_min": 0.02,
    "time_max": 0.98,
    "weighting": "sigma2",
    "minus_noise": False,
    "policy_start": "random",
    "policy_weight_average": 0.0,
    "episodes": 20,
    "policy_evaluation_interval": 20_000,
    "critic_evaluation_interval": 50_000,
    "sampler_steps": 15,
}
LOCOMOTION = {"expectile": 0.7, "awr_temperature": 3.0, "actor_layers": 2, "q_gradient": "raw"}
MAZE = {"expectile": 0.9, "awr_temperature": 10.0, "actor_layers": 4, "q_gradient": "sample"}
BETA = {
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


@pytest.mark.parametrize("name", BETA)
def test_paper_is_the_published_protocol(name: str) -> None:
    maze = name.startswith("antmaze")
    expected = PUBLISHED | (MAZE if maze else LOCOMOTION) | {"beta": BETA[name]}
    expected["reward_transform"] = "d4rl-antmaze" if maze else "d4rl-locomotion"
    chosen = preset("paper", name, "antmaze" if maze else "locomotion")
    assert {setting: getattr(chosen, setting) for setting in expected} == expected
    # Everything else that changes what is learned is in the table above.
    groups = ("behavior", "critic", "policy", "data", "return")
    assert {name for name in FIELDS if FIELDS[name].metadata["stage"] in groups} - set(expected) == {"precision"}


def test_every_published_dataset_has_its_beta_and_no_other() -> None:
    assert PAPER_BETA == BETA


def test_the_settings_reach_the_stages() -> None:
    chosen = preset("paper", "antmaze-umaze-v2", "antmaze")
    behavior, behavior_hyper = settings_lib.behavior_config(chosen), settings_lib.behavior_hyper(chosen)
    assert (behavior.batch_size, behavior.width, behavior.hidden, behavior.blocks) == (2048, 256, 1024, 3)
    assert (behavior.dropout_rate, behavior.cosine, behavior.weight_average) == (0.1, False, 0.0)
    assert (behavior_hyper.learning_rate, behavior_hyper.weight_decay) == (3e-4, 0.01)
    assert behavior_hyper.total_steps == 2e6
    critic, critic_hyper = settings_lib.critic_config(chosen), settings_lib.critic_hyper(chosen)
    assert (critic.batch_size, critic.width, critic.actor_width, critic.actor_layers) == (256, 256, 256, 4)
    assert (critic_hyper.learning_rate, critic_hyper.actor_learning_rate) == (3e-4, 3e-4)
    assert (critic_hyper.expectile, critic_hyper.discount, critic_hyper.temperature) == (0.9, 0.99, 10.0)
    assert (critic_hyper.target_rate, critic_hyper.total_steps) == (0.005, 1.5e6)
    policy, policy_hyper = settings_lib.policy_config(chosen), settings_lib.policy_hyper(chosen)
    assert (policy.batch_size, policy.width, policy.layers) == (256, 256, 4)
    assert (policy.weighting, policy.minus_noise, policy.q_gradient) == ("sigma2", False, "sample")
    assert (policy_hyper.beta, policy_hyper.learning_rate, policy_hyper.total_steps) == (0.02, 3e-4, 1e6)
    assert (policy_hyper.time_min, policy_hyper.time_max, policy_hyper.regularization) == (0.02, 0.98, 1.0)


# rail-berkeley/rlkit, commit ac45a9d, `examples/awac`, and corl-team/CORL, commit eeeeef2, `configs/offline/awac`.
OFFICIAL = awac.Config(128, 256, 4, 256, 2, "tanh", "sigmoid", "softmax", "sample", "l2", False, False, True)
HAND = OFFICIAL._replace(actor_layers=2, baseline="mean", negative_q=True, bootstrap_terminals=True)
CORL = awac.Config(256, 256, 3, 256, 3, "linear", "clip", "exp", "sample", "l2", False, False, False)


@pytest.mark.parametrize(
    ("name", "family", "config", "lambda_", "clip", "weight_decay", "steps"),
    [
        ("official-mujoco", "locomotion", OFFICIAL, 2.0, np.inf, 1e-4, 50_000),
        ("official-hand", "adroit", HAND, 0.5, 0.5, 1e-4, 25_000),
        ("corl", "locomotion", CORL, 0.3333, np.inf, 0.0, 1_000_000),
        ("corl", "antmaze", CORL, 0.1, np.inf, 0.0, 1_000_000),
    ],
)
def test_presets_of_awac_are_those_of_their_sources(
    name: str, family: str, config: awac.Config, lambda_: float, clip: float, weight_decay: float, steps: int
) -> None:
    chosen = preset(name, "", family)
    hyper = settings_lib.awac_hyper(chosen)
    assert settings_lib.awac_config(chosen) == config
    assert (hyper.lambda_, hyper.advantage_clip, hyper.weight_decay) == (lambda_, clip, weight_decay)
    assert (hyper.learning_rate, hyper.actor_learning_rate) == (3e-4, 3e-4)
    assert (hyper.discount, hyper.target_rate, hyper.reward_scale) == (0.99, 0.005, 1.0)
    assert chosen.offline_steps == steps
    assert chosen.normalize_observations == (name == "corl")
    assert chosen.reward_transform == ("d4rl-antmaze" if family == "antmaze" else "none")


@pytest.mark.parametrize("family", ["locomotion", "antmaze", "pointmaze", "adroit", "kitchen", "other"])
def test_quick_is_much_smaller_than_paper(family: str) -> None:
    quick, paper = preset("quick", "", family), preset("paper", "", family)
    for stage in ("behavior", "critic", "policy"):
        assert getattr(quick, f"{stage}_steps") * 20 <= getattr(paper, f"{stage}_steps")
    assert quick.reward_transform == paper.reward_transform


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match=r"--preset=fast: unknown; choose one of quick, paper"):
        preset("fast", "", "other")


@pytest.mark.parametrize("name", SWEPT)
def test_what_a_sweep_varies_is_a_number_that_does_not_change_the_program(name: str) -> None:
    base = Settings()
    assert isinstance(getattr(base, name), float)
    changed = override(base, {name: getattr(base, name) * 0.5})
    if name == "awac_advantage_clip":
        base, changed = override(base, {name: 0.5}), override(base, {name: 1.0})
    assert all(stage.config(base) == stage.config(changed) for stage in STAGES.values())
    assert any(stage.hyper(base) != stage.hyper(changed) for stage in STAGES.values())


BAD: list[tuple[str, Any, str]] = [
    ("beta", -0.1, "must be a finite number, not negative"),
    ("beta", np.nan, "must be a finite number, not negative"),
    ("policy_learning_rate", np.inf, "must be a finite number, not negative"),
    ("policy_steps", 0, "must be at least 1"),
    ("critic_batch_size", -1, "not negative"),
    ("log_interval", 0, "must be at least 1"),
    ("episodes", 0, "must be at least 1"),
    ("score_blocks", 0, "must be at least 1"),
    ("expectile", 1.0, "must be below 1"),
    ("score_dropout", 1.0, "must be below 1"),
    ("policy_weight_average", 1.5, "must be below 1"),
    ("discount", 1.01, "must be at most 1"),
    ("time_max", 2.0, "must be at most 1"),
    ("weighting", "sigma", "choose one of sigma2, one, alpha_over_sigma"),
    ("q_gradient", "", "choose one of raw, sample, batch"),
    ("policy_start", "bc", "choose one of random, iql"),
    ("awac_lambda", 0.0, "must be above 0"),
    ("awac_baseline", "max", "choose one of sample, mean"),
    ("offline_steps", 0, "must be at least 1"),
    ("temperature", 1.0, "no such setting"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_values_are_refused_with_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        override(Settings(), {name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"discount": 1.0}, {"beta": 0.0}, {"time_max": 1.0}, {"expectile": 0.5}])
def test_values_on_the_border_are_allowed(values: dict[str, float]) -> None:
    assert override(Settings(), values) == Settings(**values)  # type: ignore[arg-type]
