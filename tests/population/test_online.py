"""The online loop: pure-JAX and Gymnasium environments, buffers, resuming, and members that do not touch each other."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.data import table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.episodes import MemberEnvironments
from jaxrl_srpo.envs.pendulum import Pendulum
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.agent import Agent
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import Members, make_members
from jaxrl_srpo.population.online import FunctionalRun, GymnasiumRun, OnlineRun
from jaxrl_srpo.types import Batch, Spec

SPEC = Spec(3, 1)
SETTINGS = sac.Settings(batch_size=8, width=8, layers=1)
# Episodes of five steps, so that several end in a short run.
PENDULUM = Pendulum(max_episode_steps=5)
LOOP = Loop(environments=2, update_to_data=0.5, capacity=40, warmup_steps=8, random_steps=4)


def members(seeds: Sequence[int] = (0, 1), sizes: Sequence[int] = (0, 0)) -> Members:
    """One group per member; `sizes` rows of the offline table each."""
    keys = [jax.random.key(seed) for seed in seeds]
    slices = [table.Slice(0, size) for size in sizes]
    return make_members(keys, [SETTINGS] * len(keys), slices, groups=len(keys))


def functional(agent: Agent = sac.AGENT, loop: Loop = LOOP, **more: Any) -> FunctionalRun:
    return FunctionalRun(PENDULUM, agent, loop, **(_common() | more))


def gymnasium_run() -> GymnasiumRun:
    specs = [EnvironmentSpec("Pendulum-v1", max_episode_steps=5)] * 2
    return GymnasiumRun(specs, sac.AGENT, LOOP, **_common())


def _common() -> dict[str, Any]:
    return {"members": members(), "frozen": None, "devices": jax.devices()[:1]}


def batch_of(run: OnlineRun, member: int) -> Batch:
    """What a member's buffer holds."""
    own = jax.tree.map(lambda x: x[member, 0], run.replay)
    return table.unpack(jnp.asarray(own.rows[: own.size]), SPEC)


@pytest.mark.parametrize("make", [functional, gymnasium_run])
def test_the_buffer_holds_every_transition_once_and_time_outs_bootstrap(make: Any) -> None:
    run = make()
    progress = run.run(12)
    assert run.steps == 24
    assert progress.episodes.tolist() == [[4], [4]]
    np.testing.assert_array_equal(progress.lengths, 5.0)
    for member in range(2):
        seen = batch_of(run, member)
        assert len(seen.rewards) == 24
        # Pendulum never terminates: a time-out keeps its discount, and its last observation is the episode's own.
        np.testing.assert_array_equal(seen.discounts, 1.0)
        ours = [np.asarray(x).reshape(12, 2, 3) for x in (seen.observations, seen.next_observations)]
        inside = [step for step in range(11) if (step + 1) % 5]
        np.testing.assert_allclose(ours[1][inside], ours[0][np.array(inside) + 1], atol=1e-6)
        begins = [step for step in range(11) if not (step + 1) % 5]
        assert np.all(np.abs(ours[1][begins] - ours[0][np.array(begins) + 1]).max(axis=-1) > 1e-3)


@pytest.mark.parametrize("make", [functional, gymnasium_run])
def test_a_restored_run_ends_bitwise_where_an_uninterrupted_one_ends(make: Any) -> None:
    whole = make()
    whole.run(7)
    saved = whole.checkpoint()
    whole.run(6)
    again = make()
    again.restore(saved)
    again.run(6)
    jax.tree.map(np.testing.assert_array_equal, again.checkpoint(), whole.checkpoint())


def test_a_member_alone_is_the_member_in_a_population() -> None:
    together, alone = functional(), functional(members=members((1,), (0,)))
    for run in (together, alone):
        run.run(10)
    ours = jax.tree.map(lambda x: x[1], together.states)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[0]), ours, alone.states)


def test_a_chunk_is_traced_once() -> None:
    traces = []

    def update(state: Any, batch: Batch, key: jax.Array, settings: Any) -> Any:
        traces.append(1)
        return sac.update(state, batch, key, settings)

    run = functional(dataclasses.replace(sac.AGENT, update=update))
    run.run(6)
    first = len(traces)
    for _ in range(3):
        run.run(5)
    assert len(traces) == first


def test_learning_begins_after_the_warm_up() -> None:
    run = functional()
    before = run.states
    # Eight steps of two environments: four iterations.
    nothing = run.run(4)
    jax.tree.map(np.testing.assert_array_equal, run.states.q.params, before.q.params)
    assert all(np.isnan(values).all() for values in nothing.metrics.values())
    progress = run.run(1)
    assert all(np.isfinite(values).all() for values in progress.metrics.values())
    assert run.states.q.opt_state.count.tolist() == [[1], [1]]


def test_a_buffer_may_start_as_a_dataset() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(10, table.row_width(SPEC))).astype(np.float32)
    loop = Loop(environments=2, update_to_data=0.5, capacity=30, warmup_steps=0, random_steps=0)
    run = functional(loop=loop, members=members(sizes=(10, 6)), rows=rows)
    for member, size in enumerate((10, 6)):
        np.testing.assert_array_equal(run.replay.rows[member, 0, :size], rows[:size])
        assert run.replay.size[member, 0] == size
    run.run(3)
    assert run.replay.size[:, 0].tolist() == [16, 12]
    np.testing.assert_array_equal(run.replay.rows[1, 0, :6], rows[:6])


def test_shapes_of_a_checkpoint_are_known_without_copying_it() -> None:
    run = gymnasium_run()
    run.run(7)
    shapes, saved = run.checkpoint_shapes(), run.checkpoint()
    assert str(jax.tree.structure(shapes)) == str(jax.tree.structure(saved))
    for one, other in zip(jax.tree.leaves(shapes), jax.tree.leaves(saved), strict=True):
        assert (one.shape, one.dtype) == (np.shape(other), np.asarray(other).dtype)
    run.close()


def test_policies_are_those_of_the_states() -> None:
    run = functional()
    run.run(1)
    expected = sac.policy_of(jax.tree.map(lambda x: x[:, 0], run.states))
    jax.tree.map(np.testing.assert_array_equal, run.policies, expected)
    assert run.action_size == 1


def test_environments_are_closed_where_the_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = MemberEnvironments.close

    def watched(self: MemberEnvironments) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(MemberEnvironments, "close", watched)
    specs = [EnvironmentSpec("Pendulum-v1", max_episode_steps=5)] * 2
    with pytest.raises(UserError, match="warmup_steps=0"):
        GymnasiumRun(specs, sac.AGENT, Loop(warmup_steps=0), **_common())
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (Loop(environments=2, update_to_data=0.3), "update_to_data=0.3 with environments=2"),
        (Loop(environments=1, capacity=5), "capacity=5: the buffer starts with 10 transitions"),
        (Loop(warmup_steps=0), "warmup_steps=0: there is nothing to learn from"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(loop: Loop, message: str) -> None:
    sizes = (0, 0) if loop.warmup_steps == 0 else (10, 10)
    with pytest.raises(UserError, match=message):
        functional(loop=loop, members=members(sizes=sizes), rows=np.zeros((10, table.row_width(SPEC)), np.float32))
