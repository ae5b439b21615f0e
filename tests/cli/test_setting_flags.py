"""Settings as flags: one for each, of their types, in groups."""

from typing import Any

import pytest
from absl import flags

from jaxrl_srpo.cli import setting_flags
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, find_method
from jaxrl_srpo.methods.contract import merged_settings


def given(*arguments: str) -> dict[str, Any]:
    values = flags.FlagValues()
    setting_flags.define_settings(values, METHODS)
    values(["probe", *arguments])
    return setting_flags.given_settings(values, METHODS)


def test_only_what_is_given_replaces_the_preset() -> None:
    assert given() == {}
    assert given("--beta=0.1,0.2", "--policy_steps=7", "--nominus_noise", "--weighting=one") == {
        "beta": (0.1, 0.2),
        "policy_steps": (7,),
        "minus_noise": False,
        "weighting": ("one",),
    }
    with pytest.raises(UserError, match=r"--policy_steps=1.5: expects whole numbers"):
        given("--policy_steps=1.5")


def test_methods_of_ones_own_come_from_the_command() -> None:
    assert setting_flags.methods_for_flags(["--algorithm=srpo,iql", "--beta=1"]) == list(METHODS)
    with pytest.raises(UserError, match="No module named 'nowhere_at_all'"):
        setting_flags.methods_for_flags(["--algorithm=srpo,nowhere_at_all:METHOD"])


def test_groups_hold_every_setting_once() -> None:
    groups = setting_flags.groups(METHODS)
    grouped = [flag for settings in groups.values() for flag in settings]
    assert sorted(grouped) == sorted(merged_settings(METHODS))
    assert "beta" in groups["SRPO"]
    assert "awac_lambda" in groups["AWAC"]
    assert "discount" in groups["Values"]


def test_help_says_choices_lists_and_defaults() -> None:
    text = " ".join(setting_flags.settings_help(METHODS).split())
    assert "--weighting weight omega(t). One of sigma2, one, alpha_over_sigma. (default sigma2)" in text
    assert "--beta temperature beta: larger is greedier. Takes several values. (default 0.05)" in text
    assert "--[no]awac_bootstrap_terminals bootstrap through terminations in AWAC. (default False)" in text


def test_presets_have_sources_and_on_request_their_values() -> None:
    awac = [find_method("awac")]
    short, full = (setting_flags.presets_help(awac, whole) for whole in (False, True))
    assert short.splitlines()[1].split(maxsplit=1) == ["awac", ", ".join(awac[0].presets)]
    assert "awac_lambda" not in short
    assert "--preset=corl " in full
    assert "corl-team/CORL" in full
    assert "awac_lambda=0.3333" in full
