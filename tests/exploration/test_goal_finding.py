"""Searching for a goal with stored policies, and which policies a historical average is made of."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import goal_finding, policy_mixture
from jaxrl_srpo.exploration.policy_mixture import HistoricalAverage
from jaxrl_srpo.methods import sac
from jaxrl_srpo.types import Array, Spec

STAR = Star(length=4.0, max_episode_steps=20)
SKILLS = 3
KEY = jax.random.key(0)
CONFIG = sac.Config(width=8, layers=1)


def walker(directions: np.ndarray) -> sac.Policy:
    """Under skill k it walks steadily in the direction of row k of `directions` [SKILLS, 2]."""
    policy = sac.init(KEY, Spec(2 + SKILLS, 2), CONFIG, sac.Hyper()).policy
    params: Any = jax.tree.map(jnp.zeros_like, policy.params)
    first, last = (params[name]["Dense_0"] for name in ("Dense_0", "Dense_1"))
    # The hidden units of a layer are the skill; the output is the mean before tanh, then the log-deviation.
    first["kernel"] = first["kernel"].at[2 : 2 + SKILLS, :SKILLS].set(jnp.eye(SKILLS))
    last["kernel"] = last["kernel"].at[:SKILLS, :2].set(jnp.asarray(3.0 * directions, jnp.float32))
    last["bias"] = last["bias"].at[2:].set(-6.0)
    return sac.policy_of(params, Spec(2 + SKILLS, 2), CONFIG)


def mixture() -> HistoricalAverage:
    """Skill 1 walks down hall 0 and reaches its end, the others walk against walls of the centre."""
    ways = np.asarray([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    return policy_mixture.average([walker(ways), walker(ways)], SKILLS)


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


def test_the_newest_policy_acts_on_its_own_share() -> None:
    policies = [walker(np.zeros((SKILLS, 2))) for _ in range(3)]
    weights = np.exp(policy_mixture.average(policies, growth=2.0, on_policy_prob=0.3).log_weights)
    np.testing.assert_allclose(weights, [0.7 / 7.0, 1.4 / 7.0, 2.8 / 7.0 + 0.3], rtol=1e-6)
    alone = np.exp(policy_mixture.average(policies, on_policy_prob=1.0).log_weights)
    np.testing.assert_array_equal(alone, [0.0, 0.0, 1.0])


def test_the_released_average_has_nine_checkpoints_and_the_newest() -> None:
    policies = [walker(np.full((SKILLS, 2), float(i))) for i in range(21)]
    counts = np.zeros(20)
    for seed in range(60):
        average = policy_mixture.released(policies, seed)
        ages = np.asarray(average.policies.params["Dense_1"]["Dense_0"]["kernel"][:, 0, 0] / 3.0).round().astype(int)
        assert len(ages) == len(set(ages.tolist())) == 10
        assert ages.tolist() == sorted(ages.tolist())
        assert ages[-1] == 20
        np.testing.assert_allclose(np.exp(average.log_weights), [*[0.09] * 9, 0.19], rtol=1e-5)
        counts[ages[:-1]] += 1
    # Recent ones are likelier, but the oldest are not ruled out.
    assert counts[:10].sum() < 0.5 * counts[10:].sum()
    assert counts[:10].sum() > 0


def test_a_released_average_of_too_few_policies_is_refused() -> None:
    policies = [walker(np.zeros((SKILLS, 2))) for _ in range(9)]
    with pytest.raises(UserError, match=r"size=10: 9 policies were stored; choose 1 to 9"):
        policy_mixture.released(policies, seed=0)
