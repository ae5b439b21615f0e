"""Populations on a small regression problem: traces, independence of the members, devices, divergence."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl_srpo.data import table
from jaxrl_srpo.nn import optimizers
from jaxrl_srpo.population.offline import Carry, Members, Population, stack
from jaxrl_srpo.population.vectorize import Strategy, act_members
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

SPEC = Spec(observation_size=3, action_size=2)
ROWS = 40
WIDTH = 2 * SPEC.observation_size + SPEC.action_size + 2
NEVER = -1.0


class Config(NamedTuple):
    batch_size: int = 16
    hidden: int = 8


@struct.dataclass
class Hyper:
    """`start` is added to the initial weights; the loss is NaN at update `poisoned_at`."""

    learning_rate: Array | float = 1e-2
    start: Array | float = 0.0
    poisoned_at: Array | float = NEVER


@struct.dataclass
class State:
    params: dict[str, Array]
    opt_state: Any
    step: Array


def init(key: Array, spec: Spec, config: Config, hyper: Hyper, frozen: Array) -> State:
    del frozen
    first = jax.random.uniform(key, (spec.observation_size, config.hidden), minval=-1.0) + hyper.start
    params = {"first": first, "second": jnp.ones((config.hidden, spec.action_size))}
    return State(params, optimizers.init(params), jnp.int32(0))


def update(state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Array) -> tuple[State, Metrics]:
    """Regression of the actions, shifted by the frozen vector and by noise."""
    noise = jax.random.uniform(key)

    def loss_fn(params: dict[str, Array]) -> Array:
        predicted = jnp.tanh(batch.observations @ params["first"]) @ params["second"]
        return jnp.mean((predicted - batch.actions - frozen[None] - 0.1 * noise) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    params, opt_state = optimizers.adam(state.params, state.opt_state, grads, hyper.learning_rate)
    loss = jnp.where(state.step == hyper.poisoned_at.astype(jnp.int32), jnp.nan, loss)  # type: ignore[union-attr]
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

    def with_hyper(self, **values: Any) -> "Problem":
        """Numbers by name, arrays that broadcast to [G, K]."""
        new = {name: jnp.broadcast_to(jnp.asarray(x, jnp.float32), self.shape) for name, x in values.items()}
        hyper = dataclasses.replace(self.members.hyper, **new)
        return dataclasses.replace(self, members=dataclasses.replace(self.members, hyper=hyper))


def problem(groups: int, size: int) -> Problem:
    random = np.random.default_rng(0)
    count = groups * size
    seeds = jnp.arange(count, dtype=jnp.uint32).reshape(groups, size)
    keys = jax.vmap(jax.vmap(jax.random.key))(seeds)
    offsets = jnp.arange(count, dtype=jnp.int32).reshape(groups, size) % 2 * ROWS
    where = table.Slice(offsets, jnp.full((groups, size), ROWS, jnp.int32))
    hyper = Hyper(*(jnp.full((groups, size), value, jnp.float32) for value in (1e-2, 0.0, NEVER)))
    rates = jnp.asarray(np.linspace(1e-3, 1e-1, count, dtype=np.float32).reshape(groups, size))
    frozen = random.normal(size=(groups, SPEC.action_size)).astype(np.float32)
    rows = random.normal(size=(2 * ROWS, WIDTH)).astype(np.float32)
    return Problem(Members(keys, where, dataclasses.replace(hyper, learning_rate=rates)), frozen, rows)


@functools.cache
def population_of(shape: tuple[int, int], strategy: Strategy, devices: int) -> Population:
    """Kept between the tests, because compiling takes longer than everything else here."""
    return Population(init, update, SPEC, Config(), shape, strategy, jax.devices()[:devices])


def train(
    task: Problem, chunks: tuple[int, ...] = (12,), strategy: Strategy = "map", devices: int = 1
) -> tuple[Carry, list[Metrics]]:
    """The unpadded carry after all chunks, and each chunk's metrics."""
    return train_in(population_of(task.shape, strategy, devices), task, chunks)


def train_in(population: Population, task: Problem, chunks: tuple[int, ...]) -> tuple[Carry, list[Metrics]]:
    members, frozen = population.place(task.members), population.place_frozen(task.frozen)
    rows = population.place_table(task.rows)
    carry, start, metrics = population.init(members, frozen), 0, []
    for steps in chunks:
        carry, means = population.chunk(carry, members, frozen, rows, start, steps)
        metrics.append(population.unpad(means))
        start += steps
    return population.unpad(carry), metrics


def assert_equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_close(first: Any, second: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), first, second)


def member_of(tree: Any, group: int, member: int) -> Any:
    return jax.tree.map(lambda x: x[group : group + 1, member : member + 1], tree)


class Counter:
    """`update`, counting how often JAX traces it."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, state: State, batch: Batch, key: Array, hyper: Hyper, frozen: Array) -> tuple[State, Metrics]:
        self.traces += 1
        return update(state, batch, key, hyper, frozen)


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_traces_do_not_grow_with_members_chunks_or_other_numbers(strategy: Strategy) -> None:
    counts = []
    for shape in [(1, 1), (2, 3)]:
        counter, task = Counter(), problem(*shape)
        population = Population(init, counter, SPEC, Config(), shape, strategy, jax.devices()[:1])
        train_in(population, task, (4,))
        once = counter.traces
        train_in(population, task, (1, 7))
        train_in(population, dataclasses.replace(task.with_hyper(learning_rate=0.5), frozen=-task.frozen), (2,))
        assert counter.traces == once
        counts.append(once)
    assert counts[0] == counts[1] > 0


def test_vmap_and_map_agree_up_to_rounding() -> None:
    task = problem(2, 3)
    assert_close(train(task, strategy="map"), train(task, strategy="vmap"))


def test_a_member_alone_is_bitwise_what_it_is_in_company() -> None:
    task = problem(2, 3)
    together, metrics = train(task)
    for group, member in [(0, 0), (0, 2), (1, 1)]:
        alone, own = train(task.only(group, member))
        assert_equal(alone, member_of(together, group, member))
        assert_equal(own, member_of(metrics, group, member))


def test_members_differ_by_their_keys_and_numbers() -> None:
    first = np.asarray(train(problem(2, 3))[0].state.params["first"]).reshape(6, -1)
    assert len({row.tobytes() for row in first}) == 6


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (2, 3), (1, 1)])
def test_one_and_eight_devices_give_the_same_numbers(shape: tuple[int, int]) -> None:
    task = problem(*shape)
    one, eight = train(task), train(task, devices=8)
    assert eight[0].diverged_at.shape == shape
    assert_equal(one, eight)


def test_vmap_over_eight_devices_agrees_up_to_rounding() -> None:
    task = problem(2, 3)
    assert_close(train(task, strategy="vmap"), train(task, strategy="vmap", devices=8))


def test_only_the_axis_that_divides_better_is_padded() -> None:
    devices = jax.devices()[:8]
    layouts = [Population(init, update, SPEC, Config(), shape, "map", devices).layout for shape in [(3, 8), (8, 3)]]
    assert [(layout.sharded, layout.padded) for layout in layouts] == [("members", 8), ("groups", 8)]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_group_shares_one_copy_of_what_is_frozen(devices: int) -> None:
    task = problem(2, 3)
    grouped, _ = train(task, devices=devices)
    single, _ = train(task.ungrouped(), devices=devices)
    assert_equal(jax.tree.map(lambda x: x.reshape(6, 1, *x.shape[2:]), grouped), single)
    shifted, _ = train(
        dataclasses.replace(task, frozen=task.frozen + np.array([[0], [1]], np.float32)), devices=devices
    )
    assert_equal(member_of(shifted, 0, 0), member_of(grouped, 0, 0))
    assert not np.array_equal(shifted.state.params["first"][1], grouped.state.params["first"][1])


def test_chunks_may_be_cut_anywhere() -> None:
    task = problem(2, 3)
    whole, whole_metrics = train(task, (12,))
    cut, metrics = train(task, (1, 4, 7))
    assert_equal(whole, cut)
    weighted = (metrics[0]["loss"] + 4 * metrics[1]["loss"] + 7 * metrics[2]["loss"]) / 12
    np.testing.assert_allclose(weighted, whole_metrics[0]["loss"], rtol=1e-5)


def test_a_member_reads_the_rows_of_its_own_dataset_only() -> None:
    task = problem(2, 3)
    spoiled = task.rows.copy()
    spoiled[ROWS:] = np.nan
    carry, _ = train(dataclasses.replace(task, rows=spoiled))
    assert_equal(member_of(carry, 0, 0), member_of(train(task)[0], 0, 0))
    assert carry.diverged_at.tolist() == [[-1, 0, -1], [0, -1, 0]]


@pytest.mark.parametrize("strategy", ["map", "vmap"])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_member_that_meets_nan_stops_at_its_last_good_state(strategy: Strategy, devices: int) -> None:
    task = problem(2, 3)
    healthy, metrics = train(task, (4, 8), strategy, devices)
    poisoned = task.with_hyper(poisoned_at=[[NEVER, 6.0, NEVER], [NEVER] * 3])
    carry, poisoned_metrics = train(poisoned, (4, 8), strategy, devices)
    last_good, short = train(task, (4, 2), strategy, devices)
    assert carry.diverged_at.tolist() == [[-1, 6, -1], [-1, -1, -1]]
    assert_equal(member_of(carry.state, 0, 1), member_of(last_good.state, 0, 1))
    for group, member in [(0, 0), (0, 2), (1, 1)]:
        assert_equal(member_of(carry, group, member), member_of(healthy, group, member))
        assert_equal(member_of(poisoned_metrics, group, member), member_of(metrics, group, member))
    # The means are over the good updates only.
    assert_equal(member_of(poisoned_metrics[1], 0, 1), member_of(short[1], 0, 1))


@pytest.mark.parametrize("bad", [{"learning_rate": np.nan}, {"learning_rate": np.inf}, {"start": np.nan}])
def test_numbers_that_are_not_finite_stop_their_member_at_once(bad: dict[str, float]) -> None:
    task = problem(2, 3)
    name, value = next(iter(bad.items()))
    numbers = np.array(getattr(task.members.hyper, name))
    numbers[1, 1] = value
    carry, metrics = train(task.with_hyper(**{name: numbers}), (3, 3))
    healthy, _ = train(task, (3, 3))
    assert carry.diverged_at.tolist() == [[-1, -1, -1], [-1, 0, -1]]
    assert carry.state.step.tolist() == [[6, 6, 6], [6, 0, 6]]
    assert np.isnan(metrics[1]["loss"]).tolist() == [[False, False, False], [False, True, False]]
    for group, member in [(0, 1), (1, 0), (1, 2)]:
        assert_equal(member_of(carry, group, member), member_of(healthy, group, member))


def test_a_stopped_member_stays_stopped() -> None:
    carry, _ = train(problem(1, 1).with_hyper(poisoned_at=2.0), (3, 3, 3))
    assert (carry.diverged_at.item(), carry.state.step.item()) == (2, 2)


def test_actions_of_all_members_are_those_of_each() -> None:
    random = np.random.default_rng(0)
    policies = [{"w": random.normal(size=(3, 2)).astype(np.float32)} for _ in range(3)]
    observations = random.normal(size=(3, 4, 3)).astype(np.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(3, dtype=jnp.uint32))

    def act(policy: Any, observations: Array, key: Array) -> Array:
        return observations @ policy["w"] + jax.random.normal(key, (4, 2))

    together = act_members(act, stack(policies), jnp.asarray(observations), keys)
    for i, policy in enumerate(policies):
        np.testing.assert_allclose(together[i], act(policy, jnp.asarray(observations[i]), keys[i]), rtol=1e-5)
