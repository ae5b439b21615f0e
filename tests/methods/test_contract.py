"""What a method is: stages that follow from their declarations, and methods that cannot work."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, awac, behavior, find_method, iql, sac, srpo, stages_in_order
from jaxrl_srpo.methods.contract import Method, Preset, Stage, agreeing, check_method, merged_settings, preset_values
from jaxrl_srpo.methods.settings import Values, read, setting, with_arrays
from jaxrl_srpo.population.member import call
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

SPEC = Spec(3, 2, transitions=12)
STAGES = {stage.name: stage for stage in stages_in_order(METHODS)}
# The numbers that the stages' random streams had when they were released.
STREAMS = {
    "behavior": 0,
    "critic": 1,
    "policy": 2,
    "cloning": 3,
    "awac": 4,
    "sac_offline": 5,
    "srpo_online": 6,
    "iql_online": 7,
    "awac_online": 8,
    "sac_online": 9,
    "sac": 10,
}
TINY = Values(
    {flag: one.default for flag, one in merged_settings(METHODS).items()}
    | {"score_width": 8, "score_hidden": 8, "score_blocks": 1, "critic_width": 8, "sac_width": 8, "sampler_steps": 2}
    | {"awac_actor_width": 8, "awac_critic_width": 8, "awac_batch_size": 4, "online_batch_size": 4}
    | {"behavior_batch_size": 4, "critic_batch_size": 4, "policy_batch_size": 4, "sac_batch_size": 4}
)


@struct.dataclass
class Settings:
    """Settings of a probe."""

    batch_size: int = setting(4, "batch size", flag="probe_batch_size", minimum=1)
    steps: int = setting(8, "updates", flag="probe_steps", minimum=1)


def init(key: Array, spec: Spec) -> Array:
    return jax.random.normal(key, (spec.action_size,))


def update(state: Array, batch: Batch) -> tuple[Array, Metrics]:
    return state, {"loss": jnp.mean(batch.rewards)}


def probe(**changes: Any) -> Stage:
    declared: dict[str, Any] = {"name": "probe", "algorithm": "probe", "label": "Probe", "settings": Settings}
    return Stage(**declared | {"init": init, "update": update} | changes)


def method(*stages: Stage, **changes: Any) -> Method:
    quick = {"quick": Preset("a test", lambda dataset, family: {})}
    declared: dict[str, Any] = {"name": "probe", "source": "a test", "presets": quick}
    return Method(**declared | {"stages": stages or (probe(),)} | changes)


def test_released_stages_keep_the_numbers_of_their_random_streams() -> None:
    assert {name: STAGES[name].stream for name in STREAMS} == STREAMS


def test_a_new_stage_has_a_stream_of_its_name_far_from_all_numbers() -> None:
    # CRC-32 of the name with the highest bit set.
    assert probe().stream == 3613290282
    assert probe().stream == probe(label="Another label").stream != probe(name="prober").stream
    assert jax.random.fold_in(jax.random.key(0), probe().stream).shape == ()


@pytest.mark.parametrize("name", STAGES)
def test_results_have_the_shapes_that_their_templates_say(name: str) -> None:
    """Every stage from `init` to an action, as the trainer and the evaluator call it."""
    stage, whole = STAGES[name], SPEC._replace(transitions=6, episodes=2)

    def run(key: Array, observations: Array) -> tuple[Any, Array, Metrics]:
        def result_of(stage: Stage) -> tuple[Any, Any, Metrics]:
            results = {earlier.name: result_of(earlier)[0] for earlier in stage.needs}
            settings, frozen = with_arrays(stage.read(TINY)), stage.make_frozen(TINY, results, SPEC)
            state = call(stage.init, key=key, spec=stage.spec(whole), settings=settings, frozen=frozen)
            batch, data = table.example(stage.spec(whole), 4)
            given = {"batch": batch, "data": data, "key": key, "step": jnp.int32(0)}
            new, metrics = call(stage.update, state=state, settings=settings, frozen=frozen, **given)
            assert str(jax.tree.structure(new)) == str(jax.tree.structure(state))
            return stage.result(new), (state, settings), metrics

        result, (state, settings), metrics = result_of(stage)
        actions = jnp.zeros((4, 2))
        if stage.acts:
            policy = stage.make_policy(TINY, whole, result)
            actions = call(stage.act, policy=policy, observations=observations, key=key)
        if stage.explore is not None:
            explored = call(stage.explore, state=state, observations=observations, key=key, settings=settings)
            assert explored.shape == (4, 2)
        return result, actions, metrics

    result, actions, metrics = jax.eval_shape(run, jax.random.key(0), jnp.zeros((4, 3)))
    assert actions.shape == (4, 2)
    template = stage.template(TINY, whole)
    assert str(jax.tree.structure(template)) == str(jax.tree.structure(result))
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one.shape, other.shape), template, result)
    # What `update` returns is what the page of methods explains.
    assert metrics.keys() == stage.metrics.keys()
    assert all(value.shape == () for value in metrics.values())


def test_own_settings_leave_out_those_of_earlier_stages_and_of_measuring() -> None:
    own = srpo.STAGE.own_settings().keys()
    assert {"beta", "policy_steps", "time_min", "precision"} <= own
    assert own.isdisjoint({"critic_width", "actor_layers", "policy_evaluation_interval", "episodes"})
    assert {"critic_width", "score_width", "beta"} <= srpo.STAGE.reach()
    assert "reward_transform" in iql.STAGE.own_settings()
    assert "reward_transform" not in behavior.STAGE.reach()


def test_steps_and_intervals_are_those_of_the_settings() -> None:
    values = {"policy_steps": 70, "policy_evaluation_interval": 7, "behavior_steps": 30, "online_steps": 9}
    assert (srpo.STAGE.steps(values), srpo.STAGE.interval(values)) == (70, 7)
    # The behavior model is evaluated at its end.
    assert (behavior.STAGE.steps(values), behavior.STAGE.interval(values)) == (30, 30)
    assert awac.ONLINE.steps(values) == 9
    assert awac.ONLINE.interval(values | {"online_evaluation_interval": 3}) == 3


def test_an_online_stage_takes_the_online_batch() -> None:
    values = {"awac_batch_size": 2, "online_batch_size": 5, "critic_width": 7, "actor_layers": 3, "critic_layers": 6}
    assert awac.STAGE.read(values).batch_size == 2
    assert awac.ONLINE.read(values).batch_size == 5
    sizes = srpo.ONLINE.read(values)
    assert (sizes.batch_size, sizes.actor_width, sizes.actor_layers) == (5, 7, 3)
    assert (sizes.critic_width, sizes.critic_layers) == (7, 6)


def test_a_method_goes_on_online_only_where_it_is_asked_to() -> None:
    assert srpo.METHOD.stages_of({"online_steps": 0}) == [behavior.STAGE, iql.STAGE, srpo.STAGE]
    assert srpo.METHOD.stages_of({"online_steps": 1})[-1] is srpo.ONLINE
    assert sac.METHOD.stages_of({"online_steps": 1}) == [sac.FROM_SCRATCH]


def test_what_a_stage_says_of_itself_is_enough_for_a_report() -> None:
    assert srpo.STAGE.describe() == {
        "name": "policy",
        "algorithm": "srpo",
        "label": "SRPO",
        "title": "policy",
        "online": False,
        "follows": "",
        "cloning": "bc",
        "curve": True,
        "acts": True,
        "metrics": dict(srpo.STAGE.metrics),
    }
    assert awac.ONLINE.describe()["follows"] == "awac"
    assert not behavior.STAGE.describe()["curve"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("iql", r"'iql' is no jaxrl_srpo.methods.contract.Method"),
        (method(presets={}), r"--algorithm=probe: it has no preset; give at least one, named quick"),
        (
            method(probe(settings=dataclasses.make_dataclass("Empty", []))),
            r"--algorithm=probe: the settings of stage probe have no batch_size",
        ),
        (
            method(probe(columns=("steps_left", "speed"))),
            r"stage probe asks for the column speed; there are next_actions, steps_left",
        ),
    ],
)
def test_methods_that_cannot_work_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_method(given)


def test_stages_of_one_name_or_of_one_stream_are_refused() -> None:
    with pytest.raises(UserError, match="two stages are called critic"):
        stages_in_order([iql.METHOD, method(probe(name="critic"))])
    with pytest.raises(UserError, match="stages critic and probe share a random stream"):
        stages_in_order([iql.METHOD, method(probe(stream=1))])


def test_presets_that_disagree_are_refused_unless_the_value_is_given() -> None:
    other = method(
        probe(settings=iql.Settings), presets={"quick": Preset("a test", lambda dataset, family: {"critic_steps": 7})}
    )
    with pytest.raises(UserError, match="preset quick gives critic_steps different values for probe and another"):
        preset_values([iql.METHOD, other], "quick", "", "locomotion")
    chosen = preset_values([iql.METHOD, other], "quick", "", "locomotion", given=["critic_steps"])
    assert read(iql.Settings, chosen).steps == find_method("iql").preset("quick", "", "locomotion")["critic_steps"]


def test_a_stage_that_only_combines_needs_no_budget() -> None:
    empty = dataclasses.make_dataclass("Empty", [])
    stage = Stage(
        name="mix", algorithm="mix", label="Mix", settings=empty, init=lambda frozen: frozen, needs=(probe(),)
    )
    assert check_method(method(probe(), stage)).stages[-1] is stage
    assert not stage.learns
    assert (stage.steps({}), stage.interval({})) == (0, 0)
    assert probe().learns


def test_an_own_stage_needs_no_more_than_its_functions() -> None:
    stage = probe()
    assert stage.make_frozen({}, {}, SPEC).shape == ()
    assert stage.template({}, SPEC).shape == (2,)
    assert stage.make_policy({}, SPEC, "the result itself") == "the result itself"
    assert not stage.online


def test_a_stage_is_told_the_sizes_that_it_asks_for() -> None:
    plain, keeper = probe(), probe(per_transition=True, columns=("steps_left",))
    follower = probe(needs=(keeper,))
    whole = Spec(3, 2, 50)
    assert plain.spec(whole) == Spec(3, 2)
    assert keeper.spec(whole) == Spec(3, 2, 50, ("steps_left",))
    # What stands on something of every transition has the number of these in its shapes, too.
    assert plain.sizes(whole) == plain.sizes(Spec(3, 2, 60))
    assert follower.spec(whole) == Spec(3, 2)
    assert follower.sizes(whole) != follower.sizes(Spec(3, 2, 60))


def test_methods_agree_if_what_they_learn_by_does() -> None:
    def method(name: str, **values: Any) -> Method:
        return dataclasses.replace(iql.METHOD, name=name, presets={"one": Preset("", lambda dataset, family: values)})

    plain, same, longer = method("plain"), method("same", expectile=0.7), method("longer", discount=0.999)
    # A default stands against a value; what does not change learning does not.
    quiet = method("quiet", log_interval=7)
    assert agreeing([plain, longer, same, quiet], "one", [("x", "other")]) == [[plain, same, quiet], [longer]]
    with pytest.raises(UserError, match="--preset=two: plain has none of this name"):
        agreeing([plain], "two", [("x", "other")])


@pytest.mark.parametrize("family", ["locomotion", "antmaze", "pointmaze", "adroit", "kitchen", "other"])
def test_quick_presets_of_all_methods_share_a_run(family: str) -> None:
    """So that `--algorithm=all` trains every method at once."""
    every = [method for method in METHODS if method.stages]
    assert agreeing(every, "quick", [("", family)]) == [every]
    assert preset_values(every, "quick", "", family)
