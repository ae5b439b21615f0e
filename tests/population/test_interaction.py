"""One iteration of learning online, function by function."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.population import interaction, replay
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.population.interaction import Arrival, Loop, Problem
from jaxrl_srpo.population.member import Carry, make_members
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

SPEC = Spec(2, 1)
LOOP = Loop(environments=3, update_to_data=2.0, capacity=20, warmup_steps=6, random_steps=3)


@struct.dataclass
class Settings:
    rate: Array | float = 1.0
    batch_size: int = struct.field(pytree_node=False, default=4)


def init(spec: Spec) -> Array:
    return jnp.zeros((spec.observation_size,))


def update(state: Array, batch: Batch, settings: Settings) -> tuple[Array, Metrics]:
    return state + settings.rate, {"loss": jnp.mean(batch.rewards)}


def explore(context: Array, observations: Array) -> Array:
    """The first column of the context: it shows which one an episode has."""
    return context[:, :1] + 0.0 * observations[:, :1]


AGENT = Agent(
    "probe",
    init,
    update,
    explore,
    policy=lambda state: state,
    context=lambda key: jax.random.uniform(key, (2,), minval=0.5),
    context_size=2,
    observe=lambda state, batch: state + jnp.sum(batch.rewards),
)
PROBLEM = Problem(AGENT, SPEC, LOOP)
MEMBER: Any = jax.tree.map(lambda x: x[0, 0], make_members([jax.random.key(0)], [Settings()]))


def arrival(starts: list[bool], rewards: float = 0.0) -> Arrival:
    observations = jnp.arange(6.0).reshape(3, 2)
    return Arrival(observations, jnp.asarray(starts), observations + 10.0, jnp.full((3,), rewards), jnp.ones(3))


def test_updates_per_iteration_follow_from_the_environments() -> None:
    assert (LOOP.updates, LOOP.first_learning) == (6, 2)
    assert Loop(environments=4, update_to_data=0.25, warmup_steps=5).updates == 1
    assert Loop(environments=4, warmup_steps=5).first_learning == 2


@pytest.mark.parametrize(
    ("loop", "sizes", "message"),
    [
        (Loop(environments=0), [0], "update_to_data=1 with environments=0"),
        (
            Loop(environments=2, update_to_data=0.3),
            [0],
            "update_to_data=0.3 with environments=2.*whole number from 1 on",
        ),
        (Loop(capacity=5), [0, 10], "capacity=5: the buffer starts with 10 transitions; give more"),
        (Loop(environments=7, capacity=5), [0], "capacity=5: the buffer starts with 7 transitions; give more"),
        (Loop(warmup_steps=0), [10, 0], "warmup_steps=0: there is nothing to learn from before the first step"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(loop: Loop, sizes: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loop.check(sizes)


def test_numbers_that_go_together_are_not() -> None:
    LOOP.check([0])
    Loop(warmup_steps=0).check([10])


def test_the_agent_sees_observations_with_their_context() -> None:
    assert PROBLEM.agent_spec == Spec(4, 1)
    assert interaction.first_carry(PROBLEM, MEMBER, None).state.shape == (4,)
    batch = interaction.transitions(jnp.full((3, 2), 7.0), jnp.ones((3, 1)), arrival([True] * 3), arrival([False] * 3))
    np.testing.assert_array_equal(batch.observations[1], [2.0, 3.0, 7.0, 7.0])
    np.testing.assert_array_equal(batch.next_observations[1], [12.0, 13.0, 7.0, 7.0])


def test_arrivals_come_out_of_one_array() -> None:
    packed = jnp.concatenate([jnp.arange(8.0).reshape(2, 4), jnp.asarray([[1.0, 5.0, 0.0], [0.0, 6.0, 1.0]])], axis=-1)
    found = interaction.arrival_of(packed)
    assert found.observations.tolist() == [[0.0, 1.0], [4.0, 5.0]]
    assert found.next_observations.tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert found.starts.tolist() == [True, False]
    assert (found.rewards.tolist(), found.discounts.tolist()) == ([5.0, 6.0], [0.0, 1.0])


def test_contexts_last_an_episode_and_the_first_actions_are_random() -> None:
    carry, old = Carry(jnp.zeros(4), jnp.int32(-1)), jnp.zeros((3, 2))
    starts = [True, False, False]
    contexts, actions = interaction.act(PROBLEM, carry, MEMBER, old, arrival(starts), jnp.int32(1))
    assert np.all(np.asarray(contexts[0]) >= 0.5)
    np.testing.assert_array_equal(contexts[1:], 0.0)
    np.testing.assert_array_equal(actions, contexts[:, :1])
    _, random = interaction.act(PROBLEM, carry, MEMBER, old, arrival(starts), jnp.int32(0))
    assert np.all(np.asarray(random)[1:] != 0.0)
    assert float(jnp.max(jnp.abs(random))) <= 1.0


def test_nothing_is_learned_before_the_warm_up_is_over() -> None:
    carry = Carry(jnp.zeros(4), jnp.int32(-1))
    totals = interaction.no_totals(PROBLEM, carry, MEMBER, None)
    buffer = replay.empty(20, PROBLEM.agent_spec)
    rows = interaction.draw(PROBLEM, replay.add(buffer, jnp.ones((2, buffer.rows.shape[1]))), MEMBER, jnp.int32(0))
    assert rows.shape == (6, 4, buffer.rows.shape[1])
    learned = []
    for iteration in (1, 2):
        after, counted = interaction.learn(PROBLEM, carry, totals, rows, MEMBER, None, jnp.int32(iteration))
        learned.append((float(after.state[0]), int(counted.count)))
    assert learned == [(0.0, 0), (6.0, 6)]


def test_a_diverged_member_counts_no_visits() -> None:
    before, after = arrival([True] * 3), arrival([False] * 3, rewards=2.0)
    contexts, actions = jnp.zeros((3, 2)), jnp.zeros((3, 1))
    found = [
        float(interaction.observe(PROBLEM, Carry(jnp.zeros(4), at), contexts, actions, before, after).state[0])
        for at in (jnp.int32(-1), jnp.int32(5))
    ]
    assert found == [6.0, 0.0]
    blind = dataclasses.replace(PROBLEM, agent=dataclasses.replace(AGENT, observe=None))
    carry = Carry(jnp.zeros(4), jnp.int32(-1))
    assert interaction.observe(blind, carry, contexts, actions, before, after) is carry
