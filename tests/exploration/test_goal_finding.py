"""Searching for a goal with stored policies."""

import functools

import jax
import numpy as np
import pytest

from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.exploration import goal_finding, policy_mixture
from jaxrl_srpo.exploration.policy_mixture import PolicyMixture
from jaxrl_srpo.types import Array
from tests.exploration.walkers import walker

STAR = Star(length=4.0, max_episode_steps=20)
SKILLS = 3
KEY = jax.random.key(0)


def mixture() -> PolicyMixture:
    """Skill 1 walks down hall 0 and reaches its end, the others walk against walls of the center."""
    ways = np.asarray([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return policy_mixture.mix([walker(ways), walker(ways)], SKILLS)


def in_hall_0(positions: Array) -> Array:
    return STAR.in_goals(positions)[..., 0]


@pytest.fixture(scope="module")
def found() -> dict[bool, goal_finding.Search]:
    """By whether the prior adapts."""
    search = functools.partial(goal_finding.search, STAR, reached=in_hall_0, episodes=200, key=KEY)
    compiled = jax.jit(lambda mixture, adapt: search(mixture, adapt=adapt), static_argnums=1)
    return {adapt: compiled(mixture(), adapt) for adapt in (True, False)}


def test_only_the_skill_that_knows_the_way_finds_the_goal(found: dict[bool, goal_finding.Search]) -> None:
    for search in found.values():
        np.testing.assert_array_equal(search.found, search.skills == 1)
        np.testing.assert_array_equal(search.found, search.steps > 0)
        assert search.first() == 1 + np.flatnonzero(search.skills == 1)[0]


def test_the_prior_follows_successes_as_in_the_released_code(found: dict[bool, goal_finding.Search]) -> None:
    search = found[True]
    chosen = np.eye(SKILLS)[np.asarray(search.skills)]
    before = np.cumsum(chosen, axis=0) - chosen
    hits = chosen * np.asarray(search.found)[:, None]
    successes = np.cumsum(hits, axis=0) - hits
    expected = (1.0 + successes) / (1.0 + before)
    np.testing.assert_allclose(search.probabilities, expected / expected.sum(1, keepdims=True), rtol=1e-5)
    assert search.probabilities[-1, 1] > 0.85
    assert np.mean(np.asarray(search.found)[-100:]) > 0.75


def test_without_adapting_the_prior_stays_uniform(found: dict[bool, goal_finding.Search]) -> None:
    search = found[False]
    np.testing.assert_allclose(search.probabilities, 1.0 / SKILLS, rtol=1e-6)
    assert 0.2 < np.mean(np.asarray(search.found)) < 0.47


def test_a_search_in_vain_comes_first_after_all_episodes() -> None:
    search = goal_finding.search(STAR, mixture(), lambda x: STAR.in_goals(x)[..., 2], 5, KEY)
    assert not search.found.any()
    assert search.first() == 6
