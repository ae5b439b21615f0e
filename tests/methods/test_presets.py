"""The presets against the tables of their sources."""

import dataclasses
from typing import Any

import pytest

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, awac, behavior, find_method, iql, presets, srpo
from jaxrl_srpo.methods.contract import preset_values
from jaxrl_srpo.methods.settings import DataSettings, RewardSettings, Values, declared

# arXiv 2310.07297 and the released code (thu-ml/SRPO, commit b3b916a).
PUBLISHED = {
    # Every seed has models of its own.
    "behavior_seeds": 0,
    "critic_seeds": 0,
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
    "critic_layers": 2,
    "critic_layer_norm": False,
    "iql_actor_learning_rate": 3e-4,
    "discount": 0.99,
    "target_rate": 0.005,
    "critic_width": 256,
    "actor_layers": 2,
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
LOCOMOTION = {"expectile": 0.7, "awr_temperature": 3.0, "policy_layers": 0, "q_gradient": "raw"}
MAZE = {"expectile": 0.9, "awr_temperature": 10.0, "policy_layers": 4, "q_gradient": "sample"}
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


def values_of(method: str, preset: str, dataset: str = "", family: str = "locomotion") -> Values:
    return preset_values([find_method(method)], preset, dataset, family)


@pytest.mark.parametrize("name", BETA)
def test_paper_is_the_published_protocol(name: str) -> None:
    maze = name.startswith("antmaze")
    expected = PUBLISHED | (MAZE if maze else LOCOMOTION) | {"beta": BETA[name], "regularization": 1.0}
    expected["reward_transform"] = "d4rl-antmaze" if maze else "d4rl-locomotion"
    chosen = values_of("srpo", "paper", name, "antmaze" if maze else "locomotion")
    assert {setting: chosen[setting] for setting in expected} == expected
    # Everything else that changes what is learned is in the table above.
    classes = (behavior.Settings, iql.Settings, srpo.Settings, DataSettings, RewardSettings)
    assert set(declared(*classes)) - set(expected) == {"precision"}


def test_every_published_dataset_has_its_beta_and_no_other() -> None:
    assert srpo.PAPER_BETA == BETA
    assert tuple(srpo.PAPER_BETA) == d4rl.PAPER


def test_the_settings_reach_the_stages() -> None:
    chosen = values_of("srpo", "paper", "antmaze-umaze-v2", "antmaze")
    score = behavior.STAGE.read(chosen)
    assert (score.batch_size, score.width, score.hidden, score.blocks) == (2048, 256, 1024, 3)
    assert (score.dropout_rate, score.cosine, score.weight_average) == (0.1, False, 0.0)
    assert (score.learning_rate, score.weight_decay, score.steps) == (3e-4, 0.01, 2e6)
    critic = iql.STAGE.read(chosen)
    assert (critic.batch_size, critic.width, critic.actor_layers) == (256, 256, 2)
    assert (critic.learning_rate, critic.actor_learning_rate) == (3e-4, 3e-4)
    assert (critic.expectile, critic.discount, critic.temperature) == (0.9, 0.99, 10.0)
    assert (critic.target_rate, critic.steps) == (0.005, 1.5e6)
    policy = srpo.STAGE.read(chosen)
    assert (policy.batch_size, policy.width, policy.layers) == (256, 256, 4)
    assert (policy.weighting, policy.minus_noise, policy.q_gradient) == ("sigma2", False, "sample")
    assert (policy.beta, policy.learning_rate, policy.steps) == (0.02, 3e-4, 1e6)
    assert (policy.time_min, policy.time_max, policy.regularization) == (0.02, 0.98, 1.0)


# rail-berkeley/rlkit, commit ac45a9d, `examples/awac`, and corl-team/CORL, commit eeeeef2, `configs/offline/awac`.
OFFICIAL: dict[str, Any] = {
    "steps": 50_000,
    "batch_size": 128,
    "actor_width": 256,
    "actor_layers": 4,
    "critic_width": 256,
    "critic_layers": 2,
    "critic_layer_norm": False,
    "mean": "tanh",
    "log_std": "sigmoid",
    "weighting": "softmax",
    "baseline": "sample",
    "decay": "l2",
    "negative_q": False,
    "bootstrap_terminals": False,
    "small_outputs": True,
    "initialization": "rlkit",
    "clip_samples": False,
    "weight_decay": 1e-4,
    "lambda_": 2.0,
    "advantage_clip": 0.0,
    "learning_rate": 3e-4,
    "actor_learning_rate": 3e-4,
    "discount": 0.99,
    "target_rate": 0.005,
    "reward_scale": 1.0,
}
HAND = OFFICIAL | {
    "steps": 25_000,
    "actor_layers": 2,
    "baseline": "mean",
    "negative_q": True,
    "bootstrap_terminals": True,
    "lambda_": 0.5,
    "advantage_clip": 0.5,
}
CORL = OFFICIAL | {
    "steps": 1_000_000,
    "batch_size": 256,
    "actor_layers": 3,
    "critic_layers": 3,
    "mean": "linear",
    "log_std": "clip",
    "weighting": "exp",
    "small_outputs": False,
    "initialization": "pytorch",
    "clip_samples": True,
    "weight_decay": 0.0,
    "lambda_": 0.3333,
}


@pytest.mark.parametrize(
    ("name", "family", "expected"),
    [
        ("official-mujoco", "locomotion", OFFICIAL),
        ("official-hand", "adroit", HAND),
        ("corl", "locomotion", CORL),
        ("corl", "antmaze", CORL | {"lambda_": 0.1}),
    ],
)
def test_presets_of_awac_are_those_of_their_sources(name: str, family: str, expected: dict[str, Any]) -> None:
    chosen = values_of("awac", name, "", family)
    settings: Any = awac.STAGE.read(chosen)
    found = dataclasses.asdict(settings)
    del found["evaluation_interval"]
    assert found == expected
    assert chosen["normalize_observations"] == (name == "corl")
    assert chosen["reward_transform"] == ("d4rl-antmaze" if family == "antmaze" else "none")


@pytest.mark.parametrize("family", ["locomotion", "antmaze", "pointmaze", "adroit", "kitchen", "other"])
def test_quick_is_much_smaller_than_paper(family: str) -> None:
    quick, paper = (values_of("srpo", name, "", family) for name in ("quick", "paper"))
    for stage in ("behavior", "critic", "policy"):
        assert quick[f"{stage}_steps"] * 20 <= paper[f"{stage}_steps"]
    assert quick["reward_transform"] == paper["reward_transform"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_quick_begins_alike_for_every_method(method: Any) -> None:
    for family, episodes in (("locomotion", 10), ("pointmaze", 20)):
        chosen = values_of(method.name, "quick", "", family)
        shared = {flag: value for flag, value in presets.quick(family).items() if flag in method.settings()}
        assert {flag: chosen[flag] for flag in shared} == shared
        assert chosen["episodes"] == episodes


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_preset_that_a_method_lacks_is_refused_with_those_that_it_has(method: Any) -> None:
    own = ", ".join(method.presets)
    for preset in ("fast", "official-hand" if method.name != "awac" else "paper"):
        with pytest.raises(UserError, match=rf"^--preset={preset}: {method.name} has none .*; choose one of {own}$"):
            values_of(method.name, preset)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_value_of_every_preset_is_one_that_its_setting_allows(method: Any) -> None:
    settings = method.settings()
    for name, preset in method.presets.items():
        for family in ("locomotion", "antmaze", "pointmaze", "other"):
            values = preset.values("hopper-medium-v2", family)
            # A shared recipe may hold what another method reads, but nothing that none does.
            known = {flag for other in METHODS for flag in other.settings()}
            assert values.keys() <= known
            own = {flag: value for flag, value in values.items() if flag in settings}
            assert {flag: settings[flag].convert(value) for flag, value in own.items()} == own, name


def test_mazes_are_known_by_their_family() -> None:
    assert [family for family in ("antmaze", "pointmaze", "locomotion", "kitchen") if presets.is_maze(family)] == [
        "antmaze",
        "pointmaze",
    ]


@pytest.mark.parametrize("method", ["srpo", "iql", "awac", "td3_bc", "rebrac"])
def test_that_of_ogbench_has_its_protocol(method: str) -> None:
    chosen = values_of(method, "ogbench", "cube-single-play-singletask-task1-v0", "ogbench")
    offline = {flag: chosen[flag] for flag in declared(*(stage.settings for stage in find_method(method).stages))}
    steps = {flag: value for flag, value in chosen.items() if flag in BUDGETS[method]}
    assert steps == dict.fromkeys(BUDGETS[method], 1_000_000)
    sizes = [value for flag, value in offline.items() if flag.endswith("_width") and not flag.startswith("score")]
    layers = [value for flag, value in offline.items() if flag.endswith("_layers") and flag != "policy_layers"]
    batches = [value for flag, value in offline.items() if flag.endswith("_batch_size")]
    intervals = [value for flag, value in offline.items() if flag.endswith("_interval")]
    assert (set(sizes), set(layers), set(batches), set(intervals)) == ({512}, {4}, {256}, {100_000})
    protocol = {"normalize_observations": False, "reward_transform": "none", "episodes": 50, "discount": 0.99}
    assert {flag: chosen[flag] for flag in protocol} == protocol
    norms = {flag: value for flag, value in offline.items() if flag.endswith("_layer_norm")}
    assert norms == ({} if method == "td3_bc" else dict.fromkeys(norms, True))


BUDGETS = {
    "srpo": ("behavior_steps", "critic_steps", "policy_steps"),
    "iql": ("critic_steps",),
    "awac": ("offline_steps",),
    "td3_bc": ("td3_bc_steps",),
    "rebrac": ("rebrac_steps",),
}


@pytest.mark.parametrize(
    ("dataset", "discount", "temperature"),
    [
        ("cube-single-play-singletask-v0", 0.99, 1.0),
        ("cube-double-noisy-singletask-task2-v0", 0.99, 0.3),
        ("antmaze-large-navigate-singletask-v0", 0.99, 10.0),
        ("antmaze-giant-navigate-singletask-task5-v0", 0.995, 10.0),
        ("humanoidmaze-medium-navigate-singletask-task1-v0", 0.995, 10.0),
    ],
)
def test_that_of_ogbench_follows_the_dataset(dataset: str, discount: float, temperature: float) -> None:
    iql_values, awac_values = (values_of(method, "ogbench", dataset, "ogbench") for method in ("iql", "awac"))
    assert (iql_values["discount"], iql_values["awr_temperature"]) == (discount, temperature)
    assert (awac_values["discount"], awac_values["awac_lambda"]) == (discount, 1.0 / temperature)


def test_that_of_ogbench_says_that_no_beta_is_published() -> None:
    note = srpo.METHOD.presets["ogbench"].note("scene-play-singletask-v0", "ogbench")
    assert note.startswith("scene-play-singletask-v0: ")
    assert "--beta " in note
