"""State marginal matching where everything is exact: what averaging policies is for, and what skills are worth."""

import math

import numpy as np
import pytest

from jaxrl_srpo.exploration import smm
from tests import tabular_star as tabular


@pytest.mark.parametrize(
    ("halls", "kl_random", "kl_averages", "kl_last"),
    [(3, 0.595, (0.236, 0.010, 0.002), 2.304), (5, 0.829, (0.407, 0.041, 0.012), 2.963)],
)
def test_the_average_of_policies_matches_the_target_and_the_last_policy_does_not(
    halls: int, kl_random: float, kl_averages: tuple[float, ...], kl_last: float
) -> None:
    play = tabular.fictitious_play(tabular.star(halls), 200)
    kl = tabular.kl_to_uniform(play.averages())
    np.testing.assert_allclose(kl[[0, 10, 50, 200]], (kl_random, *kl_averages), atol=6e-4)
    assert tabular.kl_to_uniform(play.occupancies[-20:]).mean() == pytest.approx(kl_last, abs=1e-3)


def test_eight_halls_stay_within_the_accepted_band() -> None:
    play = tabular.fictitious_play(tabular.star(8), 200)
    assert tabular.kl_to_uniform(play.averages()[-1]) < 0.05
    assert tabular.kl_to_uniform(play.occupancies[-20:]).mean() > 1.5


def test_a_density_of_the_last_policy_alone_is_never_matched() -> None:
    play = tabular.fictitious_play(tabular.star(3), 200, averaged=False)
    assert tabular.kl_to_uniform(play.occupancies[-20:]).mean() > 1.5
    assert tabular.kl_to_uniform(play.averages()[-1]) > 0.3


@pytest.mark.parametrize(("temperature", "kl"), [(0.1, 0.002), (1.0, 0.015)])
def test_soft_best_responses_need_the_averaged_density_but_hardly_averaged_policies(
    temperature: float, kl: float
) -> None:
    graph = tabular.star(3)
    last = tabular.fictitious_play(graph, 200, temperature=temperature).occupancies[-1]
    assert tabular.kl_to_uniform(last) == pytest.approx(kl, abs=6e-4)
    alone = tabular.fictitious_play(graph, 200, averaged=False, temperature=temperature)
    assert tabular.kl_to_uniform(alone.occupancies[-20:]).mean() > 0.4


def rewards(densities: np.ndarray, released_sign: bool) -> np.ndarray:
    """What `smm.combine` makes of exact models: densities [skills, states] -> [skills, states], uniform target."""
    posterior = densities / densities.sum(0)
    log_skills = math.log(len(densities))
    terms = [smm.Terms(0.0, np.log(q), np.log(d), log_skills) for q, d in zip(densities, posterior, strict=True)]  # type: ignore[arg-type]
    return np.stack([np.asarray(smm.combine(each, smm.Settings(), released_sign)) for each in terms])


def mixture_play(iterations: int = 200, released_sign: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Occupancies [skills, states] of the averages, and of the last, of four skills' policies.

    They start from different random policies.
    """
    graph, random = tabular.star(3), np.random.default_rng(0)
    starts = random.dirichlet(np.ones(graph.shape[1]), (4, tabular.HORIZON, len(graph)))
    sums = last = np.stack([tabular.occupancy(graph, policy) for policy in starts])
    for count in range(1, iterations + 1):
        own = rewards(tabular.smooth(sums / count), released_sign)
        last = np.stack([tabular.occupancy(graph, tabular.best_response(graph, each, 0.1)) for each in own])
        sums = sums + last
    return sums / (iterations + 1), last


def information(densities: np.ndarray) -> float:
    """Mutual information of state and skill in nats."""
    return float(np.mean(tabular.kl_to_uniform(densities)) - tabular.kl_to_uniform(densities.mean(0)))


def test_with_exact_models_every_skill_gets_the_reward_of_the_mixture() -> None:
    densities = np.random.default_rng(1).dirichlet(np.ones(31), 4)
    expected = -np.log(densities.mean(0))
    np.testing.assert_allclose(rewards(densities, released_sign=False), np.tile(expected, (4, 1)), rtol=1e-9)
    released = rewards(densities, released_sign=True)
    assert np.abs(released - expected).max() > 1.0
    assert np.ptp(released, axis=0).max() > 1.0


def test_so_exact_models_do_not_make_skills_differ() -> None:
    densities, last = mixture_play()
    assert tabular.kl_to_uniform(densities.mean(0)) < 0.004
    assert information(densities) < 0.001 < information(mixture_play(0)[0])
    assert information(last) < 0.001


def test_the_released_sign_sets_the_last_policies_apart_but_hardly_their_averages() -> None:
    """It breaks the identity, yet the averages of the skills end up alike too; the last policies keep 0.12 nats.

    The 0.22 nats of an earlier measurement were met only by last policies in passing.
    """
    densities, last = mixture_play(released_sign=True)
    assert tabular.kl_to_uniform(densities.mean(0)) < 0.02
    assert information(densities) < 0.001
    assert information(last) > 0.05
