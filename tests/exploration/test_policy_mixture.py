"""Mixtures of past policies: their weights, and how they act."""

import pathlib

import jax
import numpy as np
import pytest

from jaxrl_srpo.envs.star import Star
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.exploration import policy_mixture
from tests.exploration.walkers import walker, walker_at

SKILLS = 3
KEY = jax.random.key(0)


def test_the_newest_policy_acts_on_its_own_share() -> None:
    policies = [walker(np.zeros((SKILLS, 2))) for _ in range(3)]
    weights = np.exp(policy_mixture.mix(policies, growth=2.0, on_policy_prob=0.3).log_weights)
    np.testing.assert_allclose(weights, [0.7 / 7.0, 1.4 / 7.0, 2.8 / 7.0 + 0.3], rtol=1e-6)
    alone = np.exp(policy_mixture.mix(policies, on_policy_prob=1.0).log_weights)
    np.testing.assert_array_equal(alone, [0.0, 0.0, 1.0])


def test_the_released_mixture_has_nine_checkpoints_and_the_newest() -> None:
    policies = [walker(np.full((SKILLS, 2), float(i))) for i in range(21)]
    counts = np.zeros(20)
    for seed in range(60):
        mixture = policy_mixture.released(policies, seed)
        ages = np.asarray(mixture.policies.params["Dense_1"]["Dense_0"]["kernel"][:, 0, 0] / 3.0).round().astype(int)
        assert len(ages) == len(set(ages.tolist())) == 10
        assert ages.tolist() == sorted(ages.tolist())
        assert ages[-1] == 20
        np.testing.assert_allclose(np.exp(mixture.log_weights), [*[0.09] * 9, 0.19], rtol=1e-5)
        counts[ages[:-1]] += 1
    # Recent ones are likelier, but the oldest are not ruled out.
    assert counts[:10].sum() < 0.5 * counts[10:].sum()
    assert counts[:10].sum() > 0


def test_a_released_mixture_of_too_few_policies_is_refused() -> None:
    policies = [walker(np.zeros((SKILLS, 2))) for _ in range(9)]
    with pytest.raises(UserError, match=r"size=10: 9 policies were stored; choose 1 to 9"):
        policy_mixture.released(policies, seed=0)


def test_a_mixture_draws_one_policy_per_episode_by_its_weight(tmp_path: pathlib.Path) -> None:
    # Policies that walk in one direction each, almost surely.
    snapshots = [walker_at(angle) for angle in 2.0 * np.pi * np.arange(3) / 3.0]
    mixture = policy_mixture.mix(snapshots, growth=2.0)
    star = Star(length=3.0, max_episode_steps=30)
    states = jax.jit(lambda: policy_mixture.rollouts(star, mixture, 210, KEY))()
    halls = np.asarray(star.in_goals(states[:, -1]))
    assert halls.any(-1).all()
    np.testing.assert_allclose(halls.mean(0), [1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0], atol=0.1)
    policy_mixture.save(tmp_path / "mixture", mixture)
    loaded = policy_mixture.load(tmp_path / "mixture")
    again = jax.jit(lambda: policy_mixture.rollouts(star, loaded, 210, KEY))()
    np.testing.assert_array_equal(states, again)
    with pytest.raises(UserError, match="holds no policy mixture"):
        policy_mixture.load(tmp_path)


def test_a_player_keeps_its_policy_for_an_episode() -> None:
    player = policy_mixture.MixturePlayer(policy_mixture.mix([walker_at(0.0), walker_at(np.pi)]), seed=3)
    directions = []
    for _ in range(12):
        player.begin_episode()
        signs = {float(np.sign(player(np.zeros(2))[0])) for _ in range(5)}
        assert len(signs) == 1
        directions.append(signs.pop())
    assert set(directions) == {-1.0, 1.0}
