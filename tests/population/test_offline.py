"""Populations on a small regression problem: traces, independence of the members, devices, divergence, checkpoints."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.nn import optimizers
from jaxrl_srpo.population.member import Carry, Members, make_members
from jaxrl_srpo.population.offline import OfflinePopulation, compile_programs
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.types import Array, Batch, Spec

SPEC = Spec(observation_size=3, action_size=2)
ROWS = 40
WIDTH = 2 * SPEC.observation_size + SPEC.action_size + 2
NEVER = -1.0


@struct.dataclass
class Settings:
    """`start` is added to the initial weights; the loss is NaN at update `poisoned_at`."""

    learning_rate: Array | float = 1e-2
    start: Array | float = 0.0
    poisoned_at: Array | float = NEVER
    batch_size: int = struct.field(pytree_node=False, default=16)
    hidden: int = struct.field(pytree_node=False, default=8)


@struct.dataclass
class State:
    params: dict[str, Array]
    opt_state: Any
    step: Array


def init(key: Array, spec: Spec, settings: Settings) -> State:
    first = jax.random.uniform(key, (spec.observation_size, settings.hidden), minval=-1.0) + settings.start
    params = {"first": first, "second": jnp.ones((settings.hidden, spec.action_size))}
    return State(params, optimizers.init(params), jnp.int32(0))


def update(state: State, batch: Batch, key: Array, settings: Settings, frozen: Array) -> tuple[State, dict[str, Array]]:
    """Regression of the actions, shifted by the frozen vector and by noise."""
    noise = jax.random.uniform(key)

    def loss_fn(params: dict[str, Array]) -> Array:
        predicted = jnp.tanh(batch.observations @ params["first"]) @ params["second"]
        return jnp.mean((predicted - batch.actions - frozen[None] - 0.1 * noise) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    params, opt_state = optimizers.adam(state.params, state.opt_state, grads, settings.learning_rate)
    loss = jnp.where(state.step == jnp.asarray(settings.poisoned_at).astype(jnp.int32), jnp.nan, loss)
    return State(params, opt_state, state.step + 1), {"loss": loss, "noise": noise}


@dataclasses.dataclass
class Problem:
    """G groups of K members; group g has its own frozen vector, member m its own rows and numbers."""

    members: Members
    frozen: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.members.keys.shape[0], self.members.keys.shape[1]

    def only(self, group: int, member: int) -> "Problem":
        members = jax.tree.map(lambda x: x[group : group + 1, member : member + 1], self.members)
        return Problem(members, self.frozen[group : group + 1], self.rows)

    def ungrouped(self) -> "Problem":
        """Every member as a group of its own, with its own copy of the frozen vector."""
        groups, size = self.shape
        members = jax.tree.map(lambda x: x.reshape(groups * size, 1), self.members)
        return Problem(members, np.repeat(self.frozen, size, axis=0), self.rows)

    def with_numbers(self, **values: Any) -> "Problem":
        """Numbers by name, arrays that broadcast to [G, K]."""
        new = {name: jnp.broadcast_to(jnp.asarray(x, jnp.float32), self.shape) for name, x in values.items()}
        settings = dataclasses.replace(self.members.settings, **new)
        return dataclasses.replace(self, members=dataclasses.replace(self.members, settings=settings))


def problem(groups: int, size: int) -> Problem:
    random = np.random.default_rng(0)
    count = groups * size
    keys = [jax.random.key(seed) for seed in range(count)]
    slices = [table.Slice(i % 2 * ROWS, ROWS) for i in range(count)]
    settings = [Settings(learning_rate=rate) for rate in np.linspace(1e-3, 1e-1, count, dtype=np.float32)]
    frozen = random.normal(size=(groups, SPEC.action_size)).astype(np.float32)
    rows = random.normal(size=(2 * ROWS, WIDTH)).astype(np.float32)
    return Problem(make_members(keys, settings, slices, groups), frozen, rows)


def population_of(
    task: Problem, strategy: Strategy = "map", devices: int = 1, update: Callable[..., Any] = update
) -> OfflinePopulation:
    own = jax.devices()[:devices]
    return OfflinePopulation(init, update, SPEC, task.members, task.frozen, task.rows, strategy, own)


def train(
    task: Problem, chunks: tuple[int, ...] = (12,), strategy: Strategy = "map", devices: int = 1
) -> tuple[Carry, list[dict[str, np.ndarray]]]:
    """The carry after all chunks, and each chunk's metrics."""
    population = population_of(task, strategy, devices)
    metrics = run(population, chunks)
    return population.checkpoint(), metrics


def run(population: OfflinePopulation, chunks: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    ends = np.cumsum(chunks).tolist()
    return [population.run(stop - steps, stop) for steps, stop in zip(chunks, ends, strict=True)]


@functools.cache
def plain(shape: tuple[int, int] = (2, 3), strategy: Strategy = "map", devices: int = 1) -> Any:
    """The carry and the metrics after one chunk of twelve updates, which several tests compare with."""
    return train(problem(*shape), (12,), strategy, devices)


def assert_equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_close(first: Any, second: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), first, second)


def member_of(tree: Any, group: int, member: int) -> Any:
    return jax.tree.map(lambda x: x[group : group + 1, member : member + 1], tree)


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_traces_do_not_grow_with_members_chunks_or_other_numbers(strategy: Strategy) -> None:
    counts = []
    for task in (problem(1, 1), problem(2, 3), problem(2, 3).with_numbers(learning_rate=0.5)):
        traces: list[int] = []

        def counted(
            state: State, batch: Batch, key: Array, settings: Settings, frozen: Array, traces: list[int] = traces
        ) -> Any:
            traces.append(1)
            return update(state, batch, key, settings, frozen)

        population = population_of(task, strategy, update=counted)
        run(population, (4,))
        once = len(traces)
        run(population, (1, 7, 2))
        assert len(traces) == once
        counts.append(once)
    assert counts[0] == counts[1] == counts[2] > 0


def test_vmap_and_map_agree_up_to_rounding() -> None:
    assert_close(plain(), plain(strategy="vmap"))


def test_a_member_alone_is_bitwise_what_it_is_in_company() -> None:
    task = problem(2, 3)
    together, metrics = plain()
    for group, member in [(0, 0), (0, 2), (1, 1)]:
        alone, own = train(task.only(group, member))
        assert_equal(alone, member_of(together, group, member))
        assert_equal(own, member_of(metrics, group, member))


def test_members_differ_by_their_keys_and_numbers() -> None:
    first = np.asarray(plain()[0].state.params["first"]).reshape(6, -1)
    assert len({row.tobytes() for row in first}) == 6


@pytest.mark.many_devices
@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (2, 3), (1, 1)])
def test_one_and_eight_devices_give_the_same_numbers(shape: tuple[int, int]) -> None:
    one, eight = plain(shape), plain(shape, devices=8)
    assert eight[0].diverged_at.shape == shape
    assert_equal(one, eight)


@pytest.mark.many_devices
def test_vmap_over_eight_devices_agrees_up_to_rounding() -> None:
    assert_close(plain(strategy="vmap"), plain(strategy="vmap", devices=8))


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.many_devices)])
def test_a_group_shares_one_copy_of_what_is_frozen(devices: int) -> None:
    task = problem(2, 3)
    grouped, _ = plain(devices=devices)
    single, _ = train(task.ungrouped(), devices=devices)
    assert_equal(jax.tree.map(lambda x: x.reshape(6, 1, *x.shape[2:]), grouped), single)
    shifted, _ = train(
        dataclasses.replace(task, frozen=task.frozen + np.array([[0], [1]], np.float32)), devices=devices
    )
    assert_equal(member_of(shifted, 0, 0), member_of(grouped, 0, 0))
    assert not np.array_equal(shifted.state.params["first"][1], grouped.state.params["first"][1])


def test_chunks_may_be_cut_anywhere() -> None:
    task = problem(2, 3)
    whole, whole_metrics = plain()
    cut, metrics = train(task, (1, 4, 7))
    assert_equal(whole, cut)
    weighted = (metrics[0]["loss"] + 4 * metrics[1]["loss"] + 7 * metrics[2]["loss"]) / 12
    np.testing.assert_allclose(weighted, whole_metrics[0]["loss"], rtol=1e-5)


def test_a_member_reads_the_rows_of_its_own_dataset_only() -> None:
    task = problem(2, 3)
    spoiled = task.rows.copy()
    spoiled[ROWS:] = np.nan
    carry, _ = train(dataclasses.replace(task, rows=spoiled))
    assert_equal(member_of(carry, 0, 0), member_of(plain()[0], 0, 0))
    assert carry.diverged_at.tolist() == [[-1, 0, -1], [0, -1, 0]]


@pytest.mark.parametrize("strategy", ["map", "vmap"])
@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.many_devices)])
def test_a_member_that_meets_nan_goes_back_to_the_start_of_its_chunk(strategy: Strategy, devices: int) -> None:
    task = problem(2, 3)
    healthy, metrics = train(task, (4, 8), strategy, devices)
    poisoned = task.with_numbers(poisoned_at=[[NEVER, 6.0, NEVER], [NEVER] * 3])
    carry, poisoned_metrics = train(poisoned, (4, 8), strategy, devices)
    _, short = train(task, (4, 2), strategy, devices)
    boundary, _ = train(task, (4,), strategy, devices)
    assert carry.diverged_at.tolist() == [[-1, 6, -1], [-1, -1, -1]]
    assert_equal(member_of(carry.state, 0, 1), member_of(boundary.state, 0, 1))
    for group, member in [(0, 0), (0, 2), (1, 1)]:
        assert_equal(member_of(carry, group, member), member_of(healthy, group, member))
        assert_equal(member_of(poisoned_metrics, group, member), member_of(metrics, group, member))
    # The means are over the good updates only.
    assert_equal(member_of(poisoned_metrics[1], 0, 1), member_of(short[1], 0, 1))


@pytest.mark.parametrize(
    ("name", "value", "seen"), [("learning_rate", np.nan, 1), ("learning_rate", np.inf, 1), ("start", np.nan, 0)]
)
def test_numbers_that_are_not_finite_stop_their_member(name: str, value: float, seen: int) -> None:
    """A rate spoils the parameters, which the next update's loss shows."""
    task = problem(2, 3)
    numbers = np.array(getattr(task.members.settings, name))
    numbers[1, 1] = value
    carry, metrics = train(task.with_numbers(**{name: numbers}), (3, 3))
    healthy, _ = train(task, (3, 3))
    assert carry.diverged_at.tolist() == [[-1, -1, -1], [-1, seen, -1]]
    assert carry.state.step.tolist() == [[6, 6, 6], [6, 0, 6]]
    assert np.isnan(metrics[1]["loss"]).tolist() == [[False, False, False], [False, True, False]]
    for group, member in [(0, 1), (1, 0), (1, 2)]:
        assert_equal(member_of(carry, group, member), member_of(healthy, group, member))


def test_a_stopped_member_stays_stopped() -> None:
    carry, _ = train(problem(1, 1).with_numbers(poisoned_at=2.0), (3, 3, 3))
    assert (carry.diverged_at.item(), carry.state.step.item()) == (2, 0)


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.many_devices)])
def test_a_restored_population_goes_on_bitwise(devices: int) -> None:
    whole = population_of(problem(2, 3), devices=devices)
    run(whole, (5,))
    saved, shapes = whole.checkpoint(), whole.checkpoint_shapes()
    assert_equal(jax.tree.map(lambda x: x.shape, saved), jax.tree.map(lambda x: x.shape, shapes))
    again = population_of(problem(2, 3), devices=devices)
    again.restore(saved)
    again.run(5, 12)
    assert_equal(again.checkpoint(), plain(devices=devices)[0])
    assert again.diverged_at.shape == (2, 3)
    assert_equal(again.states, again.checkpoint().state)


def test_a_program_can_be_compiled_apart_and_says_its_size() -> None:
    population = population_of(problem(1, 2))
    population.compile()
    # Weights and two moments, each 3 x 8 and 8 x 2 floats, two counts of four bytes, and where it diverged.
    assert population.state_bytes == 2 * (3 * 4 * (24 + 16) + 3 * 4)
    population.block_until_ready()
    population.close()


@pytest.mark.parametrize("strategy", ["map", "vmap"])
@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.many_devices)])
def test_programs_compiled_before_the_inputs_are_there_are_the_same(strategy: Strategy, devices: int) -> None:
    task, own, traces = problem(2, 3), jax.devices()[:devices], []

    def counted(state: State, batch: Batch, key: Array, settings: Settings, frozen: Array) -> Any:
        traces.append(1)
        return update(state, batch, key, settings, frozen)

    frozen, rows = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (task.frozen, task.rows))
    programs = compile_programs(init, counted, SPEC, task.members, frozen, rows, strategy, own)
    once = len(traces)
    population = OfflinePopulation(
        init, counted, SPEC, task.members, task.frozen, task.rows, strategy, own, programs=programs
    )
    run(population, (5,))
    population.restore(population.checkpoint())
    population.run(5, 12)
    assert_equal(population.checkpoint(), plain(strategy=strategy, devices=devices)[0])
    assert len(traces) == once


def test_what_is_copied_stays_when_the_next_chunk_overwrites_the_states() -> None:
    population = population_of(problem(2, 3))
    first = population.launch(0, 5)
    copied = population.copy_of(lambda state: {"step": state.step, "params": state.params})
    population.launch(5, 12)
    assert population.fetch(copied)["step"].tolist() == [[5] * 3] * 2
    expected = population_of(problem(2, 3))
    assert_equal(population.fetch(first).metrics, expected.run(0, 5))
    assert_equal(population.fetch(copied)["params"], expected.states.params)
