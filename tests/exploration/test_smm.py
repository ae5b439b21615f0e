"""State marginal matching and its baselines as rewards and agents, and historical averages."""

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.data import table
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import bonuses, intrinsic, policy_mixture, smm
from jaxrl_srpo.exploration.densities import VAE, Histogram
from jaxrl_srpo.exploration.intrinsic import Intrinsic, Visits
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.offline import Members
from jaxrl_srpo.population.online import FunctionalRun
from jaxrl_srpo.types import Spec

GRID = Grid((-4.0, -4.0), 1.0, (8, 8), (0, 1))
KEY = jax.random.key(0)
SPEC = Spec(2, 2)
SMALL = sac.Config(batch_size=16, width=8)


def visits(batch_size: int = 32, skills: int = 1, seed: int = 0) -> Visits:
    random = np.random.default_rng(seed)
    s, a = (random.normal(size=(batch_size, 2)).astype(np.float32) for _ in range(2))
    z = random.integers(0, skills, batch_size).astype(np.int32)
    return Visits(*(jnp.asarray(x) for x in (s, a, 0.5 * np.ones(batch_size, np.float32), s + 0.1 * a, z)))


@functools.partial(jax.jit, static_argnames="reward")
def step(reward: Intrinsic, state: Any, seen: Visits, hyper: Any) -> intrinsic.Reward:
    return reward.reward(state, seen, KEY, hyper)


def test_the_reward_is_the_log_target_minus_the_log_density_of_the_state_arrived_at() -> None:
    def bowl(states: jax.Array) -> jax.Array:
        return -jnp.sum(states**2, axis=-1)

    seen = visits()
    targets: list[tuple[Any, Any]] = [
        (smm.uniform, 0.0),
        (smm.environment_reward, np.asarray(seen.rewards)),
        (smm.LogDensity(bowl), -np.sum(np.asarray(seen.next_observations) ** 2, axis=-1)),
    ]
    for target, expected in targets:
        reward = smm.SMM(Histogram(GRID), target=target)
        state = reward.observe(reward.init(KEY, SPEC), seen)
        log_density = Histogram(GRID).log_density(state.density, KEY, seen.next_observations, seen.skills)
        result = step(reward, state, seen, smm.Hyper(target=2.0, entropy=3.0))
        np.testing.assert_allclose(result.rewards, 2.0 * expected - 3.0 * np.asarray(log_density), rtol=1e-5)
    before = smm.SMM(Histogram(GRID), at_next=False)
    counts = before.observe(before.init(KEY, SPEC), seen).density
    np.testing.assert_array_equal(counts[0], GRID.counts(seen.observations))


def test_a_transition_is_worth_less_once_its_state_was_seen_more_often() -> None:
    reward, seen, hyper = smm.SMM(Histogram(GRID)), visits(), smm.Hyper()
    state = reward.observe(reward.init(KEY, SPEC), visits(2_000, seed=1))
    rare = seen.replace(next_observations=jnp.full((32, 2), 3.5))  # type: ignore[attr-defined]
    worth = step(reward, state, rare, hyper).rewards
    for _ in range(20):
        state = reward.observe(state, rare)
    later = step(reward, state, rare, hyper).rewards
    # From one visit of 2,000 to 640 of 2,640.
    np.testing.assert_allclose(worth - later, math.log(2_000.0) + math.log(640.0 / 2_640.0), rtol=1e-4)


def test_a_vae_is_fitted_one_step_per_batch_before_it_is_read() -> None:
    density = VAE(2, width=16, code_size=4)
    reward, seen = smm.SMM(density), visits()
    state = reward.init(KEY, SPEC)
    result = step(reward, state, seen, smm.Hyper())
    key_fit, key_read = jax.random.split(KEY)
    fitted = density.fit(state.density, key_fit, seen.next_observations, seen.skills)
    log_density = density.log_density(fitted, key_read, seen.next_observations, seen.skills)
    np.testing.assert_allclose(result.rewards, -log_density, rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), result.state.density, fitted)


def test_the_discriminator_tells_skills_apart_and_its_sign_can_be_the_released_one() -> None:
    reward = smm.SMM(Histogram(GRID, skills=2), skills=2, width=16)
    seen = visits(64, 2)
    side = jnp.where(seen.skills == 0, -2.0, 2.0)[:, None] + 0.1 * seen.actions
    seen = seen.replace(next_observations=side)  # type: ignore[attr-defined]
    state = reward.init(KEY, SPEC)
    first = step(reward, state, seen, smm.Hyper())
    assert float(first.metrics["log_skill"]) == pytest.approx(-math.log(2.0), abs=0.3)
    for _ in range(60):
        result = step(reward, state, seen, smm.Hyper(discriminator_rate=0.01))
        state = result.state
    assert float(result.metrics["log_skill"]) > -0.1
    chosen = jnp.take_along_axis(reward.log_skills(state, side), seen.skills[:, None], axis=-1)[:, 0]
    released = step(reward._replace(released_sign=True), state, seen, smm.Hyper()).rewards
    np.testing.assert_allclose(step(reward, state, seen, smm.Hyper()).rewards - released, 2.0 * chosen, atol=1e-5)
    without = step(reward, state, seen, smm.Hyper(latent_entropy=0.0)).rewards
    np.testing.assert_allclose(step(reward, state, seen, smm.Hyper()).rewards - without, math.log(2.0), rtol=1e-4)


@pytest.mark.parametrize(
    "reward",
    [bonuses.ForwardError(16), bonuses.InverseError(16), bonuses.ICM(16, 8), bonuses.RND(16, 8)],
    ids=lambda reward: type(reward).__name__,
)
def test_prediction_errors_fall_where_they_are_trained_and_not_elsewhere(reward: Intrinsic) -> None:
    hyper = bonuses.Hyper(bonus=2.0, environment=3.0, learning_rate=3e-3)
    seen, state = visits(), reward.init(KEY, SPEC)
    far = visits(seed=5)
    far = far.replace(next_observations=10.0 + 5.0 * far.next_observations)  # type: ignore[attr-defined]
    first = step(reward, state, seen, hyper)
    np.testing.assert_allclose(jnp.mean(first.rewards), 3.0 * 0.5 + 2.0 * first.metrics["bonus"], rtol=1e-5)
    for _ in range(150):
        result = step(reward, state, seen, hyper)
        state = result.state
    elsewhere = step(reward, state, far, hyper).metrics["bonus"]
    assert float(result.metrics["bonus"]) < 0.8 * float(first.metrics["bonus"])
    assert float(elsewhere) > 2.0 * float(result.metrics["bonus"])


def test_icm_lets_both_of_its_losses_shape_the_features() -> None:
    reward, seen = bonuses.ICM(16, 8), visits()
    state = reward.init(KEY, SPEC)
    after = step(reward, state, seen, bonuses.Hyper()).state
    moved = jax.tree.map(lambda old, new: bool(jnp.any(old != new)), state.params, after.params)
    assert {name: all(jax.tree.leaves(moved[name])) for name in moved} == dict.fromkeys(state.params, True)


def test_counts_give_the_inverse_square_root_of_visits() -> None:
    reward = bonuses.Count(Histogram(GRID))
    seen = visits(4)
    places = jnp.asarray([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [2.5, 2.5]])
    seen = seen.replace(next_observations=places)  # type: ignore[attr-defined]
    state = reward.observe(reward.init(KEY, SPEC), seen)
    rewards = step(reward, state, seen, bonuses.Hyper(bonus=10.0)).rewards
    np.testing.assert_allclose(rewards, [10.0 / math.sqrt(3.0)] * 3 + [10.0], rtol=1e-6)


def test_pseudo_counts_follow_what_a_step_adds_to_the_density() -> None:
    density = VAE(2, width=16, code_size=4)
    reward, seen = bonuses.PseudoCount(density), visits()
    state = reward.init(KEY, SPEC)
    result = step(reward, state, seen, bonuses.Hyper())
    key_fit, key_read = jax.random.split(KEY)
    fitted = density.fit(state.density, key_fit, seen.next_observations, seen.skills)
    before, after = (
        np.asarray(density.log_density(each, key_read, seen.next_observations, seen.skills))
        for each in (state.density, fitted)
    )
    gain = np.maximum(after - before, 0.0)
    with np.errstate(divide="ignore"):
        visits_so_far = 1.0 / np.expm1(gain)
    np.testing.assert_allclose(result.rewards, visits_so_far**-0.5, rtol=1e-3, atol=1e-4)
    assert float(result.state.steps) == 1.0


def test_running_moments_are_those_of_all_rows_together() -> None:
    rows = np.random.default_rng(0).normal(3.0, 2.0, (60, 2)).astype(np.float32)
    moments = bonuses.Moments(jnp.zeros(2), jnp.zeros(2), jnp.zeros(()))
    for block in np.split(rows, [10, 15, 40]):
        moments = moments.add(jnp.asarray(block))
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-4)


def trained(skills: int) -> FunctionalRun:
    """Two members after five episodes in each of four environments of a small star."""
    star = Star(length=2.0, max_episode_steps=10)
    agent = intrinsic.agent("smm", smm.SMM(Histogram(star.grid(), skills), skills, width=8), skills)
    numbers = intrinsic.Hyper(sac.Hyper(temperature_learning_rate=0.0), smm.Hyper())
    hyper = jax.tree.map(lambda x: jnp.full((2, 1), x, jnp.float32), numbers)
    keys = jax.random.split(KEY, (2, 1))
    nothing = jnp.zeros((2, 1), jnp.int32)
    members = Members(keys, table.Slice(nothing, nothing), hyper)
    loop = Loop(environments=4, update_to_data=0.25, capacity=500, warmup_steps=40, random_steps=40)
    devices = jax.devices()[:1]
    run = FunctionalRun(star, agent, SMALL, loop, members=members, frozen=None, devices=devices)
    run.run(50)
    return run


def test_skills_stay_for_an_episode_and_the_density_counts_every_state_once() -> None:
    run = trained(3)
    for member in range(2):
        batch = table.unpack(jnp.asarray(run.replay.rows[member, 0, :200]), Spec(5, 2))
        seen = intrinsic.visits_of(batch, 3)
        skills = np.asarray(seen.skills).reshape(5, 10, 4)
        assert (skills == skills[:, :1]).all()
        assert len(np.unique(skills[:, 0])) == 3
        counts = run.states.intrinsic.density[member, 0]
        assert counts.sum() == 200.0
        star = Star(length=2.0)
        for skill in range(3):
            own = seen.next_observations[seen.skills == skill]
            np.testing.assert_array_equal(counts[skill], star.grid().counts(own))


def test_a_historical_average_draws_one_policy_per_episode_by_its_weight(tmp_path: pathlib.Path) -> None:
    # Policies that walk in one direction each, almost surely.
    snapshots = [_walker(angle) for angle in 2.0 * np.pi * np.arange(3) / 3.0]
    mixture = policy_mixture.average(snapshots, growth=2.0)
    star = Star(length=3.0, max_episode_steps=30)
    states = jax.jit(lambda: policy_mixture.rollouts(star, mixture, 210, KEY))()
    halls = np.asarray(star.in_goals(states[:, -1]))
    assert halls.any(-1).all()
    np.testing.assert_allclose(halls.mean(0), [1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0], atol=0.1)
    policy_mixture.save(tmp_path / "mixture", mixture)
    loaded = policy_mixture.load(tmp_path / "mixture")
    again = jax.jit(lambda: policy_mixture.rollouts(star, loaded, 210, KEY))()
    np.testing.assert_array_equal(states, again)
    with pytest.raises(UserError, match="holds no historical average"):
        policy_mixture.load(tmp_path)


def test_an_actor_keeps_its_policy_for_an_episode() -> None:
    actor = policy_mixture.Actor(policy_mixture.average([_walker(0.0), _walker(np.pi)]), seed=3)
    directions = []
    for _ in range(12):
        actor.begin_episode()
        signs = {float(np.sign(actor(np.zeros(2))[0])) for _ in range(5)}
        assert len(signs) == 1
        directions.append(signs.pop())
    assert set(directions) == {-1.0, 1.0}


def _walker(angle: float) -> sac.Policy:
    """A policy that takes the direction of an angle, with hardly any noise."""
    params = jax.tree.map(jnp.zeros_like, sac.init(KEY, SPEC, SMALL, sac.Hyper()).actor.params)
    last = max(params)
    bias = params[last]["Dense_0"]["bias"]
    pull = jnp.asarray([3.0 * np.cos(angle), 3.0 * np.sin(angle), -5.0, -5.0], jnp.float32)
    params[last]["Dense_0"]["bias"] = bias + pull
    return sac.policy_of(params, SPEC, SMALL)
