"""Entropy, coverage and divergence of visits against values worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.envs import marginals
from jaxrl_srpo.envs.marginals import Grid

GRID = Grid((0.0, -1.0), 0.5, (4, 2), (2, 0))


def test_bins_are_of_the_chosen_axes_row_major_and_clipped() -> None:
    observations = jnp.asarray([[-1.0, 7.0, 0.0], [-0.4, 7.0, 0.6], [0.4, 7.0, 1.9], [-9.0, 7.0, 9.0]])
    assert np.asarray(GRID.bins(observations)).tolist() == [0, 3, 7, 6]
    assert np.asarray(GRID.counts(observations[None])).tolist() == [1, 0, 0, 1, 0, 0, 1, 1]
    assert GRID.centers()[[0, 3, 7]].tolist() == [[0.25, -0.75], [0.75, -0.25], [1.75, -0.25]]


def test_entropy_and_coverage() -> None:
    counts = jnp.asarray([[4.0, 4.0, 4.0, 4.0], [12.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    quarter = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    np.testing.assert_allclose(marginals.entropy(counts), [math.log(4.0), quarter, 0.0], rtol=1e-6)
    reachable = jnp.asarray([True, True, True, False])
    np.testing.assert_allclose(marginals.coverage(counts, reachable), [1.0, 2.0 / 3.0, 0.0])


def test_divergence_normalizes_the_target_over_reachable_bins() -> None:
    counts = jnp.asarray([3.0, 1.0, 0.0, 7.0])
    reachable = jnp.asarray([True, True, True, False])
    log_target = jnp.asarray([0.0, math.log(3.0), 0.0, 50.0])
    expected = 0.75 * math.log(0.75 / 0.2) + 0.25 * math.log(0.25 / 0.6)
    np.testing.assert_allclose(marginals.divergence(counts, log_target, reachable), expected, rtol=1e-5)
    np.testing.assert_allclose(marginals.divergence(counts, log_target + 9.0, reachable), expected, rtol=1e-4)
    uniform = marginals.divergence(counts, jnp.zeros(4), reachable)
    np.testing.assert_allclose(uniform, math.log(3.0) - marginals.entropy(counts[:3]), rtol=1e-5)
    matched = marginals.divergence(jnp.asarray([1.0, 3.0, 1.0, 0.0]), log_target, reachable)
    np.testing.assert_allclose(matched, 0.0, atol=1e-6)
