"""Agents that explore by an intrinsic reward: skills, and what reaches the reward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data import table
from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.exploration import bonuses, intrinsic, smm
from jaxrl_srpo.exploration.densities import Histogram
from jaxrl_srpo.exploration.intrinsic import Intrinsic, Reward, Visits
from jaxrl_srpo.methods import sac
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import call, make_members
from jaxrl_srpo.population.online import FunctionalRun
from jaxrl_srpo.types import Array, Batch, Spec

KEY = jax.random.key(0)


def trained(skills: int) -> FunctionalRun:
    """Two members after five episodes in each of four environments of a small star."""
    star = Star(length=2.0, max_episode_steps=10)
    agent = intrinsic.agent("smm", smm.SMM(Histogram(star.grid(), skills), skills, width=8), skills)
    learner = sac.Settings(batch_size=16, width=8, learn_temperature=False)
    settings = intrinsic.Settings(sac=learner, intrinsic=smm.Settings())
    members = make_members(jax.random.split(KEY, 2), [settings] * 2, groups=2)
    loop = Loop(environments=4, update_to_data=0.25, capacity=500, warmup_steps=40, random_steps=40)
    run = FunctionalRun(star, agent, loop, members=members, frozen=None, devices=jax.devices()[:1])
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


@dataclasses.dataclass(frozen=True)
class FirstCoordinate(Intrinsic):
    """A reward of one's own, which learns nothing: the first coordinate of the state arrived at."""

    def init(self) -> tuple[()]:
        return ()

    def reward(self, state: tuple[()], visits: Visits) -> Reward:
        return Reward(state, visits.next_observations[:, 0], {})


def test_a_reward_declares_what_it_takes_and_replaces_the_rewards_of_the_batch() -> None:
    agent = intrinsic.agent("first", FirstCoordinate(), skills=2)
    settings = intrinsic.Settings(sac=sac.Settings(batch_size=4, width=8), intrinsic=())
    spec = Spec(2 + agent.context_size, 2)
    observations = jnp.concatenate([jnp.arange(8.0).reshape(4, 2), jnp.eye(2)[jnp.asarray([0, 1, 1, 0])]], axis=-1)
    batch = Batch(observations, jnp.zeros((4, 2)), jnp.full(4, 7.0), observations, jnp.ones(4))
    own = dataclasses.replace(batch, rewards=observations[:, 0])

    @jax.jit
    def update(key: Array) -> tuple[intrinsic.State, dict[str, Array], sac.State]:
        state = call(agent.init, key=key, spec=spec, settings=settings)
        after, metrics = call(agent.update, state=state, batch=batch, key=key, settings=settings)
        expected, _ = sac.update(state.sac, own, jax.random.split(key)[0], settings.sac)
        return after, metrics, expected

    after, metrics, expected = update(KEY)
    assert float(metrics["reward"]) == 3.0
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), after.sac, expected)
    assert settings.batch_size == 4


def test_only_models_that_watch_every_visit_are_shown_them() -> None:
    assert intrinsic.agent("rnd", bonuses.RND()).observe is None
    assert intrinsic.agent("count", bonuses.Count(Histogram(Star().grid()))).observe is not None


def test_the_skills_of_a_batch_are_taken_from_its_observations() -> None:
    observations = jnp.asarray([[1.0, 2.0, 0.0, 1.0, 0.0], [3.0, 4.0, 0.0, 0.0, 1.0]])
    batch = Batch(observations, jnp.zeros((2, 1)), jnp.zeros(2), 10.0 * observations, jnp.ones(2))
    seen = intrinsic.visits_of(batch, 3)
    assert seen.skills.tolist() == [1, 2]
    assert seen.observations.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert seen.next_observations.tolist() == [[10.0, 20.0], [30.0, 40.0]]
    alone = intrinsic.visits_of(batch, 1)
    assert alone.skills.tolist() == [0, 0]
    assert alone.observations.shape == (2, 5)


def test_equal_numbers_do_not_make_two_rewards_equal() -> None:
    """Compiled programs are looked up by them."""
    assert bonuses.ForwardError(16) != bonuses.InverseError(16)
    assert hash(bonuses.RND(8)) == hash(bonuses.RND(8))
