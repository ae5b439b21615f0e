"""Settings as fields: flags, types, bounds, leaves, and values that are refused."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, awac, iql, srpo, stages_in_order
from jaxrl_srpo.methods.contract import merged_settings
from jaxrl_srpo.methods.settings import (
    Setting,
    Values,
    borrowed,
    declared,
    fields_of,
    read,
    scale_budget,
    setting,
    text_of,
    with_arrays,
)

SETTINGS = merged_settings(METHODS)
SWEPT = [flag for flag, one in SETTINGS.items() if one.swept]


@struct.dataclass
class Own:
    """Settings of nobody's method."""

    prefix: ClassVar[str] = "own"

    steps: int = setting(100, "updates", minimum=1, scaled=True, leaf=True)
    rate: float = setting(0.5, "learning rate", swept=True)
    shift: float = setting(0.0, "shift", minimum=-1.0)
    form: str = setting("round", "form", flag="form", choices=("round", "square"))
    quiet: bool = setting(False, "silence")


@struct.dataclass
class Heir(Own):
    """More of them, and one that IQL owns."""

    prefix: ClassVar[str] = "heir"

    extra: int = setting(3, "more")
    width: int = borrowed(iql.Settings, "width")


def test_flags_carry_the_prefix_of_the_class_that_declares_them() -> None:
    own = ["own_steps", "own_rate", "own_shift", "form", "own_quiet"]
    assert list(declared(Heir)) == [*own, "heir_extra", "critic_width"]
    assert declared(Heir)["critic_width"] == declared(iql.Settings)["critic_width"]
    assert [field.name for field in fields_of(Heir)][-2:] == ["extra", "width"]


def test_two_settings_under_one_flag_are_refused() -> None:
    @struct.dataclass
    class Other:
        """Another beta."""

        strength: float = setting(1.0, "another beta", flag="beta")

    with pytest.raises(UserError, match=r"--beta: .*srpo and .* both declare a setting of this name"):
        declared(srpo.Settings, Other)


def test_reading_takes_values_by_flag_and_defaults_elsewhere() -> None:
    heir: Any = read(Heir, {"own_rate": 0.1, "critic_width": 8, "something_else": 1})
    assert (heir.rate, heir.width, heir.steps, heir.form) == (0.1, 8, 100, "round")


def test_leaves_are_what_a_sweep_varies_and_schedules_all_else_is_static() -> None:
    assert jax.tree.leaves(Own()) == [100, 0.5]
    arrays: Any = with_arrays(Own())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(arrays))
    assert (arrays.form, arrays.shift) == ("round", 0.0)


@pytest.mark.parametrize("name", SWEPT)
def test_what_a_sweep_varies_is_a_number_that_does_not_change_the_program(name: str) -> None:
    default = SETTINGS[name].default
    assert isinstance(default, float)
    base = Values({flag: one.default for flag, one in SETTINGS.items()})
    changed = base.replace(**{name: default + 0.125})
    pairs: list[Any] = [(stage.read(base), stage.read(changed)) for stage in stages_in_order(METHODS)]
    assert all(str(jax.tree.structure(one)) == str(jax.tree.structure(other)) for one, other in pairs)
    assert any(jax.tree.leaves(one) != jax.tree.leaves(other) for one, other in pairs)


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
    ("sac_target_entropy", np.inf, "must be a finite number"),
    ("beta", 1e39, "must be at most .* in size, the largest number in float32"),
    ("behavior_steps", 2**31, "must be at most 2147483647"),
    ("behavior_steps", 10**23, "must be at most 2147483647"),
    ("actor_layers", 1001, "must be at most 1000"),
    ("update_to_data", 1e5, "must be at most 10000"),
    ("reward_transform", "best", "choose one of d4rl-locomotion, d4rl-antmaze, none"),
    ("beta", "0.1", "expects a number"),
    ("beta", True, "expects a number"),
    ("policy_steps", 1.5, "expects a whole number"),
    ("minus_noise", 1, "expects true or false"),
    ("weighting", 1, "expects a word"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_values_are_refused_with_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SETTINGS[name].convert(value)
    assert str(caught.value).startswith(f"--{name}={value}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("discount", 1.0), ("beta", 0.0), ("time_max", 1.0), ("expectile", 0.5), ("sac_target_entropy", -3.0)],
)
def test_values_on_the_border_are_allowed(name: str, value: float) -> None:
    assert SETTINGS[name].convert(value) == value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("beta", 1, 1.0), ("beta", np.float32(0.5), 0.5), ("policy_steps", 7.0, 7), ("policy_steps", np.int64(7), 7)],
)
def test_numbers_of_any_kind_become_the_settings_own(name: str, value: Any, expected: float) -> None:
    converted = SETTINGS[name].convert(value)
    assert (converted, type(converted)) == (expected, type(expected))


def test_lists_are_parsed_and_words_in_them_refused() -> None:
    assert SETTINGS["beta"].parse("0.1,2") == (0.1, 2.0)
    assert SETTINGS["weighting"].parse("one,sigma2") == ("one", "sigma2")
    for name, what in (("beta", "numbers"), ("policy_steps", "whole numbers")):
        with pytest.raises(UserError, match=f"--{name}=0.5,high: expects {what}, for instance --{name}="):
            SETTINGS[name].parse("0.5,high")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (0.1000001, "0.1000001"), (1.0, "1"), (3e38, "3e+38"), (1e-6, "1e-06"), (7, "7"), (True, "True")],
)
def test_texts_are_short_and_tell_numbers_apart(value: Any, text: str) -> None:
    assert text_of(value) == text
    assert not isinstance(value, float) or float(text) == value


def test_a_budget_scales_updates_and_intervals_but_nothing_that_is_off() -> None:
    values = Values({flag: one.default for flag, one in SETTINGS.items()})
    scaled = scale_budget(values, SETTINGS, 0.1)
    assert (scaled["policy_steps"], scaled["policy_evaluation_interval"]) == (100_000, 2_000)
    assert (scaled["online_steps"], scaled["critic_batch_size"]) == (0, 256)
    assert scale_budget(values, SETTINGS, 1e-9)["policy_steps"] == 1
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=rf"--budget={budget}: must be a positive number"):
            scale_budget(values, SETTINGS, budget)
    with pytest.raises(UserError, match=r"--budget=1e\+23: makes --.*=.*; must be at most 2147483647"):
        scale_budget(values, SETTINGS, 1e23)


def test_values_are_immutable_hashable_and_equal_by_content() -> None:
    values = Values({"beta": 0.1})
    assert values == Values({"beta": 0.1})
    assert hash(values) == hash(Values({"beta": 0.1}))
    assert values.replace(beta=0.2) == Values({"beta": 0.2})
    assert (dict(values), len(values)) == ({"beta": 0.1}, 1)
    with pytest.raises(TypeError):
        values["beta"] = 0.2  # type: ignore[index]


def test_every_setting_says_in_one_line_what_it_is() -> None:
    for flag, one in SETTINGS.items():
        assert isinstance(one, Setting)
        assert one.help, flag
        assert not one.help.endswith("."), flag
        assert one.convert(one.default) == one.default, flag


def test_the_method_reads_what_its_parents_declare() -> None:
    assert {"discount", "awac_actor_width", "offline_steps"} <= declared(awac.Settings).keys()
