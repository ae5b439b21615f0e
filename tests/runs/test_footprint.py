"""Populations that cannot fit into memory are refused with the figures, before anything is compiled."""

import pathlib
from typing import Any

import jax
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import METHODS, diffuser, iql, srpo, stages_in_order
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.runs import footprint
from jaxrl_srpo.runs.sweep import Member, Sweep
from jaxrl_srpo.types import Spec
from tests import synthetic

SPEC = Spec(3, 1)
BEHAVIOR, CRITIC, POLICY = srpo.METHOD.stages


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> jaxrl_srpo.Dataset:
    return jaxrl_srpo.load_dataset(synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "swing.hdf5"))


def members(dataset: jaxrl_srpo.Dataset, seeds: int = 1, **overrides: Any) -> list[Member]:
    return Sweep(("d",), tuple(range(seeds)), overrides={k: (v,) for k, v in overrides.items()}).members([dataset])


def test_the_state_is_what_init_makes(dataset: jaxrl_srpo.Dataset) -> None:
    values = members(dataset, critic_width=16)[0].settings
    settings = CRITIC.read(values)
    state = iql.init(jax.random.key(0), SPEC, settings)
    assert footprint.footprint(CRITIC, values, SPEC).state == sum(x.nbytes for x in jax.tree.leaves(state))


def test_the_largest_product_grows_with_the_batch(dataset: jaxrl_srpo.Dataset) -> None:
    sizes = [members(dataset, critic_batch_size=size)[0].settings for size in (1000, 10**6)]
    small, large = (footprint.footprint(CRITIC, values, SPEC) for values in sizes)
    assert small.state == large.state
    # Two layers of a batch, of 256 numbers each, and the layer's weights.
    assert large.product >= 2 * 10**6 * 256 * 4
    assert 500 < large.product / small.product < 1100


@pytest.mark.parametrize("stage", stages_in_order(METHODS), ids=lambda stage: stage.name)
def test_every_stage_has_one(stage: Stage) -> None:
    values = Values({flag: one.default for method in METHODS for flag, one in method.settings().items()})
    whole = SPEC._replace(transitions=100, episodes=2)
    small = footprint.footprint(stage, values.replace(**synthetic.TINY), whole)
    assert 0 < small.state < 2**23
    assert small.product < 2**24
    # What only combines or sums multiplies nothing.
    assert (small.product > 0) == (stage.learns and stage is not diffuser.RETURNS)


@pytest.mark.parametrize(
    ("stage", "overrides"),
    [
        (BEHAVIOR, {"score_hidden": 10_000_000}),
        (BEHAVIOR, {"score_hidden": 2**31 - 1, "score_width": 2**31 - 1}),
        (BEHAVIOR, {"behavior_batch_size": 2**31 - 1}),
        (CRITIC, {"critic_width": 10**6}),
        (CRITIC, {"critic_batch_size": 10**9}),
        (POLICY, {"policy_batch_size": 10**9}),
    ],
)
def test_what_does_not_fit_is_refused_with_the_figures(
    stage: Stage, overrides: dict[str, int], dataset: jaxrl_srpo.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "memory", lambda: 2**36)
    with pytest.raises(UserError, match=rf"stage {stage.name}: .* GiB; there are 64.0 GiB; train fewer members"):
        footprint.refuse_too_large(stage, members(dataset, **overrides))


def test_many_members_that_do_not_fit_together(dataset: jaxrl_srpo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    several = members(dataset, seeds=5)
    one = footprint.footprint(CRITIC, several[0].settings, SPEC)
    monkeypatch.setattr(footprint, "memory", lambda: 4 * one.state + one.product)
    footprint.refuse_too_large(CRITIC, several[:4])
    with pytest.raises(UserError, match="stage critic: the states of 5 members take"):
        footprint.refuse_too_large(CRITIC, several)


def test_a_sweep_that_does_not_fit_trains_nothing(tmp_path: pathlib.Path) -> None:
    data = synthetic.write_pendulum(tmp_path / "swing.hdf5")
    options, settings = jaxrl_srpo.Options(evaluate=False), synthetic.TINY | {"policy_batch_size": 2**31 - 1}
    with pytest.raises(UserError, match="stage policy: the states of 1 members take"):
        jaxrl_srpo.train(data, tmp_path / "run", [0], options=options, **settings)
    assert not list((tmp_path / "run" / "checkpoints").rglob("*.ocdbt"))
