"""Policies as functions of the environment's units, and those that no file can hold."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export.program import program_of
from jaxrl_srpo.methods import diffuser, srpo
from jaxrl_srpo.nn.noise import Columns
from jaxrl_srpo.types import Array
from tests.export import actors


def test_units_are_inside_and_actions_within_bounds() -> None:
    space = actors.SPACES["uneven"]
    program = actors.program(srpo.METHOD, srpo.METHOD.stages[-1], space)
    observations = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    seen = program.units.normalize_observations(observations)
    actions = program.units.denormalize_actions(np.asarray(program.policy.act(seen)))
    np.testing.assert_allclose(program(observations), actions, rtol=1e-5, atol=1e-5)
    far = np.asarray(program(1e6 * np.sign(observations)))
    assert np.all((far >= program.units.action_low) & (far <= program.units.action_high))


def test_noise_is_counted_for_each_observation() -> None:
    method, stage = next(one for one in actors.acting_stages() if one[1].name == "diffusion_ql")
    program = actors.program(method, stage, actors.SPACES["plain"])
    # Four candidates of two dimensions from noise and by three steps, and the choice among them.
    assert program.columns == [Columns("normal", 4 * 2 * (1 + 3)), Columns("gumbel", 4)]
    assert program.widths == [3, 36]


def test_plans_are_refused_with_the_reason() -> None:
    stage = next(stage for stage in diffuser.METHOD.stages if stage.acts)
    with pytest.raises(UserError, match=r"diffuser.*draws by a key alone.*docs/exporting.md"):
        actors.program(diffuser.METHOD, stage, actors.SPACES["plain"])


def test_more_noise_than_an_input_should_have_is_refused() -> None:
    method, stage = next(one for one in actors.acting_stages() if one[1].name == "bcq")
    program = actors.program(method, stage, actors.SPACES["plain"])
    greedy = dataclasses.replace(program.policy, candidates=3000)
    with pytest.raises(UserError, match=r"bcq: its policy draws 12,000 numbers for each observation, at most 10,000"):
        program_of(stage, greedy, program.units, 3, 2)


def test_a_function_of_a_users_own_acts_if_it_draws_nothing() -> None:
    def steady(policy: Array, observations: Array) -> Array:
        return policy * observations[:, :2]

    def random(policy: Array, observations: Array, key: Array) -> Array:
        return policy * jax.random.uniform(key, (len(observations), 2))

    stage, units = srpo.METHOD.stages[-1], actors.SPACES["plain"].units
    program = program_of(dataclasses.replace(stage, act=steady), np.float32(0.5), units, 3, 2)
    np.testing.assert_allclose(program(np.ones((1, 3), np.float32)), np.full((1, 2), 0.5))
    with pytest.raises(UserError, match="draws by a key alone"):
        program_of(dataclasses.replace(stage, act=random), np.float32(0.5), units, 3, 2)
